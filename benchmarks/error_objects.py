"""Every label and every loop of the held-out folds in a row: its kind, and what may explain it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
from error_kinds import border_distance_px, classify, share_covered
from fecral_data import MODELS, NAME

from defectpipe.boxes import convert
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects, matched_pairs
from defectpipe.training import TrainingImage
from defectpipe.training.figures import HeldOut, choose_thresholds

# Sides of a box that its surroundings reach beyond it, each way.
_SURROUNDINGS = 0.5
_LEAST_SURROUNDINGS_PX = 50


def classified(known: HeldOut, images: list[TrainingImage]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All labels and all loops that reach the threshold of their fold, a row each.

    Returns
    -------
    labels, loops : DataFrame
        ``image``, ``group``, boxes (of the model's convention), ``kind``, ``score``, ``threshold``; what may explain
        it: ``side_px`` (long side, tight), ``contrast`` (see `contrast`), ``covered`` (largest share of its tight box
        in that of another label, or of another loop), ``border_px`` (distance of the box from the border).
    """
    settings = Settings().statistics
    card = json.loads((MODELS / NAME / "card.json").read_text(encoding="utf-8"))
    _, thresholds = choose_thresholds(known)
    kept = known.kept(thresholds)
    high = median_true_score(known, kept)
    by_image = {str(image): part for image, part in known.loops.groupby("image")}
    candidates = {str(i): part[BOX_COLUMNS].to_numpy(float) for i, part in known.candidates.groupby("image")}
    all_labels, all_loops = [], []
    for image in images:
        name = image.micrograph.image
        shape = known.shapes[name]
        marked = known.marked(name)
        threshold = thresholds[known.folds[name]]
        screened = by_image.get(name, known.loops.iloc[:0]).sort_values("screening_score", ascending=False)
        found = screened[screened["screening_score"] >= threshold]
        label_rows, loop_rows = classify(
            marked,
            Objects.from_loops(found),
            screened,
            candidates.get(name, np.zeros((0, 4))),
            shape,
            settings,
            high_score=high,
            max_overlap=card["screening"]["max_overlap"],
        )
        loop_rows = loop_rows.assign(score=found["screening_score"].to_numpy(float))
        smooth = cv2.GaussianBlur(image.micrograph.grey8(), (0, 0), 1.0)
        for rows, boxes, target in (
            (label_rows, marked.boxes, all_labels),
            (loop_rows, Objects.from_loops(found).boxes, all_loops),
        ):
            own = convert(boxes, known.box_convention, "tight")
            covered = share_covered(own, own)
            np.fill_diagonal(covered, 0)
            facts = {
                "side_px": (own[:, 2:] - own[:, :2]).max(1, initial=0),
                "contrast": contrast(smooth, own, np.concatenate([marked.boxes, boxes])),
                "covered": covered.max(1, initial=0),
                "border_px": border_distance_px(boxes, shape),
            }
            place = {"image": name, "group": known.groups[name], "threshold": threshold}
            target.append(rows.assign(**place, **dict(zip(BOX_COLUMNS, boxes.T, strict=True)), **facts))
    return pd.concat(all_labels, ignore_index=True), pd.concat(all_loops, ignore_index=True)


def median_true_score(known: HeldOut, kept: pd.DataFrame) -> float:
    """Median score of the loops that agree with a label."""
    scores = [np.zeros(0)]
    for image, part in kept.groupby("image"):
        pairs = matched_pairs(known.marked(str(image)), Objects.from_loops(part), Settings().statistics.match_iou)
        scores.append(part["screening_score"].to_numpy(float)[pairs[:, 1]])
    return float(np.median(np.concatenate(scores)))


def contrast(smooth: np.ndarray, tight: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """How much darker the darkest fifth of each box is than that of its surroundings.

    In standard deviations of the surroundings: what lies within half a side around the box, and in no box of `taken`.
    Nothing but noise gives 0. A label has a box and no outline, so its rim is what is darkest in the box.

    Parameters
    ----------
    smooth : ndarray of uint8, shape (height, width)
    tight : ndarray, shape (n, 4)
    taken : ndarray, shape (m, 4)
        Boxes of all objects, their own among them.

    Returns
    -------
    ndarray, shape (n,)
        NaN where there are no surroundings.
    """
    free = np.ones(smooth.shape, bool)
    for x0, y0, x1, y1 in _pixels(taken, smooth.shape):
        free[y0:y1, x0:x1] = False
    side = tight[:, 2:] - tight[:, :2]
    wide = np.concatenate([tight[:, :2] - _SURROUNDINGS * side, tight[:, 2:] + _SURROUNDINGS * side], 1)
    out = np.full(len(tight), np.nan)
    for k, (inner, outer) in enumerate(zip(_pixels(tight, smooth.shape), _pixels(wide, smooth.shape), strict=True)):
        inside = smooth[inner[1] : inner[3], inner[0] : inner[2]].ravel()
        around = smooth[outer[1] : outer[3], outer[0] : outer[2]][free[outer[1] : outer[3], outer[0] : outer[2]]]
        if len(around) >= _LEAST_SURROUNDINGS_PX and len(inside):
            out[k] = (_darkest_fifth(around) - _darkest_fifth(inside)) / max(float(around.std()), 1.0)
    return out


def _darkest_fifth(values: np.ndarray) -> float:
    return float(np.partition(values, len(values) // 5)[: len(values) // 5 + 1].mean())


def _pixels(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    limits = np.array([shape[1], shape[0]] * 2)
    return np.clip(np.rint(boxes + 0.5), 0, limits).astype(int)
