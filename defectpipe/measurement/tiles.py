"""Loops of an image that is too large to be held at once, measured tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from defectpipe.boxes import group_by_tile
from defectpipe.measurement.loops import DEFAULTS, FloodSettings, measure, rim_votes
from defectpipe.resolution import Read

# A loop is measured in its box and 0.6 of its long side, and 5 px, around it.
_REACH, _REACH_PX = 0.6, 8


def measure_by_tiles(
    read: Read,
    shape: tuple[int, int],
    boxes: np.ndarray,
    *,
    polarity: str = "auto",
    settings: FloodSettings = DEFAULTS,
    tile_px: int = 4096,
    offset_px: int = 0,
) -> pd.DataFrame:
    """What `measure` gives for the whole image, with one tile in memory.

    Parameters
    ----------
    read : callable
        Gives rows y0 to y1 and columns x0 to x1 (ends excluded) of the image, uint8.
    shape : tuple of int
        Height and width of the image.
    boxes, polarity, settings
        As in `measure`.
    tile_px, offset_px : int
        Grid of the tiles by which boxes are grouped; makes no difference to the result.

    Returns
    -------
    DataFrame
        As of `measure`.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    groups = group_by_tile(boxes, tile_px, offset_px)
    if polarity == "auto":
        votes = sum(
            rim_votes(area.astype(np.float32), local) for area, local, _at in _areas(read, shape, boxes, groups)
        )
        polarity = "bright" if votes > 0 else "dark"
    tables = [measure(np.zeros((1, 1), np.uint8), np.zeros((0, 4)), polarity=polarity, settings=settings)]
    for area, local, at in _areas(read, shape, boxes, groups):
        table = measure(area, local, polarity=polarity, settings=settings)
        tables.append(table.assign(x_px=table["x_px"] + at[0], y_px=table["y_px"] + at[1]))
    order = np.concatenate([np.zeros(0, int), *groups])
    found = pd.concat(tables[1:] or tables, ignore_index=True)
    return found.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _areas(
    read: Read,
    shape: tuple[int, int],
    boxes: np.ndarray,
    groups: list[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each group: the pixels around its boxes, the boxes in them, and where they lie (x, y)."""
    for group in groups:
        part = boxes[group]
        margin = _REACH * (part[:, 2:] - part[:, :2]).max() + _REACH_PX
        limits = np.array([shape[1], shape[0]])
        low = np.clip(np.floor(part[:, :2].min(0) - margin), 0, limits - 1).astype(int)
        high = np.clip(np.ceil(part[:, 2:].max(0) + margin) + 1, low + 1, limits).astype(int)
        area = read(low[1], high[1], low[0], high[0])
        yield area, part - np.tile(low, 2), low
