"""Crops of candidates: locally normalised, resampled so that every candidate has the same side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import cv2
import numpy as np

NORMALISE_SIGMA_PX = 32.0
NORMALISE_FLOOR = 25.0  # grey levels squared: keeps the noise of a flat field from being blown up
MAX_LEVELS = 5
# A crop pixel covers at most this many pixels of the pyramid level that it is sampled from.
MAX_STRIDE = 1.5


def normalise(grey: np.ndarray) -> np.ndarray:
    """Subtract the local mean and divide by the local deviation (Gaussian window, 32 px), clipped to ±2.

    The window's moments are taken at a quarter of the resolution, where they are as good and 16 times as cheap.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    values = grey.astype(np.float32)
    height, width = values.shape
    small = (max(1, width // 4), max(1, height // 4))
    sigma = NORMALISE_SIGMA_PX / 4
    mean = cv2.GaussianBlur(cv2.resize(values, small, interpolation=cv2.INTER_AREA), (0, 0), sigma)
    square = cv2.GaussianBlur(cv2.resize(values * values, small, interpolation=cv2.INTER_AREA), (0, 0), sigma)
    scale = 0.5 / np.sqrt(np.maximum(square - mean * mean, 0) + NORMALISE_FLOOR)
    mean, scale = (cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in (mean, scale))
    return np.clip((values - mean) * scale, -2, 2)


class Crops(Protocol):
    """What gives crops of candidates: a whole image, or one that is read part by part."""

    def parts(self, boxes: np.ndarray) -> Iterable[np.ndarray]:
        """Indices of the boxes, in the groups in which `cut` is best asked for them."""
        ...

    def cut(self, boxes: np.ndarray, crop_px: int, context: float) -> np.ndarray:
        """See `CropSource.cut`."""
        ...


class CropSource:
    """One image, from which crops are cut.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)
    """

    def __init__(self, grey: np.ndarray) -> None:
        self._levels = [normalise(grey)]

    def parts(self, boxes: np.ndarray) -> Iterable[np.ndarray]:
        """All boxes at once."""
        return [np.arange(len(boxes))]

    def _level(self, index: int) -> np.ndarray:
        while len(self._levels) <= index:
            self._levels.append(cv2.resize(self._levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        return self._levels[index]

    def cut(self, boxes: np.ndarray, crop_px: int, context: float) -> np.ndarray:
        """Square crops about boxes, `context` times their long side wide; beyond the border the image is mirrored.

        Parameters
        ----------
        boxes : ndarray, shape (n, 4)
            In px of the image.
        crop_px : int
            Side of the crops.
        context : float

        Returns
        -------
        ndarray of float32, shape (n, crop_px, crop_px)
        """
        crops = np.empty((len(boxes), crop_px, crop_px), np.float32)
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            side = max(x1 - x0, y1 - y0) * context
            level, shrink = 0, 1.0
            while side / (crop_px * shrink) > MAX_STRIDE and level < MAX_LEVELS:
                pixels = self._level(level)
                if min(pixels.shape) < 8:
                    break
                level, shrink = level + 1, shrink * 2
            matrix = crop_matrix((x0 + x1) / 2, (y0 + y1) / 2, side, crop_px, shrink)
            crops[i] = cv2.warpAffine(
                self._level(level),
                matrix,
                (crop_px, crop_px),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        return crops


def crop_matrix(x: float, y: float, side: float, crop_px: int, shrink: float) -> np.ndarray:
    """Map from a crop's pixels to those of a level: shape (2, 3), float32.

    Parameters
    ----------
    x, y : float
        Centre of the crop in the image.
    side : float
        Of the crop in the image.
    shrink : float
        Image pixels for each pixel of the level.
    """
    stride = side / (crop_px * shrink)
    # pixel centres at integers: level coordinate u lies at image coordinate (u + 0.5) shrink − 0.5
    left = (x + 0.5) / shrink - 0.5 - stride * (crop_px - 1) / 2
    top = (y + 0.5) / shrink - 0.5 - stride * (crop_px - 1) / 2
    return np.array([[stride, 0, left], [0, stride, top]], np.float32)
