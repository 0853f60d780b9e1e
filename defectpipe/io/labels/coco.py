"""COCO JSON: ``images``, ``annotations`` (polygons, run-length masks, or boxes ``x y w h``), ``categories``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from defectpipe.errors import LabelError
from defectpipe.io.labels.masks import region_outline
from defectpipe.io.labels.outlines import CORNER_PX, Outline, polygon_outline
from defectpipe.io.labels.rle import decode
from defectpipe.io.labels.sheets import Entry
from defectpipe.io.labels.sources import LabelFile, safe_name


def matches(content: Any) -> bool:
    """Whether a JSON value is a COCO file."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


def read(file: LabelFile) -> dict[str, Entry]:
    """Entries by file name; an image without annotations has no loops.

    A broken annotation costs its image, a broken list or an image name that leaves the folder the whole file.
    """
    content = file.json
    if not matches(content) or not isinstance(content["annotations"], list):
        raise LabelError(f"{file.name}: a COCO file holds lists 'images' and 'annotations'.")
    names = _category_names(file, content.get("categories", []))
    entries: dict[str, Entry] = {}
    by_id: dict[Any, Entry] = {}
    for image in content["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise LabelError(f"{file.name}: an image has no id.")
        name = safe_name(image.get("file_name"), file.name)
        if name in entries or image["id"] in by_id:
            raise LabelError(f"{file.name}: the image '{name}', or its id {image['id']}, is listed twice.")
        height, width = image.get("height"), image.get("width")
        shape = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        entries[name] = by_id[image["id"]] = Entry(shape=shape)
    for i, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            raise LabelError(f"{file.name}: annotation {i + 1} is no object.")
        where = f"{file.name}, annotation {annotation.get('id', i + 1)}"
        key = annotation.get("image_id")
        entry = by_id.get(key) if isinstance(key, int | str) else None
        if entry is None:
            raise LabelError(f"{where}: there is no image with the id {key}.")
        try:
            outline = _outline(where, annotation, entry.shape, names)
            entry.outlines.append(replace(outline, loop_id=_loop_id(annotation)))
        except LabelError as error:
            entry.error = entry.error or str(error)
    return entries


def _outline(where: str, annotation: dict[str, Any], shape: tuple[int, int] | None, names: dict[Any, str]) -> Outline:
    if annotation.get("iscrowd"):
        raise LabelError(f"{where}: a crowd is not one loop.")
    category = annotation.get("category_id")
    label = names.get(category, "") if isinstance(category, int | str) else ""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if shape is None:
            raise LabelError(f"{where}: a mask needs the height and width of its image.")
        return region_outline(where, decode(where, segmentation, shape), label)
    if isinstance(segmentation, list) and segmentation:
        parts = [_floats(where, part) for part in segmentation]
        if any(part.size % 2 for part in parts):
            raise LabelError(f"{where}: a polygon has an odd number of coordinates.")
        return polygon_outline(where, [part.reshape(-1, 2) - CORNER_PX for part in parts], label)
    box = _floats(where, annotation.get("bbox"))
    if box.size != 4:
        raise LabelError(f"{where}: there is neither a segmentation nor a bbox of four numbers.")
    x, y, w, h = box.tolist()
    return Outline(where, (x - CORNER_PX, y - CORNER_PX, x - CORNER_PX + w, y - CORNER_PX + h), label=label)


def _loop_id(annotation: dict[str, Any]) -> int | None:
    """The loop's number in our own export, where it is still there."""
    value = annotation.get("loop_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _floats(where: str, values: Any) -> np.ndarray:
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise LabelError(f"{where}: its coordinates are no list of numbers.")
    try:
        return np.array(values, float)
    except OverflowError as error:
        raise LabelError(f"{where}: a coordinate is too large for a number.") from error


def _category_names(file: LabelFile, categories: Any) -> dict[Any, str]:
    if not isinstance(categories, list) or not all(isinstance(c, dict) for c in categories):
        raise LabelError(f"{file.name}: 'categories' is no list of objects.")
    return {c["id"]: str(c.get("name", "")) for c in categories if isinstance(c.get("id"), int | str)}
