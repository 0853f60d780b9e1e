"""Figures class by class: of each image, pooled, and beside labels that name their classes.

The diameter of a class is the one by which it is usually stated (`classes.DefectClass.diameter`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.classes import DIAMETERS, EQUIVALENT, DefectClass, DefectClasses
from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics.distributions import interval_name, sum_by_group
from defectpipe.statistics.images import image_statistics
from defectpipe.statistics.pooling import ScoredImage, with_interval
from defectpipe.statistics.scoring import COUNTS, NO_PARTNER, NOT_COUNTED, SCORES, partners
from defectpipe.statistics.summary import pooled_summary

_REPLACED = ("n_loops", "n_on_edge", "areal_density_per_m2")
_POOLED = ("n_loops", "n_on_edge", "mean_diameter", "std_diameter", "areal_density")


def of_class(loops: pd.DataFrame, one: DefectClass) -> pd.DataFrame:
    """The loops of a class, `diameter_px` and `diameter_nm` being the diameter by which it is stated.

    Parameters
    ----------
    loops : DataFrame
        As in ``loops.csv``.
    one : DefectClass
    """
    own = loops[loops["class"] == one.name]
    if one.diameter != EQUIVALENT:
        return own
    # The table has the equivalent diameter in px only, and the area in both.
    equivalent_nm = 2 * np.sqrt(own["area_nm2"].to_numpy(float) / np.pi)
    return own.assign(diameter_px=own[f"{DIAMETERS[one.diameter]}_px"], diameter_nm=equivalent_nm)


def class_rows(
    facts: Mapping[str, Any], loops: pd.DataFrame, classes: DefectClasses, settings: Settings
) -> list[dict[str, Any]]:
    """Rows of ``classes.csv`` of one frame, one a class, without ``image``.

    Parameters
    ----------
    facts : mapping
        As `images.image_row` takes it.
    loops : DataFrame
        Rows of ``loops.csv`` of this frame.
    classes : DefectClasses
    settings : Settings

    Returns
    -------
    list of dict
        ``frame``, ``class``, ``diameter`` (by what it is stated) and the keys of `images.image_statistics`.
    """
    return [
        {"frame": facts["frame"], "class": one.name, "diameter": one.diameter}
        | image_statistics(
            of_class(loops, one),
            tuple(facts["analysed_shape_px"]),
            facts["pixel_size_nm"],
            settings.statistics,
            analysed_area_px2=facts["analysed_area_px2"],
            border_margin_px=settings.measurement.border_margin_px,
        )
        for one in classes.each
    ]


def pooled_classes(
    images: pd.DataFrame, rows: pd.DataFrame, loops: pd.DataFrame, classes: DefectClasses, settings: Settings
) -> dict[str, dict[str, Any]]:
    """Pooled figures of each class, as `summary.pooled_summary` has them of all.

    Parameters
    ----------
    images, rows, loops : DataFrame
        ``images.csv``, ``classes.csv``, ``loops.csv``.
    classes : DefectClasses
    settings : Settings

    Returns
    -------
    dict
        By class: ``diameter`` (by what it is stated), ``n_loops``, ``n_on_edge``, ``mean_diameter_px``,
        ``std_diameter_px``, the same in nm, ``areal_density_per_m2``, each with ``_ci_low`` and ``_ci_high``.
    """
    others = images.drop(columns=list(_REPLACED))
    out = {}
    for one in classes.each:
        own = rows.loc[rows["class"] == one.name, ["image", "frame", *_REPLACED]]
        pooled = pooled_summary(others.merge(own, on=["image", "frame"], how="left"), of_class(loops, one), settings)
        out[one.name] = {"diameter": one.diameter} | {k: v for k, v in pooled.items() if k.startswith(_POOLED)}
    return out


@dataclass(frozen=True, eq=False)
class ClassedImage:
    """One image with the classes of what was marked in it by two sides, and who agrees with whom.

    Attributes
    ----------
    group : str
    label_classes, loop_classes : ndarray of int
        Numbers of the classes; −1: the label is of none.
    of_label, of_loop : ndarray of int
        See `scoring.partners`.
    label_diameters_px, loop_diameters_px : ndarray
        Those by which the classes are stated.
    """

    group: str
    label_classes: np.ndarray
    loop_classes: np.ndarray
    of_label: np.ndarray
    of_loop: np.ndarray
    label_diameters_px: np.ndarray
    loop_diameters_px: np.ndarray

    @classmethod
    def of(
        cls,
        scored: ScoredImage,
        labels: pd.DataFrame,
        loops: pd.DataFrame,
        classes: DefectClasses,
        settings: StatisticsSettings,
    ) -> ClassedImage:
        """From an image that was scored, with the tables that its labels and loops are from."""
        of_label, of_loop = partners(scored.labels, scored.loops, settings)
        number = {name: k for k, name in enumerate(classes.names)}
        label_classes = np.array([number.get(name, -1) for name in classes.known(labels["label"])], int)
        loop_classes = np.array([number.get(name, -1) for name in loops["class"]], int)
        found = np.full(len(loops), np.nan)
        for one in classes.each:
            rows = (loops["class"] == one.name).to_numpy(bool)
            found[rows] = of_class(loops, one)["diameter_px"].to_numpy(float)
        stated = _label_diameters(labels, label_classes, classes)
        return cls(scored.group, label_classes, loop_classes, of_label, of_loop, stated, found)


def class_agreement(
    scored: Sequence[ClassedImage], classes: DefectClasses, settings: StatisticsSettings
) -> dict[str, Any]:
    """Agreement class by class: a label is found, and a loop true, only if the two name the same class.

    Loops and labels are matched one-to-one by their boxes, whatever their classes; those on the border, and loops
    beside labels of no class, count neither way.

    Parameters
    ----------
    scored : sequence of ClassedImage
    classes : DefectClasses
    settings : StatisticsSettings

    Returns
    -------
    dict
        ``interval`` (how intervals were made), ``n_labels_without_class``; ``by_class``: of each class ``diameter``,
        ``n_labels``, ``n_found``, ``n_loops``, ``n_true``, ``recall``, ``precision``, ``f1`` with intervals over
        groups, and of the pairs that agree in class ``n_pairs``, ``median_relative_error`` and
        ``median_absolute_relative_error`` of the diameter (loop/label − 1); ``confusion``: ``labels`` (rows: classes,
        then no label), ``loops`` (columns: classes, then no loop), ``counts``; ``class_accuracy``: of the matched
        pairs the share that agrees in class.
    """
    k = len(classes.each)
    counts = np.array([_counts(s, k) for s in scored], float).reshape(-1, k, len(COUNTS))
    confusion = np.sum([np.zeros((k + 1, k + 1), int)] + [_confusion(s, k) for s in scored], axis=0)
    groups = [s.group for s in scored]
    by_class: dict[str, Any] = {}
    for number, one in enumerate(classes.each):
        sums = sum_by_group(counts[:, number], groups)
        of_one: dict[str, Any] = {"diameter": one.diameter}
        of_one |= {name: int(n) for name, n in zip(COUNTS, counts[:, number].sum(0), strict=True)}
        for name, statistic in SCORES.items():
            of_one |= with_interval(name, sums, statistic, settings, (0, 1))
        by_class[one.name] = of_one | _diameter_errors(scored, number)
    pairs = confusion[:k, :k]
    return {
        "interval": interval_name(len(set(groups)), "group" if len(set(groups)) < len(groups) else "image"),
        "n_labels_without_class": int(sum((s.label_classes < 0).sum() for s in scored)),
        "by_class": by_class,
        "confusion": {
            "labels": [*classes.names, "no label"],
            "loops": [*classes.names, "no loop"],
            "counts": confusion.tolist(),
        },
        "class_accuracy": float(np.trace(pairs) / pairs.sum()) if pairs.sum() else None,
    }


def _label_diameters(labels: pd.DataFrame, numbers: np.ndarray, classes: DefectClasses) -> np.ndarray:
    """Of the labels' ellipses: the major axis, or the diameter of the circle of the same area."""
    major, minor = (labels[name].to_numpy(float) for name in ("diameter_px", "minor_px"))
    is_equivalent = np.array([one.diameter == EQUIVALENT for one in classes.each])
    # Of a label without a class (−1) nothing is compared.
    return np.where(is_equivalent[numbers], np.sqrt(major * minor), major) if len(labels) else np.zeros(0)


