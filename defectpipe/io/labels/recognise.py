"""Which format a label file is in, by what it holds; and reading one file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from defectpipe.errors import LabelError
from defectpipe.io.labels import boxtext, coco, imagej, looptable, masks, rois, via, yolo
from defectpipe.io.labels.outlines import Outline, outlines_table
from defectpipe.io.labels.sheets import Entry
from defectpipe.io.labels.sources import LabelFile

TEXTS = frozenset({".txt", ".csv", ".tsv", ".xls"})
PICTURES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg"})
ROIS = frozenset({".zip", ".roi"})
JSON = frozenset({".json"})
# Formats that could run code, or that we do not read: named so that a user learns it.
REFUSED = frozenset({".xml", ".pkl", ".pickle", ".npy", ".npz", ".mat", ".xlsx", ".parquet"})

SUFFIXES = {
    "boxes": TEXTS,
    "yolo": TEXTS,
    "imagej": TEXTS,
    "csv": TEXTS,
    "coco": JSON,
    "via": JSON | TEXTS,
    "masks": PICTURES,
    "rois": ROIS,
}
LABEL_FORMATS = tuple(SUFFIXES)
SHEETS = frozenset({"coco", "via", "csv"})
BOX_CONVENTIONS = ("auto", "tight", "padded")


def possible_formats(file: LabelFile) -> set[str]:
    """The formats that a file could be in: one, several where its numbers fit several, none where it is blank.

    Raises
    ------
    LabelError
        It is in no format that we read.
    """
    suffix = file.suffix
    if suffix in PICTURES:
        return {"masks"}
    if suffix in ROIS:
        return {"rois"}
    if suffix in REFUSED or suffix not in TEXTS | JSON:
        raise LabelError(f"{file.name}: labels are not read from {suffix or 'such'} files; use {', '.join(SUFFIXES)}.")
    if suffix in JSON:
        for name, matches in (("coco", coco.matches), ("via", via.matches)):
            if matches(file.json):
                return {name}
        raise LabelError(f"{file.name}: this JSON is neither a COCO nor a VIA file.")
    return set() if file.is_blank else _text_formats(file)


def choose_format(file: LabelFile, among: set[str], stated: str | None, known: set[str]) -> str | None:
    """The one format to read a file in; None for a blank file.

    Parameters
    ----------
    file : LabelFile
    among : set of str
        What `possible_formats` said.
    stated : str or None
        What the user said: that holds.
    known : set of str
        Formats of the files beside it, which settle a doubt.
    """
    if stated is not None:
        return None if file.suffix in TEXTS and file.is_blank else stated
    narrowed = among & known if len(among) > 1 and len(among & known) == 1 else among
    if len(narrowed) > 1:
        raise LabelError(
            f"{file.name}: its numbers could be {' or '.join(sorted(narrowed))}; say which with --label-format."
        )
    return next(iter(narrowed), None)


def is_sheet(file: LabelFile, among: set[str]) -> bool:
    """Whether a file in one of these formats names the images that its labels are of."""
    return bool(among & SHEETS) or (among == {"imagej"} and imagej.is_of_folder(file.table.header))


def read_sheet(file: LabelFile, chosen: str, *, frames: bool = False) -> dict[str, Entry]:
    """Entries of a file that may hold many images, by image name (``""`` where it names none)."""
    if chosen == "imagej":
        return imagej.read_folder(file, frames=frames)
    if chosen == "csv":
        return looptable.read(file, frames=frames)
    return {"coco": coco.read, "via": via.read}[chosen](file)


def read_outlines(
    file: LabelFile, shape: tuple[int, int], chosen: str, *, stated: bool, frames: bool = False
) -> list[Outline]:
    """Outlines of a file that holds one image's labels; of all frames, if `frames`, where the format knows them."""
    if chosen == "boxes":
        return boxtext.read(file)
    if chosen == "yolo":
        return yolo.read(file, shape)
    if chosen == "imagej":
        return imagej.read(file, stated=stated, frames=frames)
    if chosen == "masks":
        return masks.read(file, shape, stated=stated)
    if chosen == "rois":
        return rois.read(file, frames=frames)
    return _own_entry(file, read_sheet(file, chosen, frames=frames)).checked(file.name, shape)


