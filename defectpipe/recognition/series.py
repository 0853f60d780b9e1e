"""One object in several pictures, such as a tilt series: one verdict, and what each picture says by itself."""

from __future__ import annotations

from collections import Counter
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
    left_out_warnings,
    no_objects,
    possible_objects,
    shares_of,
    with_verdicts,
)
from defectpipe.recognition.fusion import MAX_VIEWS
from defectpipe.recognition.ground_truth import Verdict
from defectpipe.recognition.measures import measure
from defectpipe.recognition.model import SolidModel
from defectpipe.recognition.scale import at_scale, instances_at, table_at, working_field
from defectpipe.recognition.suitability import look_at_field, saturated

# Frames of a series by which its scale is chosen.
_SCALED_BY = 5
# As far as tilt series were tried; beyond, holder and support come into the way.
_MOST_TILT_DEG = 70.0
_OF_ONE_VIEW = ("x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "angle_deg")


@dataclass(frozen=True, eq=False)
class RecognisedSeries:
    """One object in several pictures.

    Parameters
    ----------
    verdict : Verdict or None
        Of its views together, at most 8 of them (`views_to_judge`); None: there is no object in any picture.
    views : DataFrame
        A row for each picture that shows it: ``view`` (index of the picture), the columns of a field's table, and
        ``in_verdict``: whether the verdict was taken from it.
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
    fields: Sequence[np.ndarray],
    model: SolidModel,
    pixel_size_nm: float | None = None,
    modality: str | None = None,
    tilts_deg: Sequence[float | None] | None = None,
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
    tilts_deg : sequence of float or None, optional
        Of each picture, where known: they choose the views that count.
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
    left_out: Counter[str] = Counter()
    for i in usable:
        field = at_scale(fields[i], factor, model.maps)
        kept, of_field = possible_objects(field)
        left_out += of_field
        sizes = np.bincount(kept.ravel())[1:]
        if sizes.size:
            found.append((i, field, (kept == int(sizes.argmax()) + 1).astype(np.int32)))
    instances = [np.zeros(pixels.shape, np.int32) for pixels in fields]
    warnings += left_out_warnings(left_out)
    if not found:
        none = no_objects(model).assign(view=[], in_verdict=np.empty(0, bool))
        return RecognisedSeries(None, none, {}, -1, tuple(instances), (*warnings, NO_OBJECT), factor)
    if len(found) < len(usable):
        warnings.append(f"{NO_OBJECT} in {len(usable) - len(found)} of {len(usable)} pictures")
    answers, px_per_px = answers_of_views([(field.pixels, outline, 1) for _, field, outline in found], model)
    size = None if pixel_size_nm is None else pixel_size_nm * factor
    view_size = None if size is None else size * px_per_px
    verdicts = [model.judge(row[None], view_size) for row in answers]
    table = pd.concat([measure(field.maps, outline, size) for _, field, outline in found], ignore_index=True)
    table = with_verdicts(table, verdicts, answers, model)
    for i, _, outline in found:
        instances[i] = instances_at(outline, factor, (fields[i].shape[0], fields[i].shape[1]))
    shares = np.concatenate([shares_of(saturated(fields[i]), instances[i], 1) for i, _, _ in found])
    shown = [i for i, _, _ in found]
    judged = views_to_judge(table["on_edge"].tolist(), None if tilts_deg is None else [tilts_deg[i] for i in shown])
    views = finished(table_at(table, factor), verdicts, shares, factor, model).assign(view=shown, in_verdict=judged)
    verdict = model.judge(answers[judged], view_size)
    row, place = _together(views, verdict, shares, factor, model)
    n_strange = int((~views["is_known"]).sum())
    if n_strange:
        warnings.append(f"views unlike what the networks were trained on: {n_strange} of {len(views)}")
    return RecognisedSeries(
        verdict, views, row, int(views["view"].iloc[place]), tuple(instances), tuple(warnings), factor
    )


def views_to_judge(on_edge: Sequence[bool], tilts_deg: Sequence[float | None] | None = None) -> np.ndarray:
    """Which views of one object its verdict is taken from.

    All, up to 8. The fusion learned from no more, and views a degree apart say the same thing again: taken as further
    evidence they would make it far too sure. Of more, 8 spread evenly over those that the border does not cut and, of
    a tilt series, that are tilted by at most 70°.

    Parameters
    ----------
    on_edge : sequence of bool, shape (views,)
        Whether the border cuts the object.
    tilts_deg : sequence of float or None, shape (views,), optional
        Unknown ones leave the views in the order that they have.

    Returns
    -------
    ndarray of bool, shape (views,)
    """
    cut = np.asarray(on_edge, bool)
    if len(cut) <= MAX_VIEWS:
        return np.ones(len(cut), bool)
    tilts = np.full(len(cut), np.nan)
    if tilts_deg is not None:
        tilts[:] = [np.nan if tilt is None else tilt for tilt in tilts_deg]
    moderate = ~(abs(tilts) > _MOST_TILT_DEG)
    places = next(np.flatnonzero(use) for use in (moderate & ~cut, moderate, np.ones(len(cut), bool)) if use.any())
    places = places[np.argsort(tilts[places], kind="stable")]
    spread = np.linspace(0, len(places) - 1, min(MAX_VIEWS, len(places)))
    judged = np.zeros(len(cut), bool)
    judged[places[np.rint(spread).astype(int)]] = True
    return judged


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
    known = bool(medians["familiarity"] <= model.familiarity.limit)
    row = row.assign(object_id=1, on_edge=bool(on_edge.all()), is_known=known)
    said = pd.DataFrame([judgement(verdict)])
    row[said.columns] = said
    row = finished(row[list(COLUMNS)], [verdict], shares[whole].mean(keepdims=True), factor, model)
    return {str(name): value for name, value in row.iloc[0].items()}, place
