"""Agreement of loops with labels: the columns of ``images.csv``, and the content of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.classes import DefectClasses
from defectpipe.settings import Settings
from defectpipe.statistics.classes import ClassedImage, class_agreement
from defectpipe.statistics.curves import curve_steps, precision_recall_curve
from defectpipe.statistics.distributions import mean_and_std
from defectpipe.statistics.experts import compare_experts
from defectpipe.statistics.pooling import ScoredImage, image_rows, pooled_agreement, rule_name
from defectpipe.statistics.scoring import BOX_COLUMNS, SCORES, Objects, partners, score

LABELLED_FRAME = 0
"""Labels of a file with several frames are those of its first."""


def agreement(
    loops: pd.DataFrame, labels: pd.DataFrame, shape: tuple[int, int], *, box_convention: str, settings: Settings
) -> dict[str, int | float | None]:
    """Agreement of the loops of one image with its labels.

    Objects on the border are neither missed nor false, and enter no mean.

    Parameters
    ----------
    loops : DataFrame
        Rows of ``loops.csv`` of this image and frame; boxes in `box_convention`.
    labels : DataFrame
        Labels of the image, boxes tight; none: there are no loops.
    shape : (int, int)
        Height and width, in px.
    box_convention : str
        Of the loops' boxes: ``"tight"`` or ``"padded"``.
    settings : Settings

    Returns
    -------
    dict
        ``n_labels`` (all), ``labels_mean_diameter_px``, ``labels_std_diameter_px`` (uncut), ``recall``, ``precision``
        (one-to-one), ``recall_20px``, ``precision_20px`` (centres); None where undefined: a recall without labels, a
        precision without loops.
    """
    marked = Objects.from_labels(labels, shape, box_convention, settings.measurement.border_margin_px)
    counts = score(marked, Objects.from_loops(loops), settings.statistics)
    mean, std = mean_and_std(marked.whole())
    out: dict[str, int | float | None] = {
        "n_labels": len(labels),
        "labels_mean_diameter_px": mean,
        "labels_std_diameter_px": std,
    }
    for rule, suffix in (("one_to_one", ""), ("li2018", "_20px")):
        for name in ("recall", "precision"):
            value = float(SCORES[name](counts[rule].astype(float)))
            out[name + suffix] = value if np.isfinite(value) else None
    return out


def agreeing(
    loops: pd.DataFrame, labels: pd.DataFrame, shape: tuple[int, int], *, box_convention: str, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Which loops and labels the `agreement` of an image counts as the same; parameters as there.

    Returns
    -------
    of_label, of_loop : ndarray of int
        See `scoring.partners`.
    """
    marked = Objects.from_labels(labels, shape, box_convention, settings.measurement.border_margin_px)
    return partners(marked, Objects.from_loops(loops), settings.statistics)


def reference_expert(labels: Mapping[str, Mapping[str, pd.DataFrame]], image: str) -> str | None:
    """The expert whose labels stand in ``images.csv``: the first by name who labelled the image; None if none did."""
    return min((expert for expert, images in labels.items() if image in images), default=None)


