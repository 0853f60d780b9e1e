"""Crops from an image that is too large to be held at once: what `crops.CropSource` cuts from the whole.

Tile by tile, the surroundings of the tile's boxes are read and normalised as the whole image would be: the local
moments, the levels and the resampling are local and stand on grids that are fixed to the image. The crops are those of
the whole image, to the rounding of 32-bit numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import cv2
import numpy as np

from defectpipe.boxes import group_by_tile
from defectpipe.resolution import Read
from defectpipe.screening.crops import (
    MAX_LEVELS,
    MAX_STRIDE,
    NORMALISE_FLOOR,
    NORMALISE_SIGMA_PX,
    crop_matrix,
    normalise,
)

# The moments reach four deviations, and a little for their resampling; a crop takes a neighbour of the coarsest level.
_REACH_PX = int(4 * NORMALISE_SIGMA_PX) + 16
_LEVEL_PX = 2**MAX_LEVELS
_MOST_AT_ONCE = 4096


class TiledCropSource:
    """Crops from an image that is read part by part.

    Parameters
    ----------
    read : callable
        Gives rows y0 to y1 and columns x0 to x1 (ends excluded) of the image, uint8.
    shape : tuple of int
        Height and width of the image.
    tile_px : int
        Side of the tiles by which boxes are grouped.
    offset_px : int
        Shift of the grid of tiles.
    """

    def __init__(
        self,
        read: Read,
        shape: tuple[int, int],
        tile_px: int,
        offset_px: int = 0,
    ) -> None:
        self._read, self._shape, self._tile_px, self._offset_px = read, shape, tile_px, offset_px

    def parts(self, boxes: np.ndarray) -> Iterable[np.ndarray]:
        """Boxes by the tile of their centre, in reading order."""
        return group_by_tile(boxes, self._tile_px, self._offset_px, _MOST_AT_ONCE)

    def cut(self, boxes: np.ndarray, crop_px: int, context: float) -> np.ndarray:
        """Crops of boxes that lie near each other: see `CropSource.cut`."""
        crops = np.empty((len(boxes), crop_px, crop_px), np.float32)
        if not len(boxes):
            return crops
        sides = (boxes[:, 2:] - boxes[:, :2]).max(1) * context
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        area = _Area(self._read, self._shape, centres - sides[:, None] / 2, centres + sides[:, None] / 2)
        for i, ((x, y), side) in enumerate(zip(centres, sides, strict=True)):
            level, shrink = 0, 1.0
            while side / (crop_px * shrink) > MAX_STRIDE and level < MAX_LEVELS:
                level, shrink = level + 1, shrink * 2
            matrix = crop_matrix(x, y, side, crop_px, shrink).astype(np.float64)
            matrix[:, 2] -= area.x0 / shrink, area.y0 / shrink
            crops[i] = cv2.warpAffine(
                area.levels[level],
                matrix,
                (crop_px, crop_px),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        return crops


class _Area:
    """A normalised part of the image that holds crops from `low` to `high` (x, y), and its levels."""

    def __init__(
        self,
        read: Read,
        shape: tuple[int, int],
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        self._shape = shape
        (self.x0, x1), (self.y0, y1) = (
            _span(float(low[:, axis].min()), float(high[:, axis].max()), shape[1 - axis]) for axis in (0, 1)
        )
        grey = read(self.y0, y1, self.x0, x1)
        whole_blocks = shape[0] % 4 == 0 and shape[1] % 4 == 0
        self._finest = normalise(grey) if whole_blocks else normalise_part(grey, (self.y0, self.x0), shape)

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The part at 1, 1/2, 1/4 … of the resolution, as far as the whole image's levels reach."""
        levels, whole = [self._finest], list(self._shape)
        for k in range(1, MAX_LEVELS + 1):
            above = levels[-1]
            whole = [round(n * 0.5) for n in whole]
            odd = [n % 2 for n in above.shape]
            even = cv2.copyMakeBorder(above, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
            half = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
            rows, columns = (max(1, n - at // 2**k) for n, at in zip(whole, (self.y0, self.x0), strict=True))
            levels.append(half[:rows, :columns])
        return levels


def normalise_part(grey: np.ndarray, origin: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """What `normalise` of a whole image gives for a part, whatever the image's sides.

    A side that is no multiple of four px stretches the grid on which OpenCV takes the moments: its weights are computed
    here for the part.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)
        The part.
    origin : tuple of int
        Its first row and column.
    shape : tuple of int
        Height and width of the whole image.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Wrong within about 140 px of the borders that are not the image's.
    """
    values = grey.astype(np.float32)
    grids = [_MomentAxis(n, whole, first) for n, whole, first in zip(grey.shape, shape, origin, strict=True)]

    def moment(pixels: np.ndarray) -> np.ndarray:
        coarse = grids[0].means(grids[1].means(pixels.T).T)
        return cv2.GaussianBlur(coarse, (0, 0), NORMALISE_SIGMA_PX / 4)

    mean, square = moment(values), moment(values * values)
    scale = 0.5 / np.sqrt(np.maximum(square - mean * mean, 0) + NORMALISE_FLOOR)
    mean, scale = (grids[0].between(grids[1].between(m.T).T) for m in (mean, scale))
    return np.clip((values - mean) * scale, -2, 2)


class _MomentAxis:
    """One axis of the grid of moments: to it by INTER_AREA, from it by INTER_LINEAR, as for the whole axis."""

    def __init__(self, n: int, whole: int, first: int) -> None:
        n_cells = max(1, whole // 4)
        step = whole / n_cells
        start = 0 if first == 0 else int(np.ceil(first / step))
        end = n_cells if first + n == whole else int((first + n) / step)
        low = np.arange(start, end) * step
        width = np.minimum(step, whole - low)
        high = low + step
        inner_end = np.minimum(np.floor(high), whole - 1)
        inner = np.minimum(np.ceil(low), inner_end)
        before, after = inner - low, np.clip(high - inner_end, 0, np.minimum(1, width))
        # OpenCV leaves out slivers of a pixel.
        taps = [(inner - 1, np.where(before > 1e-3, before, 0))]
        n_inner = int((inner_end - inner).max())
        taps += [(inner + k, (inner + k < inner_end).astype(float)) for k in range(n_inner)]
        taps += [(inner_end, np.where(high - inner_end > 1e-3, after, 0))]
        self._taps = [
            (np.clip(at - first, 0, n - 1).astype(int), (weight / width).astype(np.float32)) for at, weight in taps
        ]
        place = ((np.arange(first, first + n) + 0.5) * (n_cells / whole) - 0.5).astype(np.float32)
        below = np.floor(place)
        share = np.where((below < 0) | (below >= n_cells - 1), 0, place - below).astype(np.float32)
        below = np.clip(below, 0, n_cells - 1)
        self._below, self._above = (np.clip(at - start, 0, end - start - 1).astype(int) for at in (below, below + 1))
        self._share = share

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means of the cells, along the first axis."""
        total = np.zeros((len(self._taps[0][0]), values.shape[1]), np.float32)
        for at, weight in self._taps:
            total += values[at] * weight[:, None]
        return total

    def between(self, values: np.ndarray) -> np.ndarray:
        """Values at the pixels from those of the cells, along the first axis."""
        return values[self._below] * (1 - self._share)[:, None] + values[self._above] * self._share[:, None]


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """First and end pixel of what crops from `low` to `high` need along one axis, on the grid of the coarsest level."""
    # Beyond the border the image is mirrored.
    low, high = (min(low, 2 * length - high) if high > length else low), (max(high, -low) if low < 0 else high)
    reach = _REACH_PX + 2 * _LEVEL_PX
    first = int(max(0, min(low - reach, length - 1))) // _LEVEL_PX * _LEVEL_PX
    end = -(-int(np.ceil(max(high + reach, 1))) // _LEVEL_PX) * _LEVEL_PX
    return first, min(length, max(end, first + _LEVEL_PX))
