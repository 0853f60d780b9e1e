"""The recogniser and its training: rows of answers, loss, resumed trainings, the fusion of views."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from defectpipe.networks.export import export_onnx
from defectpipe.recognition.fusion import FusionRecipe, build_fusion, fit_fusion, pad_views, split_fused
from defectpipe.recognition.ground_truth import fuse_classes, fuse_evenly
from defectpipe.recognition.recogniser import Layout, RecogniserLoss, build_recogniser
from defectpipe.recognition.training import Batches, RecogniserRecipe, fit_recogniser
from defectpipe.recognition.views import augment, standardise, turned

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

LAYOUT = Layout(("disc", "bar", "ring"), ("deformed", "bend"), ("any.ball", "bar.length_nm"))


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Random weights that are the same in every run."""
    import keras

    keras.utils.set_random_seed(0)


def pictures(n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Discs, bars and rings of 32 × 32 px in noise, with their answers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    label = np.arange(n) % 3
    made, length = [], np.full(n, np.nan)
    for i in range(n):
        cx, cy = rng.uniform(12, 20, 2)
        rho = np.hypot(x - cx, y - cy)
        half = rng.uniform(6, 11)
        shapes = (rho < 8, (abs(x - cx) < half) & (abs(y - cy) < 3), (rho < 9) & (rho > 5))
        made.append(rng.uniform(20, 60) + rng.uniform(20, 60) * shapes[label[i]] + rng.normal(0, 6, (32, 32)))
        if label[i] == 1:
            length[i] = np.log(2 * half)
    targets = {
        "label": label.astype(np.int32),
        "deformations": np.zeros((n, 2), np.float32),
        "dimensions": np.stack([np.full(n, 2.5), length], 1).astype(np.float32),
    }
    return np.clip(made, 0, 255).astype(np.uint8), targets


def test_brightness_and_contrast_do_not_show():
    pixels = np.random.default_rng(0).integers(0, 200, (3, 20, 24))
    np.testing.assert_allclose(standardise(pixels), standardise(pixels * 7.3 - 40), atol=1e-4)
    assert standardise(np.full((1, 20, 24), 9)).any() == np.False_


def test_a_square_lies_in_eight_ways():
    picture = np.arange(16).reshape(1, 4, 4)
    assert len({turned(picture, way).tobytes() for way in range(8)}) == 8
    np.testing.assert_array_equal(turned(picture, 0), picture)


def test_augmented_pictures_are_turned_ones_with_more_noise():
    pixels = np.random.default_rng(1).integers(0, 255, (40, 12, 12))
    plain = augment(pixels, np.random.default_rng(2), 0.0)
    for before, after in zip(standardise(pixels), plain, strict=True):
        assert any(np.array_equal(turned(before[None], way)[0], after) for way in range(8))
    noisy = augment(pixels, np.random.default_rng(2), 0.5)
    added = (noisy - plain).std((1, 2, 3))
    assert 5 < (added > 0).sum() < 35
    assert added.max() < 0.65


def test_a_row_of_answers_holds_what_the_layout_says_and_onnx_gives_the_same(tmp_path):
    network = build_recogniser(LAYOUT, 32)
    views = standardise(pictures(5)[0])
    rows = np.asarray(network(views, training=False))
    assert rows.shape == (5, LAYOUT.n_answers)
    place = LAYOUT.slices
    features = network.get_layer("features").output
    assert place["features"].stop == features.shape[-1] == place["classes"].start
    assert (rows[:, place["features"]] >= 0).all()
    assert (rows[:, place["classes"]] < 0).any()
    assert [place[name].stop - place[name].start for name in ("classes", "deformations", "dimensions")] == [3, 2, 2]
    export_onnx(network, tmp_path / "recogniser.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "recogniser.onnx")
    np.testing.assert_allclose(session.run(None, {"input": views})[0], rows, atol=1e-4)


def test_the_loss_counts_only_dimensions_that_there_are():
    loss = RecogniserLoss(LAYOUT, deformation_weight=2.0, dimension_weight=3.0)
    outputs = np.zeros((2, LAYOUT.n_answers), np.float32)
    outputs[:, LAYOUT.slices["dimensions"]] = [[0.5, 99.0], [1.0, 2.05]]
    answers = {
        "label": np.array([0, 2], np.int32),
        "deformations": np.array([[0, 0], [1, 1]], np.float32),
        "dimensions": np.array([[0.2, np.nan], [1.0, 2.0]], np.float32),
    }
    # Huber: 0.3 - 0.05; 0; 5 · 0.05²
    expected = np.log(3) + 2 * np.log(2) + 3 * (0.25 + 0.0125) / 3
    assert float(loss(answers, outputs)) == pytest.approx(expected, rel=1e-5)
    assert float(
        RecogniserLoss(Layout(("a", "b"), (), ()))(answers | {"label": np.array([0, 1])}, outputs[:, :130])
    ) == (pytest.approx(np.log(2)))


def test_batches_show_every_picture_once_before_any_comes_again():
    pixels = np.arange(10)[:, None, None] * np.ones((1, 4, 4))
    batches = Batches(pixels, {"label": np.arange(10)}, 4, 3, lambda part, rng: part + 100)
    drawn = [batches.next() for _ in range(5)]
    labels = np.concatenate([answers["label"] for _, answers in drawn])
    assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))
    np.testing.assert_array_equal(np.concatenate([given[:, 0, 0] for given, _ in drawn]), labels + 100)


