"""The multi-scale scan: where its boxes lie, that it finds rings of every size, and what happens at the border."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from defectpipe.boxes import overlaps
from defectpipe.detection.boosting import PASS_MARGIN
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.lbp import code_matrix
from defectpipe.detection.scan import ScanRecipe, find_candidates, pyramid, raw_hits, scan_pixels, window_boxes
from defectpipe.detection.training import CascadeRecipe, LabelledImage, mine_negatives, squares, train_cascade
from defectpipe.errors import LabelError

SCAN = ScanRecipe(min_side_px=18, max_side_px=90)
QUICK = CascadeRecipe(
    n_stages=6, n_positives=600, n_negatives=800, copies=4, feature_share=0.1, max_stumps=20, negatives_per_image=200
)


def picture(rng: np.random.Generator, n_rings: int = 12, shape: tuple[int, int] = (260, 380)) -> LabelledImage:
    """Noise with dark rings of 14 to 50 px, and dark dots that are no rings."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = cv2.GaussianBlur(rng.normal(150, 25, shape), (0, 0), 1.0)
    boxes: list[list[float]] = []
    while len(boxes) < n_rings:
        radius = rng.uniform(7, 25)
        cx, cy = rng.uniform(radius + 4, shape[1] - radius - 4), rng.uniform(radius + 4, shape[0] - radius - 4)
        box = [cx - radius, cy - radius, cx + radius, cy + radius]
        if boxes and overlaps([box], boxes).max() > 0:
            continue
        image -= 60 * np.exp(-0.5 * ((np.hypot(x - cx, y - cy) - radius) / (0.12 * radius + 0.6)) ** 2)
        boxes.append(box)
    for _ in range(15):
        cx, cy = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        image -= 60 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(2, 5) ** 2)
    return LabelledImage(np.clip(image, 0, 255).astype(np.uint8), np.array(boxes))


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    rng = np.random.default_rng(0)
    trained, reports = train_cascade([picture(rng) for _ in range(12)], QUICK, SCAN, seed=1)
    assert [report.stage for report in reports] == list(range(1, len(trained.stages) + 1))
    assert all(report.acceptance > 0 and 0 < report.hit_rate <= 1 for report in reports)
    return trained


def test_unseen_rings_of_every_size_are_found(cascade: Cascade) -> None:
    rng = np.random.default_rng(99)
    found = total = n_candidates = 0
    for _ in range(5):
        image = picture(rng)
        boxes, scores = find_candidates(image.pixels, cascade, SCAN, 60)
        assert (np.diff(scores) <= 0).all()
        assert ((scores > 0) & (scores < 1)).all()
        n_candidates += len(boxes)
        found += (overlaps(image.boxes, boxes).max(1, initial=0) >= 0.4).sum()
        total += len(image.boxes)
    assert found / total > 0.9
    # the same number of squares at random would find a few only
    assert n_candidates <= 5 * 60


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_scan_finds_the_windows_that_each_by_itself_would_pass(cascade: Cascade, step: int) -> None:
    pixels = picture(np.random.default_rng(11), shape=(131, 158)).pixels
    corners, margins = scan_pixels(cascade, pixels, step)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (24, 24))[::step, ::step]
    n_rows, n_columns = windows.shape[:2]
    windows = windows.reshape(-1, 24, 24)
    # stage by stage, window by window, from the codes alone
    expected, reached = np.zeros(len(windows)), np.ones(len(windows), bool)
    for stage in cascade.stages:
        codes = code_matrix(windows, cascade.features[[stump.feature for stump in stage.stumps]])
        sums = np.zeros(len(windows))
        for stump, row in zip(stage.stumps, codes, strict=True):
            sums += stump.table()[row]
        threshold = np.float32(stage.threshold - PASS_MARGIN)
        reached &= sums >= threshold
        expected += sums - np.float64(threshold)
    found = np.flatnonzero(reached)
    assert len(windows) > 4096 or step > 1, "more than one block"
    assert 3 < len(found) < len(windows) / 10
    np.testing.assert_array_equal(corners, step * np.stack([found % n_columns, found // n_columns], 1))
    np.testing.assert_array_equal(margins, (expected[found] / len(cascade.stages)).astype(np.float32))
    np.testing.assert_array_equal(cascade.judge(windows) == len(cascade.stages), reached)
    assert n_rows == (131 - 24) // step + 1


def test_a_picture_smaller_than_the_window_has_no_hits(cascade: Cascade) -> None:
    for shape in ((23, 60), (60, 23), (7, 5)):
        corners, margins = scan_pixels(cascade, np.zeros(shape, np.uint8), 2)
        assert corners.shape == (0, 2)
        assert margins.shape == (0,)


def test_training_is_repeatable() -> None:
    rng = np.random.default_rng(5)
    images = [picture(rng) for _ in range(3)]
    quick = CascadeRecipe(n_stages=2, n_positives=200, n_negatives=300, copies=6, feature_share=0.05, max_stumps=4)
    once, again = (train_cascade(images, quick, SCAN, seed=3)[0] for _ in range(2))
    for a, b in zip(once.stages, again.stages, strict=True):
        assert a.threshold == b.threshold
        assert [s.feature for s in a.stumps] == [s.feature for s in b.stumps]


def test_too_few_loops_are_refused() -> None:
    image = picture(np.random.default_rng(0), n_rings=2)
    with pytest.raises(LabelError, match="label more loops"):
        train_cascade([image], QUICK, SCAN, seed=0)


def test_negatives_keep_clear_of_the_loops(cascade: Cascade) -> None:
    image = picture(np.random.default_rng(7))
    blank = LabelledImage(image.pixels, np.zeros((0, 4)))
    rng = np.random.default_rng(0)
    with_labels, _ = mine_negatives(cascade, [image], QUICK, SCAN, rng)
    without, _ = mine_negatives(cascade, [blank], QUICK, SCAN, rng)
    assert len(with_labels) < len(without)


def test_a_small_bright_square_lies_where_the_window_says() -> None:
    image = np.zeros((120, 170), np.uint8)
    image[40:64, 90:114] = 255
    for level in pyramid(image, 24, ScanRecipe(blur_sigma_px=0.5)):
        y, x = np.nonzero(level.pixels > 127)
        if level.scale > 2 or not len(x):
            continue
        corners = np.array([[x.min(), y.min()]])
        box = window_boxes(corners, x.max() - x.min() + 1, level, ScanRecipe(), image.shape)[0]
        np.testing.assert_allclose(box, [89.5, 39.5, 113.5, 63.5], atol=level.scale)


def test_an_image_smaller_than_the_window_has_no_levels(cascade: Cascade) -> None:
    boxes, margins = raw_hits(np.zeros((9, 12), np.uint8), cascade, SCAN)
    assert boxes.shape == (0, 4)
    assert margins.shape == (0,)


def test_a_constant_image_has_few_candidates(cascade: Cascade) -> None:
    boxes, _ = find_candidates(np.full((100, 140), 90, np.uint8), cascade, SCAN, 50)
    assert len(boxes) <= 50


def test_windows_have_the_context_about_the_long_side() -> None:
    window = squares(np.array([[10.0, 20, 50, 40]]), SCAN)[0]
    assert window.tolist() == [30 - 26, 30 - 26, 30 + 26, 30 + 26]
    tiny = squares(np.array([[10.0, 20, 12, 22]]), SCAN)[0]
    assert tiny[2] - tiny[0] == SCAN.min_side_px
