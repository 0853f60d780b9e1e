"""Figures of recognisers on simulated bodies that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from defectpipe.recognition.calibration import expected_calibration_error
from defectpipe.recognition.ground_truth import fuse_classes, fuse_evenly
from defectpipe.recognition.recogniser import Layout
from defectpipe.simulation.solids.rays import CLASSES

DOSE_EDGES = (30.0, 60.0, 120.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0)
VIEWS_REPORTED = (1, 2, 3, 4, 6, 8)
# A question of ten classes beside that of all: tetrahedra look like pyramids, tubes like helices.
TEN = tuple(name for name in CLASSES if name not in ("tetrahedron", "tube"))


def accuracy_of_views(
    logits: np.ndarray,
    label: np.ndarray,
    temperatures: Mapping[int, float] | None = None,
    fuse: Callable[[np.ndarray, float], np.ndarray] = fuse_classes,
    counts: Sequence[int] = VIEWS_REPORTED,
) -> dict[int, dict[str, float]]:
    """Accuracy and expected calibration error from 1, 2 … views of each object.

    An object's views are divided into groups without overlap, each of which is judged by itself: of 8 views, one view
    is judged 8 times, three twice.

    Parameters
    ----------
    logits : ndarray, shape (objects, views, k)
        What `fuse` takes of each view.
    label : ndarray of int, shape (objects,)
    temperatures : mapping of int to float, optional
        By number of views; 1 by default.
    fuse : callable
        From (objects, views, k) and the temperature to probabilities (objects, classes).
    counts : sequence of int
        Numbers of views; those beyond what there is are left out.

    Returns
    -------
    dict
        By number of views: ``accuracy``, ``calibration_error``, ``n`` (judgements).
    """
    figures = {}
    for n in counts:
        groups = logits.shape[1] // n
        if not groups:
            continue
        given = np.concatenate(
            [fuse(logits[:, g * n : (g + 1) * n], (temperatures or {}).get(n, 1.0)) for g in range(groups)]
        )
        truth = np.tile(label, groups)
        figures[n] = {
            "accuracy": float((given.argmax(1) == truth).mean()),
            "calibration_error": expected_calibration_error(given, truth),
            "n": len(truth),
        }
    return figures


def among(label: np.ndarray, layout: Layout, classes: Sequence[str]) -> tuple[np.ndarray, list[int], np.ndarray]:
    """What a question of some classes only is about.

    Parameters
    ----------
    label : ndarray of int, shape (objects,)
    layout : Layout
    classes : sequence of str
        Those that the layout lacks are left out.

    Returns
    -------
    ndarray of bool, shape (objects,)
        Objects of these classes.
    list of int
        Places of these classes among those of the layout.
    ndarray of int, shape (some objects,)
        Of these objects, the place of the class among these.
    """
    places = [i for i, name in enumerate(layout.classes) if name in classes]
    rows = np.isin(label, places)
    return rows, places, np.searchsorted(places, label[rows])


def confusion(given: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """Numbers by truth (rows) and answer (columns)."""
    made = np.zeros((n_classes, n_classes), int)
    np.add.at(made, (truth, given), 1)
    return made


def shares_right(right: np.ndarray, groups: Sequence[tuple[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Share of right answers in each group of rows (masks) that holds any."""
    return {name: {"accuracy": float(right[rows].mean()), "n": int(rows.sum())} for name, rows in groups if rows.any()}


