"""The tables that a run writes: their columns, Parquet as the truth, CSV as the copy for people, and JSON.

The same table gives the same bytes, on any day and with any number of jobs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.classes import LOOP_CLASS
from defectpipe.io.files import write_atomic

_IMAGE_TYPES = {
    "image": "str",
    "frame": "int64",
    "sha256": "str",
    "status": "str",
    "reason": "str",
    "height_px": "Int64",
    "width_px": "Int64",
    "analysed_area_px2": "float64",
    "pixel_size_nm": "float64",
    "pixel_size_source": "str",
    "magnification": "float64",
    "focus_score": "float64",
    "focus_gate": "str",
    "n_loops": "Int64",
    "n_on_edge": "Int64",
    "mean_diameter_px": "float64",
    "std_diameter_px": "float64",
    "mean_diameter_nm": "float64",
    "std_diameter_nm": "float64",
    "mean_diameter_nm_ci_low": "float64",
    "mean_diameter_nm_ci_high": "float64",
    "areal_density_per_m2": "float64",
    "areal_density_per_m2_ci_low": "float64",
    "areal_density_per_m2_ci_high": "float64",
    "n_labels": "Int64",
    "labels_mean_diameter_px": "float64",
    "labels_std_diameter_px": "float64",
    "recall": "float64",
    "precision": "float64",
    "recall_20px": "float64",
    "precision_20px": "float64",
    "n_moved": "Int64",
    "n_added": "Int64",
    "n_deleted": "Int64",
    "focus_score_std": "float64",
    "focus_blur_px": "float64",
    "focus_blur_nm": "float64",
    "focus_state": "str",
    "predicted_f1": "float64",
    "predicted_f1_low": "float64",
    "predicted_f1_high": "float64",
}
_LOOP_TYPES = {
    "image": "str",
    "frame": "int64",
    "loop_id": "int64",
    "x_px": "float64",
    "y_px": "float64",
    "x0_px": "float64",
    "y0_px": "float64",
    "x1_px": "float64",
    "y1_px": "float64",
    "diameter_px": "float64",
    "minor_px": "float64",
    "angle_deg": "float64",
    "area_px2": "float64",
    "feret_px": "float64",
    "equivalent_diameter_px": "float64",
    "diameter_nm": "float64",
    "minor_nm": "float64",
    "area_nm2": "float64",
    "on_edge": "bool",
    "detection_score": "float64",
    "screening_score": "float64",
    "fit_quality": "float64",
    "origin": "str",
    "diameter_uncertainty_px": "float64",
    "diameter_uncertainty_nm": "float64",
    "class": "str",
}
_CLASS_TYPES = {
    "image": "str",
    "frame": "int64",
    "class": "str",
    "diameter": "str",
    **{
        name: _IMAGE_TYPES[name]
        for name in _IMAGE_TYPES
        if name in ("n_loops", "n_on_edge") or name.startswith(("mean_diameter", "std_diameter", "areal_density"))
    },
}
_LABEL_TYPES = {
    "x_px": "float64",
    "y_px": "float64",
    "x0_px": "float64",
    "y0_px": "float64",
    "x1_px": "float64",
    "y1_px": "float64",
    "diameter_px": "float64",
    "minor_px": "float64",
    "angle_deg": "float64",
    "label": "str",
}
_OBJECT_TYPES = {
    **{"image": "str", "frame": "int64", "object_id": "int64", "class": "str", "class_probability": "float64"},
    **{"second_class": "str", "second_probability": "float64", "deformed_probability": "float64"},
    **dict.fromkeys(("x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "area_px2"), "float64"),
    **dict.fromkeys(("equivalent_diameter_px", "length_px", "width_px", "angle_deg"), "float64"),
    **dict.fromkeys(("max_thickness_px", "volume_px3", "area_nm2", "equivalent_diameter_nm"), "float64"),
    **dict.fromkeys(("length_nm", "width_nm", "max_thickness_nm", "mean_thickness_nm", "volume_nm3"), "float64"),
    **{"on_edge": "bool", "outline_probability": "float64", "familiarity": "float64", "is_known": "bool"},
    **{"deformed": "bool", "n_views": "int64", "warnings": "str", "series": "str"},
}

AUTOMATIC = "automatic"
"""Origin of a loop that no person has touched."""

CORRECTION_COUNTS = ("n_moved", "n_added", "n_deleted")
"""Columns of ``images.csv`` that say what a person changed."""

FOCUS_COLUMNS = (*("focus_score", "focus_gate", "focus_score_std", "focus_blur_px", "focus_blur_nm", "focus_state"),)
"""Columns of ``images.csv`` that the focus stage fills."""

IMAGE_COLUMNS = list(_IMAGE_TYPES)
LOOP_COLUMNS = list(_LOOP_TYPES)
CLASS_COLUMNS = list(_CLASS_TYPES)
LABEL_COLUMNS = list(_LABEL_TYPES)
OBJECT_COLUMNS = list(_OBJECT_TYPES)

# A spreadsheet takes a cell that begins with one of these for a formula; the wide forms are folded by some of them.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_FIXED_UNITS = ("_px", "_px2", "_deg")


def images_table(rows: Sequence[dict[str, Any]] | pd.DataFrame = ()) -> pd.DataFrame:
    """Rows as a table with the columns of ``images.csv``, in order and with their types; others follow.

    Parameters
    ----------
    rows : sequence of dict, or DataFrame
        What is missing or None becomes an empty cell. None at all gives an empty table.
    """
    return _typed(rows, _IMAGE_TYPES)


def loops_table(rows: Sequence[dict[str, Any]] | pd.DataFrame = ()) -> pd.DataFrame:
    """Rows as a table with the columns of ``loops.csv``; as `images_table`.

    An unsaid origin is `AUTOMATIC`, an unsaid class `classes.LOOP_CLASS`.
    """
    table = _typed(rows, _LOOP_TYPES)
    unsaid = {"origin": AUTOMATIC, "class": LOOP_CLASS}
    return table.assign(**{name: table[name].where(table[name] != "", value) for name, value in unsaid.items()})


def classes_table(rows: Sequence[dict[str, Any]] | pd.DataFrame = ()) -> pd.DataFrame:
    """Rows as a table with the columns of ``classes.csv`` (`CLASS_COLUMNS`); as `images_table`."""
    return _typed(rows, _CLASS_TYPES)


def labels_table(rows: Sequence[dict[str, Any]] | pd.DataFrame = ()) -> pd.DataFrame:
    """Rows as a table of labels (`LABEL_COLUMNS`); as `images_table`."""
    return _typed(rows, _LABEL_TYPES)


def objects_table(rows: Sequence[dict[str, Any]] | pd.DataFrame = ()) -> pd.DataFrame:
    """Rows as a table with the columns of ``objects.csv`` (`OBJECT_COLUMNS`); as `images_table`."""
    return _typed(rows, _OBJECT_TYPES)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people and spreadsheets: UTF-8, commas, a header always, empty cells for what is unknown.

    Columns in px, px² and degrees are rounded to three decimals, other figures to six significant digits: writing
    what was read back gives the same bytes. Text that a spreadsheet would take for a formula gets a leading ``'``,
    which `read_csv` takes off again.

    Parameters
    ----------
    table : DataFrame
        The index is not written.
    path : Path
    """
    rows = zip(*(_cells(table[name]) for name in table.columns), strict=True)
    lines = [_line([neutral_text(str(name)) for name in table.columns]), *(_line(row) for row in rows)]
    write_atomic(path, "".join(lines).encode("utf-8", "backslashreplace"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote: numbers and booleans by content, empty text as ``""``.

    Columns of `IMAGE_COLUMNS` and `LOOP_COLUMNS` have their types even where every cell is empty.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = [[restored_text(cell) for cell in row] for row in csv.reader(file)]
    header, body = rows[0], rows[1:]
    known = _CLASS_TYPES | _IMAGE_TYPES | _LOOP_TYPES | _LABEL_TYPES
    if "object_id" in header:  # its width is an object's, not the picture's
        known |= _OBJECT_TYPES
    return pd.DataFrame({name: _column([row[i] for row in body], known.get(name)) for i, name in enumerate(header)})


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table at full precision (Parquet, zstd); the index is not written."""
    write_atomic(path, lambda temporary: table.to_parquet(temporary, compression="zstd", index=False))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table written by `write_parquet`, all of it or some columns."""
    return pd.read_parquet(path, columns=None if columns is None else list(columns))


def write_json(values: Any, path: Path) -> None:
    """Write plain values, dataclasses, NumPy scalars and arrays, and paths as JSON, in the order given.

    NaN, infinity and pandas' NA become ``null``: JSON has no other word for what is unknown.

    Raises
    ------
    TypeError
        A value of another type.
    """
    text = json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode("utf-8", "backslashreplace"))


def neutral_text(text: str) -> str:
    """Text as a CSV cell that no spreadsheet runs: a ``'`` before what could begin a formula."""
    # Text that has quotes before such a character gets one more, so that reading takes off exactly one.
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def restored_text(text: str) -> str:
    """What `neutral_text` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _typed(rows: Sequence[dict[str, Any]] | pd.DataFrame, types: dict[str, str]) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        table = rows
    else:
        # A file name that is not UTF-8 arrives with surrogates, which pandas and Parquet refuse.
        table = pd.DataFrame([{name: _storable(value) for name, value in row.items()} for row in rows])
    columns: dict[str, pd.Series] = {}
    for name, kind in types.items():
        column = table[name] if name in table.columns else pd.Series([None] * len(table), dtype=object)
        columns[name] = _cast(column.reset_index(drop=True), kind)
    for name in table.columns:
        if name not in types:
            columns[name] = table[name].reset_index(drop=True)
    return pd.DataFrame(columns)


def _cast(column: pd.Series, kind: Any) -> pd.Series:
    if column.dtype == kind and (kind != "str" or column.notna().all()):
        return column
    if kind == "str":
        return column.astype(object).where(column.notna(), "").astype("str")
    if kind in ("float64", "Int64"):
        return pd.to_numeric(column.astype(object).where(column.notna(), np.nan), errors="raise").astype(kind)
    # bool, int64: never unknown, so an absent value is 0.
    return column.astype(object).where(column.notna(), 0).astype(kind)


def _line(cells: Sequence[str]) -> str:
    """One line of a CSV file. The writer quotes what its line terminator holds: with both, no cell can end a line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _cells(column: pd.Series) -> list[str]:
    name = str(column.name)
    if pd.api.types.is_bool_dtype(column):
        return ["" if pd.isna(v) else ("true" if v else "false") for v in column]
    if pd.api.types.is_integer_dtype(column):
        return ["" if pd.isna(v) else str(int(v)) for v in column]
    if pd.api.types.is_float_dtype(column):
        return [_number(float(v), name) for v in column.to_numpy(float, na_value=np.nan)]
    return [_cell(v, name) for v in column]


def _cell(value: Any, name: str) -> str:
    if isinstance(value, str):
        return neutral_text(value)
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return _number(float(value), name)
    return neutral_text(str(value)) if not isinstance(value, int | np.integer) else str(int(value))


def _number(value: float, name: str) -> str:
    if math.isnan(value):
        return ""
    if math.isfinite(value) and name.endswith(_FIXED_UNITS) and abs(value) < 1e15:
        text = f"{value:.3f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    return f"{value + 0.0:.6g}"


def _column(cells: list[str], kind: str | None) -> pd.Series:
    if kind is None:
        filled = [cell for cell in cells if cell]
        if filled and all(cell in ("true", "false") for cell in filled):
            kind = "bool" if len(filled) == len(cells) else "str"
        else:
            kind = "float64" if filled and all(_is_number(cell) for cell in filled) else "str"
    if kind == "str":
        return pd.Series(cells, dtype="str")
    if kind == "bool":
        return pd.Series([cell == "true" for cell in cells], dtype="bool")
    if kind == "int64":
        return pd.Series([int(cell) for cell in cells], dtype="int64")
    if kind == "Int64":
        return pd.Series([int(cell) if cell else pd.NA for cell in cells], dtype="Int64")
    return pd.Series([float(cell) if cell else math.nan for cell in cells], dtype="float64")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, np.bool_):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    raise TypeError(f"A value of type {type(value).__name__} cannot be written as JSON.")
