"""The scan of an image that is too large to be held at once: tile by tile, with the very windows of the whole image.

The levels of a tile are cut out of the levels that the whole image would have: the blur and the halvings are local, and
the last resampling computes, for the tile's part, what OpenCV computes for the whole (its INTER_LINEAR_EXACT is integer
arithmetic). Each window belongs to the tile that its corner lies in. So the hits are those of `scan.raw_hits`, bit for
bit, whatever the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numba import njit

from defectpipe.detection.cascade import Cascade
from defectpipe.detection.scan import LevelPlan, ScanRecipe, best_hits, plan_levels, scan_pixels, window_boxes
from defectpipe.resolution import Read


def spans(length: int, tile_px: int, offset_px: int = 0) -> list[tuple[int, int]]:
    """Tiles of an axis: (start, end) of each, the first shorter where the grid is shifted by `offset_px`."""
    first = offset_px % tile_px
    starts = [0, *range(first or tile_px, length, tile_px)]
    return list(zip(starts, [*starts[1:], length], strict=True))


def find_candidates_by_tiles(
    read: Read,
    shape: tuple[int, int],
    cascade: Cascade,
    recipe: ScanRecipe,
    max_candidates: int,
    tile_px: int,
    offset_px: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """What `scan.find_candidates` finds in the whole image, with one tile in memory.

    Parameters
    ----------
    read : callable
        Gives the pixels of any part of the image.
    shape : tuple of int
        Height and width of the image.
    max_candidates : int
        Of the whole image.
    tile_px : int
        Side of a tile, without what is read beyond it.
    offset_px : int
        Shift of the grid of tiles along both axes; makes no difference to the result.

    Returns
    -------
    boxes : ndarray, shape (n, 4)
    scores : ndarray, shape (n,)
    """
    return best_hits(*raw_hits_by_tiles(read, shape, cascade, recipe, tile_px, offset_px), recipe, max_candidates)


def raw_hits_by_tiles(
    read: Read, shape: tuple[int, int], cascade: Cascade, recipe: ScanRecipe, tile_px: int, offset_px: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Every window that passes, in the order of `scan.raw_hits`: boxes with context, margins."""
    border = min(recipe.border_px, min(shape) - 1)
    size = (shape[0] + 2 * border, shape[1] + 2 * border)
    plans = plan_levels(size, cascade.window_px, recipe)
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in plans]
    for rows in spans(size[0], tile_px, offset_px) if plans else ():
        for columns in spans(size[1], tile_px, offset_px):
            for k, corners, margins in _hits_of_tile(read, shape, border, plans, rows, columns, cascade, recipe):
                found[k].append((corners, margins))
    boxes, all_margins = [np.zeros((0, 4))], [np.zeros(0, np.float32)]
    for plan, parts in zip(plans, found, strict=True):
        if not parts:
            continue
        corners, margins = (np.concatenate(values) for values in zip(*parts, strict=True))
        order = np.lexsort((corners[:, 0], corners[:, 1]))
        boxes.append(window_boxes(corners[order], cascade.window_px, plan, recipe, shape))
        all_margins.append(margins[order])
    return np.concatenate(boxes), np.concatenate(all_margins)


