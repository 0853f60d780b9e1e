"""Greedy suppression among very many boxes: each is compared with its neighbours only."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def suppress_crowd(boxes: np.ndarray, max_overlap: float, limit: int) -> np.ndarray:
    """Greedy non-maximum suppression of boxes that are sorted, best first.

    The same boxes are kept as by comparing all pairs: boxes whose centres are further apart than the longest side do
    not overlap.

    Parameters
    ----------
    boxes : ndarray of float64, shape (n, 4)
    max_overlap : float
        Intersection over union above which the later box is dropped.
    limit : int
        Most boxes that are kept.

    Returns
    -------
    ndarray of int64
        Indices of the boxes kept, in order.
    """
    n = boxes.shape[0]
    kept = np.empty(min(n, limit), np.int64)
    n_kept = 0
    if n == 0:
        return kept
    side = 1.0
    left, top = np.inf, np.inf
    right, bottom = -np.inf, -np.inf
    for i in range(n):
        side = max(side, boxes[i, 2] - boxes[i, 0], boxes[i, 3] - boxes[i, 1])
        x, y = (boxes[i, 0] + boxes[i, 2]) / 2, (boxes[i, 1] + boxes[i, 3]) / 2
        left, right = min(left, x), max(right, x)
        top, bottom = min(top, y), max(bottom, y)
    # Of boxes that lie far apart and are small, there need not be a cell for every place.
    side = max(side, (right - left) / 2000, (bottom - top) / 2000)
    columns = int((right - left) / side) + 1
    rows = int((bottom - top) / side) + 1
    newest = np.full((rows, columns), -1, np.int64)
    older = np.empty(len(kept), np.int64)
    for i in range(n):
        if n_kept >= limit:
            break
        column = int(((boxes[i, 0] + boxes[i, 2]) / 2 - left) / side)
        row = int(((boxes[i, 1] + boxes[i, 3]) / 2 - top) / side)
        area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        free = True
        for r in range(max(0, row - 1), min(rows, row + 2)):
            for c in range(max(0, column - 1), min(columns, column + 2)):
                k = newest[r, c]
                while k >= 0 and free:
                    j = kept[k]
                    w = min(boxes[j, 2], boxes[i, 2]) - max(boxes[j, 0], boxes[i, 0])
                    h = min(boxes[j, 3], boxes[i, 3]) - max(boxes[j, 1], boxes[i, 1])
                    if w > 0 and h > 0:
                        inter = w * h
                        other = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
                        free = inter <= max_overlap * (other + area - inter)
                    k = older[k]
        if free:
            kept[n_kept] = i
            older[n_kept] = newest[row, column]
            newest[row, column] = n_kept
            n_kept += 1
    return kept[:n_kept].copy()
