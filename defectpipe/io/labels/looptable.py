"""Our own tables as labels: ``loops.csv`` of a run, corrected perhaps, or any CSV with its columns.

An ellipse (``x_px, y_px, diameter_px, minor_px, angle_deg``) comes before a box (``x0_px`` to ``y1_px``), whose
convention depends on the model that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def read(file: LabelFile) -> dict[str, Entry]:
    """Entries by the column ``image``; without that column, one entry under the name ``""``.

    A broken row costs its image, an image name that leaves the folder the whole file.
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
            entry.outlines.append(_outline(where, row, kinds))
        except LabelError as error:
            entry.error = entry.error or str(error)
    return entries


def _outline(where: str, row: dict[str, str], kinds: Sequence[list[str]]) -> Outline:
    if row.get("frame", "").strip() not in ("", "0"):
        raise LabelError(f"{where}: labels are of frame 0, not of frame {row['frame'].strip()}.")
    label = restored_text(row.get("label", "").strip())
    # A box that someone drew has no angle: its ellipse is empty, wholly or in part.
    drawn = kinds[0] is _ELLIPSE and (len(kinds) == 1 or all(row[name].strip() for name in _ELLIPSE))
    values = [number(row[name], where) for name in (_ELLIPSE if drawn else _BOX)]
    if drawn:
        x, y, major, minor, angle = values
        return ellipse_outline(where, x, y, major, minor, angle, label)
    return Outline(where, (values[0], values[1], values[2], values[3]), label=label)
