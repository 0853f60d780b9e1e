"""Overlays: what is drawn, where, and in which colour."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from defectpipe import boxes as bx
from defectpipe.io.tables import labels_table, loops_table
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.report.overlays import (
    CANDIDATE_COLOUR,
    LABEL_COLOURS,
    LOOP_COLOUR,
    bar_length,
    draw_overlay,
    write_overlay,
)


def make(x: float, y: float, major: float, minor: float, angle_deg: float, on_edge: bool = False) -> pd.DataFrame:
    box = bx.ellipse_bounds(x, y, major, minor, np.nan_to_num(angle_deg))[0]
    row = {"x_px": x, "y_px": y, "diameter_px": major, "minor_px": minor, "angle_deg": angle_deg}
    row |= dict(zip(["x0_px", "y0_px", "x1_px", "y1_px"], box, strict=True))
    return pd.DataFrame([row | {"image": "a.tif", "frame": 0, "on_edge": on_edge, "screening_score": np.nan}])


def blank(shape: tuple[int, int], pixel_size_nm: float | None = None) -> Micrograph:
    pixels = np.full(shape, 128, np.uint8)
    calibration = None if pixel_size_nm is None else Calibration(pixel_size_nm, "argument")
    return Micrograph(pixels, "a.tif", calibration=calibration)


def drawn(picture: np.ndarray, colour: tuple[int, int, int], height: int, tolerance: int = 40) -> np.ndarray:
    """Where the image part of a picture has nearly `colour`: row and column."""
    part = picture[:height].astype(int)
    return np.argwhere(np.abs(part - colour).max(-1) <= tolerance)


@pytest.mark.parametrize(
    ("shape", "height", "width"),
    [((900, 1200), 900, 1200), ((300, 384), 600, 768), ((1024, 4096), 512, 2048), ((1, 3), 256, 768)],
)
def test_size_is_readable_whatever_the_image(shape, height, width):
    picture = draw_overlay(blank(shape), loops_table())
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (width, 3)
    assert height < picture.shape[0] < height + 80
    # Nothing found: the image part stays grey.
    assert (picture[:height] == 128).all()


class Virtual:
    """A grey image of 21,000 × 9,001 px with one black square, which counts the pixels that it is asked for at once."""

    shape = (9001, 21000)
    dtype = np.dtype(np.uint8)
    most = 0

    def region(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        self.most = max(self.most, (y1 - y0) * (x1 - x0))
        part = np.full((y1 - y0, x1 - x0), 128, np.uint8)
        part[max(0, 4000 - y0) : max(0, 5000 - y0), max(0, 15000 - x0) : max(0, 16500 - x0)] = 0
        return part


def test_a_very_large_image_is_reduced_as_it_is_read():
    pixels = Virtual()
    picture = draw_overlay(Micrograph(pixels, "a.tif"), loops_table())
    scale = 2048 / 21000
    height = round(9001 * scale)
    assert picture.shape[1] == 2048
    black = np.argwhere(picture[:height].max(-1) < 40)
    np.testing.assert_allclose(black.min(0), [4000 * scale, 15000 * scale], atol=1.5)
    np.testing.assert_allclose(black.max(0), [5000 * scale - 1, 16500 * scale - 1], atol=1.5)
    assert 2**20 < pixels.most < 2**23


@pytest.mark.parametrize("angle_deg", [0, 30, 90, 150])
@pytest.mark.parametrize(("shape", "scale"), [((900, 1200), 1.0), ((450, 600), 1.28), ((3072, 4096), 0.5)])
def test_ellipse_is_where_it_was_measured(shape, scale, angle_deg):
    x, y, major, minor = 0.45 * shape[1], 0.55 * shape[0], 0.3 * shape[0], 0.12 * shape[0]
    picture = draw_overlay(blank(shape), loops_table(make(x, y, major, minor, angle_deg)))
    at = (drawn(picture, LOOP_COLOUR, round(shape[0] * scale), 20)[:, ::-1] + 0.5) / scale - 0.5
    assert len(at) > 100
    assert at.mean(0) == pytest.approx([x, y], abs=1.5 / scale)
    # Points of the ellipse's own axes: the angle counts counter-clockwise as seen, rows run down.
    a = np.deg2rad(angle_deg)
    for length, direction in ((major, a), (minor, a + np.pi / 2)):
        tip = np.array([x + 0.5 * length * np.cos(direction), y - 0.5 * length * np.sin(direction)])
        assert np.hypot(*(at - tip).T).min() < 2 / scale


def test_colours_tell_loops_labels_experts_and_candidates_apart():
    loops = loops_table(make(200, 200, 80, 60, 0))
    first, second = (labels_table(make(x, 400, 80, 60, 20)) for x in (400, 700))
    candidates = make(900, 600, 50, 50, 0)[["x0_px", "y0_px", "x1_px", "y1_px"]]
    picture = draw_overlay(blank((900, 1200)), loops, {"ann": first, "bob": second}, candidates)
    for colour, x, y in (
        (LOOP_COLOUR, 200, 200),
        (LABEL_COLOURS[0], 400, 400),
        (LABEL_COLOURS[1], 700, 400),
        (tuple(c * 7 // 10 for c in CANDIDATE_COLOUR), 900, 600),
    ):
        at = drawn(picture, colour, 900, 12)
        assert len(at) > 40
        assert at.mean(0) == pytest.approx([y, x], abs=2)


def test_experts_who_agree_exactly_are_both_seen():
    labels = labels_table(make(600, 450, 300, 200, 30))
    picture = draw_overlay(blank((900, 1200)), loops_table(), {"ann": labels, "bob": labels})
    for colour in LABEL_COLOURS[:2]:
        assert len(drawn(picture, colour, 900, 20)) > 300


@pytest.mark.parametrize(("convention", "side"), [("tight", 100), ("padded", 115)])
def test_labels_without_an_angle_are_boxes_in_the_convention_of_the_loops(convention, side):
    labels = labels_table(make(600, 450, 100, 100, np.nan))
    picture = draw_overlay(blank((900, 1200)), loops_table(), labels, box_convention=convention)
    at = drawn(picture, LABEL_COLOURS[0], 900)
    assert np.ptp(at, axis=0) == pytest.approx([side, side], abs=2)


def test_loops_on_the_edge_are_dashed():
    whole = draw_overlay(blank((900, 1200)), loops_table(make(600, 450, 300, 300, 0)))
    cut = draw_overlay(blank((900, 1200)), loops_table(make(600, 450, 300, 300, 0, on_edge=True)))

    def share(picture: np.ndarray) -> float:
        t = np.linspace(0, 2 * np.pi, 720)
        rim = picture[np.rint(450 + 150 * np.sin(t)).astype(int), np.rint(600 + 150 * np.cos(t)).astype(int)]
        return float((rim != 128).any(-1).mean())

    assert share(whole) > 0.95
    assert 0.3 < share(cut) < 0.8


def test_scores_are_written_beside_the_loops():
    loops = loops_table(make(600, 450, 100, 100, 0))
    without = draw_overlay(blank((900, 1200)), loops)
    scored = draw_overlay(blank((900, 1200)), loops.assign(screening_score=0.87))
    rows, columns = np.nonzero((without != scored).any(-1))
    assert len(rows) > 50
    assert rows.max() < 450 - 45
    assert columns.min() > 540


@pytest.mark.parametrize(
    ("width", "expected"), [(1000, 200), (512, 100), (4.1, 1), (4.0, 1), (3.9, 0.5), (80000, 20000), (0.4, 0.1)]
)
def test_bar_is_a_round_length_of_at_most_a_quarter(width, expected):
    assert bar_length(width) == pytest.approx(expected)


def bar_of(picture: np.ndarray, height: int) -> int:
    """Length of the longest unbroken white line in the strip below the image part."""
    longest = 0
    for row in (picture[height:] == 255).all(-1):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        longest = max(longest, int(np.diff(ends)[::2].max(initial=0)))
    return longest


@pytest.mark.parametrize(("pixel_size_nm", "bar_px"), [(0.5, 200), (None, 200), (0.33, 152)])
def test_bar_in_the_picture_has_its_length(pixel_size_nm, bar_px):
    # 1200 px: 600 nm, of which 100 nm are 200 px; 1200 px, 200; 396 nm, 50 nm are 152 px.
    picture = draw_overlay(blank((900, 1200), pixel_size_nm), loops_table())
    assert bar_of(picture, 900) == bar_px


def test_bar_keeps_its_length_in_reduced_and_enlarged_pictures():
    for shape in ((1024, 4096), (200, 300)):
        picture = draw_overlay(blank(shape, 0.7), loops_table())
        scale = picture.shape[1] / shape[1]
        nm = bar_of(picture, round(shape[0] * scale)) / scale * 0.7
        assert nm == pytest.approx(bar_length(shape[1] * 0.7), abs=1.5 / scale)


def test_long_legends_go_on_in_another_line():
    labels = {f"a very long name of an expert, number {k}": labels_table() for k in range(4)}
    picture = draw_overlay(blank((900, 600)), loops_table(), labels)
    plain = draw_overlay(blank((900, 600)), loops_table(), labels_table())
    assert picture.shape[0] > plain.shape[0] + 40
    assert picture.shape[1] == plain.shape[1]


def test_narrow_images_are_widened_for_the_legend_and_stay_in_place():
    loops = loops_table(make(45, 150, 40, 30, 0))
    picture = draw_overlay(blank((300, 90)), loops)
    assert picture.shape[1] == 480
    assert drawn(picture, LOOP_COLOUR, 768).mean(0) == pytest.approx([150 * 2.56, 45 * 2.56], abs=4)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_any_depth_and_pixels_without_data_are_drawn(dtype):
    pixels = np.random.default_rng(0).normal(3000, 400, (300, 420)).astype(dtype)
    if dtype is np.float32:
        pixels[:50] = np.nan
    picture = draw_overlay(Micrograph(pixels, "a.tif"), loops_table(make(200, 150, 40, 30, 10)))
    assert picture[:500].std() > 30


def test_loops_out_of_the_picture_do_no_harm():
    loops = loops_table(pd.concat([make(-1e7, 5, 1e6, 10, 0), make(5000, 5000, 30, 20, np.nan)]))
    assert draw_overlay(blank((300, 420)), loops).shape[1] == 768


def test_written_picture_is_a_jpeg_of_what_was_drawn(tmp_path):
    m, loops = blank((900, 1200), 0.5), loops_table(make(600, 450, 200, 150, 30))
    path = tmp_path / "sub" / "a b.tif.jpg"
    write_overlay(path, m, loops)
    assert path.read_bytes()[:3] == b"\xff\xd8\xff"
    read = cv2.imread(str(path))[..., ::-1].astype(int)
    assert np.abs(read - draw_overlay(m, loops)).mean() < 2
    before = path.read_bytes()
    write_overlay(path, m, loops)
    assert path.read_bytes() == before
