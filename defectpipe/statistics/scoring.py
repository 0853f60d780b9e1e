"""One image scored: which labels were found and which loops are true, objects on the border left out on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe import boxes as bx
from defectpipe.settings import StatisticsSettings
from defectpipe.statistics.distributions import ratio
from defectpipe.statistics.matching import close_pairs, match_one_to_one, near_any

BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]

_ELLIPSE = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]

RULES = ("one_to_one", "li2018")
"""The matching rules: boxes one-to-one at ``match_iou``; centres within ``match_distance_px``, many-to-many."""

NO_PARTNER, NOT_COUNTED = -1, -2
"""In place of a partner's index: a label missed or a loop false; an object that counts neither way."""

COUNTS = ("n_labels", "n_found", "n_loops", "n_true")
"""What a rule counts in an image: labels that count, those found, loops that count, those that are true."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Loops or labels of one image, in one box convention.

    Parameters
    ----------
    boxes : ndarray, shape (n, 4)
    centres : ndarray, shape (n, 2)
        ``x, y``, in px.
    diameters_px : ndarray, shape (n,)
        NaN where unknown.
    on_edge : ndarray of bool, shape (n,)
    long_sides_px : ndarray, shape (n,), optional
        Of the tight bounding boxes: what a label that is a box and a measured ellipse both have. None: unknown.
    """

    boxes: np.ndarray
    centres: np.ndarray
    diameters_px: np.ndarray
    on_edge: np.ndarray
    long_sides_px: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def whole(self) -> np.ndarray:
        """Diameters of the objects that the border does not cut, in px, those unknown left out."""
        return self._uncut(self.diameters_px)

    def whole_long_sides(self) -> np.ndarray:
        """Long sides of the objects that the border does not cut, in px, those unknown left out."""
        return np.zeros(0) if self.long_sides_px is None else self._uncut(self.long_sides_px)

    def _uncut(self, values: np.ndarray) -> np.ndarray:
        return values[~self.on_edge & np.isfinite(values)]

    def without_border_flags(self) -> Objects:
        """The same objects, none of them ignored."""
        return Objects(self.boxes, self.centres, self.diameters_px, np.zeros(len(self), bool), self.long_sides_px)

    @classmethod
    def from_loops(cls, loops: pd.DataFrame) -> Objects:
        """From rows of ``loops.csv`` of one image and frame."""
        bounds = bx.ellipse_bounds(*loops.reindex(columns=_ELLIPSE).to_numpy(float).T)
        return cls(
            loops[BOX_COLUMNS].to_numpy(float),
            loops[["x_px", "y_px"]].to_numpy(float),
            loops["diameter_px"].to_numpy(float),
            loops["on_edge"].to_numpy(bool),
            (bounds[:, 2:] - bounds[:, :2]).max(1, initial=0),
        )

    @classmethod
    def from_labels(
        cls, labels: pd.DataFrame, shape: tuple[int, int], box_convention: str, margin_px: float
    ) -> Objects:
        """From labels of one image (tight boxes), their boxes converted to `box_convention`."""
        tight = labels[BOX_COLUMNS].to_numpy(float)
        boxes = bx.convert(tight, "tight", box_convention)
        return cls(
            boxes,
            labels[["x_px", "y_px"]].to_numpy(float),
            labels["diameter_px"].to_numpy(float),
            bx.touches_border(boxes, shape, margin_px),
            (tight[:, 2:] - tight[:, :2]).max(1, initial=0),
        )

    @classmethod
    def from_candidates(cls, candidates: pd.DataFrame, shape: tuple[int, int], margin_px: float) -> Objects:
        """From screened candidates of one image, which have a box and no diameter."""
        boxes = candidates[BOX_COLUMNS].to_numpy(float)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return cls(boxes, centres, np.full(len(boxes), np.nan), bx.touches_border(boxes, shape, margin_px))


def score(labels: Objects, loops: Objects, settings: StatisticsSettings) -> dict[str, np.ndarray]:
    """Counts of one image under both rules.

    A label on the border is not missed, a loop on the border not false; nor is a loop false that only agrees with a
    label on the border, or a label missed that only agrees with a loop there.

    Parameters
    ----------
    labels, loops : Objects
        In the same box convention.
    settings : StatisticsSettings
        ``match_iou``, ``match_distance_px``.

    Returns
    -------
    dict
        For each of `RULES`, and with the suffix ``_with_border`` the same with the border counted: an int array in the
        order of `COUNTS`.
    """
    out: dict[str, np.ndarray] = {}
    for suffix, a, b in (
        ("", labels, loops),
        ("_with_border", labels.without_border_flags(), loops.without_border_flags()),
    ):
        for rule, count in zip(RULES, (_one_to_one, _centres), strict=True):
            found, true, excused_labels, excused_loops = count(a, b, settings)
            counted_labels, counted_loops = ~a.on_edge & ~excused_labels, ~b.on_edge & ~excused_loops
            out[rule + suffix] = np.array([counted_labels.sum(), found.sum(), counted_loops.sum(), true.sum()])
    return out


