"""The transfer-learnt classifier: its last layer, and where the weights of its backbone come from."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np
import pytest

from defectpipe.errors import ModelError, SettingsError
from defectpipe.networks.export import save_weights
from defectpipe.recognition import backbones
from defectpipe.recognition.backbones import BACKBONES, features_of, load_backbone
from defectpipe.recognition.last_layer import fit_last_layer
from defectpipe.recognition.recogniser import build_trunk
from defectpipe.recognition.tlic import train_tlic
from defectpipe.recognition.views import VIEW_PX

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def clouds(n: int, seed: int, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    middle = np.random.default_rng(99).normal(size=(3, 12)) * apart / np.sqrt(12)
    return 5 + 40 * (middle[label] + rng.normal(size=(n, 12)) * 0.5), label


def test_the_last_layer_finds_its_optimum_and_scale_does_not_matter():
    features, label = clouds(90, 0)
    layer = fit_last_layer(features, label, ("a", "b", "c"))
    unseen, truth = clouds(300, 1)
    p = layer.probabilities(unseen)
    assert (p.argmax(1) == truth).mean() > 0.95
    np.testing.assert_allclose(p.sum(1), 1)
    other = fit_last_layer(features * 1e3 - 7, label, ("a", "b", "c"))
    np.testing.assert_allclose(other.probabilities(unseen * 1e3 - 7), p, atol=1e-3)
    # at the optimum the gradient of likelihood and penalty vanishes
    x = (features - layer.mean) * layer.scale
    error = (layer.probabilities(features) - np.eye(3)[label]) / len(label)
    assert np.abs(x.T @ error + 2 * layer.penalty * layer.weights).max() < 1e-3


def test_noise_asks_for_a_stronger_penalty_and_a_constant_feature_does_no_harm():
    rng = np.random.default_rng(2)
    noise = np.hstack([rng.normal(size=(60, 40)), np.ones((60, 1))])
    strong = fit_last_layer(noise, np.arange(60) % 3, ("a", "b", "c"))
    weak = fit_last_layer(*clouds(600, 3, apart=6.0), ("a", "b", "c"))
    assert strong.penalty == 0.1
    assert weak.penalty < 0.1
    assert strong.scale[-1] == 0
    with pytest.raises(SettingsError, match="no picture of: c"):
        fit_last_layer(noise[:4], np.array([0, 1, 0, 1]), ("a", "b", "c"))


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory):
    import keras

    keras.utils.set_random_seed(7)
    network = build_trunk(VIEW_PX)
    path = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    save_weights(network, path)
    return network, path


def test_weights_are_builtin_random_or_from_a_file(trunk_file):
    network, path = trunk_file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 80, 100)).astype(np.uint8)
    expected = features_of(network, "ours", pixels)
    assert expected.shape == (3, 128)
    for loaded in (
        load_backbone("ours", str(path)),
        load_backbone("ours", str(path), digest),
        load_backbone("ours", "builtin", builtin=path.read_bytes()),
    ):
        np.testing.assert_allclose(features_of(loaded, "ours", pixels), expected, atol=1e-5)
        assert not loaded.trainable_variables
    random = features_of(load_backbone("ours", "none", seed=1), "ours", pixels)
    assert np.abs(random - expected).max() > 0.01
    np.testing.assert_array_equal(random, features_of(load_backbone("ours", "none", seed=1), "ours", pixels))


def test_weights_that_cannot_be_used_are_refused_with_the_reason(trunk_file, tmp_path):
    _, path = trunk_file
    with pytest.raises(SettingsError, match="no backbone 'resnet99'"):
        load_backbone("resnet99", "none")
    with pytest.raises(SettingsError, match="no built-in weights"):
        load_backbone("inception_v3", "builtin", builtin=b"")
    with pytest.raises(ModelError, match="no file of weights"):
        load_backbone("ours", str(tmp_path / "missing.weights.h5"))
    with pytest.raises(ModelError, match="its SHA-256 is"):
        load_backbone("ours", str(path), "0" * 64)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ModelError, match="no weights of this architecture"):
        load_backbone("ours", str(tmp_path / "text.h5"))
    other = tmp_path / "other.weights.h5"
    save_weights(build_trunk(VIEW_PX, n_channels=2), other)
    with pytest.raises(ModelError, match="no weights of this architecture"):
        load_backbone("ours", str(other))
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(path), "/layers")
    with pytest.raises(ModelError, match="points to another file"):
        load_backbone("ours", str(tmp_path / "linked.h5"))


def test_an_address_needs_https_and_its_hash(trunk_file, monkeypatch):
    network, path = trunk_file
    with pytest.raises(SettingsError, match="https://"):
        load_backbone("ours", "http://example.org/a.h5", "0" * 64)
    with pytest.raises(SettingsError, match="need sha256="):
        load_backbone("ours", "https://example.org/a.h5")
    asked = []

    def fetch(address, timeout):
        asked.append(address)
        return path.open("rb")

    monkeypatch.setattr(backbones.urllib.request, "urlopen", fetch)
    loaded = load_backbone("ours", "https://example.org/a.h5", hashlib.sha256(path.read_bytes()).hexdigest().upper())
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype(np.uint8)
    np.testing.assert_allclose(features_of(loaded, "ours", pixels), features_of(network, "ours", pixels), atol=1e-5)
    assert asked == ["https://example.org/a.h5"]

    def offline(address, timeout):
        raise OSError("Name or service not known")

    monkeypatch.setattr(backbones.urllib.request, "urlopen", offline)
    with pytest.raises(ModelError, match="cannot be fetched"):
        load_backbone("ours", "https://example.org/a.h5", "0" * 64)


def test_without_the_internet_imagenet_says_so(monkeypatch):
    def offline(name, weights=None):
        raise Exception(f"URL fetch failure on {name}")

    monkeypatch.setattr(backbones, "_build_application", offline)
    for name in ("inception_v3", "inception_resnet_v2"):
        with pytest.raises(ModelError, match="need the internet once"):
            load_backbone(name, "imagenet")
    with pytest.raises(SettingsError, match="no ImageNet weights"):
        load_backbone("ours", "imagenet")


@pytest.mark.slow
def test_inception_takes_a_file_of_its_architecture_and_no_other(trunk_file, tmp_path):
    network = BACKBONES["inception_v3"].build()
    path = tmp_path / "inception.weights.h5"
    save_weights(network, path)
    loaded = load_backbone("inception_v3", str(path), seed=3)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 90)).astype(np.uint8)
    features = features_of(loaded, "inception_v3", pixels)
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features, features_of(network, "inception_v3", pixels), atol=1e-4)
    with pytest.raises(ModelError, match="no weights of this architecture"):
        load_backbone("inception_v3", str(trunk_file[1]))


@pytest.mark.slow
def test_a_classifier_of_new_classes_learns_its_last_layer_alone(trunk_file):
    _, path = trunk_file
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:64, :64] - 32.0

    def pictures(n):
        label = np.arange(n) % 2
        shapes = (np.hypot(x, y) < 20, (abs(x) < 26) & (abs(y) < 5))
        return np.stack([40 + 60 * shapes[i] + rng.normal(0, 10, x.shape) for i in label]), label

    pixels, label = pictures(20)
    tlic = train_tlic(pixels, label, ("disc", "bar"), weights=str(path), groups=np.arange(20) // 2)
    unseen, truth = pictures(30)
    p = tlic.probabilities(unseen)
    assert tlic.classes == ("disc", "bar")
    assert (p.argmax(1) == truth).mean() > 0.9
    # it does not matter how a picture lies
    np.testing.assert_allclose(tlic.probabilities(np.rot90(unseen, 1, (1, 2))), p, atol=1e-4)
