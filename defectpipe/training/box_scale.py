"""How much too small the screener draws the boxes of families that it never saw, and what makes up for it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from defectpipe.boxes import convert
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.figures import HeldOut, found_labels, long_sides
from defectpipe.training.threshold import balanced_threshold

# Of fewer pairs the median says little.
_LEAST_PAIRS = 50


def choose_box_scales(held_out: HeldOut) -> tuple[float, dict[int, float]]:
    """Factor for the sides of the boxes, of all folds, and for each fold the one that the other folds choose."""
    folds = sorted(set(held_out.folds.values()))
    by_fold = {fold: box_scale(held_out, [f for f in folds if f != fold]) for fold in folds}
    return box_scale(held_out, folds), by_fold


def box_scale(held_out: HeldOut, folds: Collection[int]) -> float:
    """Median ratio of the long sides of labels and of the boxes that found them, in the model's convention.

    Returns
    -------
    float
        1 where fewer than 50 labels were found.
    """
    threshold = balanced_threshold(held_out, folds)
    ratios = [np.zeros(0)]
    loops = held_out.loops
    counted = (loops["screening_score"] >= threshold) & loops["image"].map(held_out.folds).isin(list(folds))
    for tight, rows in found_labels(held_out, loops[counted]):
        wanted = convert(tight, "tight", held_out.box_convention)
        ratios.append(long_sides(wanted) / long_sides(rows[BOX_COLUMNS].to_numpy(float)))
    pooled = np.concatenate(ratios)
    return round(float(np.median(pooled)), 3) if len(pooled) >= _LEAST_PAIRS else 1.0
