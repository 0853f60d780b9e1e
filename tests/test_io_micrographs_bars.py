"""Burnt-in data: strips and scale bars are found where they are, and nothing is taken for one."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from defectpipe.errors import MicrographError
from defectpipe.greyscale import ArrayPixels
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import bars, read_micrographs
from defectpipe.io.micrographs.bars import find_bars
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS

FONT = cv2.FONT_HERSHEY_SIMPLEX
# A scale of upright marks, and text, in the picture.
HITACHI = [f"{name}.tif" for name in ("C1-3_A_m06", "C2-1_m09", "C5-1_m06", "X2-2_A_m07", "X5-1_B_m02", "X8-1_B_m05")]


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """768 × 1024 px."""
    return simulate_field(PRESETS["demo"], 5).micrograph.grey8()


def strip(width: int, height: int, ground: int, ink: int) -> np.ndarray:
    """A strip as instruments write it: text, a scale with its length, a line between fields."""
    drawn = np.full((height, width), ground, np.uint8)
    size = height / 60
    cv2.putText(drawn, "200 kV", (10, int(0.7 * height)), FONT, size, ink, 1, cv2.LINE_AA)
    cv2.putText(drawn, "WD 4.2 mm", (int(0.3 * width), int(0.7 * height)), FONT, size, ink, 1, cv2.LINE_AA)
    cv2.putText(drawn, "200 nm", (int(0.8 * width), int(0.45 * height)), FONT, size, ink, 1, cv2.LINE_AA)
    cv2.line(drawn, (int(0.78 * width), int(0.8 * height)), (int(0.95 * width), int(0.8 * height)), ink, 2)
    cv2.line(drawn, (int(0.6 * width), 0), (int(0.6 * width), height), ink, 1)
    return drawn


@pytest.mark.parametrize(("ground", "ink"), [(0, 255), (255, 0), (60, 250)])
@pytest.mark.parametrize("height", [24, 60])
@pytest.mark.parametrize("at_top", [False, True])
def test_a_strip_is_found_to_the_row(field: np.ndarray, ground: int, ink: int, height: int, at_top: bool) -> None:
    picture = field.copy()
    where = slice(0, height) if at_top else slice(768 - height, 768)
    picture[where] = strip(1024, height, ground, ink)
    rows = (height, 768) if at_top else (0, 768 - height)
    assert find_bars(picture) == bars.Bars(rows, ())
    assert find_bars(picture.astype(np.uint16) * 257) == bars.Bars(rows, ())
    assert find_bars(ArrayPixels(picture.astype(np.float32))) == bars.Bars(rows, ())


def test_a_strip_with_a_frame_below_a_black_picture_is_found(field: np.ndarray) -> None:
    picture = field.copy()
    picture[500:700] = 0
    picture[700:] = strip(1024, 68, 90, 255)
    picture[700:702] = picture[-2:] = 255
    assert find_bars(picture).rows == (0, 700)


def test_a_very_large_picture_is_looked_at_with_every_nth_pixel(
    field: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "_LONGEST_PX", 400)
    picture = field.copy()
    picture[-60:] = strip(1024, 60, 0, 255)
    first, end = find_bars(picture).rows
    assert first == 0
    assert 768 - 60 - 3 <= end <= 768 - 60


@pytest.mark.parametrize("ink", [255, 0])
def test_a_scale_bar_is_found_with_its_text(field: np.ndarray, ink: int) -> None:
    picture = np.clip(field, 8, 247)
    cv2.rectangle(picture, (60, 700), (259, 707), ink, -1)
    cv2.putText(picture, "200 nm", (95, 690), FONT, 1.0, ink, 2)
    found = find_bars(picture)
    assert found.rows == (0, 768)
    [(y0, y1, x0, x1)] = found.scale_bars
    drawn = np.argwhere(picture == ink)
    assert (drawn.min(0) >= [y0, x0]).all()
    assert (drawn.max(0) < [y1, x1]).all()
    assert (y1 - y0) * (x1 - x0) < 2 * 52 * 210


@pytest.mark.parametrize("n_marks", [11, 5])
def test_a_scale_of_marks_is_found_if_there_are_enough_of_them(field: np.ndarray, n_marks: int) -> None:
    picture = np.clip(field, 8, 247)
    for k in range(n_marks):
        cv2.rectangle(picture, (600 + 30 * k, 690), (602 + 30 * k, 702), 255, -1)
    cv2.putText(picture, "500 nm", (700, 740), FONT, 1.0, 255, 2)
    cv2.putText(picture, "200 kV", (20, 740), FONT, 1.0, 255, 2)
    found = find_bars(picture).scale_bars
    assert len(found) == (n_marks == 11)
    for y0, y1, x0, x1 in found:
        drawn = np.argwhere(picture == 255)
        assert (drawn.min(0) >= [y0, x0]).all()
        assert (drawn.max(0) < [y1, x1]).all()


def test_pictures_without_a_bar_have_none(field: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    gradient = np.tile(np.linspace(0, 255, 600).astype(np.uint8)[:, None], (1, 800))
    vacuum = field.copy()
    vacuum[650:] = 0
    fading = (field * np.clip((768 - np.arange(768)) / 100, 0, 1)[:, None]).astype(np.uint8)
    saturated = np.clip(field.astype(int) * 3, 0, 255).astype(np.uint8)
    beam_stop = field.copy()
    beam_stop[730:, 300:500] = 0
    for picture in (
        *(field, gradient, vacuum, fading, saturated, beam_stop),
        rng.normal(100, 20, (700, 500)),
        np.zeros((300, 400), np.uint8),
        np.full((300, 400), np.nan, np.float32),
        rng.integers(0, 2, (400, 600), dtype=np.uint8) * 255,
        np.zeros((24, 24), np.uint8),
    ):
        assert find_bars(picture) == bars.Bars((0, picture.shape[0]), ())


def test_simulated_fields_have_no_bars() -> None:
    for preset in ("demo", "fecral", "316l"):
        for index in range(3):
            m = simulate_field(PRESETS[preset], 11, index).micrograph
            assert find_bars(m.pixels) == bars.Bars((0, m.shape[0]), ())


def test_reading_leaves_out_keeps_or_crops_as_asked(field: np.ndarray, tmp_path: Path) -> None:
    picture = field.copy()
    picture[-50:] = strip(1024, 50, 0, 255)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture)
    (left_out,) = read_micrographs(path)
    assert left_out.analysed_rows == (0, 718)
    assert left_out.analysed_area_px2 == 718 * 1024
    assert left_out.shape == (768, 1024)
    assert left_out.notes == ("data bar left out: 50 rows at the bottom",)
    (kept,) = read_micrographs(path, data_bar="keep")
    assert (kept.analysed_rows, kept.notes) == ((0, 768), ())
    (cropped,) = read_micrographs(path, crop_px=(8, 60))
    assert cropped.analysed_rows == (8, 708)
    assert cropped.notes == ("cropped as set: 8 rows at the top, 60 at the bottom",)
    with pytest.raises(MicrographError, match=r"^a\.tif: of its 768 rows, 0 at the top and 760 below are cropped"):
        read_micrographs(path, crop_px=(0, 760))


@pytest.mark.real
def test_the_bars_of_real_micrographs_are_found_and_no_others(data_dir: Path) -> None:
    found: dict[str, tuple[str, ...]] = {}
    n_frames = 0
    for file in list_images(data_dir):
        # Every tenth of the largest set, by name: all of it was looked at once.
        if file.image.startswith("fecral") and zlib.crc32(file.path.name.encode()) % 10:
            continue
        try:
            frames = read_micrographs(file, colour="luminance", pixel_size_nm=1.0)
        except MicrographError:
            continue
        n_frames += len(frames)
        for frame in frames:
            notes = tuple(note for note in frame.notes if "left out: " in note and "bar" in note)
            if notes:
                found[file.path.name] = notes
    assert n_frames > 150
    assert found == {
        **dict.fromkeys(HITACHI, ("scale bar left out: 1248 × 61 px at x 10, y 893",)),
        "jeol_example_sem.tif": ("scale bar left out: 526 × 54 px at x 56, y 892",),
        "tescan_example_sem1.tif": ("data bar left out: 120 rows at the bottom",),
        "tfs_example.tif": ("data bar left out: 68 rows at the bottom",),
        "zeiss_example_sem.tif": ("data bar left out: 60 rows at the bottom",),
    }
