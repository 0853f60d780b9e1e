"""Watershed flood of one loop: from a seed inside and a seed outside, to the crest of the rim between them.

In polar coordinates the seeds are the first and the last row, and the flooded region ends at one radius a column.
"""

from __future__ import annotations

import numpy as np
from skimage.segmentation import watershed

from defectpipe.measurement.polar import Border, Landscape, PolarGrid, contrast_of, heights, smoothed_along


def flood_polar(values: np.ndarray, inside: np.ndarray, grid: PolarGrid, landscape: Landscape) -> Border:
    """Flood a polar picture from its first and last row.

    Parameters
    ----------
    values : ndarray, shape (grid.n_radii, grid.n_angles)
        High on the rim.
    inside : ndarray of bool, same shape
        See `polar.sample_polar`.
    grid : PolarGrid
    landscape : Landscape

    Returns
    -------
    Border
        Of the region that the inner seed flooded.
    """
    smooth = smoothed_along(values, landscape.along)
    height = heights(smooth, grid, landscape)
    m, n = height.shape
    wrap = n // 4
    wide = np.concatenate([height[:, -wrap:], height, height[:, :wrap]], 1)
    seeds = np.zeros(wide.shape, np.int32)
    seeds[0], seeds[-1] = 1, 2
    region = watershed(wide, seeds)[:, wrap : wrap + n] == 1
    # islands and bays in a direction do not count: the length inside does
    rows = region.sum(0)
    return Border(
        radii=grid.inner + (rows - 0.5) * grid.step,
        inside=inside[rows, np.arange(n)],
        contrast=contrast_of(smooth, rows, grid) / (float(values.std()) + 1e-6),
        leaked=float(((rows <= 2) | (rows >= m - 2)).mean()),
    )