def recogniser_figures(
    answers: np.ndarray,
    layout: Layout,
    targets: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
    temperatures: Mapping[int, float],
) -> dict[str, Any]:
    """All that is reported of a recogniser.

    Parameters
    ----------
    answers : ndarray, shape (objects, views, layout.n_answers)
    layout : Layout
    targets : dict of ndarray
        From `recognition_targets.targets_of`, a row a view.
    columns : dict of ndarray, shape (objects * views,)
        Truth: ``dose_per_px``, ``visible``, ``scan_distortion``, ``max_thickness_nm``, ``mean_free_path_nm``, drift.
    temperatures : mapping of int to float
        By number of views; see `ground_truth.fuse_classes`.
    """
    place, n_views = layout.slices, answers.shape[1]
    flat = answers.reshape(-1, answers.shape[-1])
    label, deformed = targets["label"], targets["deformations"]
    logits = answers[..., place["classes"]]
    given = flat[:, place["classes"]].argmax(1)
    right = given == label
    of_ten, ten, label_of_ten = among(label[::n_views], layout, TEN)

    def evenly(rows: np.ndarray) -> np.ndarray:
        return fuse_evenly(rows[..., place["deformations"]])[:, 0]

    return {
        "views": accuracy_of_views(logits, label[::n_views], temperatures),
        "views_of_ten_classes": accuracy_of_views(logits[of_ten][..., ten], label_of_ten, temperatures),
        "per_class": shares_right(right, [(name, label == i) for i, name in enumerate(layout.classes)]),
        "per_dose": _per(right, columns["dose_per_px"], DOSE_EDGES),
        "per_distortion": _per(right, columns["scan_distortion"], (0.0, 0.0125, 0.025, 0.0375, 0.05)),
        "per_drift_px": _per(right, np.hypot(columns["drift_x_px"], columns["drift_y_px"]), (0, 0.5, 1, 2, 6)),
        "per_attenuation": _per(
            right, columns["max_thickness_nm"] / columns["mean_free_path_nm"], (0, 0.03, 0.1, 0.3, 1, 100)
        ),
        "per_deformation": shares_right(
            right,
            [
                ("none", deformed[:, 0] == 0),
                *((name, deformed[:, i] > 0) for i, name in enumerate(layout.deformations)),
            ],
        ),
        "visible": shares_right(right, [("yes", columns["visible"] > 0), ("no", columns["visible"] == 0)]),
        "confusion": {"classes": list(layout.classes), "rows_are_truth": confusion(given, label, len(layout.classes))},
        "deformed": deformed_of_views(answers, deformed[::n_views, 0] > 0, evenly),
        "deformed_per_class": {
            name: deformed_of_views(answers[of], deformed[::n_views, 0][of] > 0, evenly)
            for name, of in ((name, label[::n_views] == i) for i, name in enumerate(layout.classes))
            if of.any()
        },
        "dimensions": _dimensions(flat[:, place["dimensions"]], targets["dimensions"], n_views, layout),
    }


def _per(right: np.ndarray, values: np.ndarray, edges: Sequence[float]) -> dict[str, dict[str, float]]:
    groups = [
        (f"{low:g} to {high:g}", (values >= low) & (values <= high if high == edges[-1] else values < high))
        for low, high in pairwise(edges)
    ]
    return shares_right(right, groups)


def deformed_of_views(
    rows: np.ndarray, truth: np.ndarray, fuse: Callable[[np.ndarray], np.ndarray]
) -> dict[int, float]:
    """Share of objects whose being deformed or not is told rightly, by number of views.

    Parameters
    ----------
    rows : ndarray, shape (objects, views, k)
        What `fuse` takes of each view.
    truth : ndarray of bool, shape (objects,)
    fuse : callable
        From (objects, views, k) to probabilities (objects,).
    """
    figures = {}
    for n in VIEWS_REPORTED:
        groups = rows.shape[1] // n
        if groups:
            given = np.concatenate([fuse(rows[:, g * n : (g + 1) * n]) for g in range(groups)])
            figures[n] = float(((given > 0.5) == np.tile(truth, groups)).mean())
    return figures


def _dimensions(given: np.ndarray, truth: np.ndarray, n_views: int, layout: Layout) -> dict[str, dict[str, float]]:
    """Median relative error of each dimension, of one view and of the median over all views."""
    figures = {}
    for i, name in enumerate(layout.dimensions):
        known = np.isfinite(truth[:, i])
        if known.any():
            one = np.abs(np.expm1(given[known, i] - truth[known, i]))
            of_all = np.median(given[known, i].reshape(-1, n_views), 1) - truth[known, i][::n_views]
            figures[name] = {"one_view": float(np.median(one)), "all_views": float(np.median(np.abs(np.expm1(of_all))))}
    return figures
