"""The screener: what it sees, what it learns from, and that Keras and ONNX say the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from defectpipe.errors import LabelError, ModelError
from defectpipe.screening.augmentation import Batches, random_view
from defectpipe.screening.crops import CropSource, normalise
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.samples import Samples, apply_targets, assign, box_targets, make_samples, to_float
from defectpipe.screening.screener import OnnxNetwork, ScreeningRecipe, anchor, screen

SMALL = ScreenerRecipe(crop_px=24, widths=(8, 16, 24), hidden=32, dropout=0.0)


@pytest.fixture
def tensorflow() -> Iterator[None]:
    """TensorFlow's own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ramp(shape: tuple[int, int] = (90, 130)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (0.9 * x + 0.7 * y).astype(np.uint8)


def test_normalising_takes_off_brightness_and_contrast() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 90, (120, 200)).astype(np.uint8)
    np.testing.assert_allclose(normalise(image), normalise(image + 100), atol=1e-3)
    np.testing.assert_allclose(normalise(image), normalise((2 * image.astype(int) - 60).astype(np.uint8)), atol=0.12)
    assert np.abs(normalise(np.full((50, 70), 7, np.uint8))).max() < 1e-3


@pytest.mark.parametrize("side", [9.0, 24.0, 61.0])
def test_a_crop_is_centred_on_its_box(side: float) -> None:
    y, x = np.mgrid[:160, :230]
    cx, cy = 101.3, 77.8
    spot = 40 + 180 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / (0.2 * side) ** 2)
    box = np.array([[cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2]])
    crop = CropSource(spot.astype(np.uint8)).cut(box, 33, 2.0)[0].astype(float)
    weight = np.clip(crop - crop.max() / 2, 0, None)
    v, u = np.mgrid[:33, :33]
    assert (weight * u).sum() / weight.sum() == pytest.approx(16, abs=0.35)
    assert (weight * v).sum() / weight.sum() == pytest.approx(16, abs=0.35)


def test_a_crop_across_the_border_is_mirrored() -> None:
    crops = CropSource(ramp()).cut(np.array([[-10.0, -10, 14, 14], [110, 70, 140, 100]]), 24, 2.0)
    assert np.isfinite(crops).all()
    assert crops.std(axis=(1, 2)).min() > 0.01


def test_targets_are_undone() -> None:
    rng = np.random.default_rng(1)
    corner, side = rng.uniform(0, 200, (50, 2)), rng.uniform(10, 60, (50, 1))
    candidates = np.concatenate([corner, corner + side], 1)
    boxes = candidates + rng.normal(0, 3, (50, 4))
    np.testing.assert_allclose(apply_targets(candidates, box_targets(candidates, boxes)), boxes, atol=1e-9)


def test_near_misses_and_the_border_teach_nothing() -> None:
    labels = np.array([[40.0, 40, 80, 70], [0, 10, 20, 30]])
    candidates = np.array(
        [
            [41.0, 35, 81, 75],  # on the label
            [53, 48, 93, 88],  # a third of its side off: a near miss
            [120, 10, 150, 40],  # nowhere
            [0, 10, 21, 31],  # on the label that the border cuts
            [170, 60, 199, 89],  # nowhere, at the border
        ]
    )
    assert assign(candidates, labels, (100, 200)).tolist() == [0, -2, -1, -2, -2]
    assert assign(candidates[:1], np.zeros((0, 4)), (100, 200)).tolist() == [-1]


def test_samples_hold_loops_with_their_boxes_then_the_rest() -> None:
    labels = np.array([[40.0, 30, 70, 60]])
    candidates = np.array([[39.0, 29, 71, 61], [90, 20, 115, 45], [85, 50, 110, 75]])
    samples = make_samples(ramp(), candidates, labels, 24, 2.0, 1, np.random.default_rng(0))
    assert samples.is_loop.tolist() == [True, True, False]
    assert samples.crops.shape == (3, 36, 36)
    np.testing.assert_allclose(apply_targets(candidates[:1], samples.targets[:1]), labels, atol=1e-4)


