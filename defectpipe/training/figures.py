"""Figures of a training, all from images that the model in question never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.boxes import ellipse_bounds, tighten
from defectpipe.classes import DefectClasses
from defectpipe.settings import Settings
from defectpipe.statistics import evaluate
from defectpipe.statistics.matching import near_any
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects, matched_pairs, score
from defectpipe.training.threshold import balanced_threshold

LABELS = "labels"
CANDIDATE_BUDGETS = (140, 450)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Labelled images with what the models that never saw them found there.

    Parameters
    ----------
    shapes : mapping of str to (int, int)
        Image to height and width.
    labels : mapping of str to DataFrame
        Image to labels, boxes tight.
    groups, folds : mapping
        Image to group, and to fold.
    loops : DataFrame
        Loops down to a low score: columns of ``loops.csv``.
    candidates : DataFrame
        The cascade's: ``image``, boxes, ``detection_score``.
    box_convention : str
    tight_scales : mapping of int to float or None
        By fold, what makes the loops' boxes tight (see `box_scale.BoxScales`); None, or no such fold: the rule of the
        convention.
    classes : DefectClasses
    """

    shapes: Mapping[str, tuple[int, int]]
    labels: Mapping[str, pd.DataFrame]
    groups: Mapping[str, str]
    folds: Mapping[str, int]
    loops: pd.DataFrame
    candidates: pd.DataFrame
    box_convention: str
    tight_scales: Mapping[int, float | None] = field(default_factory=dict)
    classes: DefectClasses = field(default_factory=DefectClasses)

    def in_folds(self) -> HeldOut:
        """Without the images that every model learned from (fold −1), of which no figure can be."""
        kept = {image: fold for image, fold in self.folds.items() if fold >= 0}
        return replace(
            self,
            shapes={image: self.shapes[image] for image in kept},
            labels={image: self.labels[image] for image in kept},
            groups={image: self.groups[image] for image in kept},
            folds=kept,
        )

    def marked(self, image: str) -> Objects:
        """Labels of an image, as the scores take them."""
        margin_px = Settings().measurement.border_margin_px
        return Objects.from_labels(self.labels[image], self.shapes[image], self.box_convention, margin_px)

    def tight(self, rows: pd.DataFrame) -> np.ndarray:
        """Tight boxes of loops of one image, shape (n, 4)."""
        boxes = rows[BOX_COLUMNS].to_numpy(float)
        scale = self.tight_scales.get(self.folds[str(rows["image"].iloc[0])]) if len(rows) else None
        return tighten(boxes, self.box_convention, scale)

    def kept(self, thresholds: Mapping[int, float]) -> pd.DataFrame:
        """The loops that reach the threshold of their image's fold."""
        least = self.loops["image"].map({image: thresholds[fold] for image, fold in self.folds.items()})
        return self.loops[self.loops["screening_score"] >= least]


def choose_thresholds(held_out: HeldOut) -> tuple[float, dict[int, float]]:
    """Threshold for the model on all images, and for each fold the one that the other folds choose."""
    folds = sorted(set(held_out.folds.values()))
    by_fold = {fold: balanced_threshold(held_out, [f for f in folds if f != fold]) for fold in folds}
    return balanced_threshold(held_out, folds), by_fold


def held_out_figures(held_out: HeldOut) -> dict[str, Any]:
    """Everything that the card says of accuracy.

    Returns
    -------
    dict
        ``threshold``, ``threshold_by_fold``; ``chain`` (as in ``evaluation.json``, with several classes each one's
        too), ``chain_without_box_correction``, ``cascade`` (see `cascade_recall`), ``long_side`` (see `side_errors`),
        ``groups`` (scores of each).
    """
    threshold, by_fold = choose_thresholds(held_out)
    loops = held_out.kept(by_fold)
    chain = _evaluate(held_out, loops)
    plain = _evaluate(held_out, with_candidate_boxes(loops, held_out.candidates))
    return {
        "threshold": threshold,
        "threshold_by_fold": {str(fold): value for fold, value in by_fold.items()},
        "chain": {key: value for key, value in chain.items() if key not in ("images", "precision_recall_curve")},
        "chain_without_box_correction": {rule: plain[rule] for rule in ("iou_0.4", "li2018")},
        "cascade": [cascade_recall(held_out, budget) for budget in CANDIDATE_BUDGETS],
        "long_side": side_errors(held_out, loops),
        "groups": group_scores(held_out, loops),
    }


def cascade_recall(held_out: HeldOut, budget: int) -> dict[str, float]:
    """Recall of the cascade alone by the 20 px rule, at no more than `budget` candidates an image on average.

    The cut on the score is the lowest that keeps to the budget. Beside it the recall of the same candidates laid over
    another image of the same size: what chance alone finds.
    """
    settings = Settings().statistics
    scores = np.sort(held_out.candidates["detection_score"].to_numpy(float))[::-1]
    allowed = budget * len(held_out.shapes)
    cut = -np.inf if len(scores) <= allowed else scores[allowed]
    kept = held_out.candidates[held_out.candidates["detection_score"].to_numpy(float) > cut]
    centres = {str(image): _centres(part) for image, part in kept.groupby("image")}
    none = np.zeros((0, 2))
    found = by_chance = total = 0
    for image, other in _neighbours(held_out.shapes).items():
        marked = held_out.marked(image)
        labels = marked.centres[~marked.on_edge]
        total += len(labels)
        found += near_any(labels, centres.get(image, none), settings.match_distance_px).sum()
        by_chance += near_any(labels, centres.get(other, none), settings.match_distance_px).sum()
    return {
        "candidates_per_image": round(len(kept) / len(held_out.shapes), 1),
        "recall_20px": round(float(found / max(total, 1)), 4),
        "recall_20px_of_shuffled_candidates": round(float(by_chance / max(total, 1)), 4),
    }


