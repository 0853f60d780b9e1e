"""The working resolution: images are reduced so that loops have about the size that a model learned."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

# First row, end row, first column, end column (ends excluded) of an image to its pixels, uint8.
Read = Callable[[int, int, int, int], np.ndarray]

# Images of unknown pixel size are halved from this width or height on: so large a frame oversamples.
LARGE_FRAME_PX = 2048
_MAX_BINNING = 16
# Pixels that are reduced at once.
_BLOCK_PX = 2**22


def binning(shape: tuple[int, int], pixel_size_nm: float | None, working_pixel_size_nm: float | None) -> int:
    """Whole factor by which an image is reduced before a model sees it; 1 leaves it as it is.

    Parameters
    ----------
    shape : tuple of int
        Height and width.
    pixel_size_nm : float or None
        Of the image; None if unknown.
    working_pixel_size_nm : float or None
        That the model works at; None if it was trained without pixel sizes.
    """
    if working_pixel_size_nm is None:
        return 1
    if pixel_size_nm is None:
        return 2 if max(shape) >= LARGE_FRAME_PX else 1
    factor = round(working_pixel_size_nm / pixel_size_nm)
    return int(np.clip(factor, 1, max(1, min(_MAX_BINNING, min(shape) // 64))))


def reduce(grey: np.ndarray, factor: int) -> np.ndarray:
    """Mean of blocks of `factor` × `factor` px of an 8-bit image; what does not fill a block is left out."""
    if factor == 1:
        return grey
    height, width = (n // factor for n in grey.shape)
    cropped = grey[: height * factor, : width * factor]
    return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA)


def reader_of_reduced(read: Read, factor: int) -> Read:
    """Reader of parts of what `reduce` makes of an image, from a reader of parts of the image."""
    if factor == 1:
        return read

    def read_reduced(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        result = np.empty((y1 - y0, x1 - x0), np.uint8)
        n_rows = max(1, _BLOCK_PX // (max(1, x1 - x0) * factor**2))
        for start in range(y0, y1, n_rows):
            end = min(start + n_rows, y1)
            block = read(start * factor, end * factor, x0 * factor, x1 * factor)
            result[start - y0 : end - y0] = reduce(block, factor)
        return result

    return read_reduced


def to_working(boxes: np.ndarray, factor: int) -> np.ndarray:
    """Coordinates of the image as coordinates of its reduced copy (pixel centres at integers)."""
    return (np.asarray(boxes, float) + 0.5) / factor - 0.5


def from_working(boxes: np.ndarray, factor: int) -> np.ndarray:
    """The inverse of `to_working`."""
    return (np.asarray(boxes, float) + 0.5) * factor - 0.5