def test_views_keep_the_box_on_the_object() -> None:
    # a bright rectangle: in every view its bounds must be where the target says
    stored = np.full((72, 72), -1.0, np.float32)
    stored[28:40, 26:48] = 1.0  # candidate: 24 px about 35.5, 35.5
    target = np.array([(36.5 - 35.5) / 24, (33.5 - 35.5) / 24, np.log(22 / 24), np.log(12 / 24)])
    rng = np.random.default_rng(0)
    for _ in range(60):
        view, (dx, dy, w, h) = random_view(stored, target, 48, 24.0, rng)
        rows, columns = np.nonzero(view > (view.max() + np.median(view)) / 2)
        seen = [columns.mean(), rows.mean(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        expected = [23.5 + 24 * dx, 23.5 + 24 * dy, 24 * np.exp(w), 24 * np.exp(h)]
        np.testing.assert_allclose(seen, expected, atol=2.6)


def test_batches_draw_by_weight() -> None:
    crops = np.zeros((20, 36, 36), np.int8)
    crops[10:] = np.arange(10, 20)[:, None, None]
    batches = Batches(
        Samples(crops, np.zeros((20, 4), np.float32), np.arange(20) < 10, np.zeros(20, int)),
        *(24, 2.0, 50, np.random.default_rng(0)),
    )
    views, answers = batches.next()
    assert views.shape == (50, 24, 24, 1)
    assert answers[:, 0].sum() == 20
    weights = np.zeros(10)
    weights[3] = 1
    batches.weigh_others(weights)
    drawn = batches.others[
        [min(int(np.searchsorted(np.cumsum(weights), r, side="right")), 9) for r in (0.0, 0.5, 0.99)]
    ]
    assert drawn.tolist() == [13, 13, 13]


class Oracle:
    """Knows where the loop is: answers as a perfect network would, from the crop's brightness."""

    n_classes = 0

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        bright = crops[:, 8:16, 8:16, 0].mean((1, 2)) > 0
        answers = np.zeros((len(crops), 5), np.float32)
        answers[:, 0] = np.where(bright, 3.0, -6.0)
        return answers


def test_screening_keeps_one_box_for_each_loop() -> None:
    y, x = np.mgrid[:120, :180]
    image = (40 + 160 * np.exp(-0.5 * ((x - 60) ** 2 + (y - 50) ** 2) / 8**2)).astype(np.uint8)
    candidates = np.array([[48.0, 38, 72, 62], [49, 39, 73, 63], [120, 60, 144, 84]])
    found = screen(image, candidates, Oracle(), SMALL, ScreeningRecipe(image_share=0.0))
    assert found.candidates.tolist() == [0]
    np.testing.assert_allclose(found.boxes, candidates[:1])
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-3)))
    none = screen(image, np.zeros((0, 4)), Oracle(), SMALL, ScreeningRecipe())
    assert none.boxes.shape == (0, 4)


class Calliper:
    """Measures the extent of what is bright in the crop, as a perfect network would."""

    n_classes = 0

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        answers = np.full((len(crops), 5), 3.0, np.float32)
        for crop, answer in zip(crops[..., 0], answers, strict=True):
            rows, columns = (np.flatnonzero((crop > 0.6 * crop.max()).any(axis)) for axis in (1, 0))
            side = crop.shape[0] / SMALL.context
            for k, at in enumerate((columns, rows)):
                answer[1 + k] = ((at[0] + at[-1]) / 2 - (crop.shape[0] - 1) / 2) / side
                answer[3 + k] = np.log((at[-1] - at[0] + 1) / side)
        return answers


def test_the_second_look_turns_its_answers_back() -> None:
    image = np.full((150, 210), 60, np.uint8)
    image[70:80, 84:116] = 220
    truth = np.array([83.5, 69.5, 115.5, 79.5])
    [box] = screen(image, np.array([[80.0, 56, 112, 88]]), Calliper(), SMALL, ScreeningRecipe()).boxes
    np.testing.assert_allclose(box, truth, atol=2.0)  # a pixel of the crop is about 3 px


def test_scores_are_partly_relative_to_their_image() -> None:
    y, x = np.mgrid[:120, :180]
    image = (40 + 160 * np.exp(-0.5 * ((x - 60) ** 2 + (y - 50) ** 2) / 8**2)).astype(np.uint8)
    candidates = np.array([[48.0, 38, 72, 62]])
    recipe = ScreeningRecipe(image_share=0.5, usual_anchor=1.0)
    score = screen(image, candidates, Oracle(), SMALL, recipe).scores[0]
    # the only loop is the anchor: its logit 3 becomes 3 - 0.5 (3 - 1)
    assert score == pytest.approx(1 / (1 + np.exp(-2)))
    assert anchor(np.array([9.0, 1, 2, 3, 4, 5, 0])) == pytest.approx((9 + 5 + 4 + 3 + 2) / 5)
    assert anchor(np.array([2.0, 4.0])) == 3.0
    assert anchor(np.zeros(0)) == 0.0


