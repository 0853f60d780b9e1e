"""Closed contour of one loop: of all that go once round it, the one that keeps highest on the rim and bends least.

In polar coordinates a contour is one row a column, and dynamic programming finds the best one among all. A flood takes
the pass that is lowest for water; a contour is led past a gap in the rim, or a line that crosses it, by the rim's other
parts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from defectpipe.measurement.polar import Border, Landscape, PolarGrid, contrast_of, heights, smoothed_along

# Rows that a contour may rise or fall from a direction to the next.
_STEEPEST = 2


def contour_polar(
    values: np.ndarray, inside: np.ndarray, grid: PolarGrid, landscape: Landscape, stiffness: float
) -> Border:
    """The best closed contour in a polar picture.

    Parameters
    ----------
    values : ndarray, shape (grid.n_radii, grid.n_angles)
        High on the rim.
    inside : ndarray of bool, same shape
        See `polar.sample_polar`.
    grid : PolarGrid
    landscape : Landscape
        Here `along` smooths for the contrast alone: the stiffness does it for the contour.
    stiffness : float
        What a step of one row between neighbouring directions costs, in the landscape's height; in the square.

    Returns
    -------
    Border
        Radii between the rows: at the crest of a parabola through three of them.
    """
    height = heights(values, grid, landscape)
    m, n = height.shape
    rows = _best_path(np.ascontiguousarray(height, np.float64), stiffness, _STEEPEST)
    columns, middle = np.arange(n), np.clip(rows, 1, m - 2)
    below, at, above = (height[middle + k, columns].astype(float) for k in (-1, 0, 1))
    bend = np.minimum(below - 2 * at + above, -1e-6)
    offset = np.clip((below - above) / (2 * bend), -0.5, 0.5)
    return Border(
        radii=grid.inner + (middle + offset) * grid.step,
        inside=inside[rows, columns],
        contrast=contrast_of(smoothed_along(values, landscape.along), rows, grid) / (float(values.std()) + 1e-6),
        leaked=float(((rows <= 1) | (rows >= m - 2)).mean()),
    )


@njit(cache=True)
def _best_path(height, stiffness, steepest):  # type: ignore[no-untyped-def]
    """Row of each column on the best path, shape (n,).

    The path goes round twice and the middle of it is kept: there it does not know where it began, so it closes.
    """
    m, n = height.shape
    came_from = np.zeros((2 * n, m), np.int64)
    total, longer = height[:, 0].copy(), np.empty(m)
    for k in range(1, 2 * n):
        for i in range(m):
            best, best_j = -np.inf, i
            for j in range(max(i - steepest, 0), min(i + steepest, m - 1) + 1):
                value = total[j] - stiffness * (i - j) ** 2
                if value > best:
                    best, best_j = value, j
            longer[i] = best + height[i, k % n]
            came_from[k, i] = best_j
        total[:] = longer
    path = np.empty(n, np.int64)
    row = np.argmax(total)
    for k in range(2 * n - 1, n // 2 - 1, -1):
        if k < n // 2 + n:
            path[k % n] = row
        row = came_from[k, row]
    return path