def is_padded(chosen: str, box_convention: str) -> bool:
    """Whether the padding of bare boxes is to be undone: for ``auto``, where the published padded format is read."""
    return box_convention == "padded" or (box_convention == "auto" and chosen == "boxes")


def read_labels(
    path: Path,
    shape: tuple[int, int],
    label_format: str | None = None,
    box_convention: str = "auto",
    *,
    clip: bool = False,
) -> pd.DataFrame:
    """Read the labels of one image from one file.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        Height and width of the image, in px.
    label_format : str or None
        One of `LABEL_FORMATS`; None: by content.
    box_convention : str
        Of bare boxes: ``tight``, ``padded`` (undone), or ``auto``: padded for ``y1 x1 y2 x2`` text, tight otherwise.
    clip : bool
        Whether boxes that reach over the border are cut there, instead of refused.

    Returns
    -------
    DataFrame
        `LABEL_COLUMNS`: centre, tight box, full axes (px, pixel centres at integers), angle (degrees), class. Without
        rows where the file says that there are no loops.

    Raises
    ------
    LabelError
        The file is broken, ambiguous, does not fit the image, or a row of it is bad: with file and row.
    """
    check_choices(label_format, box_convention)
    file = LabelFile(Path(path))
    among = set() if label_format else possible_formats(file)
    chosen = choose_format(file, among, label_format, set())
    if chosen is None:
        return outlines_table([], shape, padded=False, clip=clip)[0]
    outlines = read_outlines(file, shape, chosen, stated=label_format is not None)
    return outlines_table(outlines, shape, padded=is_padded(chosen, box_convention), clip=clip)[0]


def check_choices(label_format: str | None, box_convention: str) -> None:
    """Refuse names of formats and conventions that do not exist."""
    if label_format is not None and label_format not in LABEL_FORMATS:
        raise LabelError(f"There is no label format '{label_format}'; known: {', '.join(LABEL_FORMATS)}.")
    if box_convention not in BOX_CONVENTIONS:
        raise LabelError(f"There is no box convention '{box_convention}'; known: {', '.join(BOX_CONVENTIONS)}.")


def _text_formats(file: LabelFile) -> set[str]:
    first = next(line for line in file.text.splitlines() if line.strip())
    if any(character.isalpha() for character in first.lstrip("#")):
        header = file.table.header
        for name, matches in (("via", via.matches_header), ("csv", looptable.matches), ("imagej", imagej.matches)):
            if matches(header):
                return {name}
        raise LabelError(f"{file.name}: its first line is no header that we know: '{first.strip()[:60]}'.")
    rows = [values for _, values in file.numbers]
    lengths = {len(values) for values in rows}
    if not rows:
        return set()
    fractions = all(0 <= value <= 1 for values in rows for value in (values if len(values) == 4 else values[1:]))
    if lengths == {4}:
        return {"boxes", "yolo"} if fractions else {"boxes"}
    if lengths == {5}:
        whole_classes = all(values[0] >= 0 and values[0] % 1 == 0 for values in rows)
        return {"yolo"} if fractions and whole_classes else {"boxes", "yolo"}
    if all(length == 5 or (length >= 7 and length % 2) for length in lengths):
        return {"yolo"}
    raise LabelError(f"{file.name}: rows of {_listed(lengths)} numbers fit neither boxes (4) nor YOLO (5, 7, 9, …).")


def _own_entry(file: LabelFile, entries: dict[str, Entry]) -> Entry:
    if len(entries) == 1:
        return next(iter(entries.values()))
    own = [entry for name, entry in entries.items() if Path(name).stem == file.path.stem]
    if len(own) != 1:
        raise LabelError(f"{file.name}: it holds the labels of {len(entries)} images; give it for the whole folder.")
    return own[0]


def _listed(lengths: set[int]) -> str:
    return " and ".join(str(length) for length in sorted(lengths)[:4])