def separable_samples(rng: np.random.Generator) -> Samples:
    """Loops are bright discs off the centre, the rest is noise."""
    v, u = np.mgrid[:36, :36] - 17.5
    crops = rng.normal(0, 0.3, (300, 36, 36))
    targets = np.zeros((300, 4), np.float32)
    targets[:120, :2] = rng.uniform(-0.15, 0.15, (120, 2))
    targets[:120, 2:] = np.log(rng.uniform(0.6, 1.1, (120, 1)))
    for crop, (dx, dy, w, _) in zip(crops[:120], targets, strict=False):
        crop += 1.5 * (np.hypot(u - 12 * dx, v - 12 * dy) < 6 * np.exp(w))
    return Samples(np.clip(crops * 63, -126, 126).astype(np.int8), targets, np.arange(300) < 120, np.zeros(300, int))


@pytest.mark.slow
def test_a_trained_screener_learns_and_onnx_says_what_keras_says(tensorflow: None, tmp_path: Path) -> None:
    from defectpipe.networks.export import export_onnx, save_weights
    from defectpipe.screening.network import build_network
    from defectpipe.screening.training import ScreenerTraining, train_screener

    samples = separable_samples(np.random.default_rng(0))
    losses: list[float] = []
    training = ScreenerTraining(n_steps=400, batch_size=48, peak_learning_rate=3e-3)
    network = train_screener(samples, SMALL, training, 1, lambda _step, loss: losses.append(loss))
    assert losses[-1] < 0.6 * losses[0]
    unseen = separable_samples(np.random.default_rng(5))
    crops = to_float(unseen.crops[:, 6:30, 6:30])[..., None]
    keras_says = network.predict_on_batch(crops)
    assert ((keras_says[:, 0] > 0) == unseen.is_loop).mean() > 0.95
    miss = np.abs(keras_says[:120, 1:] - unseen.targets[:120]).mean()
    assert miss < 0.75 * np.abs(unseen.targets[:120] - unseen.targets[:120].mean(0)).mean()

    export_onnx(network, tmp_path / "screener.onnx")
    onnx = OnnxNetwork(tmp_path / "screener.onnx", 24)
    np.testing.assert_allclose(onnx(crops), keras_says, atol=2e-5)
    # the answer to a crop depends neither on the others in its batch nor on how many they are
    for first, last in ((3, 4), (0, 17), (0, 40), (5, 75), (0, 64)):
        np.testing.assert_array_equal(onnx(crops[first:last]), onnx(crops)[first:last])

    save_weights(network, tmp_path / "screener.weights.h5")
    again = build_network(SMALL)
    again.load_weights(tmp_path / "screener.weights.h5")
    np.testing.assert_allclose(again.predict_on_batch(crops), keras_says, atol=1e-6)
    with pytest.raises(ModelError, match="48 px"):
        OnnxNetwork(tmp_path / "screener.onnx", 48)


def test_a_training_that_came_to_nothing_is_done_again_and_refused_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from defectpipe.screening import training

    samples, fit = separable_samples(np.random.default_rng(0)), training.fit
    dead: list[bool] = []

    def dying(network, *given, **how):
        fit(network, *given, **how)
        if dead.pop():
            # No unit is excited any more: only the biases of the last layer are left.
            for weights in network.trainable_weights[:-1]:
                weights.assign(np.zeros(weights.shape))

    monkeypatch.setattr(training, "fit", dying)
    few = training.ScreenerTraining(n_steps=4, batch_size=16)
    dead[:] = [False, True]
    network = training.train_screener(samples, SMALL, few, 1)
    assert not dead
    assert [record.message for record in caplog.records if "answers all crops alike" in record.message]
    crops = to_float(samples.crops[:40, 6:30, 6:30])[..., None]
    assert np.ptp(network.predict_on_batch(crops)[:, 0]) > 0
    dead[:] = [True] * 3
    with pytest.raises(ModelError, match="peak_learning_rate"):
        training.train_screener(samples, SMALL, few, 1)
    assert not dead


def test_too_few_loops_are_refused() -> None:
    from defectpipe.screening.training import ScreenerTraining, train_screener

    few = Samples(np.zeros((3, 36, 36), np.int8), np.zeros((3, 4), np.float32), np.ones(3, bool), np.zeros(3, int))
    with pytest.raises(LabelError, match="label more loops"):
        train_screener(few, SMALL, ScreenerTraining(), 0)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "screener.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"screener\.onnx"):
        OnnxNetwork(tmp_path / "screener.onnx", 24)
