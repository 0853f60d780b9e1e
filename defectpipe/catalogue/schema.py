"""The tables of a catalogue, and how tables that were read come into them.

The file is a cache: everything in it was read from output folders, and can be read again. Columns that a table of a
folder has beyond those here are taken in under their own name, numbers as DOUBLE and the rest as text, so that what a
later version of the program measures can be searched too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from defectpipe.catalogue.descriptor import SIZE
from defectpipe.errors import CatalogueError

SCHEMA_VERSION = 1

SIMULATED, EXPERIMENTAL = "simulated", "experimental"
FOUND, TRUTH = "found", "truth"

_TEXT, _REAL, _WHOLE, _FLAG = "VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"
VECTOR = f"FLOAT[{SIZE}]"

TABLES: dict[str, dict[str, str]] = {
    "folders": {
        "folder_id": _WHOLE,
        "folder": _TEXT,
        "folder_kind": _TEXT,
        "fingerprint": _TEXT,
        "images_dir": _TEXT,
        "made_with": _TEXT,
        "n_images": _WHOLE,
        "words": _TEXT,
    },
    "images": {
        "image_id": _WHOLE,
        "folder_id": _WHOLE,
        "image": _TEXT,
        "frame": _WHOLE,
        "sha256": _TEXT,
        "origin": _TEXT,
        "beside_simulation": _FLAG,
        "kind": _TEXT,
        "condition": _TEXT,
        "status": _TEXT,
        "reason": _TEXT,
        "height_px": _WHOLE,
        "width_px": _WHOLE,
        "analysed_area_px2": _REAL,
        "n_loops": _WHOLE,
        "n_on_edge": _WHOLE,
        "mean_diameter_nm": _REAL,
        "std_diameter_nm": _REAL,
        "areal_density_per_m2": _REAL,
        "n_labels": _WHOLE,
        "words": _TEXT,
    },
    "acquisition": {
        "image_id": _WHOLE,
        "pixel_size_nm": _REAL,
        "pixel_size_source": _TEXT,
        "magnification": _REAL,
        "modality": _TEXT,
        "voltage_kv": _REAL,
        "dose_per_px": _REAL,
        "sample": _TEXT,
    },
    "focus": {"image_id": _WHOLE, "focus_score": _REAL, "focus_gate": _TEXT, "defocus_sigma_px": _REAL},
    "loops": {
        "image_id": _WHOLE,
        "source": _TEXT,
        "found_by": _TEXT,
        "class": _TEXT,
        "loop_id": _WHOLE,
        "x_px": _REAL,
        "y_px": _REAL,
        "diameter_px": _REAL,
        "minor_px": _REAL,
        "diameter_nm": _REAL,
        "on_edge": _FLAG,
        "visible": _FLAG,
    },
    "objects": {
        "image_id": _WHOLE,
        "source": _TEXT,
        "class": _TEXT,
        "object_id": _WHOLE,
        "x_px": _REAL,
        "y_px": _REAL,
        "volume_nm3": _REAL,
        "max_thickness_nm": _REAL,
        "deformed": _FLAG,
        "on_edge": _FLAG,
        "visible": _FLAG,
    },
    "embeddings": {"image_id": _WHOLE, "descriptor": _TEXT, "vector": VECTOR},
}
"""Columns that every catalogue has, by table."""

OF_IMAGE = ("images", "acquisition", "focus")
"""Tables with one row for each image and frame."""

OF_MANY = ("loops", "objects")
"""Tables with any number of rows for an image."""

INTERNAL = ("words", "beside_simulation", "fingerprint", "vector")
"""Columns that are of no interest by themselves."""

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_MOST_COLUMNS = 300


def connect() -> duckdb.DuckDBPyConnection:
    """An empty database in memory that loads nothing from anywhere; catalogues are attached to it."""
    try:
        return duckdb.connect(
            ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
    except duckdb.Error as error:
        raise CatalogueError(f"DuckDB does not start ({error}).") from error


def attach(con: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool) -> None:
    """Attach a catalogue file.

    Raises
    ------
    CatalogueError
        It is no catalogue, or of another version of the program; see `CatalogueError`'s text.
    """
    if read_only and not path.is_file():
        raise CatalogueError(f"{path}: there is no such catalogue; IndexFolder makes one.")
    try:
        con.execute(f"ATTACH {literal(str(path))} AS {name}{' (READ_ONLY)' if read_only else ''}")
        if read_only:
            con.execute(f"SELECT descriptor FROM {name}.about WHERE schema_version IS NOT NULL")
    except duckdb.Error as error:
        raise CatalogueError(
            f"{path}: this is no catalogue that can be read ({str(error).splitlines()[0]}). If it was one, remove it "
            "and index its folders again; nothing is lost that is not in them."
        ) from error


def create_tables(con: duckdb.DuckDBPyConnection, catalogue: str) -> None:
    """Make the tables of an empty catalogue."""
    for table, columns in TABLES.items():
        described = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        con.execute(f"CREATE TABLE {catalogue}.{table} ({described})")
    con.execute(f"CREATE TABLE {catalogue}.about (schema_version INTEGER, descriptor VARCHAR)")


def columns_of(con: duckdb.DuckDBPyConnection, catalogue: str, table: str) -> dict[str, str]:
    """Columns of a table and their types."""
    rows = con.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [catalogue, table],
    ).fetchall()
    return {str(name): str(kind) for name, kind in rows}


def plain_type(kind: str) -> str:
    """A column's type in plain words."""
    return {_TEXT: "text", _FLAG: "flag"}.get(kind, "number")


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as SQL, where it cannot be bound."""
    return "'" + text.replace("'", "''") + "'"


def usable_columns(names: list[str]) -> list[str]:
    """Names that can be columns of a catalogue: plain ones, each but once whatever its case, and not too many."""
    taken: dict[str, str] = {}
    for name in names:
        if _PLAIN_NAME.fullmatch(name):
            taken.setdefault(name.casefold(), name)
    return list(taken.values())[:_MOST_COLUMNS]


def insert(con: duckdb.DuckDBPyConnection, catalogue: str, table: str, rows: str) -> None:
    """Add rows to a table, and to it the columns that it lacks and that hold anything.

    Parameters
    ----------
    con : DuckDBPyConnection
    catalogue, table : str
    rows : str
        Name of a relation in memory.
    """
    own = {str(row[0]): str(row[1]) for row in con.execute(f"DESCRIBE {rows}").fetchall()}
    known = {name.casefold(): (name, kind) for name, kind in columns_of(con, catalogue, table).items()}
    extras = _kinds_of_content(con, rows, {n: k for n, k in own.items() if n.casefold() not in _core(table)})
    chosen, values = [], []
    for name, kind in own.items():
        if name in extras:
            wanted = extras[name]
            if wanted is None:
                continue
            if name.casefold() not in known:
                con.execute(f"ALTER TABLE {catalogue}.{table} ADD COLUMN {quoted(name)} {wanted}")
                known[name.casefold()] = (name, wanted)
            elif known[name.casefold()][1] == _REAL and wanted == _TEXT:
                # What was a number elsewhere is text here: the column holds both, as text.
                con.execute(f"ALTER TABLE {catalogue}.{table} ALTER {quoted(name)} TYPE {_TEXT}")
                known[name.casefold()] = (name, _TEXT)
        target, target_kind = known[name.casefold()]
        chosen.append(quoted(target))
        values.append(_cast(quoted(name), kind, target_kind))
    con.execute(f"INSERT INTO {catalogue}.{table} ({', '.join(chosen)}) SELECT {', '.join(values)} FROM {rows}")


def _core(table: str) -> set[str]:
    return {name.casefold() for name in TABLES[table]}


def _cast(value: str, kind: str, target: str) -> str:
    if kind == _TEXT:
        # An empty cell is what is not known.
        value = f"NULLIF({value}, '')"
    if target == _REAL and kind in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
    return value if kind == target else f"TRY_CAST({value} AS {target})"


def _kinds_of_content(con: duckdb.DuckDBPyConnection, rows: str, columns: dict[str, str]) -> dict[str, str | None]:
    """Types of columns that would hold their content: a number, or text; None: there is none."""
    if not columns:
        return {}
    values = [_cast(quoted(name), kind, kind) for name, kind in columns.items()]
    counts = ", ".join(f"count({value}), count(TRY_CAST({value} AS DOUBLE))" for value in values)
    found = con.execute(f"SELECT {counts} FROM {rows}").fetchone() or ()
    kinds = zip(columns, found[::2], found[1::2], strict=True)
    return {name: None if not filled else _REAL if numbers == filled else _TEXT for name, filled, numbers in kinds}


def as_arrow(table: Any) -> pa.Table:
    """A pandas or Arrow table as an Arrow table with plain columns only."""
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    return arrow.select(usable_columns(arrow.column_names))
