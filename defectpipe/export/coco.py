"""Loops as COCO JSON: an annotation a loop, with its score, for CVAT, VIA, Detectron, pycocotools and the like.

COCO counts from the corner of the top left pixel, and knows no frames: of a stack it holds the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.boxes import ellipse_points
from defectpipe.export.shapes import CORNER_PX, ELLIPSE_COLUMNS, drawable
from defectpipe.io.files import write_atomic

CATEGORY = "dislocation loop"
_N_CORNERS = 36
# Sides of a polygon whose corners lie on an ellipse cut its area off; so much larger, the areas are equal.
_EQUAL_AREA = float(np.sqrt(2 * np.pi / (_N_CORNERS * np.sin(2 * np.pi / _N_CORNERS))))
_LARGER = np.array([1.0, 1.0, _EQUAL_AREA, _EQUAL_AREA, 1.0])


def write_coco(
    loops: pd.DataFrame, images: pd.DataFrame, path: Path, description: str = "", classes: Sequence[str] = ()
) -> None:
    """Write the loops of a folder, one annotation a line, so that a folder of any size is never held as text.

    An annotation has the polygon and the bounding box of the ellipse, both cut at the border of the image, its area,
    ``score`` (the screener's; absent where a person added the loop) and ``loop_id``.

    Parameters
    ----------
    loops, images : DataFrame
        As in ``loops.csv`` and ``images.csv``. Failed images are left out.
    path : Path
    description : str
    classes : sequence of str
        Names of the classes, the categories; none: all loops are of one, `CATEGORY`.
    """
    names = list(classes) or [CATEGORY]
    first = images[(images["frame"] == 0) & (images["status"] != "failed") & images["height_px"].notna()]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    head = {"info": {"description": description}, "categories": categories}
    number_of = {name: number for number, name in enumerate(classes, 1)}

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(json.dumps(head, ensure_ascii=False)[:-1])
            for name, entries in (("images", _images(first)), ("annotations", _annotations(first, loops, number_of))):
                file.write(f', "{name}": [')
                for i, entry in enumerate(entries):
                    file.write(("\n" if i == 0 else ",\n") + json.dumps(entry, ensure_ascii=False))
                file.write("\n]")
            file.write("}\n")

    write_atomic(path, write)


def _images(images: pd.DataFrame) -> Iterator[dict[str, Any]]:
    columns = (images["image"], images["height_px"], images["width_px"])
    for number, (name, height, width) in enumerate(zip(*columns, strict=True), 1):
        yield {"id": number, "file_name": str(name), "height": int(height), "width": int(width)}


def _annotations(images: pd.DataFrame, loops: pd.DataFrame, number_of: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    shown = drawable(loops[loops["frame"] == 0])
    by_image = {str(image): part for image, part in shown.groupby("image", sort=False)}
    columns = (images["image"], images["height_px"], images["width_px"])
    entries = chain.from_iterable(
        _of_image(number, by_image[str(name)], (int(height), int(width)), number_of)
        for number, (name, height, width) in enumerate(zip(*columns, strict=True), 1)
        if str(name) in by_image
    )
    for number, entry in enumerate(entries, 1):
        yield {"id": number} | entry


def _of_image(
    number: int, loops: pd.DataFrame, shape: tuple[int, int], number_of: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    columns = (loops[ELLIPSE_COLUMNS].to_numpy(float), *(loops[c] for c in ("screening_score", "loop_id", "class")))
    for ellipse, score, loop_id, name in zip(*columns, strict=True):
        points = np.clip(ellipse_points(ellipse * _LARGER, _N_CORNERS) + CORNER_PX, 0, [shape[1], shape[0]])
        x, y = points.T
        area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))
        low, high = points.min(0), points.max(0)
        yield {
            "image_id": number,
            "category_id": number_of.get(str(name), 1),
            "loop_id": int(loop_id),
            **({"score": round(float(score), 4)} if np.isfinite(score) else {}),
            "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
            "area": round(area, 2),
            "iscrowd": 0,
            "segmentation": [[round(float(v), 2) for v in points.ravel()]],
        }
