"""Focus networks: shapes, parameter counts, invariances, ONNX, training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from defectpipe.errors import ModelError, SettingsError
from defectpipe.focus.backbones import BACKBONES, find_backbone, normalise_magnification, prepare
from defectpipe.focus.scorer import FocusScorer
from defectpipe.focus.spectral import N_FEATURES, spectral_features
from defectpipe.focus.training import FocusRecipe, fit_focus
from defectpipe.networks.pictures import normalise
from defectpipe.simulation.acquisition import Acquisition, blur
from defectpipe.training.focus_model import FOCUS_ONNX, train_focus

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def _textures(n, shape=(80, 96), seed=0):
    """Random textures blurred by 0.6 to 4 px, with noise, and a score that says by how much."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0, 10, n)
    images = []
    for s in score:
        fine = rng.normal(size=(shape[0] + 40, shape[1] + 40)).astype(np.float32)
        seen = blur(fine, Acquisition(probe_sigma_px=0.6 * (4 / 0.6) ** ((10 - s) / 10), defocus_sigma_px=0))
        seen = seen[20:-20, 20:-20] / seen.std() + rng.normal(size=shape) * 0.1
        images.append(np.clip(128 + 30 * seen, 0, 255))
    return np.array(images, np.uint8), score


def test_resnet18_is_the_published_one():
    from defectpipe.focus.network import resnet18

    network = resnet18((240, 320, 3), n_classes=1000)
    assert network.count_params() - sum(int(np.prod(w.shape)) for w in network.non_trainable_weights) == 11_689_512
    shapes = [tuple(network.get_layer(f"stage{i}").output.shape[1:]) for i in range(1, 5)]
    assert shapes == [(60, 80, 64), (30, 40, 128), (15, 20, 256), (8, 10, 512)]
    # table 1 of He et al. for 224 × 224
    square = resnet18((224, 224, 3))
    assert [square.get_layer(f"stage{i}").output.shape[1] for i in range(1, 5)] == [56, 28, 14, 7]
    assert square.output.shape == (None, 512)


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"resnet50"}))
@pytest.mark.parametrize("with_magnification", [False, True])
def test_every_backbone_gives_one_score_for_each_patch(name, with_magnification):
    network = find_backbone(name).build((72, 100), with_magnification)
    patches = np.random.default_rng(0).integers(0, 255, (3, 72, 100))
    inputs = list(prepare(name, patches, np.array([500.0, 2000, 10000]) if with_magnification else None).values())
    assert [tuple(i.shape[1:]) for i in inputs] == [tuple(i.shape[1:]) for i in network.inputs]
    score = np.asarray(network(inputs if with_magnification else inputs[0], training=False))
    assert score.shape == (3, 1)
    # untrained, it starts on the scale
    assert ((score > 0) & (score < 10)).all()


def test_magnifications_go_from_zero_to_one():
    scaled = normalise_magnification(np.array([500, 1000, 2000, 5000, 10000]))[:, 0]
    assert scaled[[0, -1]] == pytest.approx([0, 1], abs=1e-6)
    assert (np.diff(scaled) > 0.1).all()


@pytest.mark.parametrize("name", ["spectral", "resnet-mini", "resnet18"])
def test_brightness_and_contrast_do_not_reach_the_network(name):
    patches = np.random.default_rng(0).normal(100, 20, (2, 96, 130))
    (values,) = prepare(name, patches, None).values()
    (changed,) = prepare(name, 3 * patches + 500, None).values()
    np.testing.assert_allclose(changed, values, atol=2e-4)


def test_a_frame_without_contrast_is_no_error():
    assert not normalise(np.full((1, 70, 80), 255, np.uint8)).any()
    features = prepare("spectral", np.full((1, 70, 80), 255, np.uint8), None)["features"]
    assert features.shape == (1, N_FEATURES)
    assert np.isfinite(features).all()
    with pytest.raises(SettingsError, match="64 px"):
        prepare("spectral", np.zeros((1, 40, 300)), None)
    with pytest.raises(SettingsError, match="resnet-mini"):
        prepare("resnet19", np.zeros((1, 80, 80)), None)


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda p: p[::-1, ::-1]])
def test_spectral_features_do_not_change_when_the_patch_is_mirrored(turn):
    # tiles fall on the same places from both ends
    patch = normalise(_textures(1, (108, 152))[0])[0]
    np.testing.assert_allclose(
        spectral_features(np.ascontiguousarray(turn(patch))), spectral_features(patch), atol=0.12
    )


