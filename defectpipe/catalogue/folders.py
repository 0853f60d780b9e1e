"""Which folders hold results that a catalogue can take in, where their images are, and whether anything has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectpipe.errors import CatalogueError
from defectpipe.io.folder import list_images
from defectpipe.io.run_files import STATE_FOLDER

RUN, SIMULATION, RECOGNITION = "run", "simulation", "recognition"
IMAGES_TABLE, LOOPS_TABLE, OBJECTS_TABLE, TRUTH_TABLE = "images.csv", "loops.csv", "objects.csv", "truth.csv"
SUMMARY, MANIFEST = "summary.json", "manifest.json"
_OF_RUN, _OF_RECOGNITION = {IMAGES_TABLE, LOOPS_TABLE, SUMMARY}, {IMAGES_TABLE, OBJECTS_TABLE, SUMMARY}
PICTURES_FOLDER = "catalogue"


@dataclass(frozen=True)
class OutputFolder:
    """A folder of results: of `RunAll`, `RecogniseObjects` or `SimulateDataset`.

    Attributes
    ----------
    path : Path
        Absolute.
    kind : str
        `RUN`, `SIMULATION` or `RECOGNITION` (of `RecogniseObjects`).
    images_dir : Path
        Where its images should be.
    facts : dict
        ``summary.json`` or ``manifest.json``.
    """

    path: Path
    kind: str
    images_dir: Path
    facts: dict[str, Any]

    @property
    def tables(self) -> list[Path]:
        """The files whose content goes into the catalogue; those that are there, sorted."""
        if self.kind == SIMULATION:
            wanted = [self.path / TRUTH_TABLE, self.path / MANIFEST]
        else:
            wanted = [self.path / name for name in (IMAGES_TABLE, LOOPS_TABLE, OBJECTS_TABLE)]
            wanted += [*loop_shards(self.path), self.images_dir.parent / MANIFEST]
        return sorted(path for path in wanted if path.is_file())

    @property
    def made_with(self) -> str:
        """Model of a run, or preset and seed of a simulation, in words that can be searched."""
        if self.kind == SIMULATION:
            return f"simulated {self.facts['kind']}, preset {self.facts['preset']}, seed {self.facts['seed']}"
        return f"model {self.facts['model']['name']}"

    def fingerprint(self, descriptor: str) -> str:
        """Hash of all that its rows in a catalogue depend on: content of the tables, and whether images can be seen.

        The folder's own place is not in it, so that one that was moved is known again.
        """
        parts: list[Any] = [self.kind, self.made_with, descriptor, self.images_dir.is_dir()]
        for table in self.tables:
            try:
                with table.open("rb") as file:
                    parts.append([table.name, hashlib.file_digest(file, "sha256").hexdigest()])
            except OSError as error:
                raise CatalogueError(f"{table}: cannot be read ({error.strerror}).") from error
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def open_folder(path: Path) -> OutputFolder | None:
    """The results in a folder; None: there are none in it itself.

    Raises
    ------
    CatalogueError
        There are, and what describes them cannot be understood.
    """
    path = Path(os.path.abspath(path))
    try:
        if (path / MANIFEST).is_file() and (path / TRUTH_TABLE).is_file():
            facts = _read_json(path / MANIFEST)
            if "simulation_version" in facts:
                _check(facts, ("kind", "preset", "seed", "images"))
                return OutputFolder(path, SIMULATION, path / "images", facts)
        if all((path / name).is_file() for name in _OF_RUN):
            facts = _read_json(path / SUMMARY)
            _check(facts, ("run", "model"))
            return OutputFolder(path, RUN, _images_of_run(path, facts["run"]), facts)
        if all((path / name).is_file() for name in _OF_RECOGNITION):
            facts = _read_json(path / SUMMARY)
            _check(facts, ("run", "model"))
            return OutputFolder(path, RECOGNITION, _images_of_run(path, facts["run"]), facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatalogueError(f"{path}: its {SUMMARY} or {MANIFEST} cannot be understood ({error!r}).") from error
    return None


def find_folders(root: Path) -> Iterator[Path]:
    """Folders with results: this one, and those below it. Links are not followed; hidden folders are left out."""
    names = {entry.name: entry for entry in _entries(root)}
    if any(wanted <= names.keys() for wanted in ({MANIFEST, TRUTH_TABLE}, _OF_RUN, _OF_RECOGNITION)):
        yield Path(os.path.abspath(root))
    for name in sorted(names):
        if not name.startswith(".") and names[name].is_dir(follow_symlinks=False):
            yield from find_folders(Path(names[name].path))


def loop_shards(folder: Path) -> list[Path]:
    """The Parquet tables of loops that a run keeps, a part of the folder each."""
    return sorted((folder / STATE_FOLDER / "tables").glob("loops-*.parquet"))


def locate(images_dir: Path, image: str) -> Path | None:
    """The file of an image by its name in a table; None: it is not there, or the name leads elsewhere.

    Tables may come from strangers: a name that leaves the folder, or a link, is no image.
    """
    if image.startswith("/") or "\0" in image or ".." in image.split("/"):
        return None
    path = images_dir / image
    if not path.is_file() and "\\x" in image and images_dir.is_dir():
        # Bytes that are no UTF-8 are written as escapes in tables.
        path = next((file.path for file in list_images(images_dir) if file.image == image), path)
    inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(images_dir), ""))
    return path if inside and path.is_file() and not path.is_symlink() else None


def _images_of_run(path: Path, run: dict[str, Any]) -> Path:
    """Where the run's images are: where they were, or, seen from a moved folder, at the same place beside it."""
    given = Path(str(run["input_dir"]))
    if given.is_dir():
        return given
    moved = Path(os.path.normpath(path / os.path.relpath(given, str(run["output_dir"]))))
    return moved if moved.is_dir() else given


def _read_json(path: Path) -> dict[str, Any]:
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(facts, dict):
        raise ValueError(f"{path.name} holds no names")
    return facts


def _check(facts: dict[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in facts]
    if missing:
        raise KeyError(", ".join(missing))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise CatalogueError(f"{folder}: cannot be listed ({error.strerror}).") from error