def _counts(s: ClassedImage, k: int) -> np.ndarray:
    """Of each class in the order of `COUNTS`: shape (k, 4)."""
    counted_labels = (s.of_label != NOT_COUNTED) & (s.label_classes >= 0)
    beside = s.label_classes[s.of_loop] if len(s.label_classes) else np.full(len(s.of_loop), -1)
    # A loop whose label says no class is neither true nor false.
    counted_loops = (s.of_loop == NO_PARTNER) | ((s.of_loop >= 0) & (beside >= 0))
    true = (s.of_loop >= 0) & (beside == s.loop_classes)
    found = np.zeros(len(s.of_label), bool)
    found[s.of_loop[true]] = True
    out = np.zeros((k, len(COUNTS)), int)
    for number in range(k):
        mine, theirs = s.loop_classes == number, s.label_classes == number
        out[number] = [
            (counted_labels & theirs).sum(),
            (found & theirs).sum(),
            (counted_loops & mine).sum(),
            (true & mine).sum(),
        ]
    return out


def _confusion(s: ClassedImage, k: int) -> np.ndarray:
    """Labels (rows) against loops (columns), shape (k + 1, k + 1); false loops and missed labels come last."""
    out = np.zeros((k + 1, k + 1), int)
    for number, partner in zip(s.label_classes, s.of_label, strict=True):
        if number >= 0 and partner != NOT_COUNTED:
            out[number, s.loop_classes[partner] if partner >= 0 else k] += 1
    for number, partner in zip(s.loop_classes, s.of_loop, strict=True):
        if partner == NO_PARTNER:
            out[k, number] += 1
    return out


def _diameter_errors(scored: Sequence[ClassedImage], number: int) -> dict[str, Any]:
    parts = [np.zeros(0)]
    for s in scored:
        loops = np.flatnonzero((s.of_loop >= 0) & (s.loop_classes == number))
        labels = s.of_loop[loops]
        same = s.label_classes[labels] == number
        theirs = s.label_diameters_px[labels[same]]
        unknown = np.full(len(theirs), np.nan)
        parts.append(np.divide(s.loop_diameters_px[loops[same]], theirs, out=unknown, where=theirs > 0))
    errors = np.concatenate(parts) - 1
    errors = errors[np.isfinite(errors)]
    return {
        "n_pairs": len(errors),
        "median_relative_error": float(np.median(errors)) if len(errors) else None,
        "median_absolute_relative_error": float(np.median(np.abs(errors))) if len(errors) else None,
    }
