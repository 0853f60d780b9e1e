"""What the screener's boxes of families that it never saw are multiplied by: to fit its convention, and to be tight."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectpipe.boxes import convert
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.figures import HeldOut, found_labels, long_sides
from defectpipe.training.threshold import balanced_threshold

# Of fewer pairs the median says little.
_LEAST_PAIRS = 50


@dataclass(frozen=True)
class BoxScales:
    """Factors for the sides of boxes.

    Parameters
    ----------
    box : float
        From the screener's boxes to those of ``loops.csv``, in the model's convention.
    tight : float, optional
        From those of ``loops.csv`` to tight ones. None: by the rule of the convention.
    """

    box: float = 1.0
    tight: float | None = None

    def card(self) -> dict[str, Any]:
        """The fields of a card that hold them."""
        return {"box_scale": self.box, "tight_scale": self.tight}


def choose_box_scales(held_out: HeldOut) -> tuple[BoxScales, dict[int, BoxScales]]:
    """Factors for the sides of the boxes, of all folds, and for each fold those that the other folds choose."""
    folds = sorted(set(held_out.folds.values()))
    by_fold = {fold: box_scales(held_out, [f for f in folds if f != fold]) for fold in folds}
    return box_scales(held_out, folds), by_fold


def box_scales(held_out: HeldOut, folds: Collection[int]) -> BoxScales:
    """Median ratios of the long sides of labels and of the boxes that found them: in the model's convention, and tight.

    Returns
    -------
    BoxScales
        As if there was nothing to scale where fewer than 50 labels were found.
    """
    threshold = balanced_threshold(held_out, folds)
    ratios = [np.zeros((0, 2))]
    loops = held_out.loops
    counted = (loops["screening_score"] >= threshold) & loops["image"].map(held_out.folds).isin(list(folds))
    for tight, rows in found_labels(held_out, loops[counted]):
        wanted = convert(tight, "tight", held_out.box_convention)
        sides = np.stack([long_sides(wanted), long_sides(tight)], 1)
        ratios.append(sides / long_sides(rows[BOX_COLUMNS].to_numpy(float))[:, None])
    pooled = np.concatenate(ratios)
    if len(pooled) < _LEAST_PAIRS:
        return BoxScales()
    box, tight_side = np.median(pooled, 0)
    scale = round(float(box), 3)
    return BoxScales(scale, round(float(tight_side) / scale, 3))