def side_errors(held_out: HeldOut, loops: pd.DataFrame) -> dict[str, float | int]:
    """Long side of the measured ellipse's bounding box against the label's tight box, over matched loops.

    Returns
    -------
    dict
        ``n_pairs``; median absolute and signed relative errors of the measured ellipse, and of the screener's box
        alone, its padding undone.
    """
    measured, boxed = [np.zeros(0)], [np.zeros(0)]
    for label, rows in found_labels(held_out, loops):
        columns = ("x_px", "y_px", "diameter_px", "minor_px", "angle_deg")
        ellipse = ellipse_bounds(*(rows[column].to_numpy(float) for column in columns))
        box = held_out.tight(rows)
        measured.append(long_sides(ellipse) / long_sides(label) - 1)
        boxed.append(long_sides(box) / long_sides(label) - 1)
    out: dict[str, float | int] = {"n_pairs": len(np.concatenate(measured))}
    for name, parts in (("measured", measured), ("box_alone", boxed)):
        errors = np.concatenate(parts)
        out[f"{name}_median_absolute_relative_error"] = (
            round(float(np.median(np.abs(errors))), 4) if len(errors) else 0.0
        )
        out[f"{name}_median_relative_error"] = round(float(np.median(errors)), 4) if len(errors) else 0.0
    return out


def found_labels(held_out: HeldOut, loops: pd.DataFrame) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Image by image, the tight boxes of the labels that were found, shape (n, 4), and the loops that found them."""
    for image, part in loops.groupby("image"):
        marked, found = held_out.marked(str(image)), Objects.from_loops(part)
        pairs = matched_pairs(marked, found, Settings().statistics.match_iou)
        yield held_out.labels[str(image)][BOX_COLUMNS].to_numpy(float)[pairs[:, 0]], part.iloc[pairs[:, 1]]


def group_scores(held_out: HeldOut, loops: pd.DataFrame) -> dict[str, dict[str, float | int]]:
    """Counts, recall, precision and F1 (IoU 0.4, one-to-one) of each group."""
    settings = Settings().statistics
    found = {str(image): part for image, part in loops.groupby("image")}
    counts: dict[str, np.ndarray] = {}
    n_images: dict[str, int] = {}
    for image in held_out.shapes:
        group = held_out.groups[image]
        here = score(held_out.marked(image), Objects.from_loops(found.get(image, loops.iloc[:0])), settings)
        counts[group] = counts.get(group, np.zeros(4)) + here["one_to_one"]
        n_images[group] = n_images.get(group, 0) + 1
    return {
        group: {
            "n_images": n_images[group],
            "n_labels": int(n_labels),
            "n_loops": int(n_loops),
            "recall": round(float(n_found / max(n_labels, 1)), 3),
            "precision": round(float(n_true / max(n_loops, 1)), 3),
            "f1": round(float(2 * n_true / max(n_labels + n_loops, 1)), 3),
        }
        for group, (n_labels, n_found, n_loops, n_true) in sorted(counts.items())
    }


def with_candidate_boxes(loops: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """The loops with the boxes of the candidates that they came from, known by the image and the detection score."""
    key = ["image", "detection_score"]
    left = loops.assign(detection_score=loops["detection_score"].astype("float32")).reset_index(drop=True)
    first = candidates.drop_duplicates(key)[[*key, *BOX_COLUMNS]]
    joined = left[key].merge(first, on=key, how="left", validate="many_to_one")
    return left.assign(**{column: joined[column].to_numpy(float) for column in BOX_COLUMNS})


def _evaluate(held_out: HeldOut, loops: pd.DataFrame) -> dict[str, Any]:
    images = pd.DataFrame(
        [
            {"image": image, "frame": 0, "status": "ok", "height_px": height, "width_px": width}
            for image, (height, width) in held_out.shapes.items()
        ]
    )
    return evaluate(
        images,
        loops,
        {LABELS: held_out.labels},
        box_convention=held_out.box_convention,
        settings=Settings(),
        candidates=held_out.loops,
        groups=held_out.groups,
        classes=held_out.classes,
    )


def _neighbours(shapes: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """For each image another one of the same size (itself where there is none)."""
    by_shape: dict[tuple[int, int], list[str]] = {}
    for image, shape in sorted(shapes.items()):
        by_shape.setdefault(shape, []).append(image)
    half = {shape: len(images) // 2 for shape, images in by_shape.items()}
    return {
        image: images[(i + half[shape]) % len(images)]
        for shape, images in by_shape.items()
        for i, image in enumerate(images)
    }


def _centres(table: pd.DataFrame) -> np.ndarray:
    boxes = table[BOX_COLUMNS].to_numpy(float)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def long_sides(boxes: np.ndarray) -> np.ndarray:
    """Longer side of each box (n, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