def _hits_of_tile(
    read: Read,
    shape: tuple[int, int],
    border: int,
    plans: list[LevelPlan],
    rows: tuple[int, int],
    columns: tuple[int, int],
    cascade: Cascade,
    recipe: ScanRecipe,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Level, corners (x, y in px of the whole level) and margins of the windows whose corner lies in a tile."""
    size = (shape[0] + 2 * border, shape[1] + 2 * border)
    # A level's true scale strays from its nominal one by up to half of its pixels over the whole image.
    slack = math.ceil(4 * max(plan.scale for plan in plans)) + 4
    unit = 2 ** max(plan.n_halvings for plan in plans)
    reach = math.ceil(max(plan.scale for plan in plans) * cascade.window_px) + slack
    (y0, y1), (x0, x1) = (
        (max(0, start - slack) // unit * unit, min(length, -(-(end + reach) // unit) * unit))
        for (start, end), length in zip((rows, columns), size, strict=True)
    )
    octave, n_halvings, origin = _blurred(read, shape, border, recipe.blur_sigma_px, y0, y1, x0, x1), 0, (y0, x0)
    for k, plan in enumerate(plans):
        while n_halvings < plan.n_halvings:
            whole = [_halved(n, n_halvings + 1) for n in size]
            octave = _half(octave, [whole[i] - origin[i] // 2 for i in (0, 1)])
            origin, n_halvings = (origin[0] // 2, origin[1] // 2), n_halvings + 1
        v = _owned(rows, plan.height, size[0], plan, cascade.window_px)
        u = _owned(columns, plan.width, size[1], plan, cascade.window_px)
        if not (len(u) and len(v)):
            continue
        pixels = _resample(
            octave,
            *_taps(_halved(size[0], n_halvings), plan.height, v[0], v[-1] + cascade.window_px, origin[0], octave, 0),
            *_taps(_halved(size[1], n_halvings), plan.width, u[0], u[-1] + cascade.window_px, origin[1], octave, 1),
        )
        corners, margins = scan_pixels(cascade, pixels, plan.step)
        if len(corners):
            yield k, corners + np.array([u[0], v[0]], np.int32), margins


def _owned(span: tuple[int, int], level_px: int, whole_px: int, plan: LevelPlan, window_px: int) -> range:
    """Window positions along one axis of a level that belong to a tile."""
    first = math.ceil(span[0] / plan.scale)
    first += -first % plan.step
    end = level_px - window_px + 1
    if span[1] < whole_px:
        end = min(end, math.ceil(span[1] / plan.scale))
    return range(first, end, plan.step)


def _blurred(
    read: Read, shape: tuple[int, int], border: int, sigma: float, y0: int, y1: int, x0: int, x1: int
) -> np.ndarray:
    """A part of the mirrored and blurred image; coordinates with the border."""
    radius = (round(sigma * 6 + 1) | 1) // 2
    low, high, pads = [], [], []
    for start, end, length in ((y0, y1, shape[0]), (x0, x1, shape[1])):
        # The mirrored border needs as many pixels inside, and one more.
        first = max(0, min(start - radius - border, length - 1 - border))
        last = min(length, max(end + radius - border, border + 1))
        low.append(first)
        high.append(last)
        pads.append((border if first == 0 else 0, border if last == length else 0))
    pixels = read(low[0], high[0], low[1], high[1])
    pixels = cv2.copyMakeBorder(pixels, *pads[0], *pads[1], cv2.BORDER_REFLECT_101)
    top, left = (low[i] + border - pads[i][0] for i in (0, 1))
    # What is blurred with a wrong neighbourhood, at the borders that are not the image's, is cut off.
    cut_y0, cut_x0 = max(top, y0 - radius), max(left, x0 - radius)
    pixels = pixels[cut_y0 - top : y1 + radius - top, cut_x0 - left : x1 + radius - left]
    pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    return pixels[y0 - cut_y0 : y1 - cut_y0, x0 - cut_x0 : x1 - cut_x0]


def _halved(length: int, times: int) -> int:
    """Length of an axis after `times` halvings, rounded as OpenCV rounds."""
    for _ in range(times):
        length = round(length * 0.5)
    return length


def _half(octave: np.ndarray, limits: list[int]) -> np.ndarray:
    """Half the size, as INTER_AREA does it; `limits`: rows and columns that the whole image has from here on."""
    height, width = (min(-(-n // 2), limit) for n, limit in zip(octave.shape, limits, strict=True))
    last_row, last_column = 2 * height > octave.shape[0], 2 * width > octave.shape[1]
    even = cv2.copyMakeBorder(octave, 0, int(last_row), 0, int(last_column), cv2.BORDER_REPLICATE)
    even = even[: 2 * height, : 2 * width]
    half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    # Blocks that the border halves: a mean of two pixels is rounded to even, a mean of four is rounded up.
    if last_row:
        half[-1] = np.rint((even[-1, ::2].astype(float) + even[-1, 1::2]) / 2)
    if last_column:
        half[:, -1] = np.rint((even[::2, -1].astype(float) + even[1::2, -1]) / 2)
    if last_row and last_column:
        half[-1, -1] = even[-1, -1]
    return half


def _taps(
    source_px: int, level_px: int, start: int, end: int, origin: int, octave: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels `start` to `end` of a level lie in its octave, and the weight of the next pixel, in 1/256."""
    place = (np.arange(start, end) + 0.5) * (1.0 / (level_px / source_px)) - 0.5
    first = np.floor(place).astype(np.int64)
    weight = np.rint((place - first) * 256).astype(np.int64)
    weight[(first < 0) | (first >= source_px - 1)] = 0
    first = np.clip(first, 0, source_px - 1) - origin
    if first[0] < 0 or first[-1] + (weight[-1] > 0) >= octave.shape[axis]:
        raise IndexError("a tile does not hold the whole of its windows")
    return first, weight


@njit(cache=True, nogil=True)
def _resample(
    octave: np.ndarray, rows: np.ndarray, row_weights: np.ndarray, columns: np.ndarray, column_weights: np.ndarray
) -> np.ndarray:
    result = np.empty((len(rows), len(columns)), np.uint8)
    upper = np.empty(len(columns), np.int64)
    lower = np.empty(len(columns), np.int64)
    for i in range(len(rows)):
        y = rows[i]
        below = y + 1 if row_weights[i] else y
        for j in range(len(columns)):
            x, w = columns[j], column_weights[j]
            after = x + 1 if w else x
            upper[j] = octave[y, x] * (256 - w) + octave[y, after] * w
            lower[j] = octave[below, x] * (256 - w) + octave[below, after] * w
        for j in range(len(columns)):
            value = upper[j] * (256 - row_weights[i]) + lower[j] * row_weights[i]
            result[i, j] = (value + 32768) >> 16
    return result
