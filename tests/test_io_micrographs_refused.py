"""Files that are no micrographs: each is refused by the one error, before memory is spent, and never half read."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from reading_helpers import read_one, refused

from defectpipe.errors import MicrographError
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import count_frames, read_micrographs, sha256_of

HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


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
        ("a.dm3", bytes(4) + b"\xff" * 600, "no DM3 or DM4 file"),
        ("a.ser", b"\x49\x49" + bytes(600), "cut short or damaged"),
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
