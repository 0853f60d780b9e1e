"""Building a catalogue: from output folders, and from what an earlier catalogue knows of those that are unchanged."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from defectpipe.catalogue import schema
from defectpipe.catalogue.descriptor import DESCRIPTOR, Embedder
from defectpipe.catalogue.folders import SIMULATION, OutputFolder, find_folders, open_folder
from defectpipe.catalogue.lock import building_lock
from defectpipe.catalogue.query import searchable
from defectpipe.catalogue.reading import FolderTables, read_folder
from defectpipe.catalogue.rows import insert_folder, take_over
from defectpipe.errors import CatalogueError
from defectpipe.io.files import write_atomic

_READ_AGAIN = 3
_FOLDER_COLUMNS = (
    *("folder_id", "folder", "folder_kind", "images_dir", "made_with", "words"),
    *("fingerprint", "n_images"),
)


@dataclass
class IndexReport:
    """What became of each folder.

    Attributes
    ----------
    read, unchanged, dropped : list of str
        Paths: read (again), taken over as they were, gone.
    moved : dict
        Where a folder is now -> where it was; their rows were taken over.
    refused : dict
        Path -> why the folder could not be read; it is not in the catalogue.
    n_images, n_loops, n_objects, n_embeddings, n_without_picture : int
        Rows in the catalogue; images of the folders read now that could not be looked at.
    written : bool
        False: nothing had changed, the file is as it was.
    """

    read: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    n_images: int = 0
    n_loops: int = 0
    n_objects: int = 0
    n_embeddings: int = 0
    n_without_picture: int = 0
    written: bool = False


@dataclass(frozen=True)
class _Known:
    """A folder that the earlier catalogue holds."""

    folder_id: int
    path: str
    fingerprint: str


def index_folders(
    catalogue: Path | str,
    folders: Sequence[Path | str] = (),
    *,
    embedder: Embedder = DESCRIPTOR,
    rebuild: bool = False,
    n_jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> IndexReport:
    """Bring a catalogue up to date: with these folders, and with those that it holds already.

    Folders whose tables are unchanged are not read again; one that is gone leaves the catalogue, unless it is found
    under another path among `folders`. The result is the same as that of building it anew from the folders. It is
    made under another name and then put in place: who reads the old one goes on reading it.

    Parameters
    ----------
    catalogue : Path
        The DuckDB file; made if it is missing.
    folders : sequence of Path
        Output folders of ``RunAll`` or ``SimulateDataset``, or folders that hold such, at any depth.
    embedder : Embedder
    rebuild : bool
        Read every folder again. Embeddings that are kept beside the results are not made again.
    n_jobs : int
        Processes that look at images.
    progress : callable, optional
        Called with 1 for each image file that was looked at.

    Returns
    -------
    IndexReport

    Raises
    ------
    CatalogueError
        The file is no catalogue, is being built by another process, or a folder holds no results.
    OSError
        It cannot be written.
    """
    path = Path(os.path.abspath(Path(catalogue).expanduser()))
    given = _given(folders)
    path.parent.mkdir(parents=True, exist_ok=True)
    with building_lock(path), contextlib.closing(schema.connect()) as con:
        known = _known(con, path)
        report = IndexReport()
        wanted = _open(given, known, report)
        plan = _plan(wanted, {} if rebuild else known, report, embedder)
        held = {str(folder.path) for folder, _, _ in plan}
        report.dropped = sorted(known.keys() - held - set(report.moved.values()) - report.refused.keys())
        if report.read or known.keys() != held or not path.exists():
            _build(con, path, plan, embedder, report, n_jobs, progress)
            report.written = True
        _count(con, path, report)
        return report


def _given(folders: Sequence[Path | str]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise CatalogueError(f"{folder}: there is no such folder.")
        below = list(find_folders(Path(os.path.realpath(folder))))
        if not below:
            raise CatalogueError(
                f"{folder}: neither it nor a folder in it holds results of RunAll, RecogniseObjects or "
                "SimulateDataset that are complete."
            )
        found += below
    return found


def _open(given: list[Path], known: Mapping[str, _Known], report: IndexReport) -> list[OutputFolder]:
    """The folders that the catalogue is to hold, sorted by path."""
    wanted: dict[str, OutputFolder] = {}
    for path in sorted({*map(str, given), *known}):
        try:
            folder = open_folder(Path(path)) if os.path.isdir(path) else None
        except CatalogueError as error:
            report.refused[path] = str(error)
            continue
        if folder is not None:
            wanted[path] = folder
    return list(wanted.values())


def _plan(
    wanted: list[OutputFolder], known: Mapping[str, _Known], report: IndexReport, embedder: Embedder
) -> list[tuple[OutputFolder, str, _Known | None]]:
    """Each folder with its fingerprint, and what the earlier catalogue has of it if that still holds."""
    plan: list[tuple[OutputFolder, str, _Known | None]] = []
    # A folder that is no longer where it was may be here under another path.
    lost = {old.fingerprint: old for old in known.values() if not os.path.isdir(old.path)}
    for folder in wanted:
        path = str(folder.path)
        try:
            fingerprint = folder.fingerprint(embedder.name)
        except CatalogueError as error:
            report.refused[path] = str(error)
            continue
        old = known.get(path)
        if old is not None and old.fingerprint == fingerprint:
            report.unchanged.append(path)
        elif old is None and fingerprint in lost:
            old = lost.pop(fingerprint)
            report.moved[path] = old.path
        else:
            old = None
            report.read.append(path)
        plan.append((folder, fingerprint, old))
    return plan


def _build(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    plan: list[tuple[OutputFolder, str, _Known | None]],
    embedder: Embedder,
    report: IndexReport,
    n_jobs: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Write the catalogue under another name, then put it in place."""
    building = path.with_name(f".{path.name}.building")
    _clear_away(building)
    try:
        # Left to itself, DuckDB puts what does not fit into memory into the working directory.
        con.execute("SET temp_directory = " + schema.literal(f"{building}.spilled"))
        schema.attach(con, building, "new", read_only=False)
        schema.create_tables(con, "new")
        _fill(con, plan, embedder, report, n_jobs, progress)
        con.execute("INSERT INTO new.about VALUES (?, ?)", [schema.SCHEMA_VERSION, embedder.name])
        con.execute("CHECKPOINT new")
        con.execute("DETACH new")
        write_atomic(path, lambda temporary: os.replace(building, temporary))
    finally:
        with contextlib.suppress(duckdb.Error):
            con.execute("DETACH DATABASE IF EXISTS new")
        _clear_away(building)