def partners(labels: Objects, loops: Objects, settings: StatisticsSettings) -> tuple[np.ndarray, np.ndarray]:
    """Who agrees with whom one-to-one, as `score` counts it.

    Parameters
    ----------
    labels, loops : Objects
        In the same box convention.
    settings : StatisticsSettings
        ``match_iou``.

    Returns
    -------
    of_label, of_loop : ndarray of int, shape (n_labels,) and (n_loops,)
        Index of the loop that found a label, and of the label that a loop agrees with; else `NO_PARTNER`, or
        `NOT_COUNTED`: on the border, or beside what is.
    """
    _found, _true, excused_labels, excused_loops = _one_to_one(labels, loops, settings)
    pairs = matched_pairs(labels, loops, settings.match_iou)
    of_label = np.where(labels.on_edge | excused_labels, NOT_COUNTED, NO_PARTNER)
    of_loop = np.where(loops.on_edge | excused_loops, NOT_COUNTED, NO_PARTNER)
    of_label[pairs[:, 0]], of_loop[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return of_label, of_loop


def matched_pairs(labels: Objects, loops: Objects, min_overlap: float) -> np.ndarray:
    """One-to-one pairs of uncut objects: index of the label, index of the loop; shape (k, 2)."""
    of_label, of_loop = np.flatnonzero(~labels.on_edge), np.flatnonzero(~loops.on_edge)
    pairs = match_one_to_one(labels.boxes[of_label], loops.boxes[of_loop], min_overlap)
    return np.stack([of_label[pairs[:, 0]], of_loop[pairs[:, 1]]], 1)


def recall_of(counts: np.ndarray) -> np.ndarray:
    """Recall from counts of shape (..., 4); NaN without labels."""
    return ratio(np.asarray(counts)[..., [1, 0]])


def precision_of(counts: np.ndarray) -> np.ndarray:
    """Precision from counts of shape (..., 4); NaN without loops."""
    return ratio(np.asarray(counts)[..., [3, 2]])


def f1_of(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of recall and precision from counts of shape (..., 4).

    0 where labels or loops lack; NaN where both do.
    """
    counts = np.asarray(counts, float)
    recall, precision = np.nan_to_num(recall_of(counts)), np.nan_to_num(precision_of(counts))
    both = recall + precision
    f1 = np.divide(2 * recall * precision, both, out=np.zeros(both.shape), where=both > 0)
    return np.where((counts[..., 0] > 0) | (counts[..., 2] > 0), f1, np.nan)


SCORES = {"recall": recall_of, "precision": precision_of, "f1": f1_of}

_Marks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _one_to_one(labels: Objects, loops: Objects, settings: StatisticsSettings) -> _Marks:
    pairs = matched_pairs(labels, loops, settings.match_iou)
    found, true = np.zeros(len(labels), bool), np.zeros(len(loops), bool)
    found[pairs[:, 0]] = True
    true[pairs[:, 1]] = True
    i, j, _ = close_pairs(labels.boxes, loops.boxes, settings.match_iou)
    excused_labels, excused_loops = np.zeros(len(labels), bool), np.zeros(len(loops), bool)
    excused_labels[i[loops.on_edge[j]]] = True
    excused_loops[j[labels.on_edge[i]]] = True
    return found, true, excused_labels & ~found & ~labels.on_edge, excused_loops & ~true & ~loops.on_edge


def _centres(labels: Objects, loops: Objects, settings: StatisticsSettings) -> _Marks:
    limit = settings.match_distance_px
    a, b = labels.centres, loops.centres
    found = near_any(a, b[~loops.on_edge], limit) & ~labels.on_edge
    true = near_any(b, a[~labels.on_edge], limit) & ~loops.on_edge
    excused_labels = near_any(a, b[loops.on_edge], limit) & ~found
    excused_loops = near_any(b, a[labels.on_edge], limit) & ~true
    return found, true, excused_labels, excused_loops
