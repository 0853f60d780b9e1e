"""LBP cascades: codes against their definition, splits against OpenCV's, the round trip through OpenCV's XML."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from defectpipe.detection.boosting import split_codes, train_stage
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.lbp import code_matrix, feature_grid
from defectpipe.detection.opencv_xml import cascade_to_xml, read_cascade
from defectpipe.errors import ModelError

SIDE = 18


def rings(n: int, rng: np.random.Generator) -> np.ndarray:
    """Windows (n, SIDE, SIDE) with a dark ring on noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    windows = rng.normal(150, 12, (n, SIDE, SIDE))
    for window in windows:
        radius, dx, dy = rng.uniform(5, 7), *rng.uniform(-1, 1, 2)
        window -= 60 * np.exp(-0.5 * ((np.hypot(x - dx, y - dy) - radius) / 1.2) ** 2)
    return np.clip(windows, 0, 255).astype(np.uint8)


def textures(n: int, rng: np.random.Generator) -> np.ndarray:
    """Windows (n, SIDE, SIDE) of smooth noise."""
    noise = rng.normal(150, 60, (n, SIDE, SIDE))
    return np.clip([cv2.GaussianBlur(window, (0, 0), 1.5) for window in noise], 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def trained() -> tuple[Cascade, np.ndarray]:
    """A cascade of three stages, and windows of all kinds."""
    rng = np.random.default_rng(0)
    cascade = Cascade(SIDE, feature_grid(SIDE))
    positives = rings(300, rng)
    for number in range(3):
        negatives = textures(4000, rng)
        if number:
            negatives = negatives[cascade.judge(negatives) == number]
        windows = np.concatenate([positives, negatives[:300]])
        codes = code_matrix(windows, cascade.features)
        stage, _ = train_stage(
            codes, np.arange(len(windows)) < 300, hit_rate=0.99, false_alarm_rate=0.3, max_stumps=6, rng=rng
        )
        cascade = Cascade(SIDE, cascade.features, (*cascade.stages, stage))
    probes = [rings(300, rng), textures(1500, rng), rng.integers(0, 256, (300, SIDE, SIDE), dtype=np.uint8)]
    return cascade, np.concatenate([*probes, np.zeros((1, SIDE, SIDE), np.uint8)])


def test_features_are_all_that_fit() -> None:
    grid = feature_grid(SIDE)
    assert len(grid) == sum(SIDE - 3 * w + 1 for w in range(1, SIDE // 3 + 1)) ** 2
    assert len(np.unique(grid, axis=0)) == len(grid)
    x, y, w, h = grid.T
    assert (x + 3 * w).max() == SIDE
    assert (y + 3 * h).max() == SIDE


def test_codes_follow_the_definition() -> None:
    rng = np.random.default_rng(1)
    windows = rng.integers(0, 4, (40, SIDE, SIDE), dtype=np.uint8)  # few grey levels: many ties
    grid = feature_grid(SIDE)[::37]
    codes = code_matrix(windows, grid)
    clockwise = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    for f, (x, y, w, h) in enumerate(grid):
        for n, window in enumerate(windows):
            cell = [[int(window[y + r * h :, x + c * w :][:h, :w].sum()) for c in range(3)] for r in range(3)]
            bits = [cell[r][c] >= cell[1][1] for r, c in clockwise]
            assert codes[f, n] == sum(bit << (7 - i) for i, bit in enumerate(bits))


def test_split_is_the_best_of_all_splits_by_mean() -> None:
    rng = np.random.default_rng(2)
    row, weights = rng.integers(0, 9, 200).astype(np.uint8), rng.random(200)
    y = np.where(rng.random(200) < (row + 1) / 10, 1.0, -1.0)
    subset, inside, outside, quality = split_codes(row, y, weights)
    answers = np.where(subset[row], inside, outside)
    best = min(
        sum(
            (weights[side] * (y[side] - np.average(y[side], weights=weights[side])) ** 2).sum()
            for side in (np.isin(row, part), ~np.isin(row, part))
        )
        for bits in range(1, 2**8)
        for part in [[c for c in range(9) if bits >> c & 1]]
    )
    assert (weights * (y - answers) ** 2).sum() == pytest.approx(best)
    assert quality == pytest.approx((weights * y**2).sum() - best)


def test_split_of_a_single_code_is_none() -> None:
    assert split_codes(np.full(10, 7, np.uint8), np.ones(10), np.ones(10)) is None


def test_stage_keeps_its_hit_rate_and_stops_at_its_false_alarms(trained: tuple[Cascade, np.ndarray]) -> None:
    cascade, probes = trained
    passed = cascade.judge(probes)
    assert (passed[:300] == 3).mean() > 0.9
    assert (passed[300:1800] == 3).mean() < 0.05


def test_opencv_agrees_on_every_window(trained: tuple[Cascade, np.ndarray], tmp_path: Path) -> None:
    cascade, probes = trained
    path = tmp_path / "cascade.xml"
    path.write_text(cascade_to_xml(cascade, hit_rate=0.99, false_alarm_rate=0.3))
    opencv = cv2.CascadeClassifier(str(path))
    # detectMultiScale looks at one window only when the image is the window's size
    theirs = [
        len(opencv.detectMultiScale(w, scaleFactor=2.0, minNeighbors=0, minSize=(SIDE, SIDE), maxSize=(SIDE, SIDE))) > 0
        for w in probes
    ]
    ours = cascade.judge(probes) == len(cascade.stages)
    assert 200 < sum(ours) < 1000
    np.testing.assert_array_equal(ours, theirs)


def test_xml_gives_the_cascade_back(trained: tuple[Cascade, np.ndarray], tmp_path: Path) -> None:
    cascade, probes = trained
    path = tmp_path / "cascade.xml"
    path.write_text(cascade_to_xml(cascade, hit_rate=0.99, false_alarm_rate=0.3))
    again = read_cascade(path)
    assert len(again.features) < len(cascade.features)
    np.testing.assert_array_equal(again.judge(probes), cascade.judge(probes))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LBP", "HAAR"),
        ("<width>18</width>", "<width>12</width>"),
        ("<opencv_storage>", '<!DOCTYPE x [<!ENTITY a "b">]><opencv_storage>'),
        ("0 -1 0 ", "0 -1 999999 "),
        ("</cascade>", ""),
        ("<cascade>", "<nothing>"),
    ],
)
def test_what_is_not_such_a_cascade_is_refused(
    trained: tuple[Cascade, np.ndarray], tmp_path: Path, before: str, after: str
) -> None:
    text = cascade_to_xml(trained[0], hit_rate=0.99, false_alarm_rate=0.3)
    path = tmp_path / "hostile.xml"
    path.write_text(text.replace(before, after))
    assert before in text
    with pytest.raises(ModelError, match=r"hostile\.xml"):
        read_cascade(path)


def test_missing_cascade_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.xml"):
        read_cascade(tmp_path / "nowhere.xml")
