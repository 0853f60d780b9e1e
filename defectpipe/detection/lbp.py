"""Multi-block local binary patterns (LBP), as OpenCV's cascades define them.

A feature is a 3 × 3 grid of equal cells. Its code has one bit for each outer cell, set where the cell's sum is at least
the centre's; the top left cell is bit 128, and the order is clockwise. Source: Liao et al.,
ICB 2007; OpenCV `LBPEvaluator`.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def feature_grid(window_px: int) -> np.ndarray:
    """All features of a square window.

    Returns
    -------
    ndarray of int32, shape (n, 4)
        x, y, cell width, cell height, in px: one cell; the feature spans three by three of them.
    """
    cells = range(1, window_px // 3 + 1)
    grid = [
        (x, y, w, h)
        for w in cells
        for h in cells
        for x in range(window_px - 3 * w + 1)
        for y in range(window_px - 3 * h + 1)
    ]
    return np.array(sorted(grid), np.int32)


def corner_offsets(features: np.ndarray, stride: int) -> np.ndarray:
    """Offsets of each feature's 4 × 4 cell corners in a flat integral image with rows of `stride` values.

    Returns
    -------
    ndarray of int32, shape (n, 16)
    """
    x, y, w, h = features.T.astype(np.int64)
    offsets = np.empty((len(features), 16), np.int32)
    for row in range(4):
        for column in range(4):
            offsets[:, 4 * row + column] = (y + row * h) * stride + x + column * w
    return offsets


def integral_windows(windows: np.ndarray) -> np.ndarray:
    """Integral images of windows (n, side, side), uint8, as rows of (side + 1)² int32 values."""
    n, height, width = windows.shape
    integral = np.zeros((n, height + 1, width + 1), np.int32)
    integral[:, 1:, 1:] = windows.astype(np.int32).cumsum(1, dtype=np.int32).cumsum(2, dtype=np.int32)
    return integral.reshape(n, -1)


@njit(inline="always")
def lbp_code(p, base, o):  # type: ignore[no-untyped-def]
    """Code of the feature with corner offsets `o`, for the window that starts at `base` of the flat integral `p`.

    The integral may have overflowed (it does above 8 to 30 megapixels): modulo 2³², every cell's sum is right.
    """
    p5 = p[base + o[5]]
    p6 = p[base + o[6]]
    p9 = p[base + o[9]]
    p10 = p[base + o[10]]
    centre = np.int32(p5 - p6 - p9 + p10)
    p1 = p[base + o[1]]
    p2 = p[base + o[2]]
    p4 = p[base + o[4]]
    p7 = p[base + o[7]]
    p8 = p[base + o[8]]
    p11 = p[base + o[11]]
    p13 = p[base + o[13]]
    p14 = p[base + o[14]]
    return (
        (np.int32(p[base + o[0]] - p1 - p4 + p5) >= centre) * 128
        | (np.int32(p1 - p2 - p5 + p6) >= centre) * 64
        | (np.int32(p2 - p[base + o[3]] - p6 + p7) >= centre) * 32
        | (np.int32(p6 - p7 - p10 + p11) >= centre) * 16
        | (np.int32(p10 - p11 - p14 + p[base + o[15]]) >= centre) * 8
        | (np.int32(p9 - p10 - p13 + p14) >= centre) * 4
        | (np.int32(p8 - p9 - p[base + o[12]] + p13) >= centre) * 2
        | (np.int32(p4 - p5 - p8 + p9) >= centre) * 1
    )


@njit(cache=True)
def code_matrix(integrals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Codes of every feature in every window.

    Parameters
    ----------
    integrals : ndarray of int32, shape (windows, (side + 1)²)
    offsets : ndarray of int32, shape (features, 16)

    Returns
    -------
    ndarray of uint8, shape (features, windows)
    """
    block = 32  # windows whose integral images stay in the cache together
    n = integrals.shape[0]
    codes = np.empty((offsets.shape[0], n), np.uint8)
    for start in range(0, n, block):
        for f in range(offsets.shape[0]):
            o = offsets[f]
            for i in range(start, min(n, start + block)):
                codes[f, i] = lbp_code(integrals[i], 0, o)
    return codes
