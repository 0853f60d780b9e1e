"""The loops of a run at other thresholds, with their figures, by the functions that the run itself uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.errors import RunFolderError
from defectpipe.io.tables import images_table, loops_table
from defectpipe.review.run_folder import Labels, RunFolder
from defectpipe.statistics import agreement, evaluate, pooled_summary
from defectpipe.statistics.agreement import LABELLED_FRAME
from defectpipe.statistics.images import image_row
from defectpipe.statistics.pooling import rule_name
from defectpipe.statistics.predicted_f1 import Prediction, predict_frame


@dataclass(frozen=True, eq=False)
class Selection:
    """The loops of a run that some thresholds leave, and their figures.

    Attributes
    ----------
    threshold, min_fit_quality : float
        Least screening score and least fit quality of a loop.
    count_border : bool
        Whether loops that the border cuts enter means and densities.
    images, loops : DataFrame
        As ``images.csv`` and ``loops.csv``.
    pooled : dict
        As ``pooled`` in ``summary.json``.
    """

    threshold: float
    min_fit_quality: float
    count_border: bool
    images: pd.DataFrame
    loops: pd.DataFrame
    pooled: dict[str, Any]

    def of(self, image: str, frame: int = 0) -> pd.DataFrame:
        """The loops of one image and frame."""
        return self.loops[(self.loops["image"] == image) & (self.loops["frame"] == frame)]


def at_threshold(
    run: RunFolder, threshold: float | None = None, *, min_fit_quality: float = 0.0, count_border: bool = False
) -> Selection:
    """The tables that the run would have written with another threshold, by the functions that the run uses.

    Above the run's threshold its loops are filtered; below it, what the run did not measure is measured now, once,
    for which images and model are needed. With the thresholds of the run its own tables come out.

    Parameters
    ----------
    run : RunFolder
    threshold : float, optional
        Least screening score. Default: the run's.
    min_fit_quality : float
        Loops of a lower one are left out. The run itself leaves none out; it marks their image for review.
    count_border : bool
        Whether loops that the border cuts enter means, and the density then is the number of all loops over the
        analysed area. Both are biased: a cut loop's diameter is not known, and its centre may lie outside. The
        agreement with labels leaves the border out all the same.

    Returns
    -------
    Selection
    """
    threshold = run.threshold if threshold is None else float(threshold)
    rows: list[dict[str, Any]] = []
    parts = [loops_table()]
    hashes = run.images.drop_duplicates("image").set_index("image")["sha256"]
    for image in run.analysed:
        found = run.measured(image, threshold)
        found = found[(found["screening_score"] >= threshold) & (found["fit_quality"] >= min_fit_quality)]
        for facts in run.frame_facts(image):
            own = found[found["frame"] == facts["frame"]]
            own = loops_table(own.assign(loop_id=np.arange(1, len(own) + 1)))
            parts.append(own)
            row = _row(run, image, facts, own, count_border, threshold)
            rows.append({"image": image, "sha256": hashes[image]} | row)
    failed = run.images[run.images["status"] == "failed"]
    made = [images_table(rows), *([images_table(failed)] if len(failed) else [])]
    images = images_table(pd.concat(made, ignore_index=True).sort_values(["image", "frame"], kind="stable"))
    loops = loops_table(pd.concat(parts, ignore_index=True))
    pooled = pooled_summary(images, _counted(loops) if count_border else loops, run.settings)
    if count_border:
        cut = loops[loops["on_edge"]].groupby(["image", "frame"]).size()
        keys = pd.MultiIndex.from_frame(images[["image", "frame"]])
        n_cut = pd.Series(cut.reindex(keys, fill_value=0).to_numpy(), index=images.index, dtype="Int64")
        images = images.assign(n_on_edge=n_cut.where(images["n_loops"].notna()))
        pooled["n_on_edge"] = int(cut.sum())
    return Selection(threshold, min_fit_quality, count_border, images, loops, pooled)


def sensitivity(run: RunFolder, thresholds: Sequence[float], *, min_fit_quality: float = 0.0) -> pd.DataFrame:
    """The pooled figures over the screening threshold.

    Parameters
    ----------
    run : RunFolder
    thresholds : sequence of float
    min_fit_quality : float

    Returns
    -------
    DataFrame
        A row per threshold: ``threshold``, ``n_counted`` (uncut loops), what `pooled_summary` gives; with labels
        ``recall``, ``precision`` and ``f1`` (one-to-one, without the border).
    """
    rows = []
    for threshold in thresholds:
        chosen = at_threshold(run, threshold, min_fit_quality=min_fit_quality)
        row = {"threshold": float(threshold), "n_counted": chosen.pooled["n_loops"] - chosen.pooled["n_on_edge"]}
        if run.labels:
            scores = agreement_of(run, chosen)[rule_name("one_to_one", run.settings.statistics)]
            row |= {name: scores[name] for name in ("recall", "precision", "f1")}
        rows.append(row | chosen.pooled)
    return pd.DataFrame(rows)


def agreement_of(run: RunFolder, selection: Selection, labels: Labels | None = None) -> dict[str, Any]:
    """What ``evaluation.json`` would say of a selection, beside the run's labels or others (by expert and image).

    Raises
    ------
    RunFolderError
        There are no labels.
    """
    labels = run.labels if labels is None else labels
    if not labels:
        raise RunFolderError(f"{run.path}: the run had no labels to compare with; give labels_dir.")
    return evaluate(
        selection.images,
        selection.loops,
        labels,
        box_convention=run.box_convention,
        settings=run.settings,
        candidates=run.screened,
        classes=run.classes,
    )


def _row(
    run: RunFolder, image: str, facts: dict[str, Any], loops: pd.DataFrame, count_border: bool, threshold: float
) -> dict[str, Any]:
    settings = run.settings
    predicted = _predicted(run, image, facts, threshold)
    if count_border:
        # No strip along the border is left out then.
        measurement = dataclasses.replace(settings.measurement, border_margin_px=0.0)
        counted = dataclasses.replace(settings, measurement=measurement)
        row = image_row(facts, _counted(loops), counted, predicted=predicted)
    else:
        row = image_row(facts, loops, settings, predicted=predicted)
    labels = run.labels_of(image) if facts["frame"] == LABELLED_FRAME else None
    if labels is not None:
        shape = (facts["height_px"], facts["width_px"])
        row |= agreement(loops, labels, shape, box_convention=run.box_convention, settings=settings)
    return row


def _predicted(run: RunFolder, image: str, facts: dict[str, Any], threshold: float) -> Prediction | None:
    if run.predictor is None:
        return None
    own = run.screened_in(image, facts["frame"])
    margin_px = run.settings.measurement.border_margin_px
    return predict_frame(run.predictor, own, facts, threshold, run.model.working_pixel_size_nm, margin_px)


def _counted(loops: pd.DataFrame) -> pd.DataFrame:
    """Loops as if none were cut, and points: each then counts one over the analysed area."""
    centres = {"x0_px": loops["x_px"], "x1_px": loops["x_px"], "y0_px": loops["y_px"], "y1_px": loops["y_px"]}
    return loops.assign(on_edge=False, **centres)
