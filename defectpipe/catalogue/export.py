"""Taking images out of a catalogue: copies in a folder of their own, with their tables beside them."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from defectpipe.catalogue.catalogue import Catalogue
from defectpipe.catalogue.found import Found
from defectpipe.catalogue.schema import OF_MANY
from defectpipe.errors import CatalogueError
from defectpipe.io.tables import write_csv

IMAGES_FOLDER, TABLE = "images", "found.csv"
_BLOCK_BYTES = 2**20
_LONGEST_NAME = 80


@dataclass
class ExportReport:
    """What was copied, and what was not.

    Attributes
    ----------
    folder : Path
    n_files : int
        Image files copied; an image that was found in several folders is copied once.
    left_out : dict
        Path of an image as the catalogue knows it -> why it was not copied.
    """

    folder: Path
    n_files: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def export_images(catalogue: Catalogue, found: Found, folder: Path | str) -> ExportReport:
    """Copy the images of a search to a new folder, with what the catalogue knows of them.

    The folder then holds ``images/`` (the files, under plain names that begin with a number), ``found.csv`` (the rows
    of the search, each with its ``file``), ``loops.csv`` and ``objects.csv`` (all that those images hold), and
    ``images/pixel_sizes.csv``, so that ``images`` can be the input of a run. A file that is gone, or is no longer the
    one that the catalogue knows, is left out, with the reason in ``not_copied``. The folder appears when it is whole.

    Parameters
    ----------
    catalogue : Catalogue
        The one that was searched.
    found : Found
        What `Catalogue.search` has found: images, loops or objects.
    folder : Path
        Must not exist, or be empty.

    Returns
    -------
    ExportReport

    Raises
    ------
    CatalogueError
        The folder holds something.
    OSError
        It cannot be written.
    """
    target = Path(os.path.abspath(Path(folder).expanduser()))
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise CatalogueError(f"{target}: there is something of this name already; export to a folder that is new.")
    target.parent.mkdir(parents=True, exist_ok=True)
    report = ExportReport(target)
    building = target.parent / f".exporting-{secrets.token_hex(8)}"
    building.mkdir()
    try:
        (building / IMAGES_FOLDER).mkdir()
        table = _copy(found, building / IMAGES_FOLDER, report)
        write_csv(table.drop(columns="images_dir"), building / TABLE)
        _write_sizes(table, building / IMAGES_FOLDER)
        _write_held(catalogue, table, building)
        os.replace(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return report


def safe_name(number: int, image: str) -> str:
    """A file name without anything that a shell, a spreadsheet or a file system could take amiss; extension kept."""
    stem, suffix = os.path.splitext(image.rsplit("/", 1)[-1])
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:_LONGEST_NAME]
    suffix = re.sub(r"[^A-Za-z0-9.]+", "", suffix)[:8]
    return f"{number:06d}_{plain}{suffix.lower()}" if plain else f"{number:06d}{suffix.lower()}"


def _copy(found: Found, images: Path, report: ExportReport) -> pd.DataFrame:
    """Copy each file once; gives the rows with ``file`` and ``not_copied`` first."""
    known: dict[str, tuple[str, str]] = {}
    files, reasons = [], []
    for row in range(len(found)):
        values = found.iloc[row]
        sha256 = str(values["sha256"])
        if sha256 not in known:
            name = safe_name(report.n_files + 1, str(values["image"]))
            reason = _copy_file(found.file(row), images / name, sha256)
            known[sha256] = ("", reason) if reason else (name, "")
            report.n_files += not reason
        file, reason = known[sha256]
        if reason:
            # It may be whole in another folder that was found as well.
            report.left_out[str(values["path"]) or str(values["image"])] = reason
            del known[sha256]
        files.append(file)
        reasons.append(reason)
    table = pd.DataFrame(found)
    table.insert(0, "file", pd.Series(files, table.index, dtype=object))
    table.insert(1, "not_copied", pd.Series(reasons, table.index, dtype=object))
    return table


def _copy_file(source: Path | None, target: Path, sha256: str) -> str:
    """Copy a file whose hash is known; why it could not be done, or nothing."""
    if source is None:
        return "its file is gone, or its name leads out of its folder"
    digest = hashlib.sha256()
    try:
        # A link that somebody has put there meanwhile is not followed.
        with (
            os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as origin,
            target.open("xb") as copy,
        ):
            while block := origin.read(_BLOCK_BYTES):
                digest.update(block)
                copy.write(block)
    except OSError as error:
        if error.filename == str(source):
            return f"it cannot be read ({error.strerror})"
        raise
    if digest.hexdigest() == sha256:
        return ""
    target.unlink()
    return "its file is another one by now"


def _write_sizes(table: pd.DataFrame, images: Path) -> None:
    known = table[(table["file"] != "") & table["pixel_size_nm"].notna()]
    sizes = known[["file", "pixel_size_nm"]].drop_duplicates("file").rename(columns={"file": "image"})
    if len(sizes):
        write_csv(sizes, images / "pixel_sizes.csv")


def _write_held(catalogue: Catalogue, table: pd.DataFrame, folder: Path) -> None:
    """Loops and objects of the images that were copied."""
    copied = table[table["file"] != ""].drop_duplicates("image_id")
    file_of = dict(zip(copied["image_id"], copied["file"], strict=True))
    for many in OF_MANY:
        held = pd.DataFrame(catalogue.held_by(list(file_of), many))
        if len(held):
            held.insert(0, "file", held["image_id"].map(file_of))
            write_csv(held, folder / f"{many}.csv")
