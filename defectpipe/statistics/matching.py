"""Which objects of two sets are the same: the two rules by which detections are scored."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from defectpipe import boxes as bx

_CHUNK = 512


def close_pairs(a: np.ndarray, b: np.ndarray, min_overlap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of boxes that overlaps by at least `min_overlap` (intersection over union).

    Parameters
    ----------
    a, b : ndarray, shape (n, 4) and (m, 4)
        Boxes ``x0, y0, x1, y1``.
    min_overlap : float
        Above 0.

    Returns
    -------
    i, j : ndarray of int
        Indices into `a` and `b`, sorted.
    overlap : ndarray of float
    """
    a, b = np.asarray(a, float).reshape(-1, 4), np.asarray(b, float).reshape(-1, 4)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    order = np.argsort(a[:, 0], kind="stable")
    # Strips of boxes that are neighbours in x: the full matrix of a large image would not fit in memory.
    for start in range(0, len(a), _CHUNK):
        rows = order[start : start + _CHUNK]
        near = np.flatnonzero((b[:, 2] > a[rows, 0].min()) & (b[:, 0] < a[rows, 2].max()))
        found = bx.overlaps(a[rows], b[near])
        i, j = np.nonzero(found >= min_overlap)
        parts.append((rows[i], near[j], found[i, j]))
    if not parts:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    i, j, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    by_index = np.lexsort((j, i))
    return i[by_index], j[by_index], overlap[by_index]


def match_one_to_one(a: np.ndarray, b: np.ndarray, min_overlap: float) -> np.ndarray:
    """The largest set of disjoint pairs that overlap enough; of those, the one of largest total overlap.

    Parameters
    ----------
    a, b : ndarray, shape (n, 4) and (m, 4)
        Boxes ``x0, y0, x1, y1``.
    min_overlap : float
        Least intersection over union of a pair, above 0.

    Returns
    -------
    ndarray of int, shape (k, 2)
        Index into `a`, index into `b`; sorted by the first.
    """
    i, j, overlap = close_pairs(a, b, min_overlap)
    if not len(i):
        return np.zeros((0, 2), int)
    n, m = int(i.max()) + 1, int(j.max()) + 1
    links = coo_array((np.ones(len(i)), (i, j + n)), shape=(n + m, n + m))
    _, part_of = connected_components(links, directed=False)
    pairs: list[np.ndarray] = []
    part = part_of[i]
    by_part = np.argsort(part, kind="stable")
    for members in np.split(by_part, np.flatnonzero(np.diff(part[by_part])) + 1):
        pairs.append(_assign(i[members], j[members], overlap[members]))
    matched = np.concatenate(pairs)
    return matched[np.argsort(matched[:, 0], kind="stable")]


def near_any(a: np.ndarray, b: np.ndarray, distance_px: float) -> np.ndarray:
    """Whether each point of `a` has some point of `b` within `distance_px` in x and in y.

    The rule of Li, Field & Morgan 2018 (many-to-many: a point of `b` may serve several of `a`).

    Parameters
    ----------
    a, b : ndarray, shape (n, 2) and (m, 2)
        Centres ``x, y``, in px.
    distance_px : float
        The limit itself still counts as near.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    a, b = np.asarray(a, float).reshape(-1, 2), np.asarray(b, float).reshape(-1, 2)
    if not len(a) or not len(b):
        return np.zeros(len(a), bool)
    distance, _ = cKDTree(b).query(a, k=1, p=np.inf)
    return distance <= distance_px


def _assign(i: np.ndarray, j: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    if len(i) == 1:
        return np.stack([i, j], 1)
    rows, row = np.unique(i, return_inverse=True)
    columns, column = np.unique(j, return_inverse=True)
    # One more pair outweighs any overlap: the overlaps of all pairs together stay below 1.
    gain = np.zeros((len(rows), len(columns)))
    gain[row, column] = 1 + overlap / (min(gain.shape) + 1)
    r, c = linear_sum_assignment(gain, maximize=True)
    real = gain[r, c] > 0
    return np.stack([rows[r[real]], columns[c[real]]], 1)
