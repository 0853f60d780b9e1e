"""YOLO text, in fractions of the image's sides: ``class cx cy w h`` (boxes) or ``class x1 y1 x2 y2 …`` (polygons).

A ``classes.txt`` in the same folder gives the classes their names.
"""

from __future__ import annotations

import numpy as np

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import CORNER_PX, Outline, polygon_outline
from defectpipe.io.labels.sources import LabelFile

CLASS_NAMES = "classes.txt"


def read(file: LabelFile, shape: tuple[int, int]) -> list[Outline]:
    """Boxes and polygons, scaled to an image of `shape` (height, width)."""
    height, width = shape
    names = _class_names(file)
    outlines = []
    for where, values in file.numbers:
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            raise LabelError(
                f"{where}: YOLO rows hold a class with a box of 4 numbers or a polygon of 6, 8, …; "
                f"this one has {len(values)} numbers."
            )
        if not (values[0] >= 0 and values[0] % 1 == 0):
            raise LabelError(f"{where}: the class {values[0]:g} is not 0, 1, 2, …")
        label = names.get(int(values[0]), str(int(values[0])))
        points = np.array(values[1:]).reshape(-1, 2) * (width, height)
        if len(values) == 5:
            (cx, cy), (w, h) = (points - [[CORNER_PX] * 2, [0, 0]]).tolist()
            outlines.append(Outline(where, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), label=label))
        else:
            outlines.append(polygon_outline(where, [points - CORNER_PX], label))
    return outlines


def _class_names(file: LabelFile) -> dict[int, str]:
    place = file.path.parent / CLASS_NAMES
    # A link could lead out of the folder.
    if not place.is_file() or place.is_symlink() or place == file.path:
        return {}
    return {i: line.strip() for i, line in enumerate(LabelFile(place).text.splitlines()) if line.strip()}