@pytest.fixture
def brief(monkeypatch):
    """Networks of two blocks, whose normalisation follows the data in a few tens of steps: for trainings as short."""
    monkeypatch.setattr("defectpipe.recognition.recogniser.BLOCKS", ((24, 1), (48, 2)))
    monkeypatch.setattr("defectpipe.networks.residual.MOMENTUM", 0.9)


def test_a_training_that_was_broken_off_ends_as_it_would_have(tmp_path, monkeypatch, brief):
    # beside what the test of the focus networks shows: the luck of dropout and of each batch goes on as well
    monkeypatch.setattr("defectpipe.networks.training._KEEP_EVERY", 2)
    monkeypatch.setattr("defectpipe.networks.training._REPORT_EVERY", 3)
    given = (*pictures(12), LAYOUT, RecogniserRecipe(n_steps=5, batch_size=4), 4)
    whole = fit_recogniser(*given)

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_recogniser(*given, tmp_path / "kept.npz", stop)
    resumed = fit_recogniser(*given, tmp_path / "kept.npz")
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.slow
def test_the_recogniser_learns_classes_and_dimensions(brief):
    pixels, targets = pictures(300)
    recipe = RecogniserRecipe(n_steps=120, batch_size=16, learning_rate=2e-3)
    network = fit_recogniser(pixels, targets, LAYOUT, recipe, 5)
    unseen, truth = pictures(90, seed=1)
    rows = np.asarray(network(standardise(unseen), training=False))
    assert (rows[:, LAYOUT.slices["classes"]].argmax(1) == truth["label"]).mean() > 0.9
    # the first dimension is the same of all pictures, the second only bars have
    sizes = rows[:, LAYOUT.slices["dimensions"]]
    assert np.abs(sizes[:, 0] - truth["dimensions"][:, 0]).mean() < 0.5
    bars = truth["label"] == 1
    assert np.abs(sizes[bars, 1] - truth["dimensions"][bars, 1]).mean() < 0.5


def answers_of(n: int, n_views: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows as of a recogniser, whose views mislead if the first feature is high; the second tells bends."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=n)
    rows = np.abs(rng.normal(size=(n, n_views, LAYOUT.n_answers)))
    bad = rng.random((n, n_views)) < 0.5
    rows[..., 0] = 3.0 * bad
    shown = np.where(bad, (label[:, None] + 1) % 3, label[:, None])
    rows[..., LAYOUT.slices["classes"]] = 2.5 * np.eye(3)[shown] + rng.normal(0, 0.7, (n, n_views, 3))
    bent = rng.integers(2, size=n)
    rows[..., 1] += bent[:, None]
    return rows.astype(np.float32), label, np.stack([bent, bent], 1)


def fused_by(network, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return split_fused(np.asarray(network(list(pad_views(rows, LAYOUT).values()), training=False)), LAYOUT)


def test_untrained_the_fusion_is_the_baseline_in_any_order():
    rows, _, _ = answers_of(6, 5)
    network = build_fusion(LAYOUT)
    classes, deformations = fused_by(network, rows)
    np.testing.assert_allclose(classes, fuse_classes(rows[..., LAYOUT.slices["classes"]]), atol=1e-4)
    np.testing.assert_allclose(deformations, fuse_evenly(rows[..., LAYOUT.slices["deformations"]]), atol=1e-4)
    network.set_weights([w + 0.1 for w in network.get_weights()])
    for one, two, before in zip(
        fused_by(network, rows), fused_by(network, rows[:, ::-1]), (classes, deformations), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-3)
        assert np.abs(one - before).max() > 0.02


@pytest.mark.slow
def test_the_fusion_learns_which_views_mislead_and_what_tells_a_bend(tmp_path):
    rows, label, bent = answers_of(800, 6)
    network = fit_fusion(rows, label, bent, LAYOUT, FusionRecipe(n_steps=250), 1, tmp_path / "fusion.npz")
    unseen, truth, bent = answers_of(400, 6, seed=1)
    classes, deformations = fused_by(network, unseen)
    baseline = fuse_classes(unseen[..., LAYOUT.slices["classes"]]).argmax(1)
    assert (classes.argmax(1) == truth).mean() > (baseline == truth).mean() + 0.2
    assert ((deformations > 0.5) == bent).mean() > 0.85
    evenly = fuse_evenly(unseen[..., LAYOUT.slices["deformations"]])
    assert ((evenly > 0.5) == bent).mean() < 0.6
