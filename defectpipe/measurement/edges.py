"""How steeply the grey values change: what `measure` floods where the edge of a body is the contour, not a rim."""

from __future__ import annotations

import cv2
import numpy as np

from defectpipe.resolution import Read

_SIGMA_PX = 1.0
# The smoothing reaches four deviations, the derivative one px.
_REACH_PX = 8


def edge_strength(grey: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient of an image smoothed by 1 px, in eighths of a grey value per px.

    Its crest is where a body's grey value is half way between inside and outside: measured on it with ``bright``
    polarity, a solid body is measured by its edge, dark or bright alike.

    Parameters
    ----------
    grey : ndarray, shape (height, width)

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    smooth = cv2.GaussianBlur(np.ascontiguousarray(grey, np.float32), (0, 0), _SIGMA_PX)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))


def edge_reader(read: Read, shape: tuple[int, int]) -> Read:
    """Any part of what `edge_strength` gives of a whole image of `shape` (height, width) that `read` reads."""

    def part(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        top, left = max(y0 - _REACH_PX, 0), max(x0 - _REACH_PX, 0)
        edges = edge_strength(read(top, min(y1 + _REACH_PX, shape[0]), left, min(x1 + _REACH_PX, shape[1])))
        return edges[y0 - top : y1 - top, x0 - left : x1 - left]

    return part
