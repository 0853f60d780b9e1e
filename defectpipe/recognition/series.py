"""One object in several pictures, such as a tilt series: one verdict, and what each picture says by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.recognition.analysis import (
    COLUMNS,
    NO_OBJECT,
    answers_of_views,
    finished,
    judgement,
    keep_objects,
    shares_of,
    with_verdicts,
)
from defectpipe.recognition.ground_truth import Verdict
from defectpipe.recognition.measures import measure
from defectpipe.recognition.model import SolidModel
from defectpipe.recognition.scale import at_scale, instances_at, table_at, working_field
from defectpipe.recognition.suitability import look_at_field, saturated, stand_out

# Frames of a series by which its scale is chosen.
_SCALED_BY = 5
_OF_ONE_VIEW = ("x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "angle_deg")


@dataclass(frozen=True, eq=False)
class RecognisedSeries:
    """One object in several pictures.

    Parameters
    ----------
    verdict : Verdict or None
        Of all views together; None: there is no object in any of them.
    views : DataFrame
        A row for each picture that shows it: ``view`` (index of the picture) and the columns of a field's table.
    row : dict
        The object as one row of such a table: medians over its views (over those that the border does not cut, where
        there are any), the class and the dimensions of the verdict. Empty without one.
    view : int
        The picture whose outline lies nearest to those medians in area, -1 without.
    instances : tuple of ndarray of int32, shape (height, width)
        For each picture; 1: the object.
    warnings : tuple of str
    factor : float
        Pixels of a picture for one of the working scale.
    """

    verdict: Verdict | None
    views: pd.DataFrame
    row: dict[str, object]
    view: int
    instances: tuple[np.ndarray, ...]
    warnings: tuple[str, ...]
    factor: float


def recognise_series(
    fields: Sequence[np.ndarray], model: SolidModel, pixel_size_nm: float | None = None, modality: str | None = None
) -> RecognisedSeries:
    """Name and measure the one object that all pictures show, such as a tilt series: the largest in each of them.

    All are looked at in one scale, the median of those that some of them would have alone.

    Parameters
    ----------
    fields : sequence of ndarray, each of shape (height, width)
        At least one.
    model : SolidModel
    pixel_size_nm : float, optional
        Of all of them.
    modality : str, optional
    """
    facts = [look_at_field(pixels, pixel_size_nm, modality) for pixels in fields]
    usable = [i for i, one in enumerate(facts) if not one.refusal]
    refused = dict.fromkeys(one.refusal for one in facts if one.refusal)
    warnings = [
        f"pictures not analysed, {why}: {sum(one.refusal == why for one in facts)} of {len(facts)}" for why in refused
    ]
    warnings += dict.fromkeys(line for one in facts for line in one.warnings)
    chosen = usable[:: max(1, -(-len(usable) // _SCALED_BY))]
    tried = [working_field(fields[i], model.maps) for i in chosen]
    sure = [one.factor for one in tried if one.sureness > 0] or [one.factor for one in tried]
    factor = float(np.median(sure)) if sure else 1.0
    found = []
    for i in usable:
        field = at_scale(fields[i], factor, model.maps)
        kept = keep_objects(field.instances, stand_out(field.pixels, field.instances, factor))
        sizes = np.bincount(kept.ravel())[1:]
        if sizes.size:
            found.append((i, field, (kept == int(sizes.argmax()) + 1).astype(np.int32)))
    instances = [np.zeros(pixels.shape, np.int32) for pixels in fields]
    size = None if pixel_size_nm is None else pixel_size_nm * factor
    if not found:
        none = finished(measure(np.zeros((1, 1, 3)), np.zeros((1, 1), int), size), (), np.empty(0), factor, model)
        return RecognisedSeries(None, none.assign(view=[]), {}, -1, tuple(instances), (*warnings, NO_OBJECT), factor)
    if len(found) < len(usable):
        warnings.append(f"{NO_OBJECT} in {len(usable) - len(found)} of {len(usable)} pictures")
    answers, px_per_px = answers_of_views([(field.pixels, outline, 1) for _, field, outline in found], model)
    view_size = None if size is None else size * px_per_px
    verdicts = [model.judge(row[None], view_size) for row in answers]
    table = pd.concat([measure(field.maps, outline, size) for _, field, outline in found], ignore_index=True)
    table = with_verdicts(table, verdicts, answers, model)
    for i, _, outline in found:
        instances[i] = instances_at(outline, factor, (fields[i].shape[0], fields[i].shape[1]))
    shares = np.concatenate([shares_of(saturated(fields[i]), instances[i], 1) for i, _, _ in found])
    views = finished(table_at(table, factor), verdicts, shares, factor, model).assign(view=[i for i, _, _ in found])
    verdict = model.judge(answers, view_size)
    row, place = _together(views, verdict, shares, factor, model)
    n_strange = int((~views["is_known"]).sum())
    if n_strange:
        warnings.append(f"{n_strange} of {len(views)} views are unlike what the networks were trained on")
    return RecognisedSeries(
        verdict, views, row, int(views["view"].iloc[place]), tuple(instances), tuple(warnings), factor
    )


def _together(
    views: pd.DataFrame, verdict: Verdict, shares: np.ndarray, factor: float, model: SolidModel
) -> tuple[dict[str, object], int]:
    """One row for the object of all views, and the place of the view that is nearest to it in area."""
    on_edge = views["on_edge"].to_numpy(bool)
    whole = ~on_edge if not on_edge.all() else on_edge
    medians = views[whole].median(numeric_only=True)
    place = int(np.abs(views["area_px2"] - medians["area_px2"]).to_numpy().argmin())
    row = views.iloc[[place]].reset_index(drop=True)
    for name in row.columns.intersection(medians.index):
        # where it lies, and how, differs from view to view
        if name not in _OF_ONE_VIEW and pd.api.types.is_float_dtype(row[name]):
            row[name] = medians[name]
    row = row.assign(object_id=1, on_edge=bool(on_edge.all()), is_known=bool(views["is_known"].mean() > 0.5))
    said = pd.DataFrame([judgement(verdict)])
    row[said.columns] = said
    row = finished(row[list(COLUMNS)], [verdict], shares[whole].mean(keepdims=True), factor, model)
    return {str(name): value for name, value in row.iloc[0].items()}, place
