"""Mask pictures: a label image (a value for each loop) or a binary mask (a loop is a connected region); 0 is none."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import tifffile
from PIL import Image
from skimage.measure import label as connected_regions

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import Outline, moment_ellipse
from defectpipe.io.labels.sources import LabelFile


def read(file: LabelFile, shape: tuple[int, int], *, stated: bool = False) -> list[Outline]:
    """Regions as outlines: the box of their pixels' outer sides, the ellipse of the same moments.

    Parameters
    ----------
    file : LabelFile
    shape : tuple of int
        Height and width that the mask must have.
    stated : bool
        Whether the user named the format: then a value in several pieces is one loop.

    Raises
    ------
    LabelError
        Lossy, coloured, of another size, inverted, or a class map instead of one value a loop.
    """
    mask = _pixels(file, shape)
    values = np.unique(mask)
    if (values < 0).any() or (values % 1 != 0).any():
        raise LabelError(f"{file.name}: a mask holds whole numbers from 0.")
    if not (values == 0).any() or np.all([mask[i, j] != 0 for i in (0, -1) for j in (0, -1)]):
        raise LabelError(f"{file.name}: the mask seems to be inverted; loops are above 0, the rest is 0.")
    pieces = np.asarray(connected_regions(mask, background=0, connectivity=2))
    values = values[values != 0]
    if len(values) > 1:
        if not stated:
            _check_pieces(file, mask, pieces, values)
        pieces = np.searchsorted(values, mask, side="right")  # 0 where the mask is 0
    return _regions(file.name, pieces)


def region_outline(where: str, mask: np.ndarray, label: str = "") -> Outline:
    """Outline of the pixels of one mask, shape (height, width); LabelError if there are none."""
    outlines = _regions(where, np.asarray(mask).astype(np.int64))
    if not outlines:
        raise LabelError(f"{where}: the mask is empty.")
    return replace(outlines[0], where=where, label=label)


def _pixels(file: LabelFile, shape: tuple[int, int]) -> np.ndarray:
    if file.suffix in (".jpg", ".jpeg"):
        raise LabelError(f"{file.name}: JPEG is lossy and cannot hold a mask; save it as PNG or TIFF.")
    try:
        mask = _tiff(file, shape) if file.suffix in (".tif", ".tiff") else _picture(file, shape)
    except LabelError:
        raise
    except Exception as error:  # the decoders raise what they like
        raise LabelError(f"{file.name}: cannot be read as a mask ({error}).") from error
    if mask.ndim == 3:
        grey = mask[..., :3] if mask.shape[2] >= 3 else mask[..., :1]
        if (grey != grey[..., :1]).any():
            raise LabelError(f"{file.name}: a coloured mask; save it with one value a loop.")
        mask = grey[..., 0]
    return mask


def _tiff(file: LabelFile, shape: tuple[int, int]) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(file.data)) as tiff:
        page = tiff.pages[0]
        if len(tiff.pages) > 1:
            raise LabelError(f"{file.name}: {len(tiff.pages)} pages; a mask has one.")
        _check_size(file, (page.imagelength, page.imagewidth), shape)
        if page.samplesperpixel > 4 or page.imagedepth > 1 or page.dtype is None:
            raise LabelError(f"{file.name}: {page.samplesperpixel} channels; a mask has one.")
        return np.asarray(page.asarray())


def _picture(file: LabelFile, shape: tuple[int, int]) -> np.ndarray:
    # The size is known before anything is decoded; a palette's indices are the values.
    # Only what the names of masks can mean: Pillow would hand some formats to other programs.
    with Image.open(io.BytesIO(file.data), formats=("PNG", "BMP", "GIF")) as picture:
        _check_size(file, (picture.height, picture.width), shape)
        return np.asarray(picture).astype(np.int64)


def _check_size(file: LabelFile, size: tuple[int, int], shape: tuple[int, int]) -> None:
    if size != shape:
        raise LabelError(f"{file.name}: the mask has {size[1]} x {size[0]} px, its image {shape[1]} x {shape[0]} px.")


def _check_pieces(file: LabelFile, mask: np.ndarray, pieces: np.ndarray, values: np.ndarray) -> None:
    _, first = np.unique(pieces, return_index=True)
    of_pieces = mask.ravel()[first]
    counts = np.array([(of_pieces == value).sum() for value in values])
    if counts.max() > 1:
        worst = int(counts.argmax())
        raise LabelError(
            f"{file.name}: the value {values[worst]:g} lies in {counts[worst]} pieces: give each loop a value of its "
            "own, or pass --label-format masks if a value is one loop whatever its pieces."
        )


def _regions(name: str, regions: np.ndarray) -> list[Outline]:
    y, x = np.nonzero(regions)
    index = regions[y, x] - 1
    n = int(index.max()) + 1 if len(index) else 0
    area = np.bincount(index, minlength=n).astype(float)
    mean_x, mean_y = (np.bincount(index, v, n) / area for v in (x, y))
    dx, dy = x - mean_x[index], y - mean_y[index]
    # A pixel is a square: 1/12 px² is its own variance.
    xx, yy, xy = (np.bincount(index, v, n) / area for v in (dx * dx + 1 / 12, dy * dy + 1 / 12, dx * dy))
    low, high = np.full((n, 2), np.inf), np.full((n, 2), -np.inf)
    np.minimum.at(low, index, np.stack([x, y], 1))
    np.maximum.at(high, index, np.stack([x, y], 1))
    outlines = []
    for i in range(n):
        where = f"{name}, region {i + 1}"
        ellipse = moment_ellipse(where, *(float(v[i]) for v in (mean_x, mean_y, xx, yy, xy)))
        (x0, y0), (x1, y1) = (low[i] - 0.5).tolist(), (high[i] + 0.5).tolist()
        outlines.append(Outline(where, (x0, y0, x1, y1), ellipse))
    return outlines
