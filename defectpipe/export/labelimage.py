"""Label images, as ImageJ, CellProfiler, napari and scikit-image take them: pixels hold the number of what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from defectpipe.boxes import ellipse_bounds
from defectpipe.export.shapes import ELLIPSE_COLUMNS, drawable
from defectpipe.io.tiffs import write_pages


class LabelPage:
    """One frame, drawn when and where it is asked for.

    A pixel belongs to a loop if its centre lies inside the ellipse; where loops overlap, to the smaller one, so that
    none hides another. A loop so small that it holds no centre has the pixel nearest to its own.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the frame, in px.
    loops : DataFrame
        Rows of ``loops.csv`` of this frame.
    dtype : dtype
        Large enough for every `loop_id`.
    """

    def __init__(self, shape: tuple[int, int], loops: pd.DataFrame, dtype: np.dtype) -> None:
        self.shape, self._dtype = shape, dtype
        shown = drawable(loops)
        order = np.argsort(-(shown["diameter_px"] * shown["minor_px"]).to_numpy(float), kind="stable")
        self._ellipses = shown[ELLIPSE_COLUMNS].to_numpy(float)[order]
        self._numbers = shown["loop_id"].to_numpy(np.int64)[order]
        bounds = ellipse_bounds(*self._ellipses.T)
        centre = np.rint(self._ellipses[:, :2])
        # Half open, and never without the centre's own pixel.
        low = np.minimum(np.ceil(bounds[:, :2]), centre)
        high = np.maximum(np.floor(bounds[:, 2:]), centre) + 1
        limits = np.array([shape[1], shape[0]])
        self._low, self._high = (np.clip(v, 0, limits).astype(np.int64) for v in (low, high))

    def rows(self, first: int, end: int) -> np.ndarray | None:
        """See `io.tiffs.Page.rows`."""
        here = np.flatnonzero(
            (self._low[:, 1] < end) & (self._high[:, 1] > first) & (self._low[:, 0] < self._high[:, 0])
        )
        if not len(here):
            return None
        out = np.zeros((end - first, self.shape[1]), self._dtype)
        for i in here:
            (x0, y0), (x1, y1) = self._low[i], self._high[i]
            y0, y1 = max(y0, first), min(y1, end)
            part = out[y0 - first : y1 - first, x0:x1]
            part[_inside(self._ellipses[i], y0, y1, x0, x1)] = self._numbers[i]
        return out


def write_label_image(
    shapes: Sequence[tuple[int, int]], loops: pd.DataFrame, pixel_size_nm: float | None, path: Path
) -> None:
    """Write the label image of an image, one page a frame: 16 bit, or 32 bit where a number needs it.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Height and width of each frame, in px.
    loops : DataFrame
        Rows of ``loops.csv`` of this image, all frames.
    pixel_size_nm : float or None
    path : Path
    """
    largest = int(loops["loop_id"].max()) if len(loops) else 0
    dtype = np.dtype(np.uint16 if largest < 2**16 else np.uint32)
    pages = [LabelPage(shape, loops[loops["frame"] == frame], dtype) for frame, shape in enumerate(shapes)]
    write_pages(pages, dtype, pixel_size_nm, path)


class InstancePage:
    """A frame (height, width) whose pixels hold the numbers of its objects, 0 where there is none."""

    def __init__(self, instances: np.ndarray, dtype: np.dtype) -> None:
        self.shape = (instances.shape[0], instances.shape[1])
        self._instances, self._dtype = instances, dtype

    def rows(self, first: int, end: int) -> np.ndarray | None:
        """See `io.tiffs.Page.rows`."""
        part = self._instances[first:end]
        return part.astype(self._dtype) if part.any() else None


def write_instances(frames: Sequence[np.ndarray], pixel_size_nm: float | None, path: Path) -> None:
    """Write label images of objects, a page a frame, as `write_label_image` writes those of loops.

    Parameters
    ----------
    frames : sequence of ndarray of int, shape (height, width)
    pixel_size_nm : float or None
    path : Path
    """
    largest = max(int(frame.max(initial=0)) for frame in frames)
    dtype = np.dtype(np.uint16 if largest < 2**16 else np.uint32)
    write_pages([InstancePage(frame, dtype) for frame in frames], dtype, pixel_size_nm, path)


def _inside(ellipse: np.ndarray, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    x, y, major, minor, angle_deg = ellipse
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    dy, dx = np.ogrid[y0:y1, x0:x1]
    dx, dy = dx - x, dy - y
    # The angle counts counter-clockwise as seen, and rows run down.
    inside = ((dx * c - dy * s) / (major / 2)) ** 2 + ((dx * s + dy * c) / (minor / 2)) ** 2 <= 1
    return inside | ((dx == np.rint(x) - x) & (dy == np.rint(y) - y))
