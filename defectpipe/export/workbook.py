"""Tables as an Excel workbook: a sheet a table, written row by row so that its memory does not grow with the table."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from defectpipe.io.files import write_atomic
from defectpipe.io.tables import neutral_text

MAX_ROWS = 1_048_576
"""Rows of an Excel sheet, the header's among them."""

_MAX_TEXT = 32_767
_WIDEST, _NARROWEST = 48, 9
# Rows by which a column's width is chosen.
_LOOKED_AT = 200
_BLOCK = 5_000
# A workbook says when it was made: the same bytes every day need one day.
_NO_DAY = datetime(2000, 1, 1)


def write_workbook(tables: Mapping[str, pd.DataFrame], path: Path, max_rows: int = MAX_ROWS) -> dict[str, int]:
    """Write tables as sheets with a frozen, filtered header; the same tables give the same bytes.

    Text stays text: nothing in a cell is run or becomes a link. What begins like a formula (``= + - @``) carries
    Excel's own mark for text, so that it stays text when somebody edits the cell. Unknown values are empty cells.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Name of the sheet to table; units are in the columns' names.
    path : Path
    max_rows : int
        Rows of a sheet with its header; what goes beyond is left out.

    Returns
    -------
    dict
        Sheet to number of rows left out, for those that have any.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    left_out = {name: len(table) - (max_rows - 1) for name, table in tables.items() if len(table) > max_rows - 1}

    def write(temporary: Path) -> None:
        # Rows go through files of their own: beside the workbook, where there has to be room anyway.
        with tempfile.TemporaryDirectory(prefix=temporary.stem, dir=temporary.parent) as scratch:
            options = {"constant_memory": True, "tmpdir": scratch, "strings_to_formulas": False}
            book = xlsxwriter.Workbook(temporary, options | {"strings_to_urls": False, "strings_to_numbers": False})
            book.set_properties({"created": _NO_DAY})
            formats = {
                "header": book.add_format({"bold": True, "bottom": 1}),
                "text": book.add_format({"quote_prefix": True}),
            }
            for name, table in tables.items():
                _write_sheet(book.add_worksheet(name), table.iloc[: max_rows - 1], formats)
            try:
                book.close()
            except FileCreateError as error:
                raise error.args[0] if error.args and isinstance(error.args[0], OSError) else error from error

    write_atomic(path, write)
    return left_out


def _write_sheet(sheet: Any, table: pd.DataFrame, formats: Mapping[str, Any]) -> None:
    sheet.freeze_panes(1, 0)
    for i, name in enumerate(table.columns):
        sheet.set_column(i, i, _width(table, str(name)))
        sheet.write_string(0, i, str(name), formats["header"])
    if len(table.columns):
        sheet.autofilter(0, 0, len(table), len(table.columns) - 1)
    for first in range(0, len(table), _BLOCK):
        block = table.iloc[first : first + _BLOCK]
        for i, row in enumerate(block.itertuples(index=False, name=None), first + 1):
            for j, value in enumerate(row):
                _write_cell(sheet, i, j, value, formats["text"])


def _write_cell(sheet: Any, i: int, j: int, value: Any, text: Any) -> None:
    if isinstance(value, str):
        if value:
            sheet.write_string(i, j, value[:_MAX_TEXT], text if neutral_text(value) != value else None)
    elif isinstance(value, bool | np.bool_):
        sheet.write_boolean(i, j, bool(value))
    elif value is not None and value is not pd.NA and math.isfinite(value):
        # Six significant digits, as in the CSV.
        sheet.write_number(i, j, int(value) if isinstance(value, int | np.integer) else float(f"{value:.6g}"))


def _width(table: pd.DataFrame, name: str) -> int:
    longest = max((len(_shown(value)) for value in table[name].iloc[:_LOOKED_AT]), default=0)
    # The filter's button covers the end of a heading.
    return min(_WIDEST, max(_NARROWEST, len(name) + 3, longest + 1))


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
