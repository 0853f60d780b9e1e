"""Several objects of a field told apart, by the maps of the pixel-wise network."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
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
    for part in range(1, n_parts + 1):
        here = parts == part
        if not markers[here].any():
            place = peak_local_max(np.where(here, depth, -1.0), num_peaks=1, exclude_border=False)
            n += 1
            markers[tuple(place[0]) if len(place) else np.argwhere(here)[0]] = n
    found = watershed(-depth, markers, mask=inside)
    sizes = np.bincount(found.ravel(), minlength=n + 1)
    kept = [number for number in range(1, n + 1) if sizes[number] >= min_area_px]
    order = sorted(kept, key=lambda number: int(np.argmax(found.ravel() == number)))
    renumbered = np.zeros(n + 1, np.int32)
    renumbered[order] = np.arange(1, len(order) + 1)
    return renumbered[found]
