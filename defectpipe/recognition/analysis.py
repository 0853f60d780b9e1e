"""What is in a field, and what it is: segmented, measured, recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.recognition.ground_truth import Verdict
from defectpipe.recognition.measures import COLUMNS as MEASURES
from defectpipe.recognition.measures import measure
from defectpipe.recognition.model import SolidModel
from defectpipe.recognition.particles import cut_view, side_of
from defectpipe.recognition.scale import LARGEST_PX, ScaledField, instances_at, sizes_of, table_at, working_field
from defectpipe.recognition.suitability import (
    look_at_field,
    object_warnings,
    saturated,
    stand_out,
)

RECOGNITION_VERSION = 1

# `familiarity` is a distance in standard deviations; beyond the model's limit an object is unlike what it learned from.
COLUMNS = (
    *(*MEASURES, "class", "class_probability", "second_class", "second_probability", "deformed_probability"),
    *("familiarity", "is_known"),
)
# Dimensions that the recogniser gives for the likeliest class, beside those measured on the outline.
SOLID_COLUMNS = tuple(
    f"solid_{name}"
    for name in (
        *("volume_diameter_nm", "diameter_nm", "length_nm", "width_nm", "height_nm", "edge_nm", "wire_diameter_nm"),
        *("wall_nm", "pitch_nm", "turns"),
    )
)
NO_OBJECT = "no object found"


@dataclass(frozen=True, eq=False)
class RecognisedField:
    """One field.

    Parameters
    ----------
    table : DataFrame
        A row an object, with `COLUMNS`, `SOLID_COLUMNS` and ``warnings``.
    instances : ndarray of int32, shape (height, width)
    maps : ndarray of float32, shape (height, width, 3)
        See `pixelwise.maps_of`; at the working scale.
    verdicts : tuple of Verdict
        Of each row.
    warnings : tuple of str
        What is to be known of the field as a whole.
    factor : float
        Pixels of the field for one of the working scale.
    """

    table: pd.DataFrame
    instances: np.ndarray
    maps: np.ndarray
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    factor: float


def recognise_micrograph(
    pixels: np.ndarray, model: SolidModel, pixel_size_nm: float | None = None, modality: str | None = None
) -> RecognisedField:
    """Find, measure and name the objects of a micrograph of any scale, with warnings where that is not to be trusted.

    The field is looked at in the scale of `scale.working_field`. What does not stand out from its surroundings is left
    out. A field that cannot be what the networks know (`suitability.look_at_field`) has no objects, and says why.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Finite grey values in any unit.
    model : SolidModel
    pixel_size_nm : float, optional
    modality : str, optional
        As the file states it.

    Returns
    -------
    RecognisedField
        Table and instances in px of the field.
    """
    facts = look_at_field(pixels, pixel_size_nm, modality)
    if facts.refusal:
        nothing, maps = np.zeros(pixels.shape, np.int32), np.zeros((*pixels.shape, 3), np.float32)
        refused = (*facts.warnings, f"not analysed: {facts.refusal}")
        return RecognisedField(no_objects(model), nothing, maps, (), refused, 1.0)
    field = working_field(pixels, model.maps)
    found, left_out = possible_objects(field)
    size = None if pixel_size_nm is None else pixel_size_nm * field.factor
    table, verdicts = _judged(field, found, model, size)
    instances = instances_at(found, field.factor, (pixels.shape[0], pixels.shape[1]))
    shares = shares_of(saturated(pixels), instances, len(table))
    table = finished(table_at(table, field.factor), verdicts, shares, field.factor, model)
    warnings = [*facts.warnings, *left_out_warnings(left_out)]
    n_unknown = int((~table["is_known"]).sum())
    if table.empty:
        warnings.append(NO_OBJECT)
    elif 2 * n_unknown > len(table):
        warnings.append(f"most objects are unlike what the networks were trained on: {n_unknown} of {len(table)}")
    return RecognisedField(table, instances, field.maps, verdicts, tuple(warnings), field.factor)


def possible_objects(field: ScaledField) -> tuple[np.ndarray, Counter[str]]:
    """The field's objects, numbered anew, without those that cannot be any; and how many of these, by the reason."""
    bright = stand_out(field.pixels, field.instances, field.factor)
    too_large = sizes_of(field.instances) > LARGEST_PX
    left_out = Counter(
        {"not bright against what is around": int((~bright).sum()), "far too large": int((bright & too_large).sum())}
    )
    return keep_objects(field.instances, bright & ~too_large), left_out


def left_out_warnings(left_out: Mapping[str, int]) -> list[str]:
    """A sentence for each reason why outlines were left out."""
    return [f"outlines left out, {why}: {n}" for why, n in left_out.items() if n]


