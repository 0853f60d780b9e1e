"""PNG, JPEG and BMP: sizes and completeness from the file's structure, pixels through OpenCV and imagecodecs.

These formats carry no pixel size: their resolution fields are for printing. The decoders return a half-read picture
without an error where a file is cut short, hence the walk through its structure.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs.frames import Claim, Frame, check_claim

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CUT_SHORT = "is cut short or damaged"
# Start-of-frame markers, without those of Huffman tables (C4), extensions (C8) and arithmetic conditioning (CC).
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_raster(data: bytes, kind: str, max_pixels: int) -> list[Frame]:
    """The one frame of a PNG, JPEG or BMP.

    Parameters
    ----------
    data : bytes
        The whole file.
    kind : {"png", "jpeg", "bmp"}
    max_pixels : int
        A header that claims more is refused before anything is decoded.

    Returns
    -------
    list of Frame
        8 or 16 bit; channels in the order red, green, blue, alpha.

    Raises
    ------
    MicrographError
        Cut short, damaged, animated, or too large.
    """
    height, width = _size(data, kind, max_pixels)
    # Neither decoder applies an EXIF orientation, so that labels fit.
    samples = imagecodecs.jpeg8_decode(data) if kind == "jpeg" else _through_opencv(data)
    if samples is None or samples.shape[:2] != (height, width):
        raise MicrographError(f"the {kind.upper()} {_CUT_SHORT}: it cannot be decoded.")
    if kind == "jpeg" and samples.ndim == 3 and samples.shape[2] == 4:
        raise MicrographError("it is a JPEG in print colours (CMYK), a micrograph is grey; save it in grey.")
    return [Frame(samples)]


def raster_claim(path: Path, kind: str, max_pixels: int) -> Claim:
    """What the file's structure claims; raises what `read_raster` would, as far as that shows without the pixels."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return Claim(1, *_size(data, kind, max_pixels, checksums=False))


def _size(data: bytes | mmap.mmap, kind: str, max_pixels: int, checksums: bool = True) -> tuple[int, int]:
    if kind == "png":
        height, width = _png_size(data, checksums)
    else:
        height, width = {"jpeg": _jpeg_size, "bmp": _bmp_size}[kind](data)
    check_claim(1, height, width, max_pixels)
    return height, width


def _through_opencv(data: bytes) -> np.ndarray | None:
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.ndim == 2:
        return samples
    # OpenCV's order is blue, green, red.
    return samples[..., ::-1] if samples.shape[2] == 3 else samples[..., [2, 1, 0, 3]]


def _png_size(data: bytes | mmap.mmap, checksums: bool) -> tuple[int, int]:
    position = len(PNG_SIGNATURE)
    size: tuple[int, int] | None = None
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if (
            checksums
            and zlib.crc32(memoryview(data)[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]
        ):
            raise MicrographError(f"the PNG {_CUT_SHORT}: a checksum is wrong at byte {position}.")
        if name == b"IHDR" and length == 13:
            width, height = struct.unpack_from(">II", data, position + 8)
            size = height, width
        if name == b"acTL":
            raise MicrographError("it is an animated PNG; save its frames one by one, or as a TIFF stack.")
        if name == b"IEND":
            if size is None:
                break
            return size
        position = end
    raise MicrographError(f"the PNG {_CUT_SHORT}: it ends after {len(data)} bytes.")


def _jpeg_size(data: bytes | mmap.mmap) -> tuple[int, int]:
    position = 2
    size: tuple[int, int] | None = None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in _JPEG_FRAME_MARKERS and position + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = height, width
        if marker == 0xDA:
            # Within the scan a marker cannot arise by chance: 0xFF is followed by 0.
            if size is None or data.rfind(b"\xff\xd9", position) < 0:
                break
            return size
        position += 2 + length
    raise MicrographError(f"the JPEG {_CUT_SHORT}: its end is missing after {len(data)} bytes.")


def _bmp_size(data: bytes | mmap.mmap) -> tuple[int, int]:
    if len(data) < 54:
        raise MicrographError(f"the BMP {_CUT_SHORT}: it ends after {len(data)} bytes.")
    start, header, width, height, _, bits, compression = struct.unpack_from("<I I i i H H I", data, 10)
    if header < 40:
        raise MicrographError("it is a BMP of the oldest kind (OS/2); save it as TIFF or PNG.")
    row_bytes = (width * bits + 31) // 32 * 4
    if compression in (0, 3) and start + row_bytes * abs(height) > len(data) and abs(height) * width < 2**40:
        raise MicrographError(f"the BMP {_CUT_SHORT}: {abs(height)} × {width} px do not fit in {len(data)} bytes.")
    return abs(height), width
