"""TIFFs as ImageJ and Fiji understand them: with the size of a pixel, whole or strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import imagecodecs
import numpy as np
import tifffile

from defectpipe.io.files import write_atomic
from defectpipe.micrograph import Micrograph

# Uncompressed bytes of a strip: what is held of a large image at once.
_STRIP_BYTES = 2**22
_COMPRESSION_LEVEL = 6


class Page(Protocol):
    """A page that is made part by part."""

    shape: tuple[int, int]

    def rows(self, first: int, end: int) -> np.ndarray | None:
        """Rows `first` to `end` (excluded), or None where all of them are 0."""
        ...


def write_tiff(micrograph: Micrograph, path: Path) -> None:
    """Write a micrograph as an ImageJ TIFF with its pixel size in nm, and its magnification (Image > Show Info)."""
    per_px = 1 / (micrograph.pixel_size_nm or 1)
    metadata: dict[str, Any] = {"unit": "nm", "axes": "YX"}
    if micrograph.magnification is not None:
        metadata["Info"] = f"Modality: {micrograph.modality or ''}\nMagnification: {micrograph.magnification:.12g}\n"
    write_atomic(
        path,
        lambda temporary: tifffile.imwrite(
            temporary, micrograph.pixels, imagej=True, resolution=(per_px, per_px), metadata=metadata
        ),
    )


def write_pages(pages: Sequence[Page], dtype: np.dtype, pixel_size_nm: float | None, path: Path) -> None:
    """Write pages strip by strip, deflated, with ImageJ's description and pixel size.

    Of a page of any size no more than some 4 MB are held. Pages of one size are a stack to ImageJ.

    Parameters
    ----------
    pages : sequence of Page
        At least one.
    dtype : dtype
        ``uint8``, ``uint16``, ``uint32`` or ``float32``.
    pixel_size_nm : float or None
        Unknown: in px.
    path : Path

    Raises
    ------
    OSError
        The file cannot be written.
    """
    per_px = 1 / (pixel_size_nm or 1)
    is_stack = len(pages) > 1 and len({page.shape for page in pages}) == 1
    # The program that imitates ImageJ's own files names one of its versions: that is how they are known.
    lines = ["ImageJ=1.11a", *([f"images={len(pages)}", f"slices={len(pages)}"] if is_stack else [])]
    description = "\n".join([*lines, f"unit={'nm' if pixel_size_nm else 'pixel'}", "loop=false", ""])

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary) as writer:
            for i, page in enumerate(pages):
                height, width = page.shape
                per_strip = min(height, max(1, _STRIP_BYTES // (width * dtype.itemsize)))
                writer.write(
                    _strips(page, dtype, per_strip),
                    shape=page.shape,
                    dtype=dtype,
                    photometric="minisblack",
                    compression="zlib",
                    rowsperstrip=per_strip,
                    resolution=(per_px, per_px),
                    resolutionunit="NONE",
                    description=description if i == 0 else None,
                    metadata=None,
                    software=False,
                )

    write_atomic(path, write)


def _strips(page: Page, dtype: np.dtype, per_strip: int) -> Iterator[bytes]:
    height, width = page.shape
    empty: dict[int, bytes] = {}
    for first in range(0, height, per_strip):
        end = min(height, first + per_strip)
        rows = page.rows(first, end)
        if rows is not None:
            yield _packed(np.ascontiguousarray(rows, dtype).tobytes())
            continue
        # Most of a sparse picture: made once.
        if end - first not in empty:
            nothing = bytes((end - first) * width * dtype.itemsize)
            empty[end - first] = _packed(nothing)
        yield empty[end - first]


def _packed(content: bytes) -> bytes:
    return bytes(imagecodecs.deflate_encode(content, level=_COMPRESSION_LEVEL))
