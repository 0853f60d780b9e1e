"""What is in a field, and what it is: segmented, measured, recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.recognition.ground_truth import Verdict
from defectpipe.recognition.measures import COLUMNS as MEASURES
from defectpipe.recognition.measures import measure
from defectpipe.recognition.model import SolidModel
from defectpipe.recognition.particles import cut_view, side_of
from defectpipe.recognition.separation import separate

# `familiarity` is a distance in standard deviations; beyond the model's limit an object is unlike what it learned from.
COLUMNS = (*MEASURES, "class", "class_probability", "deformed_probability", "familiarity", "is_known")


@dataclass(frozen=True, eq=False)
class RecognisedField:
    """One field.

    Parameters
    ----------
    table : DataFrame
        A row an object, with `COLUMNS`.
    instances : ndarray of int32, shape (height, width)
    maps : ndarray of float32, shape (height, width, 3)
        See `pixelwise.maps_of`.
    verdicts : tuple of Verdict
        Of each row.
    """

    table: pd.DataFrame
    instances: np.ndarray
    maps: np.ndarray
    verdicts: tuple[Verdict, ...]

    @property
    def n_unknown(self) -> int:
        """Objects unlike those that the model learned from."""
        return int((~self.table["is_known"].astype(bool)).sum())


def recognise_field(pixels: np.ndarray, model: SolidModel, pixel_size_nm: float | None = None) -> RecognisedField:
    """Find, measure and name the objects of a dark-field picture.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Bright objects on a dark support; grey values in any unit.
    model : SolidModel
    pixel_size_nm : float, optional
        None: unknown; measures in nm are then NaN.
    """
    maps = model.maps(pixels)
    instances = separate(maps)
    table = measure(maps, instances, pixel_size_nm)
    views = [cut_view(pixels, instances, int(number)) for number in table["object_id"]]
    answers = model.answers(np.stack([v.pixels for v in views])) if views else np.empty((0, model.layout.n_answers))
    verdicts = tuple(
        model.judge(row[None], None if pixel_size_nm is None else pixel_size_nm * view.px_per_px)
        for row, view in zip(answers, views, strict=True)
    )
    distance = model.familiarity.distance(answers[:, model.layout.slices["features"]]) if views else np.empty(0)
    table["class"] = pd.array([v.label for v in verdicts], dtype="str")
    table["class_probability"] = np.array([v.confidence for v in verdicts], float)
    table["deformed_probability"] = np.array([next(iter(v.deformations.values()), np.nan) for v in verdicts], float)
    table["familiarity"] = distance
    table["is_known"] = distance <= model.familiarity.limit
    return RecognisedField(table[list(COLUMNS)], instances, maps, verdicts)


def recognise_object(
    fields: Sequence[np.ndarray], model: SolidModel, pixel_size_nm: float | None = None
) -> tuple[Verdict, np.ndarray]:
    """Name the one object that all fields show, from its views together, as of a tilt series.

    In each field its largest object counts; all views have the scale of the largest.

    Parameters
    ----------
    fields : sequence of ndarray, each of shape (height, width)
    model : SolidModel
    pixel_size_nm : float, optional
        Of all fields.

    Returns
    -------
    Verdict
        Fields without any object are left out of it.
    distance : ndarray, shape (fields,)
        Of each view from what the model knows; NaN of a field without an object.

    Raises
    ------
    ValueError
        No field holds an object.
    """
    found = []
    for pixels in fields:
        instances = separate(model.maps(pixels))
        sizes = np.bincount(instances.ravel())[1:]
        found.append((pixels, instances, int(sizes.argmax()) + 1 if sizes.size else 0))
    seen = [entry for entry in found if entry[2]]
    if not seen:
        raise ValueError("There is no object in any of the pictures.")
    side = max(side_of(instances, number) for _, instances, number in seen)
    views = [cut_view(pixels, instances, number, side) for pixels, instances, number in seen]
    answers = model.answers(np.stack([view.pixels for view in views]))
    distance = np.full(len(found), np.nan)
    distance[[entry[2] > 0 for entry in found]] = model.familiarity.distance(
        answers[:, model.layout.slices["features"]]
    )
    size = None if pixel_size_nm is None else pixel_size_nm * views[0].px_per_px
    return model.judge(answers, size), distance
