"""The threshold on the screening score: where as many loops are found as are labelled."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

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
    images = [image for image, fold in held_out.folds.items() if fold in folds]
    n_labels = sum(int(np.count_nonzero(~held_out.marked(image).on_edge)) for image in images)
    counted = held_out.loops["image"].isin(images) & ~held_out.loops["on_edge"]
    scores = held_out.loops.loc[counted, "screening_score"].to_numpy(float)
    n_loops = (scores[:, None] >= grid).sum(0)
    return float(grid[np.abs(n_loops - n_labels).argmin()])
