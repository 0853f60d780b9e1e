"""One picture per image of objects: outlines, class and probability, and below it what is not to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from defectpipe.micrograph import Micrograph
from defectpipe.report.overlays import (
    Canvas,
    counted,
    grey_picture,
    picture_scale,
    with_lines,
    with_strip,
    write_jpeg,
)

KNOWN_COLOUR, UNKNOWN_COLOUR = (86, 180, 233), (230, 159, 0)
_MOST_NAMES = 200
_MOST_LINES = 8


def draw_objects(
    micrograph: Micrograph, instances: np.ndarray, table: pd.DataFrame, warnings: Sequence[str] = ()
) -> np.ndarray:
    """Draw objects over their image.

    Parameters
    ----------
    micrograph : Micrograph
    instances : ndarray of int, shape (height, width)
        In px of the image.
    table : DataFrame
        A row for each object: ``object_id``, ``class``, ``class_probability``, ``is_known``, ``on_edge``, ``x0_px``,
        ``y0_px``, ``warnings``.
    warnings : sequence of str
        Of the image as a whole.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB. Outlines of objects that the border cuts are dashed; those unlike the training have another colour.
    """
    scale = picture_scale(micrograph.shape)
    canvas = Canvas(np.ascontiguousarray(np.repeat(grey_picture(micrograph, scale)[..., None], 3, 2)), scale)
    boxes = ndimage.find_objects(instances)
    rows = table.to_dict("records")
    for row in rows:
        number = int(row["object_id"])
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is None:
            continue
        colour = KNOWN_COLOUR if row["is_known"] else UNKNOWN_COLOUR
        for line in _outlines(instances, number, box):
            canvas.outline(line, colour, canvas.width + 1, dashed=bool(row["on_edge"]))
    if len(rows) <= _MOST_NAMES:
        for row in rows:
            text = f"{row['object_id']} {row['class']} {row['class_probability']:.2f}"
            canvas.text(row["x0_px"], row["y0_px"], text, KNOWN_COLOUR if row["is_known"] else UNKNOWN_COLOUR)
    known = int(table["is_known"].astype(bool).sum())
    legend = [(counted(known, "object"), KNOWN_COLOUR)]
    if len(table) > known:
        legend.append((f"{len(table) - known} unlike the training", UNKNOWN_COLOUR))
    picture = with_strip(canvas.pixels, legend, scale, micrograph.pixel_size_nm)
    return with_lines(picture, [*warnings, *_of_objects(rows)])


def write_object_overlay(
    path: Path, micrograph: Micrograph, instances: np.ndarray, table: pd.DataFrame, warnings: Sequence[str] = ()
) -> None:
    """Write the picture of `draw_objects` as JPEG, atomically."""
    write_jpeg(path, draw_objects(micrograph, instances, table, warnings))


def _of_objects(rows: list[dict]) -> list[str]:
    said = [f"{row['object_id']}: {row['warnings']}" for row in rows if row["warnings"]]
    more = len(said) - _MOST_LINES
    return said if more <= 0 else [*said[:_MOST_LINES], f"and {more} more objects with warnings: see objects.csv"]


def _outlines(instances: np.ndarray, number: int, box: tuple[slice, ...]) -> list[np.ndarray]:
    """Closed lines (n, 2) of x, y around an object and its holes, in px of the image."""
    mask = np.pad((instances[box] == number).astype(np.uint8), 1)
    lines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    shift = (box[1].start - 1, box[0].start - 1)
    return [np.concatenate([line[:, 0], line[:1, 0]]) + shift for line in lines]
