"""Micrographs from PNG, JPEG, BMP, TIFF and MRC: pixels, frames, notes, and the one error for everything else."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from defectpipe.errors import MicrographError
from defectpipe.io.folder import MICROSCOPE_SUFFIXES, ImageFile, list_images
from defectpipe.io.micrographs import count_frames, read_micrographs, sha256_of
from defectpipe.io.micrographs.rosetta import _READER_OF_SUFFIX
from defectpipe.micrograph import Micrograph

HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def read_one(path: Path, **options: object) -> Micrograph:
    frames = read_micrographs(path, **options)  # type: ignore[arg-type]
    assert len(frames) == count_frames(path) == 1
    return frames[0]


def refused(path: Path, reason: str, **options: object) -> None:
    """The file is refused by the one exception type, in a sentence that starts with its name."""
    with pytest.raises(MicrographError, match=rf"^{re.escape(path.name)}: .*{reason}") as caught:
        read_micrographs(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


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


# --- files that are no micrographs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tif", b"", r"empty \(0 bytes\)"),
        ("a.dm3", b"", r"empty \(0 bytes\)"),
        ("a.tif", b"<!DOCTYPE html>\n<html>Not found</html>", "its name says TIF, but it holds text"),
        ("a.png", "Ein Text mit Umlauten: äöü\r\n".encode(), "its name says PNG, but it holds text"),
        ("a.dm4", b"hello\n", "its name says DM4, but it holds text"),
        ("a.jpg", bytes(range(256)), "its name says JPG, but it holds something else"),
        ("a.tif", b"II*\0", "cannot be read|damaged"),
        ("a.tif", b"II*\0\x08\0\0\0", "cannot be read|damaged|no page"),
        ("a.dm3", bytes(4) + b"\xff" * 600, "cannot be read|no image"),
        ("a.ser", b"\x49\x49" + bytes(600), "cannot be read|no image"),
        ("a.emd", b"\x89HDF\r\n\x1a\n" + bytes(600), "cannot be read|no image"),
        ("a.mrc", bytes(100), "cut short"),
        ("a.msa", b"#FORMAT : EMSA/MAS Spectral Data File", "spectrum, no image"),
        ("a.spc", bytes(600), "spectrum, no image"),
        ("a.gif", b"GIF89a" + bytes(600), "not read; save it as TIFF or PNG"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, reason)
    with pytest.raises(MicrographError, match=rf"^{re.escape(name)}: "):
        count_frames(path)


def write_png(path: Path, image: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(image))


def write_jpeg(path: Path, image: np.ndarray) -> None:
    path.write_bytes(imagecodecs.jpeg8_encode(image))


def write_bmp(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image)


def write_tiff(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, metadata=None)


def write_deflated_tiff(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, compression="zlib", rowsperstrip=8)


def write_imagej_stack(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, np.stack([image] * 3), imagej=True)


def write_stack(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, np.stack([image] * 3), metadata=None, photometric="minisblack")


def write_ome_stack(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, np.stack([image] * 3), ome=True)


WRITERS: list[tuple[str, Callable[[Path, np.ndarray], None]]] = [
    ("a.png", write_png),
    ("a.jpg", write_jpeg),
    ("a.bmp", write_bmp),
    ("a.tif", write_tiff),
    ("deflated.tif", write_deflated_tiff),
    ("imagej.tif", write_imagej_stack),
    ("stack.tif", write_stack),
    ("ome.tif", write_ome_stack),
]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.9])
def test_a_file_cut_short_is_refused_never_half_read(
    tmp_path: Path, grey: np.ndarray, name: str, write: Callable[[Path, np.ndarray], None], part: float
) -> None:
    path = tmp_path / name
    write(path, grey)
    assert read_micrographs(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(path, "")


def test_a_damaged_png_is_refused_by_its_checksum(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    data = bytearray(imagecodecs.png_encode(grey))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(path, "a checksum is wrong")


def test_trailing_bytes_after_the_picture_do_no_harm(tmp_path: Path, grey: np.ndarray) -> None:
    for name, write in WRITERS[:2]:
        path = tmp_path / name
        write(path, grey)
        before = read_one(path).pixels
        path.write_bytes(path.read_bytes() + b"trailer")
        np.testing.assert_array_equal(read_one(path).pixels, before)


@pytest.mark.parametrize("shape", [(1, 1), (HEIGHT, 23), (23, WIDTH)])
def test_less_than_the_detection_window_is_refused_with_its_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape).astype(np.uint8))
    refused(path, f"{shape[0]} × {shape[1]} px are too few; each side needs 24 px")
    assert read_one(path, min_side_px=1).shape == shape


def png_that_claims(height: int, width: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def tiff_that_claims(height: int, width: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 134)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, 8)]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(16)
    assert len(data) == 142 - 4
    return data + bytes(4)


@pytest.mark.parametrize(
    ("name", "data"), [("a.png", png_that_claims(200_000, 200_000)), ("a.tif", tiff_that_claims(200_000, 200_000))]
)
def test_a_header_that_claims_37_gib_is_refused_before_allocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for decoder in ((cv2, "imdecode"), (tifffile.TiffPageSeries, "asarray")):
        monkeypatch.setattr(*decoder, lambda *_, **__: pytest.fail("decoded before it was refused"))
    refused(path, "its header claims 200000 × 200000 px, more than the 1073741824 px")


def test_the_cap_is_a_parameter_and_counts_all_frames(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    write_stack(path, grey)
    assert len(read_micrographs(path, max_pixels=3 * HEIGHT * WIDTH)) == 3
    refused(path, f"3 frames of {HEIGHT} × {WIDTH} px, more than", max_pixels=3 * HEIGHT * WIDTH - 1)
    with tifffile.TiffWriter(path) as tif:
        tif.write(grey, metadata=None)
        tif.write(grey[:30], metadata=None)
    refused(path, "more than", max_pixels=HEIGHT * WIDTH)


def test_an_empty_claim_is_refused_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_that_claims(0, 0))
    refused(path, "0 × 0 px")


def test_an_animated_png_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    data = imagecodecs.png_encode(grey)
    content = b"acTL" + struct.pack(">II", 2, 0)
    path.write_bytes(data[:33] + struct.pack(">I", 8) + content + struct.pack(">I", zlib.crc32(content)) + data[33:])
    refused(path, "animated PNG")


def test_a_print_colour_jpeg_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(np.dstack([grey] * 4), colorspace="cmyk", outcolorspace="cmyk"))
    refused(path, "CMYK")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    refused(tmp_path / "folder.tif", "cannot be opened")
    refused(tmp_path / "gone.tif", r"cannot be opened \(No such file")
    with pytest.raises(MicrographError, match=r"gone\.tif: cannot be read"):
        sha256_of(tmp_path / "gone.tif")


def test_a_file_without_permission_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    write_png(path, grey)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(MicrographError, match=r"^a\.png: the file cannot be opened \(Permission denied\)"):
            read_micrographs(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("error", [MemoryError(), struct.error("odd"), KeyError("x"), RecursionError("deep\nstack")])
def test_whatever_a_decoder_raises_is_one_error(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "a.png"
    write_png(path, grey)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    refused(path, rf"cannot be read \({type(error).__name__}")


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path, grey: np.ndarray) -> None:
    write_png(tmp_path / "a.png", grey)
    (tmp_path / "b.png").write_bytes(b"")
    write_png(tmp_path / "c.png", grey)
    fates = {}
    for file in list_images(tmp_path):
        try:
            fates[file.image] = read_micrographs(file)[0].shape
        except MicrographError as error:
            fates[file.image] = str(error)
    assert fates == {"a.png": grey.shape, "b.png": "b.png: the file is empty (0 bytes).", "c.png": grey.shape}


# --- MRC, and the reader that is optional ---------------------------------------------------------------------------


def write_mrc(path: Path, stack: np.ndarray, cell: tuple[float, float, float], order: str = "<") -> None:
    n, height, width = stack.shape
    header = struct.pack(f"{order}10i3f", width, height, n, 2, 0, 0, 0, width, height, n, *cell)
    header = header.ljust(208, b"\0") + b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(header.ljust(1024, b"\0") + stack.astype(f"{order}f4").tobytes())


def test_mrc_sections_are_frames(tmp_path: Path) -> None:
    stack = np.random.default_rng(6).normal(size=(2, HEIGHT, WIDTH)).astype(np.float32)
    path = tmp_path / "a.mrc"
    write_mrc(path, stack, (WIDTH * 3.5, HEIGHT * 3.5, 2.0))
    frames = read_micrographs(path)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), stack)
    assert [frame.pixel_size_nm for frame in frames] == [pytest.approx(0.35)] * 2
    path.unlink()
    # Read into memory: nothing depends on the file any more.
    np.testing.assert_array_equal(frames[1].pixels, stack[1])


def test_a_big_endian_mrc_is_refused_not_misread(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0), ">")
    refused(path, "big-endian MRC")


def test_mrc_without_a_cell_has_no_pixel_size(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (0.0, 0.0, 0.0))
    frame = read_one(path)
    assert frame.calibration is None
    assert frame.notes == ("pixel size unknown: the header gives no cell",)


def test_mrc_that_claims_more_than_it_holds_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0))
    data = bytearray(path.read_bytes())
    data[0:12] = struct.pack("<3i", 30_000, 30_000, 40)
    path.write_bytes(data)
    refused(path, "")


def test_an_emi_without_its_ser_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a [1].emi"
    path.write_bytes(b"JI" + bytes(600))
    refused(path, r"its pixels are in a file a \[1\]_1\.ser, which is not beside it")


def test_without_rosettasciio_the_error_says_how_to_get_it(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0))
    for name in [name for name in sys.modules if name.startswith("rsciio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rsciio", None)
    refused(path, re.escape('rosettasciio: pip install "defectpipe[formats]"'))


def test_every_listed_microscope_format_has_a_reader() -> None:
    assert set(_READER_OF_SUFFIX) == MICROSCOPE_SUFFIXES


def test_an_image_file_of_a_listing_reads_as_its_path(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.png"
    write_png(path, grey)
    file = ImageFile("x/y.png", path, path.stat().st_size, path.stat().st_mtime_ns)
    np.testing.assert_array_equal(read_micrographs(file)[0].pixels, grey)
    assert count_frames(file) == 1
