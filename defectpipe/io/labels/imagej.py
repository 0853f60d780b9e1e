"""ImageJ results tables (CSV, or the tab-separated text that ImageJ calls ``.xls``), in px.

Ellipses from ``X Y`` (else ``XM YM``), ``Major Minor Angle``; boxes from ``BX BY Width Height``. ImageJ counts from the
corner of the top left pixel, and its angle is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import CORNER_PX, Outline, ellipse_outline
from defectpipe.io.labels.sources import LabelFile, check_decimals, number

_ELLIPSE = ("major", "minor", "angle")
_CENTRES = (("x", "y"), ("xm", "ym"))
_BOX = ("bx", "by", "width", "height")
_PIXELS = {"", "px", "pixel", "pixels"}
_SUMMARY = ["mean", "sd", "min", "max"]


def matches(header: Sequence[str]) -> bool:
    """Whether a table's header is that of an ImageJ results table that outlines loops."""
    return _geometry(_columns(header)) is not None


def read(file: LabelFile, *, stated: bool = False) -> list[Outline]:
    """Ellipses, or boxes where the table has no ellipses.

    Parameters
    ----------
    file : LabelFile
    stated : bool
        Whether the user named the format, and with it says that the table is in px.

    Raises
    ------
    LabelError
        The table is in nm or another unit, or seems to be: ImageJ's areas are whole numbers in px.
    """
    table = file.table
    columns = _columns(table.header)
    geometry = _geometry(columns)
    if geometry is None:
        raise LabelError(f"{file.name}: an ImageJ table needs X, Y, Major, Minor, Angle, or BX, BY, Width, Height.")
    _check_unit(file, columns, geometry)
    names = [columns[key][0] for key in geometry]
    rows = table.rows
    if [_row_label(row, table.header) for _, row in rows[-4:]] == _SUMMARY:
        rows = rows[:-4]
    check_decimals(table, names, file.name)
    _check_slices(file, columns, [row for _, row in rows])
    outlines = []
    for where, row in rows:
        values = [number(row[name], where) for name in names]
        area = row[columns["area"][0]] if "area" in columns else "0"
        if not stated and number(area, where) % 1:
            raise LabelError(
                f"{where}: the area {area.strip()} is not a whole number, so the table seems to be calibrated; "
                "measure in pixels, or pass --label-format imagej if these are pixels."
            )
        if len(values) == 5:
            x, y, major, minor, angle = values
            outlines.append(ellipse_outline(where, x - CORNER_PX, y - CORNER_PX, major, minor, angle))
        else:
            x0, y0 = values[0] - CORNER_PX, values[1] - CORNER_PX
            outlines.append(Outline(where, (x0, y0, x0 + values[2], y0 + values[3])))
    return outlines


def _columns(header: Sequence[str]) -> dict[str, tuple[str, str]]:
    # Small-letter name -> the column's name as it stands, and the unit beside it, as in "Major (µm)" or "X_nm".
    found = {}
    for name in header:
        match = re.fullmatch(r"([a-z]+)(?:\s*[\s(\[_]\s*([a-zµμ°]+)\s*[)\]]?)?", name.strip().lower())
        if match:
            found[match[1]] = (name, match[2] or "")
    return found


def _geometry(columns: dict[str, tuple[str, str]]) -> tuple[str, ...] | None:
    if all(key in columns for key in _ELLIPSE):
        for centre in _CENTRES:
            if all(key in columns for key in centre):
                return (*centre, *_ELLIPSE)
    return _BOX if all(key in columns for key in _BOX) else None


def _check_unit(file: LabelFile, columns: dict[str, tuple[str, str]], geometry: tuple[str, ...]) -> None:
    units = {columns[key][1] for key in geometry if key != "angle"}
    for key in ("unit", "units"):
        if key in columns:
            units |= {row[columns[key][0]].strip().lower() for _, row in file.table.rows}
    if units - _PIXELS:
        raise LabelError(
            f"{file.name}: the table is in {', '.join(sorted(units - _PIXELS))}; "
            "remove the scale in ImageJ (Analyze > Set Scale) and measure in pixels."
        )


def _check_slices(file: LabelFile, columns: dict[str, tuple[str, str]], rows: list[dict[str, str]]) -> None:
    for key in ("slice", "frame"):
        if key in columns and len({row[columns[key][0]].strip() for row in rows}) > 1:
            raise LabelError(f"{file.name}: the table is of several slices; save one table per image.")


def _row_label(row: dict[str, str], header: Sequence[str]) -> str:
    key = next((name for name in header if name.lower() == "label"), header[0])
    return row[key].strip().lower()
