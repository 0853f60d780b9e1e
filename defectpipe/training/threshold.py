"""The threshold on the screening score: where as many loops are found as are labelled."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.settings import Settings
from defectpipe.statistics.scoring import Objects, score

if TYPE_CHECKING:
    from defectpipe.training.figures import HeldOut

_STEP = 0.01
_LOWEST, _HIGHEST = 0.2, 0.95


def balanced_threshold(held_out: HeldOut, folds: Collection[int]) -> float:
    """Threshold at which the loops of these folds, pooled, are as many as their labels.

    There recall equals precision under one-to-one matching, and the counts behind a density are unbiased. Objects on
    the border do not count.

    Returns
    -------
    float
        On a grid of 0.01 from 0.2 to 0.95.
    """
    grid = np.round(np.arange(_LOWEST, _HIGHEST + _STEP / 2, _STEP), 2)
    found = {str(image): part for image, part in held_out.loops.groupby("image")}
    surplus = np.zeros(len(grid))
    for image, fold in held_out.folds.items():
        if fold not in folds:
            continue
        marked = held_out.marked(image)
        part = found.get(image, held_out.loops.iloc[:0])
        scores = part["screening_score"].to_numpy(float)
        for i, threshold in enumerate(grid):
            n_labels, _, n_loops, _ = score(
                marked, Objects.from_loops(part[scores >= threshold]), Settings().statistics
            )["one_to_one"]
            surplus[i] += n_loops - n_labels
    return float(grid[np.abs(surplus).argmin()])
