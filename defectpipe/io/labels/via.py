"""VGG Image Annotator (VIA 1 and 2): a project or its annotations as JSON, or its annotations as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import CORNER_PX, Outline, ellipse_outline, polygon_outline
from defectpipe.io.labels.sheets import Entry
from defectpipe.io.labels.sources import LabelFile, safe_name
from defectpipe.io.tables import restored_text

_PROJECT = "_via_img_metadata"
_SHAPE, _CLASS = "region_shape_attributes", "region_attributes"


def matches(content: Any) -> bool:
    """Whether a JSON value is a VIA project, or the annotations exported from one."""
    if not isinstance(content, dict):
        return False
    images = content.get(_PROJECT, content)
    return isinstance(images, dict) and (
        _PROJECT in content
        or (bool(images) and all(isinstance(i, dict) and {"filename", "regions"} <= i.keys() for i in images.values()))
    )


def matches_header(header: Sequence[str]) -> bool:
    """Whether a table's header is that of VIA's CSV."""
    return _SHAPE in header and bool({"filename", "#filename"} & set(header))


def read(file: LabelFile) -> dict[str, Entry]:
    """Entries by file name; an image without regions has no loops.

    A broken region costs its image, an image name that leaves the folder the whole file.
    """
    return _read_table(file) if file.suffix != ".json" else _read_json(file)


def _read_json(file: LabelFile) -> dict[str, Entry]:
    if not matches(file.json):
        raise LabelError(f"{file.name}: this is no VIA file (version 1 or 2).")
    entries: dict[str, Entry] = {}
    for image in file.json.get(_PROJECT, file.json).values():
        if not isinstance(image, dict):
            raise LabelError(f"{file.name}: an image is no object.")
        name = safe_name(image.get("filename"), file.name)
        if name in entries:
            raise LabelError(f"{file.name}: the image '{name}' is listed twice.")
        entry = entries[name] = Entry()
        regions = image.get("regions", [])
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(regions, list):
            raise LabelError(f"{file.name}: the regions of '{name}' are no list.")
        for i, region in enumerate(regions):
            where = f"{file.name}, {name}, region {i + 1}"
            attributes = region if isinstance(region, dict) else {}
            _add(entry, where, attributes.get("shape_attributes"), attributes.get("region_attributes"))
    return entries


def _read_table(file: LabelFile) -> dict[str, Entry]:
    table = file.table
    if not matches_header(table.header):
        raise LabelError(f"{file.name}: this is no CSV file of VIA.")
    key = "filename" if "filename" in table.header else "#filename"
    entries: dict[str, Entry] = {}
    for where, row in table.rows:
        entry = entries.setdefault(safe_name(restored_text(row[key]), file.name), Entry())
        try:
            shape, attributes = json.loads(row[_SHAPE] or "{}"), json.loads(row.get(_CLASS) or "{}")
        except (ValueError, RecursionError):
            entry.error = entry.error or f"{where}: its attributes are not valid JSON."
            continue
        # An image without regions has one row with empty attributes.
        if shape != {}:
            _add(entry, where, shape, attributes)
    return entries


def _add(entry: Entry, where: str, shape: Any, attributes: Any) -> None:
    try:
        if not isinstance(shape, dict):
            raise LabelError(f"{where}: it has no shape.")
        entry.outlines.append(_outline(where, shape, _label(attributes)))
    except LabelError as error:
        entry.error = entry.error or str(error)


def _outline(where: str, shape: dict[str, Any], label: str) -> Outline:
    kind = shape.get("name")
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise LabelError(f"{where}: its corners have not as many x as y.")
        corners = np.array([[_value(where, x), _value(where, y)] for x, y in zip(xs, ys, strict=True)], float)
        return polygon_outline(where, [corners.reshape(-1, 2) - CORNER_PX], label)
    if kind in ("ellipse", "circle"):
        names = ("cx", "cy", "rx", "ry") if kind == "ellipse" else ("cx", "cy", "r", "r")
        cx, cy, rx, ry = (_value(where, shape.get(name)) for name in names)
        # VIA turns clockwise as seen, in radians.
        angle = -math.degrees(_value(where, shape.get("theta", 0)))
        return ellipse_outline(where, cx - CORNER_PX, cy - CORNER_PX, 2 * rx, 2 * ry, angle, label)
    if kind == "rect":
        x, y, w, h = (_value(where, shape.get(name)) for name in ("x", "y", "width", "height"))
        return Outline(where, (x - CORNER_PX, y - CORNER_PX, x - CORNER_PX + w, y - CORNER_PX + h), label=label)
    raise LabelError(f"{where}: a {kind} encloses no loop; use rectangles, circles, ellipses or polygons.")


def _value(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LabelError(f"{where}: a coordinate is missing or no number.")
    try:
        return float(value)
    except OverflowError as error:
        raise LabelError(f"{where}: a coordinate is too large for a number.") from error


def _label(attributes: Any) -> str:
    if not isinstance(attributes, dict):
        return ""
    for value in attributes.values():
        if isinstance(value, str) and value:
            return value
        if isinstance(value, dict):
            chosen = [key for key, on in value.items() if on]
            if chosen:
                return str(chosen[0])
    return ""