def test_spectral_features_tell_blur_from_noise():
    rng = np.random.default_rng(3)
    noise = spectral_features(normalise(rng.normal(size=(1, 96, 128)))[0])
    # rings relative to their mean: flat for white noise
    rings = noise[18 * 4 : 18 * 5]
    assert np.abs(rings[4:]).max() < 0.4
    blurred = spectral_features(normalise(_textures(1, (96, 128), seed=1)[0])[0])
    assert blurred[18 * 4 + 4] - blurred[18 * 5 - 1] > 2


@pytest.mark.parametrize(
    ("name", "with_magnification"), [("spectral", True), ("spectral", False), ("resnet-mini", True)]
)
def test_a_short_training_learns_and_its_onnx_says_the_same(tmp_path, name, with_magnification):
    pixels, score = _textures(160)
    magnification = np.resize([500.0, 1000, 10000], 160) if with_magnification else None
    recipe = FocusRecipe(n_steps=150 if name == "spectral" else 30, batch_size=16, learning_rate=3e-3, n_views=1)
    losses = []
    folder = train_focus(
        pixels,
        score,
        magnification,
        tmp_path / "focus",
        modality="SEM",
        backbone=name,
        recipe=recipe,
        seed=1,
        patch_shape=(72, 80),
        describe={"data": {"source": "test"}},
        progress=lambda step, loss: losses.append(loss),
    )
    card = json.loads((folder / "card.json").read_text())
    assert card["patch_shape_px"] == [72, 80]
    assert card["uses_magnification"] is with_magnification
    assert card["data"] == {"source": "test"}
    scorer = FocusScorer(folder / FOCUS_ONNX, name, with_magnification)
    given = scorer(pixels[:, 4:76, 8:88], magnification)
    network = find_backbone(name).build((72, 80), with_magnification)
    network.load_weights(folder / "network.weights.h5")
    inputs = list(prepare(name, pixels[:, 4:76, 8:88], magnification).values())
    expected = np.asarray(network(inputs if with_magnification else inputs[0], training=False))[:, 0]
    np.testing.assert_allclose(given, np.clip(expected, 0, 10), atol=1e-3)
    if name == "spectral":
        unseen, truth = _textures(60, seed=9)
        guessed = scorer(unseen[:, 4:76, 8:88], None if magnification is None else magnification[:60])
        assert np.sqrt(np.mean((guessed - truth) ** 2)) < 0.5 * truth.std()
    if with_magnification:
        with pytest.raises(ModelError, match="magnification"):
            scorer(pixels[:, :72, :80])


def test_the_published_recipe_is_plain_descent_one_image_at_a_time():
    pixels, score = _textures(8)
    recipe = FocusRecipe(n_steps=2, batch_size=1, learning_rate=2e-4, weight_decay=0.0, momentum=0.9)
    network = fit_focus(pixels, score, None, "resnet-mini", recipe, 0, (72, 80))
    before = find_backbone("resnet-mini")
    assert network.count_params() == before.build((72, 80), False).count_params()
    again = fit_focus(pixels, score, None, "resnet-mini", recipe, 0, (72, 80))
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_interrupted_training_ends_as_without(tmp_path, monkeypatch):
    monkeypatch.setattr("defectpipe.networks.training._KEEP_EVERY", 4)
    monkeypatch.setattr("defectpipe.networks.training._REPORT_EVERY", 3)
    pixels, score = _textures(12)
    recipe, magnification = FocusRecipe(n_steps=10, batch_size=4), np.resize([500.0, 10000], 12)
    given = (pixels, score, magnification, "resnet-mini", recipe, 3, (72, 80))
    whole = fit_focus(*given)
    place = tmp_path / "state.npz"

    def stop(step: int, loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_focus(*given, progress=stop, checkpoint=place)
    steps = []
    resumed = fit_focus(*given, progress=lambda step, loss: steps.append(step), checkpoint=place)
    assert steps[0] == 6
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    # the state of another training is not taken up
    other = fit_focus(*given[:4], FocusRecipe(n_steps=5, batch_size=4), *given[5:], checkpoint=place)
    plain = fit_focus(*given[:4], FocusRecipe(n_steps=5, batch_size=4), *given[5:])
    for one, again in zip(plain.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(again, one, atol=1e-5)