def evaluate(
    images: pd.DataFrame,
    loops: pd.DataFrame,
    labels: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    box_convention: str,
    settings: Settings,
    candidates: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    classes: DefectClasses | None = None,
) -> dict[str, Any]:
    """Agreement of a whole run with its labels.

    Parameters
    ----------
    images : DataFrame
        ``images.csv``: ``image``, ``frame``, ``status``, ``height_px``, ``width_px`` are used. Failed images and frames
        other than the first are not scored.
    loops : DataFrame
        ``loops.csv``.
    labels : mapping
        Expert to image to labels (boxes tight). An image without an entry is not scored; an empty table says that
        there are no loops.
    box_convention : str
        Of the loops' and candidates' boxes: ``"tight"`` or ``"padded"``.
    settings : Settings
    candidates : DataFrame, optional
        Screened candidates of all images (``image``, ``frame``, boxes, ``screening_score``), so that the curve goes on
        below the threshold of the run. Default: the loops.
    groups : mapping of str to str, optional
        Image to group (specimen, family) over which intervals are made. Default: each image is its own.
    classes : DefectClasses, optional
        Those of the model. Default: one.

    Returns
    -------
    dict
        Content of ``evaluation.json``. ``reference`` names the expert of the top level: the first by name. There:
        what `pooling.pooled_agreement` gives, ``images`` (image by image), ``precision_recall_curve``, ``not_scored``;
        with several experts ``experts`` (see `experts.compare_experts`); with several classes ``classes`` (see
        `classes.class_agreement`).
    """
    names = sorted(labels)
    rows, not_scored = _scorable(images, labels)
    found = _by_image(loops)
    margin_px = settings.measurement.border_margin_px
    by_expert: dict[str, list[ScoredImage]] = {}
    for name in names:
        by_expert[name] = []
        for image, shape in rows.items():
            if image not in labels[name]:
                continue
            marked = Objects.from_labels(labels[name][image], shape, box_convention, margin_px)
            here = Objects.from_loops(found.get(image, loops.iloc[:0]))
            group = image if groups is None else groups.get(image, image)
            by_expert[name].append(ScoredImage.of(image, group, marked, here, settings.statistics))
    scored = by_expert[names[0]] if names else []
    out: dict[str, Any] = {
        "reference": names[0] if names else None,
        "confidence": settings.statistics.confidence,
        "match_iou": settings.statistics.match_iou,
        "match_distance_px": settings.statistics.match_distance_px,
        "box_convention": box_convention,
    }
    out |= pooled_agreement(scored, settings.statistics)
    if classes is not None and classes.several:
        own = labels[names[0]] if names else {}
        classed = [
            ClassedImage.of(s, own[s.image], found.get(s.image, loops.iloc[:0]), classes, settings.statistics)
            for s in scored
        ]
        out["classes"] = class_agreement(classed, classes, settings.statistics)
    out["precision_recall_curve"] = _curve(scored, rows, loops if candidates is None else candidates, settings)
    out["images"] = image_rows(scored, settings.statistics)
    out["not_scored"] = not_scored
    if len(names) > 1:
        out["experts"] = compare_experts(by_expert, settings.statistics)
    return out


def _scorable(
    images: pd.DataFrame, labels: Mapping[str, Mapping[str, pd.DataFrame]]
) -> tuple[dict[str, tuple[int, int]], list[dict[str, str]]]:
    """Shapes of the images to score, by name; and the others that have labels, or lack them, with the reason."""
    rows: dict[str, tuple[int, int]] = {}
    reasons: dict[str, str] = {}
    first = images[images["frame"].fillna(LABELLED_FRAME) == LABELLED_FRAME]
    for image, status, height, width in zip(
        first["image"], first["status"], first["height_px"], first["width_px"], strict=True
    ):
        if reference_expert(labels, image) is None:
            reasons[image] = "no labels"
        elif status == "failed":
            reasons[image] = "the image failed"
        else:
            rows[image] = (int(height), int(width))
    for image in set().union(*labels.values()) - set(first["image"]):
        reasons[image] = "no such image"
    return dict(sorted(rows.items())), [{"image": i, "reason": reasons[i]} for i in sorted(reasons)]


def _by_image(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(image): part for image, part in table[table["frame"] == LABELLED_FRAME].groupby("image", sort=True)}


def _curve(
    scored: list[ScoredImage], rows: Mapping[str, tuple[int, int]], table: pd.DataFrame, settings: Settings
) -> dict[str, Any]:
    found = _by_image(table[table["screening_score"].notna()]) if len(table) else {}
    overlap = settings.statistics.match_iou
    steps = [np.zeros((0, 4))]
    for s in scored:
        if s.image in found:
            part = found[s.image]
            here = Objects.from_candidates(part[BOX_COLUMNS], rows[s.image], settings.measurement.border_margin_px)
            steps.append(curve_steps(s.labels, here, part["screening_score"].to_numpy(float), overlap))
    n_labels = sum(int(np.count_nonzero(~s.labels.on_edge)) for s in scored)
    return {"rule": rule_name("one_to_one", settings.statistics)} | precision_recall_curve(
        n_labels, np.concatenate(steps)
    )
