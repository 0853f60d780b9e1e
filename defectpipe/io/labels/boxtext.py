"""Box text: one loop a row, ``y1 x1 y2 x2``, pixels counted from 1, size x2 − x1; a fifth column names the class.

The format of the labels published with Li, Field & Morgan 2018, whose boxes are padded.
"""

from __future__ import annotations

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import Outline
from defectpipe.io.labels.sources import LabelFile


def read(file: LabelFile) -> list[Outline]:
    """Boxes as they are in the file, counted from 0."""
    outlines = []
    for where, values in file.numbers:
        if len(values) not in (4, 5):
            raise LabelError(f"{where}: a box is 'y1 x1 y2 x2' and perhaps a class, not {len(values)} numbers.")
        y0, x0, y1, x1 = (value - 1 for value in values[:4])
        label = f"{values[4]:g}" if len(values) == 5 else ""
        outlines.append(Outline(where, (x0, y0, x1, y1), label=label))
    return outlines
