"""Burnt-in data: a strip of text at the bottom or top of a picture, or a scale bar drawn in it.

Both are looked for in the outer fifths of the picture, where instruments put them. What is looked for is what no
specimen shows: one grey value in most of every row of a strip that ends at a straight line, or a flawless bar of one
value. A bar that is overlooked can be cropped by a setting; a picture that is taken for a bar is lost: in doubt, there
is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from defectpipe.greyscale import PixelSource, Rectangle

# Of the height of the picture.
_REACH = 0.2
_LEAST_STRIP, _LEAST_STRIP_PX = 0.012, 10
# Larger pictures are looked at with every n-th pixel only.
_LONGEST_PX = 4096
# Part of a strip's row that has the strip's value: of rows through the text, of most rows, of rows of the picture.
_IN_TEXT, _IN_STRIP, _IN_PICTURE = 0.3, 0.6, 0.33
_THICKEST_LINE = 0.008
# Part of a strip that is text or lines.
_INK = (0.004, 0.4)
_SAME_VALUE = 0.012
# A scale of upright marks has at least so many, a text so many letters.
_LEAST_MARKS, _LEAST_LETTERS = 9, 3
_STRONG = 0.25


@dataclass(frozen=True)
class Bars:
    """What is burnt into a picture.

    Parameters
    ----------
    rows : tuple of int
        First and end row of the picture, without strips.
    scale_bars : tuple of Rectangle
        Drawn in it, with their text.
    """

    rows: tuple[int, int]
    scale_bars: tuple[Rectangle, ...]

    def notes(self, height: int) -> tuple[str, ...]:
        """What the user should know of it."""
        notes = []
        if self.rows[0] > 0:
            notes.append(f"data bar left out: {self.rows[0]} rows at the top")
        if self.rows[1] < height:
            notes.append(f"data bar left out: {height - self.rows[1]} rows at the bottom")
        for y0, y1, x0, x1 in self.scale_bars:
            notes.append(f"scale bar left out: {x1 - x0} × {y1 - y0} px at x {x0}, y {y0}")
        return tuple(notes)


def find_bars(pixels: np.ndarray | PixelSource) -> Bars:
    """Strips of data, and a scale bar, in a picture.

    Parameters
    ----------
    pixels : ndarray or PixelSource, shape (height, width)

    Returns
    -------
    Bars
    """
    height, width = pixels.shape
    step = -(-max(height, width) // _LONGEST_PX)
    band_px = int(height * _REACH) // step * step
    if band_px < _LEAST_STRIP_PX * step or width < 8 * _LEAST_STRIP_PX * step:
        return Bars((0, height), ())
    bottom = _picked(pixels, height - band_px, height, step)
    top = _picked(pixels, 0, band_px, step)
    low, high = _range(top, bottom)
    if high <= low:
        return Bars((0, height), ())
    # Rows are counted from the outside.
    below, above = (_strip_rows(band, low, high, height // step) for band in (bottom[::-1], top))
    rows = (min(above * step, height), height - min(below * step, height))
    found = []
    for band, start, used in (
        (top[above:], above * step, above),
        (bottom[: len(bottom) - below], height - band_px, below),
    ):
        bar = None if used else _scale_bar(band, low, high, (height // step, width // step))
        if bar is not None:
            y0, y1, x0, x1 = (value * step for value in bar)
            found.append((start + y0, min(start + y1, height), x0, min(x1, width)))
    return Bars(rows, tuple(found))


def _picked(pixels: np.ndarray | PixelSource, y0: int, y1: int, step: int) -> np.ndarray:
    """Rows `y0` to `y1` with every n-th pixel, without the values that stand for no data."""
    if isinstance(pixels, np.ndarray):
        part = pixels[y0:y1:step, ::step]
    else:
        n_rows = max(1, 2**22 // pixels.shape[1]) // step * step or step
        parts = [pixels.region(y, min(y + n_rows, y1), 0, pixels.shape[1]) for y in range(y0, y1, n_rows)]
        part = np.concatenate([one[::step, ::step] for one in parts])
    part = part.astype(np.float32)
    return np.where(np.isfinite(part), part, np.float32(np.nan)) if not np.isfinite(part).all() else part


def _range(*bands: np.ndarray) -> tuple[float, float]:
    values = np.concatenate([band.ravel() for band in bands])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _strip_rows(band: np.ndarray, low: float, high: float, height: int) -> int:
    """Rows of a strip that begins with the first row of `band`; 0 if there is none."""
    least = max(_LEAST_STRIP_PX, round(_LEAST_STRIP * height))
    if len(band) <= least:
        return 0
    value = _commonest(band[:least])
    if value is None:
        return 0
    near = np.abs(band - value) <= _SAME_VALUE * (high - low)
    share = near.mean(1)
    # A line round the strip, or across it, has another value all along.
    line = np.array([_is_line(row, high - low) for row in band])
    end = _end_of_strip(share >= _IN_TEXT, line, np.median(band, 1), max(3, round(_THICKEST_LINE * height)))
    if end < least or end >= len(band):
        return 0
    inside, outside = share[:end][~line[:end]], share[end : end + 6]
    strong = np.abs(band[:end] - value) >= _STRONG * (high - low)
    thirds = [float(part.mean()) for part in np.array_split(near[:end], 3, axis=1)]
    ink = float(strong.mean())
    good = (
        len(inside) > 0
        and float(np.median(inside)) >= _IN_STRIP
        and float(outside.max()) <= min(_IN_PICTURE, 0.45 * float(np.median(inside)))
        and min(thirds) >= _IN_TEXT
        and _INK[0] <= ink <= _INK[1]
    )
    return end if good else 0


def _end_of_strip(flat: np.ndarray, line: np.ndarray, grey: np.ndarray, thickest: int) -> int:
    """The first row that is neither flat nor one of a few that make a line: a black picture is no line."""
    n_lines = 0
    for row in range(len(flat)):
        if flat[row]:
            n_lines = 0
        elif line[row]:
            n_lines = n_lines + 1 if n_lines and grey[row] == grey[row - 1] else 1
            if n_lines > thickest:
                return row + 1 - n_lines
        else:
            return row
    return len(flat)


def _commonest(values: np.ndarray) -> float | None:
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return float(found[counts.argmax()]) if len(found) and counts.max() >= _IN_TEXT * values.size else None


def _is_line(row: np.ndarray, contrast: float) -> bool:
    middle = np.median(row)
    return bool((np.abs(row - middle) <= _SAME_VALUE * contrast).mean() >= 0.95)


def _scale_bar(band: np.ndarray, low: float, high: float, shape: tuple[int, int]) -> Rectangle | None:
    """A solid bar of the highest or lowest value in `band`, with its text; coordinates in the band."""
    for value in (high, low):
        mask = (band == value).astype(np.uint8)
        n, _labels, stats, _centres = cv2.connectedComponentsWithStats(mask, connectivity=4)
        if n > 20_000:
            # Saturated noise all over.
            continue
        parts = stats[1:]
        bars = [part for part in parts if _is_bar(part, shape) and _stands_out(mask, part)] or _combs(parts, shape)
        if len(bars) == 1:
            return _with_text(bars[0], parts, band.shape, shape)
    return None


def _is_bar(part: np.ndarray, shape: tuple[int, int]) -> bool:
    _x, _y, w, h, area = (int(value) for value in part)
    long = max(20, 0.04 * shape[1]) <= w <= 0.7 * shape[1]
    return long and 2 <= h <= max(4, 0.03 * shape[0]) and w >= 6 * h and area >= 0.97 * w * h


def _combs(parts: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """Scales of upright marks, all alike and evenly spaced, as `_is_bar` takes parts: the whole of each."""
    upright = (parts[:, 2] <= max(4, 0.006 * shape[1])) & (parts[:, 3] >= 2 * parts[:, 2])
    solid = parts[:, 4] >= 0.9 * parts[:, 2] * parts[:, 3]
    marks = parts[upright & solid & (parts[:, 3] <= 0.04 * shape[0])]
    found = []
    for y in np.unique(marks[:, 1]):
        row = marks[marks[:, 1] == y]
        row = row[np.argsort(row[:, 0])]
        steps = np.diff(row[:, 0])
        # The first and the last may be longer.
        if len(row) >= _LEAST_MARKS and steps.min() >= 5 and steps.max() - steps.min() <= 2:
            x, height = row[0, 0], row[:, 3].max()
            width = row[-1, 0] + row[-1, 2] - x
            found.append(np.array([x, y, width, height, width * height]))
    return found


def _stands_out(mask: np.ndarray, part: np.ndarray) -> bool:
    """Whether hardly a pixel around the bar has its value: it does not border on anything saturated."""
    x, y, w, h, _area = (int(value) for value in part)
    y0, y1, x0, x1 = max(0, y - 3), min(mask.shape[0], y + h + 3), max(0, x - 3), min(mask.shape[1], x + w + 3)
    around = mask[y0:y1, x0:x1].sum() - mask[y : y + h, x : x + w].sum()
    return bool(around <= 0.1 * ((y1 - y0) * (x1 - x0) - w * h))


def _with_text(bar: np.ndarray, parts: np.ndarray, limits: tuple[int, ...], shape: tuple[int, int]) -> Rectangle:
    """The bar's rectangle, grown over the letters of its value that follow each other from it, and a margin."""
    x, y, w, h = (int(value) for value in bar[:4])
    box = [y, y + h, x, x + w]
    least, most = max(4, 0.006 * shape[0]), max(12, 0.06 * shape[0])
    letters = [p for p in parts if least <= p[3] <= most and p[2] <= 2.5 * most and p[4] >= 4]
    reach = 1.5 * most
    grown = True
    while grown:
        grown = False
        for k, (px, py, pw, ph, _area) in enumerate(letters):
            apart_x = max(px - box[3], box[2] - (px + pw), 0)
            apart_y = max(py - box[1], box[0] - (py + ph), 0)
            if apart_x <= reach and apart_y <= 0.5 * reach and abs(py + ph / 2 - (y + h / 2)) <= 1.5 * reach:
                box = [min(box[0], py), max(box[1], py + ph), min(box[2], px), max(box[3], px + pw)]
                letters.pop(k)
                grown = True
                break
    # More text in the same line, further away.
    line = [p for p in letters if p[1] >= box[0] - 2 and p[1] + p[3] <= box[1] + 2]
    if len(line) >= _LEAST_LETTERS:
        box[2], box[3] = min(box[2], *(p[0] for p in line)), max(box[3], *(p[0] + p[2] for p in line))
    margin = max(3, round(0.004 * shape[0]))
    return (
        int(max(0, box[0] - margin)),
        int(min(limits[0], box[1] + margin)),
        int(max(0, box[2] - margin)),
        int(min(limits[1], box[3] + margin)),
    )
