"""Multi-block local binary patterns (LBP), as OpenCV's cascades define them.

A feature is a 3 × 3 grid of equal cells. Its code has one bit for each outer cell, set where the cell's sum is at least
the centre's; the top left cell is bit 128, and the order is clockwise. Source: Liao et al.,
ICB 2007; OpenCV `LBPEvaluator`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

# Windows whose integral images stay in the cache together.
_WINDOWS_A_BLOCK = 256


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


def corner_offsets(features: np.ndarray, shape: tuple[int, int], step: int = 1) -> np.ndarray:
    """Offsets of each feature's 4 × 4 cell corners in a flat integral image.

    Parameters
    ----------
    features : ndarray of int32, shape (n, 4)
    shape : tuple of int
        Height and width of the integral image, or of each part where it was taken apart.
    step : int
        The integral image was taken apart by `take_apart` with this step.

    Returns
    -------
    ndarray of uint64, shape (n, 16)
    """
    x, y, w, h = features.T.astype(np.int64)
    height, width = shape
    corners = np.arange(4)
    v, u = y[:, None] + h[:, None] * corners, x[:, None] + w[:, None] * corners
    rows = v % step * step * height * width + v // step * width
    columns = u % step * height * width + u // step
    return (rows[:, :, None] + columns[:, None, :]).reshape(-1, 16).astype(np.uint64)


def take_apart(integral: np.ndarray, step: int) -> np.ndarray:
    """An integral image as `step` × `step` images of every `step`-th value: windows `step` apart then lie side by side.

    Parameters
    ----------
    integral : ndarray of int32, shape (height, width)
    step : int

    Returns
    -------
    ndarray of int32, shape (step², height / step, width / step), rounded up
        Image `v` `step` + `u` holds the rows from `v` and the columns from `u`.
    """
    if step == 1:
        return integral[None]
    height, width = (-(-n // step) for n in integral.shape)
    parts = np.zeros((step * step, height, width), np.int32)
    for v in range(step):
        for u in range(step):
            taken = integral[v::step, u::step]
            parts[v * step + u, : taken.shape[0], : taken.shape[1]] = taken
    return parts


def integral_windows(windows: np.ndarray) -> np.ndarray:
    """Integral images of windows (n, side, side), uint8: int32 of shape ((side + 1)², n), the windows side by side."""
    n, height, width = windows.shape
    integral = np.zeros((height + 1, width + 1, n), np.int32)
    integral[1:, 1:] = windows.transpose(1, 2, 0).astype(np.int32).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    return integral.reshape(-1, n)


@njit(inline="always")
def _lbp_code(  # type: ignore[no-untyped-def]
    p, x, o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15
):
    """Code of the feature with these corner offsets, for the window at `x` of the flat integral `p`.

    The integral may have overflowed (it does above 8 to 30 megapixels): modulo 2³², every cell's sum is right.
    """
    p1, p2, p4, p5, p6, p7 = p[o1 + x], p[o2 + x], p[o4 + x], p[o5 + x], p[o6 + x], p[o7 + x]
    p8, p9, p10, p11, p13, p14 = p[o8 + x], p[o9 + x], p[o10 + x], p[o11 + x], p[o13 + x], p[o14 + x]
    centre = np.int32(p5 - p6 - p9 + p10)
    return np.uint8(
        (np.int32(p[o0 + x] - p1 - p4 + p5) >= centre) * 128
        | (np.int32(p1 - p2 - p5 + p6) >= centre) * 64
        | (np.int32(p2 - p[o3 + x] - p6 + p7) >= centre) * 32
        | (np.int32(p6 - p7 - p10 + p11) >= centre) * 16
        | (np.int32(p10 - p11 - p14 + p[o15 + x]) >= centre) * 8
        | (np.int32(p9 - p10 - p13 + p14) >= centre) * 4
        | (np.int32(p8 - p9 - p[o12 + x] + p13) >= centre) * 2
        | (np.int32(p4 - p5 - p8 + p9) >= centre) * 1
    )


@njit(inline="always")
def _sixteen(o):  # type: ignore[no-untyped-def]
    """Offsets as names, not an array, so that the compiler keeps them at hand.

    They are unsigned, so that no index is looked at for its sign: then the loop over windows becomes one of vectors.
    """
    return o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7], o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]


@njit(cache=True, nogil=True)
def codes_of_row(p: np.ndarray, offsets: np.ndarray, codes: np.ndarray) -> None:
    """Codes of one feature for the windows at 0, 1, 2, ... of a flat integral image.

    Parameters
    ----------
    p : ndarray of int32
    offsets : ndarray of uint64, shape (16,)
        Of the feature, see `corner_offsets`.
    codes : ndarray of uint8
        Takes the codes, as many as it is long.
    """
    o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15 = _sixteen(offsets)
    for x in range(np.uint64(len(codes))):
        codes[x] = _lbp_code(p, x, o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15)


@njit(cache=True, nogil=True)
def codes_at(p: np.ndarray, places: np.ndarray, offsets: np.ndarray, codes: np.ndarray) -> None:
    """As `codes_of_row`, for the windows at `places` (uint64) only; `codes` takes theirs, one after the other."""
    o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15 = _sixteen(offsets)
    for i in range(len(places)):
        codes[i] = _lbp_code(p, places[i], o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15)


def code_matrix(windows: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Codes of every feature in every window.

    Parameters
    ----------
    windows : ndarray of uint8, shape (n, side, side)
    features : ndarray of int32, shape (features, 4)

    Returns
    -------
    ndarray of uint8, shape (features, n)
    """
    codes = np.empty((len(features), len(windows)), np.uint8)
    for part, integrals, offsets in window_blocks(windows, features):
        _fill_codes(integrals, offsets, codes[:, part])
    return codes


def window_blocks(windows: np.ndarray, features: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Windows in blocks: which they are, their flat integral images side by side, the features' offsets therein."""
    offsets = corner_offsets(features, (windows.shape[1] + 1, windows.shape[2] + 1))
    for start in range(0, len(windows), _WINDOWS_A_BLOCK):
        part = slice(start, min(len(windows), start + _WINDOWS_A_BLOCK))
        yield part, integral_windows(windows[part]).ravel(), offsets * np.uint64(part.stop - start)


@njit(cache=True, nogil=True)
def _fill_codes(p: np.ndarray, offsets: np.ndarray, codes: np.ndarray) -> None:
    for f in range(len(offsets)):
        codes_of_row(p, offsets[f], codes[f])