def _judged(
    field: ScaledField, instances: np.ndarray, model: SolidModel, pixel_size_nm: float | None
) -> tuple[pd.DataFrame, tuple[Verdict, ...]]:
    """Each object by itself, measured and named; in px of the working scale, whose pixel size is given."""
    table = measure(field.maps, instances, pixel_size_nm)
    views = [cut_view(field.pixels, instances, int(number)) for number in table["object_id"]]
    answers = model.answers(np.stack([v.pixels for v in views])) if views else np.empty((0, model.layout.n_answers))
    verdicts = tuple(
        model.judge(row[None], None if pixel_size_nm is None else pixel_size_nm * view.px_per_px)
        for row, view in zip(answers, views, strict=True)
    )
    return with_verdicts(table, verdicts, answers, model), verdicts


def answers_of_views(
    found: Sequence[tuple[np.ndarray, np.ndarray, int]], model: SolidModel
) -> tuple[np.ndarray, float]:
    """Answers to views of one object, all in the scale of the largest, and px of the fields for one of theirs."""
    side = max(side_of(instances, number) for _, instances, number in found)
    views = [cut_view(pixels, instances, number, side) for pixels, instances, number in found]
    return model.answers(np.stack([view.pixels for view in views])), views[0].px_per_px


def with_verdicts(
    table: pd.DataFrame, verdicts: Sequence[Verdict], answers: np.ndarray, model: SolidModel
) -> pd.DataFrame:
    """Measures with what the verdicts say."""
    known = model.familiarity
    distance = known.distance(answers[:, model.layout.slices["features"]]) if len(answers) else np.empty(0)
    said = pd.DataFrame([judgement(v) for v in verdicts], columns=list(COLUMNS[len(MEASURES) : -2]))
    said = said.astype({name: "str" if str(name).endswith("class") else "float64" for name in said})
    table = pd.concat([table, said], axis=1).assign(familiarity=distance, is_known=distance <= known.limit)
    return table[list(COLUMNS)]


def judgement(verdict: Verdict) -> dict[str, object]:
    """A verdict's two likeliest classes and whether the object is deformed, by the names of columns."""
    first, second, *_ = sorted(verdict.probabilities.items(), key=lambda one: -one[1])
    return {
        "class": first[0],
        "class_probability": first[1],
        "second_class": second[0],
        "second_probability": second[1],
        "deformed_probability": next(iter(verdict.deformations.values()), np.nan),
    }


def dimensions_of(verdict: Verdict) -> dict[str, float]:
    """Of the likeliest class, by the names of columns; those in nm only where the pixel size is known."""
    made = {}
    for name, value in verdict.dimensions.items():
        if name == "turns":
            made["solid_turns"] = value
        elif verdict.unit == "nm":
            made[f"solid_{name}_nm"] = value
    return made


def no_objects(model: SolidModel) -> pd.DataFrame:
    """The table of a field in which there is nothing."""
    nothing = measure(np.zeros((1, 1, 3), np.float32), np.zeros((1, 1), np.int32), None)
    table = with_verdicts(nothing, (), np.empty((0, model.layout.n_answers)), model)
    return finished(table, (), np.empty(0), 1.0, model)


def finished(
    table: pd.DataFrame, verdicts: Sequence[Verdict], shares: np.ndarray, factor: float, model: SolidModel
) -> pd.DataFrame:
    """A field's table, in its own pixels, with the recogniser's dimensions and the warnings."""
    table = table.reset_index(drop=True)
    solid = pd.DataFrame([dimensions_of(v) for v in verdicts], dtype="float64")
    names = [*SOLID_COLUMNS, *(name for name in solid if str(name) not in SOLID_COLUMNS)]
    solid = solid.reindex(index=table.index, columns=names).astype("float64")
    lines = object_warnings(table, shares, factor, model.familiarity.limit, model.trained_thickness_nm)
    return pd.concat([table, solid], axis=1).assign(warnings=pd.Series(lines, index=table.index, dtype="str"))


def keep_objects(instances: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Some of the objects, numbered anew without gaps."""
    numbers = np.zeros(len(keep) + 1, np.int32)
    numbers[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return numbers[instances]


def shares_of(mask: np.ndarray, instances: np.ndarray, n: int) -> np.ndarray:
    """Share of each object's pixels that a mask holds."""
    areas = np.bincount(instances.ravel(), minlength=n + 1)[1 : n + 1]
    inside = np.bincount(instances[mask], minlength=n + 1)[1 : n + 1]
    return inside / np.maximum(areas, 1)