def _clear_away(building: Path) -> None:
    """Remove what this process, or one that was killed, has left of a catalogue that is not whole."""
    for leftover in (building, building.with_name(f"{building.name}.wal")):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(f"{building}.spilled", ignore_errors=True)


def _fill(
    con: duckdb.DuckDBPyConnection,
    plan: list[tuple[OutputFolder, str, _Known | None]],
    embedder: Embedder,
    report: IndexReport,
    n_jobs: int,
    progress: Callable[[int], object] | None,
) -> None:
    kept: list[tuple[int, int, int]] = []
    n_images = 0
    for folder_id, (folder, fingerprint, old) in enumerate(plan, 1):
        if old is not None:
            first, n = _images_of(con, old)
            kept.append((old.folder_id, folder_id, n_images + 1 - first))
        else:
            try:
                tables, fingerprint = _read_whole(folder, fingerprint, embedder, n_jobs, progress)
                insert_folder(con, folder_id, n_images + 1, tables)
            except CatalogueError as error:
                report.read.remove(str(folder.path))
                report.refused[str(folder.path)] = str(error)
                continue
            n = len(tables.images)
            report.n_without_picture += tables.n_without_picture
        con.execute(
            f"INSERT INTO new.folders ({', '.join(_FOLDER_COLUMNS)}) VALUES ({', '.join('?' * len(_FOLDER_COLUMNS))})",
            [*_described(folder_id, folder), fingerprint, n],
        )
        n_images += n
    take_over(con, kept)
    con.execute(
        "UPDATE new.images SET origin = CASE WHEN beside_simulation OR sha256 IN (SELECT sha256 FROM new.images "
        "JOIN new.folders USING (folder_id) WHERE folder_kind = ?) THEN ? ELSE ? END",
        [SIMULATION, schema.SIMULATED, schema.EXPERIMENTAL],
    )


def _described(folder_id: int, folder: OutputFolder) -> list[Any]:
    path = str(folder.path)
    return [folder_id, path, folder.kind, str(folder.images_dir), folder.made_with, searchable(path)]


def _read_whole(
    folder: OutputFolder,
    fingerprint: str,
    embedder: Embedder,
    n_jobs: int,
    progress: Callable[[int], object] | None,
) -> tuple[FolderTables, str]:
    """The folder's tables, all of one state: a run may be writing them."""
    for _ in range(_READ_AGAIN):
        tables = read_folder(folder, embedder, n_jobs, progress)
        after = folder.fingerprint(embedder.name)
        if after == fingerprint:
            return tables, fingerprint
        fingerprint = after
    raise CatalogueError(f"{folder.path}: a run is writing its tables; index it when the run has ended.")


def _known(con: duckdb.DuckDBPyConnection, path: Path) -> dict[str, _Known]:
    """Folders of the earlier catalogue, by path; it stays attached as ``old``. Of another version: to be read again."""
    if not path.exists():
        return {}
    schema.attach(con, path, "old", read_only=True)
    version = _one(con, "SELECT schema_version FROM old.about")
    rows = con.execute("SELECT folder_id, folder, fingerprint FROM old.folders").fetchall()
    same = version == schema.SCHEMA_VERSION
    return {str(row[1]): _Known(int(row[0]), str(row[1]), str(row[2]) if same else "") for row in rows}


def _images_of(con: duckdb.DuckDBPyConnection, old: _Known) -> tuple[int, int]:
    """Number of the folder's first image in the earlier catalogue, and how many it has."""
    found = con.execute(
        "SELECT coalesce(min(image_id), 1), count(*) FROM old.images WHERE folder_id = ?", [old.folder_id]
    ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def _count(con: duckdb.DuckDBPyConnection, path: Path, report: IndexReport) -> None:
    con.execute("DETACH DATABASE IF EXISTS old")
    schema.attach(con, path, "now", read_only=True)
    for name in ("images", "loops", "objects", "embeddings"):
        setattr(report, f"n_{name}", _one(con, f"SELECT count(*) FROM now.{name}"))


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0
