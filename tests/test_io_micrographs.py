"""Micrographs from PNG, JPEG, BMP, TIFF and MRC: pixels, frames, notes, and the one error for everything else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from reading_helpers import read_one, refused

from defectpipe.io.folder import ImageFile, list_images
from defectpipe.io.micrographs import count_frames, read_micrographs, sha256_of

HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


# --- pixels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_is_read_at_full_depth(tmp_path: Path, dtype: str, byteorder: str) -> None:
    full = np.random.default_rng(2).integers(-30000, 60000, (HEIGHT, WIDTH)).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, full, byteorder=byteorder, photometric="minisblack")
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, full)
    assert frame.pixels.dtype == np.dtype(dtype)
    assert frame.pixels.dtype.isnative


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_lossless_8_bit_pictures_are_exact(tmp_path: Path, grey: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), grey)
    np.testing.assert_array_equal(read_one(path).pixels, grey)


def test_16_bit_png_keeps_its_depth(tmp_path: Path) -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), deep)
    np.testing.assert_array_equal(read_one(path).pixels, deep)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_is_what_another_decoder_makes_of_it(tmp_path: Path, grey: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), cv2.GaussianBlur(grey, (0, 0), 2))
    np.testing.assert_array_equal(read_one(path).pixels, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def test_one_bit_becomes_black_and_white(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey > 127, photometric="minisblack")
    np.testing.assert_array_equal(read_one(path).pixels, np.where(grey > 127, 255, 0))


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_white_is_zero_is_turned_round_and_noted(tmp_path: Path, grey: np.ndarray, dtype: str, top: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey.astype(dtype), photometric="miniswhite")
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, top - grey.astype(int))
    assert frame.notes == ("inverted: white is zero in the file",)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.bmp"])
def test_equal_colour_channels_become_grey(tmp_path: Path, grey: np.ndarray, name: str) -> None:
    smooth = cv2.GaussianBlur(grey, (0, 0), 2)
    path = tmp_path / name
    colour = np.dstack([smooth] * 3)
    if name == "a.tif":
        tifffile.imwrite(path, colour, photometric="rgb")
    else:
        cv2.imwrite(str(path), colour)
    frame = read_one(path)
    # JPEG loses a little; the rest is exact.
    assert np.abs(frame.pixels.astype(int) - smooth).max() <= (6 if name == "a.jpg" else 0)
    assert frame.notes == ("colour channels are equal: read as grey",)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_alpha_is_dropped_and_noted(tmp_path: Path, grey: np.ndarray, channels: int, kind: str) -> None:
    samples = np.dstack([grey] * (channels - 1) + [255 - grey])
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(samples))
    else:
        photometric = "rgb" if channels == 4 else "minisblack"
        tifffile.imwrite(path, samples, photometric=photometric, planarconfig="contig", extrasamples=["unassalpha"])
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, grey)
    assert "alpha channel dropped" in frame.notes


def coloured(tmp_path: Path, grey: np.ndarray, kind: str) -> Path:
    red_green_blue = np.dstack([grey, np.roll(grey, 5), np.zeros_like(grey)])
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, red_green_blue, photometric="rgb")
    elif kind == "planar.tif":
        planes = np.moveaxis(red_green_blue, 2, 0)
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    else:
        cv2.imwrite(str(path), red_green_blue[..., ::-1])
    return path


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "planar.tif"])
def test_colour_is_refused_unless_chosen(tmp_path: Path, grey: np.ndarray, kind: str) -> None:
    path = coloured(tmp_path, grey, kind)
    refused(path, "colour picture")
    frame = read_one(path, colour="luminance")
    expected = np.rint(0.299 * grey.astype(float) + 0.587 * np.roll(grey, 5))
    np.testing.assert_array_equal(frame.pixels, expected)
    assert "colour converted to luminance (BT.601)" in frame.notes


def test_a_typing_error_in_colour_is_the_callers(tmp_path: Path, grey: np.ndarray) -> None:
    path = coloured(tmp_path, grey, "png")
    with pytest.raises(ValueError, match="'refuse' or 'luminance', not 'lumi'"):
        read_micrographs(path, colour="lumi")


def test_a_grey_jpeg_stored_in_colour_with_chroma_rounding_is_grey(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.dstack([np.clip(grey, 2, None) - 2, grey, np.clip(grey, 1, None) - 1]))
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, grey)
    assert frame.notes == ("colour channels differ by at most 2 of 255: green read as grey",)


def test_a_grey_palette_is_applied_also_when_it_is_no_ramp(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    inverted = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(path, grey, photometric="palette", colormap=inverted)
    np.testing.assert_array_equal(read_one(path).pixels, 255 - grey)


def test_a_coloured_palette_is_a_colour_picture(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    ramp = np.arange(256, dtype=np.uint16) * 257
    tifffile.imwrite(path, grey, photometric="palette", colormap=np.stack([ramp, ramp[::-1], ramp]))
    refused(path, "colour picture")


def test_channels_without_a_meaning_are_not_guessed(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    two_detectors = np.dstack([grey, np.roll(grey, 3)])
    tifffile.imwrite(path, two_detectors, photometric="minisblack", planarconfig="contig", extrasamples=[0])
    refused(path, "2 channels of which the file does not say")


# --- pixels without data, constant ----------------------------------------------------------------------------------


def test_pixels_without_data_are_kept_and_counted(tmp_path: Path, grey: np.ndarray) -> None:
    values = grey.astype(np.float32)
    values[0, :3] = np.nan
    values[1, 0] = np.inf
    values[2, 0] = -np.inf
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values)
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, values)
    assert frame.notes == ("5 pixels without data (NaN or infinite) are masked",)


def test_nothing_but_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((HEIGHT, WIDTH), np.nan, np.float32))
    refused(path, "no pixel holds a finite value")


def test_a_constant_image_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 7, np.uint8))
    frame = read_one(path)
    assert frame.notes == ("constant image: every pixel is 7",)
    assert not frame.grey8().std()


def test_complex_pixels_are_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey.astype(np.complex64))
    refused(path, "complex numbers")


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"imagej": True},
        {"ome": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_frames", [3, 5])
def test_pages_are_frames_and_never_colour(tmp_path: Path, options: dict[str, object], n_frames: int) -> None:
    stack = np.random.default_rng(4).integers(0, 65536, (n_frames, HEIGHT, WIDTH), dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    frames = read_micrographs(path)
    assert count_frames(path) == n_frames
    assert [frame.frame for frame in frames] == list(range(n_frames))
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), stack)
    assert len({frame.sha256 for frame in frames}) == 1


def test_axes_before_the_image_are_all_frames(tmp_path: Path) -> None:
    stack = np.random.default_rng(5).integers(0, 256, (2, 3, HEIGHT, WIDTH), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TZYX"})
    frames = read_micrographs(path)
    np.testing.assert_array_equal(np.stack([f.pixels for f in frames]), stack.reshape(6, HEIGHT, WIDTH))


def test_pages_of_different_sizes_are_frames_but_a_thumbnail_is_not(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(grey, metadata=None)
        tif.write(grey[::2, ::2], metadata=None, subfiletype=1)
        tif.write(grey[:30], metadata=None)
    assert [frame.shape for frame in read_micrographs(path)] == [(HEIGHT, WIDTH), (30, WIDTH)]
    assert count_frames(path) == 2


# --- names, hashes --------------------------------------------------------------------------------------------------


def test_image_name_and_hash(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "sub" / "é a.png"
    path.parent.mkdir()
    path.write_bytes(imagecodecs.png_encode(grey))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    (file,) = list_images(tmp_path)
    (frame,) = read_micrographs(file)
    assert (frame.image, frame.sha256, sha256_of(path)) == ("sub/é a.png", expected, expected)
    assert read_one(path).image == "é a.png"
    assert read_one(path, image="b/c.png").image == "b/c.png"


def test_content_decides_over_the_name(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(imagecodecs.png_encode(grey))
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, grey)
    assert frame.notes == ("its content is PNG, whatever its name says",)


def test_an_image_file_of_a_listing_reads_as_its_path(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(grey))
    file = ImageFile("x/y.png", path, path.stat().st_size, path.stat().st_mtime_ns)
    np.testing.assert_array_equal(read_micrographs(file)[0].pixels, grey)
    assert count_frames(file) == 1
