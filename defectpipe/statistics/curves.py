"""Precision and recall over the screener's threshold."""

from __future__ import annotations

import numpy as np

from defectpipe.statistics.matching import close_pairs
from defectpipe.statistics.scoring import Objects

_MAX_POINTS = 200


def curve_steps(labels: Objects, found: Objects, scores: np.ndarray, min_overlap: float) -> np.ndarray:
    """How the counts of one image change as its detections join, best first.

    One-to-one at `min_overlap`, the border ignored as in `scoring.score`. A detection that joins lengthens the best
    matching by one pair or leaves it (an augmenting path exists or not), so that one pass gives the optimal count at
    every threshold.

    Parameters
    ----------
    labels, found : Objects
    scores : ndarray, shape (n,)
        Of `found`.
    min_overlap : float

    Returns
    -------
    ndarray, shape (n, 4)
        Score; change of the number of labels that count, of pairs, of detections that count. Best score first.
    """
    order = np.argsort(-scores, kind="stable")
    i, j, _ = close_pairs(found.boxes, labels.boxes, min_overlap)
    near = np.split(j, np.searchsorted(i, np.arange(1, len(found)))) if len(found) else []
    partner = np.full(len(labels), -1)
    excused = np.zeros(len(labels), bool)
    steps = np.zeros((len(found), 4))
    for row, d in enumerate(order):
        inner = [int(k) for k in near[d] if not labels.on_edge[k]]
        before = np.count_nonzero(excused & (partner < 0))
        pair = counted = 0
        if found.on_edge[d]:
            excused[inner] = True
        else:
            pair = int(_augment(int(d), near, labels.on_edge, partner))
            # Excused by a label on the border, unless it is one of the pairs.
            counted = 1 if pair or len(inner) == len(near[d]) else 0
        after = np.count_nonzero(excused & (partner < 0))
        steps[row] = scores[d], before - after, pair, counted
    return steps


def precision_recall_curve(n_labels: int, steps: np.ndarray) -> dict[str, list[float]]:
    """The pooled curve of many images.

    Parameters
    ----------
    n_labels : int
        Labels off the border in all images.
    steps : ndarray, shape (n, 4)
        Of all images, in any order (see `curve_steps`).

    Returns
    -------
    dict
        Lists of one length: ``threshold`` (falling), ``recall``, ``precision``, at most 200 points, first and last
        among them; empty without labels or detections.
    """
    if n_labels == 0 or not len(steps):
        return {"threshold": [], "recall": [], "precision": []}
    steps = steps[np.argsort(-steps[:, 0], kind="stable")]
    sums = steps[:, 1:].cumsum(0)
    last_of_score = np.append(np.flatnonzero(np.diff(steps[:, 0])), len(steps) - 1)
    labels, pairs, counted = n_labels + sums[last_of_score, 0], sums[last_of_score, 1], sums[last_of_score, 2]
    defined = (labels > 0) & (counted > 0)
    threshold = steps[last_of_score, 0][defined]
    recall, precision = (pairs[defined] / labels[defined]), (pairs[defined] / counted[defined])
    if not len(threshold):
        return {"threshold": [], "recall": [], "precision": []}
    keep = np.unique(np.linspace(0, len(threshold) - 1, _MAX_POINTS).round().astype(int))
    return {
        "threshold": threshold[keep].tolist(),
        "recall": recall[keep].tolist(),
        "precision": precision[keep].tolist(),
    }


def _augment(d: int, near: list[np.ndarray], left_out: np.ndarray, partner: np.ndarray) -> bool:
    """Whether an augmenting path starts at detection `d`; if so, `partner` of the labels is changed along it."""
    came_from: dict[int, int] = {}
    waiting = [d]
    while waiting:
        at = waiting.pop(0)
        for label in near[at]:
            label = int(label)
            if left_out[label] or label in came_from:
                continue
            came_from[label] = at
            if partner[label] >= 0:
                waiting.append(int(partner[label]))
                continue
            while True:
                taker = came_from[label]
                released = np.flatnonzero(partner == taker)
                partner[label] = taker
                if taker == d:
                    return True
                label = int(released[0])
    return False
