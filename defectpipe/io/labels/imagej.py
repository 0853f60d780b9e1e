"""ImageJ results tables (CSV, or the tab-separated text that ImageJ calls ``.xls``), in px.

Ellipses from ``X Y`` (else ``XM YM``), ``Major Minor Angle``; boxes from ``BX BY Width Height``. ImageJ counts from the
corner of the top left pixel, and its angle is ours. A column ``PixelSize`` (as in our own export) says how long a pixel
is in the table's unit; our own export of a whole folder names in ``Label`` the image of a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import CORNER_PX, Outline, ellipse_outline
from defectpipe.io.labels.sheets import Entry
from defectpipe.io.labels.sources import LabelFile, check_decimals, number, safe_name
from defectpipe.io.tables import restored_text

_ELLIPSE = ("major", "minor", "angle")
_CENTRES = (("x", "y"), ("xm", "ym"))
_BOX = ("bx", "by", "width", "height")
_PIXELS = {"", "px", "pixel", "pixels"}
_SUMMARY = ["mean", "sd", "min", "max"]


def matches(header: Sequence[str]) -> bool:
    """Whether a table's header is that of an ImageJ results table that outlines loops."""
    return _geometry(_columns(header)) is not None


def is_of_folder(header: Sequence[str]) -> bool:
    """Whether a table's header is that of our own export of a whole folder."""
    return {"label", "loop", "slice", "pixelsize"} <= set(_columns(header)) and matches(header)


def read_folder(file: LabelFile, *, frames: bool = False) -> dict[str, Entry]:
    """Entries of our own export by the image that ``Label`` names."""
    entries: dict[str, Entry] = {}
    label = _columns(file.table.header)["label"][0]
    for outline, (_where, row) in zip(read(file, frames=True), file.table.rows, strict=True):
        entry = entries.setdefault(safe_name(restored_text(row[label]), file.name), Entry())
        if outline.frame and not frames:
            entry.error = entry.error or f"{outline.where}: labels are of the first slice only."
        entry.outlines.append(outline)
    return entries


def read(file: LabelFile, *, stated: bool = False, frames: bool = False) -> list[Outline]:
    """Ellipses, or boxes where the table has no ellipses.

    Parameters
    ----------
    file : LabelFile
    stated : bool
        Whether the user named the format, and with it says that the table is in px.
    frames : bool
        Whether the rows may be of several slices.

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
    if "pixelsize" not in columns:
        _check_unit(file, columns, geometry)
    names = [columns[key][0] for key in geometry]
    rows = table.rows
    if [_row_label(row, table.header) for _, row in rows[-4:]] == _SUMMARY:
        rows = rows[:-4]
    check_decimals(table, names, file.name)
    if not frames:
        _check_slices(file, columns, [row for _, row in rows])
    outlines = []
    for where, row in rows:
        values = [number(row[name], where) for name in names]
        area = row[columns["area"][0]] if "area" in columns else "0"
        if "pixelsize" in columns:
            values = _in_pixels(values, number(row[columns["pixelsize"][0]], where), where)
        elif not stated and number(area, where) % 1:
            raise LabelError(
                f"{where}: the area {area.strip()} is not a whole number, so the table seems to be calibrated; "
                "measure in pixels, or pass --label-format imagej if these are pixels."
            )
        if len(values) == 5:
            x, y, major, minor, angle = values
            outline = ellipse_outline(where, x - CORNER_PX, y - CORNER_PX, major, minor, angle)
        else:
            x0, y0 = values[0] - CORNER_PX, values[1] - CORNER_PX
            outline = Outline(where, (x0, y0, x0 + values[2], y0 + values[3]))
        slice_of, loop = (_whole(row, columns, key, where) for key in ("slice", "loop"))
        outlines.append(replace(outline, frame=max(slice_of or 1, 1) - 1, loop_id=loop))
    return outlines


def _in_pixels(values: list[float], pixel_size: float, where: str) -> list[float]:
    if not pixel_size > 0:
        raise LabelError(f"{where}: the PixelSize {pixel_size:g} is not positive.")
    # The angle, which comes last of five, is no length.
    return [value / pixel_size for value in values[:4]] + values[4:]


def _whole(row: dict[str, str], columns: dict[str, tuple[str, str]], key: str, where: str) -> int | None:
    text = row[columns[key][0]].strip() if key in columns else ""
    value = number(text, where) if text else math.nan
    return int(value) if value >= 0 and value % 1 == 0 and value < 2**31 else None


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
