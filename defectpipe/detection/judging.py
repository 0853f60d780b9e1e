"""How a cascade judges windows that lie side by side: stump by stump for all of them, which a processor's vectors like.

The sums are those of a loop over the stumps of one window: same values, same order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from defectpipe.detection.lbp import codes_at, codes_of_row

# So many windows are judged together: what they read and write stays in the cache.
WINDOWS_A_BLOCK = 4096
# The codes of all windows of a block cost as much as those of this part of them, one by one.
_DENSE_FROM = 14


@njit(cache=True, nogil=True)
def judge_block(  # type: ignore[no-untyped-def]
    p, n, places, offsets, first_stump, tables, thresholds, passed, margins
):
    """Judge windows among those at 0, 1, ... n − 1 of a flat integral image.

    Parameters
    ----------
    p : ndarray of int32
        Flat integral image.
    n : int
    places : ndarray of uint64, shape (m,)
        The windows that are wanted. Is written over.
    offsets : ndarray of uint64, shape (stumps, 16)
        See `lbp.corner_offsets`.
    first_stump, tables, thresholds : ndarray
        See `cascade.PackedCascade`.
    passed : ndarray of int32, shape (n,)
        Takes the number of stages that each window passes; 0 of those that are not wanted.
    margins : ndarray of float64, shape (n,)
        Takes the sum over all stages of the sum less the threshold, of the windows that pass them all.
    """
    codes = np.empty(n, np.uint8)
    totals = np.empty(len(places))
    sums = np.zeros(len(places))
    m = len(places)
    passed[:n] = 0
    for s in range(len(thresholds)):
        threshold = np.float64(thresholds[s])
        totals[:m] = 0
        for k in range(first_stump[s], first_stump[s + 1]):
            table = tables[k]
            if m * _DENSE_FROM > n:
                codes_of_row(p, offsets[k], codes)
                for i in range(m):
                    totals[i] += np.float64(table[codes[places[i]]])
            else:
                codes_at(p, places[:m], offsets[k], codes)
                for i in range(m):
                    totals[i] += np.float64(table[codes[i]])
        kept = 0
        for i in range(m):
            if totals[i] >= threshold:
                passed[places[i]] = s + 1
                places[kept] = places[i]
                sums[kept] = sums[i] + (totals[i] - threshold)
                kept += 1
        m = kept
        if m == 0:
            return
    for i in range(m):
        margins[places[i]] = sums[i]
