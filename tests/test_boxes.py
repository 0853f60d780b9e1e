"""Boxes: overlap, suppression, padding, border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectpipe import boxes as bx

coordinates = st.floats(-500, 500)
sides = st.floats(0.5, 300)
box = st.tuples(coordinates, coordinates, sides, sides).map(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]])


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 20], [0, 0, 0, 0]])
    b = np.array([[0, 0, 10, 20], [5, 0, 15, 20], [30, 30, 40, 40], [5, 5, 5, 5]])
    expected = np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(bx.overlaps(a, b), expected, atol=1e-12)


@given(box, box, coordinates, coordinates)
def test_overlap_is_symmetric_and_moves_with_the_boxes(a: list, b: list, dx: float, dy: float) -> None:
    shift = np.array([dx, dy, dx, dy])
    there, back = bx.overlaps([a], [b])[0, 0], bx.overlaps([b], [a])[0, 0]
    assert there == pytest.approx(back)
    assert bx.overlaps([a + shift], [b + shift])[0, 0] == pytest.approx(there, abs=1e-6)


def test_suppression_keeps_the_best_of_each_cluster() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 1, 10, 11]], float)
    assert bx.suppress(boxes, [0.5, 0.9, 0.1, 0.9], 0.3).tolist() == [1, 2]
    assert bx.suppress(boxes, [0.5, 0.9, 0.1, 0.9], 0.3, limit=1).tolist() == [1]
    assert bx.suppress(np.zeros((0, 4)), np.zeros(0), 0.3).tolist() == []


def test_what_suppression_keeps_does_not_overlap_and_covers_what_it_drops() -> None:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 100, (200, 2)), rng.uniform(5, 30, (200, 2))
    boxes, scores = np.concatenate([corner, corner + side], 1), rng.random(200)
    kept = bx.suppress(boxes, scores, 0.4)
    among = bx.overlaps(boxes[kept], boxes[kept]) - np.eye(len(kept))
    assert among.max() <= 0.4
    dropped = np.setdiff1d(np.arange(200), kept)
    better = scores[kept][None] >= scores[dropped][:, None]
    assert ((bx.overlaps(boxes[dropped], boxes[kept]) > 0.4) & better).any(1).all()


@pytest.mark.parametrize(("tight", "padded"), [(4, 9), (10, 15), (20, 26), (30, 39), (50, 65), (120, 135)])
def test_padding_is_the_published_one(tight: float, padded: float) -> None:
    wide = bx.pad([[10, 20, 10 + tight, 20 + tight]])[0]
    assert wide[2] - wide[0] == padded
    assert (wide[:2] + wide[2:]).tolist() == [20 + tight, 40 + tight]


@given(st.floats(2, 400), st.floats(2, 400))
def test_padding_is_undone_within_its_rounding(width: float, height: float) -> None:
    box = np.array([[3.0, 7.0, 3 + width, 7 + height]])
    np.testing.assert_allclose(bx.unpad(bx.pad(box)), box, atol=0.3)


def test_convert_keeps_boxes_of_the_same_convention() -> None:
    box = np.array([[0.0, 0, 30, 40]])
    np.testing.assert_array_equal(bx.convert(box, "tight", "tight"), box)
    np.testing.assert_array_equal(bx.convert(box, "tight", "padded"), bx.pad(box))
    np.testing.assert_array_equal(bx.convert(box, "padded", "tight"), bx.unpad(box))


def test_border_is_that_of_an_image_that_is_not_square() -> None:
    shape = (50, 80)
    boxes = [[5, 5, 20, 20], [1, 5, 20, 20], [5, 1, 20, 20], [5, 5, 78, 20], [5, 5, 20, 48], [5, 5, 76, 46]]
    assert bx.touches_border(boxes, shape).tolist() == [False, True, True, True, True, False]


def test_ellipse_bounds_contain_the_ellipse_and_touch_it() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y, major = rng.uniform(-50, 50), rng.uniform(-50, 50), rng.uniform(5, 80)
        minor, angle = major * rng.uniform(0.1, 1), rng.uniform(0, 180)
        t = np.linspace(0, 2 * np.pi, 20001)
        u, v, a = major / 2 * np.cos(t), minor / 2 * np.sin(t), np.deg2rad(angle)
        # y points down: counter-clockwise as seen is negative in y
        px, py = x + u * np.cos(a) - v * np.sin(a), y - u * np.sin(a) - v * np.cos(a)
        expected = [px.min(), py.min(), px.max(), py.max()]
        np.testing.assert_allclose(bx.ellipse_bounds(x, y, major, minor, angle)[0], expected, atol=1e-4)
