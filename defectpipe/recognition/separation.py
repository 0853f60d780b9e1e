"""Several objects of a field told apart, by the maps of the pixel-wise network."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from defectpipe.recognition.pixelwise import DEPTH, OUTLINE

_SMOOTHING_PX = 1.5


def separate(
    maps: np.ndarray, min_depth: float = 0.5, min_area_px: float = 30.0, min_probability: float = 0.5
) -> np.ndarray:
    """Which object each pixel belongs to: a watershed on the depth, from its peaks.

    Parameters
    ----------
    maps : ndarray, shape (height, width, 3)
        From `pixelwise.maps_of`.
    min_depth : float
        Of a peak of the smoothed depth, by which an object counts; parts that have none are objects of their own.
    min_area_px : float
        Smaller ones are dropped.
    min_probability : float
        Of the outline.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0: none; objects are numbered from 1 without gaps, from the top left.
    """
    inside = maps[..., OUTLINE] > min_probability
    depth = ndimage.gaussian_filter(maps[..., DEPTH], _SMOOTHING_PX)
    parts, n_parts = ndimage.label(inside)
    # peaks nearer than that are of one object: ridges of long ones have several
    markers = np.zeros(inside.shape, np.int32)
    summits, n = ndimage.label(inside & (depth > min_depth))
    markers[summits > 0] = summits[summits > 0]
    has_marker = np.zeros(n_parts + 1, bool)
    has_marker[parts[markers > 0]] = True
    for part, box in enumerate(ndimage.find_objects(parts), 1):
        if not has_marker[part]:
            inner = np.where(parts[box] == part, depth[box], -1.0)
            n += 1
            markers[box][np.unravel_index(int(inner.argmax()), inner.shape)] = n
    found = watershed(-depth, markers, mask=inside)
    sizes = np.bincount(found.ravel(), minlength=n + 1)
    numbers, first = np.unique(found, return_index=True)
    order = [number for number in numbers[np.argsort(first)] if number and sizes[number] >= min_area_px]
    renumbered = np.zeros(n + 1, np.int32)
    renumbered[order] = np.arange(1, len(order) + 1)
    return renumbered[found]
