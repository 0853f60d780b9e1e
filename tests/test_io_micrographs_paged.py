"""TIFF pages that stay in the file: any part of them is what the whole holds there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs import paged, read_micrographs
from defectpipe.micrograph import Micrograph

HEIGHT, WIDTH = 205, 331
REGIONS = [(0, HEIGHT, 0, WIDTH), (17, 18, 300, 331), (0, 1, 0, 1), (100, 205, 63, 65), (64, 128, 64, 192)]
LAYOUTS = {
    "tiles": {"tile": (64, 48)},
    "deflated tiles": {"tile": (32, 64), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "plain strips": {"rowsperstrip": 11},
    "one piece": {},
    "one deflated strip": {"rowsperstrip": HEIGHT, "compression": "zlib"},
    "BigTIFF": {"bigtiff": True, "tile": (80, 80)},
}


def values_of(dtype: str) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 250, (HEIGHT, WIDTH)).astype(dtype)


def from_file(path: Path, **options: object) -> list[Micrograph]:
    return read_micrographs(path, in_file_above_px=1000, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "byteorder"), [("uint8", "<"), ("uint16", ">"), ("float32", "<"), ("int16", ">")])
def test_every_part_is_what_the_whole_holds_there(tmp_path: Path, layout: str, dtype: str, byteorder: str) -> None:
    path, values = tmp_path / "a.tif", values_of(dtype)
    tifffile.imwrite(path, values, byteorder=byteorder, photometric="minisblack", **LAYOUTS[layout])
    (frame,), (whole,) = from_file(path), read_micrographs(path)
    assert isinstance(frame.pixels, paged.PagedImage)
    assert isinstance(whole.pixels, np.ndarray)
    assert frame.shape == (HEIGHT, WIDTH)
    for y0, y1, x0, x1 in REGIONS:
        part = frame.pixels.region(y0, y1, x0, x1)
        np.testing.assert_array_equal(part, values[y0:y1, x0:x1])
        assert (part.dtype, part.dtype.isnative) == (np.dtype(dtype), True)
    np.testing.assert_array_equal(frame.grey8(), whole.grey8())
    assert frame.notes == whole.notes


def test_few_decoded_tiles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "_CACHE_BYTES", 3 * 64 * 48)
    path, values = tmp_path / "a.tif", values_of("uint8")
    tifffile.imwrite(path, values, tile=(64, 48), photometric="minisblack")
    (frame,) = from_file(path)
    assert isinstance(frame.pixels, paged.PagedImage)
    np.testing.assert_array_equal(frame.pixels.region(0, HEIGHT, 0, WIDTH), values)
    assert len(frame.pixels._cache) == 3


def test_white_is_zero_pages_and_nan_are_as_in_the_whole(tmp_path: Path) -> None:
    stack = np.stack([values_of("uint16"), values_of("uint16")[::-1]])
    tifffile.imwrite(tmp_path / "stack.tif", stack, tile=(64, 64), photometric="miniswhite")
    frames, wholes = from_file(tmp_path / "stack.tif"), read_micrographs(tmp_path / "stack.tif")
    assert [frame.frame for frame in frames] == [0, 1]
    for frame, whole in zip(frames, wholes, strict=True):
        np.testing.assert_array_equal(frame.pixels.region(3, 90, 5, 200), whole.pixels[3:90, 5:200])
        assert frame.notes == whole.notes == ("inverted: white is zero in the file",)
    values = values_of("float32")
    values[4, 5:9] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values, tile=(64, 64), photometric="minisblack")
    (frame,), (whole,) = from_file(tmp_path / "nan.tif"), read_micrographs(tmp_path / "nan.tif")
    assert frame.notes == whole.notes == ("4 pixels without data (NaN or infinite) are masked",)
    np.testing.assert_array_equal(frame.grey8(), whole.grey8())
    tifffile.imwrite(tmp_path / "none.tif", np.full_like(values, np.nan), tile=(64, 64), photometric="minisblack")
    with pytest.raises(MicrographError, match=r"^none\.tif: no pixel holds a finite value"):
        from_file(tmp_path / "none.tif")


def test_what_cannot_be_read_in_parts_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = values_of("uint8")
    tifffile.imwrite(tmp_path / "rgb.tif", np.dstack([values] * 3), photometric="rgb", tile=(64, 64))
    monkeypatch.setattr(paged, "_MAX_SEGMENT_PX", HEIGHT * WIDTH - 1)
    tifffile.imwrite(tmp_path / "strip.tif", values, compression="zlib", rowsperstrip=HEIGHT)
    for name in ("rgb.tif", "strip.tif"):
        (frame,) = from_file(tmp_path / name)
        np.testing.assert_array_equal(frame.pixels, values)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values_of("uint8"))
    (frame,) = from_file(path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(MicrographError, match="cut short while it was read"):
        frame.pixels.region(0, HEIGHT, 0, WIDTH)
