"""Our own tables as labels: ``loops.csv`` of a run, corrected perhaps, or any CSV with its columns.

An ellipse (``x_px, y_px, diameter_px, minor_px, angle_deg``) comes before a box (``x0_px`` to ``y1_px``), whose
convention depends on the model that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import Outline, ellipse_outline
from defectpipe.io.labels.sheets import Entry
from defectpipe.io.labels.sources import LabelFile, check_decimals, number, safe_name
from defectpipe.io.tables import restored_text

_BOX = ["x0_px", "y0_px", "x1_px", "y1_px"]
_ELLIPSE = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]


def matches(header: Sequence[str]) -> bool:
    """Whether a table's header has the columns of boxes or ellipses."""
    return set(_BOX) <= set(header) or set(_ELLIPSE) <= set(header)


def read(file: LabelFile, *, frames: bool = False) -> dict[str, Entry]:
    """Entries by the column ``image``; without that column, one entry under the name ``""``.

    A broken row costs its image, an image name that leaves the folder the whole file. Rows of frames other than the
    first are refused unless `frames` says that they count.
    """
    table = file.table
    if not matches(table.header):
        raise LabelError(f"{file.name}: a table of loops needs {', '.join(_ELLIPSE)}, or {', '.join(_BOX)}.")
    kinds = [kind for kind in (_ELLIPSE, _BOX) if set(kind) <= set(table.header)]
    check_decimals(table, [name for kind in kinds for name in kind], file.name)
    named = "image" in table.header
    entries: dict[str, Entry] = {} if named else {"": Entry()}
    for where, row in table.rows:
        name = safe_name(restored_text(row["image"]), file.name) if named else ""
        entry = entries.setdefault(name, Entry())
        try:
            entry.outlines.append(_outline(where, row, kinds, frames))
        except LabelError as error:
            entry.error = entry.error or str(error)
    return entries


def _outline(where: str, row: dict[str, str], kinds: Sequence[list[str]], frames: bool) -> Outline:
    frame = _frame(row.get("frame", ""), where)
    if frame and not frames:
        raise LabelError(f"{where}: labels are of frame 0, not of frame {row['frame'].strip()}.")
    number_of = row.get("loop_id", "").strip().removesuffix(".0")
    # Other programs number as they like.
    loop_id = int(number_of) if number_of.isascii() and number_of.isdigit() and len(number_of) < 10 else None
    label = restored_text((row.get("label") or row.get("class") or "").strip())
    # A box that someone drew has no angle: its ellipse is empty, wholly or in part.
    drawn = kinds[0] is _ELLIPSE and (len(kinds) == 1 or all(row[name].strip() for name in _ELLIPSE))
    values = [number(row[name], where) for name in (_ELLIPSE if drawn else _BOX)]
    if drawn:
        x, y, major, minor, angle = values
        return replace(ellipse_outline(where, x, y, major, minor, angle, label), frame=frame, loop_id=loop_id)
    return Outline(where, (values[0], values[1], values[2], values[3]), label=label, frame=frame, loop_id=loop_id)


def _frame(text: str, where: str) -> int:
    """A frame from 0; an empty cell is the first."""
    value = number(text, where) if text.strip() else 0.0
    if not (0 <= value < 2**31 and value % 1 == 0):
        raise LabelError(f"{where}: a frame is a whole number from 0, not '{text.strip()[:40]}'.")
    return int(value)
