"""The pixel size of a frame: from ``pixel_sizes.csv``, from an argument, or from what its file states."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs.frames import StatedSize
from defectpipe.micrograph import Calibration

FILE_NAME = "pixel_sizes.csv"
# Below the first no lens resolves, above the second no electron micrograph is taken.
PLAUSIBLE_NM = (1e-4, 1e5)
SAME_WITHIN = 0.01
_HOW_TO_OVERRIDE = f"give the right one with --pixel-size-nm or in {FILE_NAME}"


def read_pixel_sizes(root: Path, images: Iterable[str] = ()) -> dict[str, float]:
    """Pixel sizes that the user gives, image by image, in ``pixel_sizes.csv`` of the input folder.

    The file has the columns ``image`` (relative path, or file name) and ``pixel_size_nm``; others are ignored. It is
    separated by commas, or by semicolons with a decimal comma. An empty value means unknown: the image is left out.

    Parameters
    ----------
    root : Path
        The input folder.
    images : iterable of str
        Names of the images in it, against which a file name is checked: it may stand for one image only.

    Returns
    -------
    dict of str to float
        Pixel size in nm by name as written; empty without such a file.

    Raises
    ------
    MicrographError
        A column is missing, a value is not a positive number, an image is named twice with different values, or a name
        fits several of `images`.
    """
    path = Path(root) / FILE_NAME
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MicrographError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    lines = text.splitlines()
    separator = ";" if lines and ";" in lines[0] else ","
    rows = csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
    if not {"image", "pixel_size_nm"} <= set(rows.fieldnames or ()):
        raise MicrographError(f"{path}: the first line must name the columns image and pixel_size_nm.")
    sizes: dict[str, float] = {}
    for row in rows:
        name = _normal(row["image"] or "")
        value = (row["pixel_size_nm"] or "").strip()
        if not name or not value:
            continue
        size = _number(value.replace(",", ".") if separator == ";" else value)
        if size is None:
            raise MicrographError(f"{path}, line {rows.line_num}: '{value}' is not a pixel size in nm.")
        if sizes.setdefault(name, size) != size:
            raise MicrographError(f"{path}, line {rows.line_num}: '{name}' has two different pixel sizes.")
    _check_unique(path, sizes, images)
    return sizes


def _check_unique(path: Path, sizes: Mapping[str, float], images: Iterable[str]) -> None:
    meant: dict[str, str] = {}
    for image in images:
        name = entry_for(image, sizes)
        if name is None:
            continue
        other = meant.setdefault(name, image)
        if other != image:
            raise MicrographError(
                f"{path}: '{name}' could be {other} or {image}; give the path relative to the folder instead."
            )


def given_size(image: str, pixel_sizes: Mapping[str, float] | None) -> float | None:
    """The entry for an image: of its relative path, else of its end, folder by folder, down to the file name."""
    name = entry_for(image, pixel_sizes or {})
    return None if name is None else (pixel_sizes or {})[name]


def entry_for(image: str, pixel_sizes: Mapping[str, float]) -> str | None:
    """The name under which `pixel_sizes` holds an image; None if it does not."""
    parts = _normal(image).split("/")
    names = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((name for name in names if name in pixel_sizes), None)


def calibrate(
    stated: Sequence[StatedSize], given: float | None, argument: float | None
) -> tuple[Calibration | None, tuple[str, ...]]:
    """The pixel size that holds, and what the user should know about it.

    Parameters
    ----------
    stated : sequence of StatedSize
        What the file states.
    given : float or None
        From ``pixel_sizes.csv``, in nm; comes first.
    argument : float or None
        From ``--pixel-size-nm``; comes second.

    Returns
    -------
    calibration : Calibration or None
        None: unknown.
    notes : tuple of str

    Raises
    ------
    MicrographError
        Without `given` and `argument`: the stated sizes are anisotropic, implausible, or disagree. Or one of the two is
        not a positive number.
    """
    if given is not None or argument is not None:
        size, source = (given, FILE_NAME) if given is not None else (argument, "argument")
        if size is None or not (math.isfinite(size) and size > 0):
            raise MicrographError(f"the pixel size {size} nm ({source}) is not a positive number.")
        notes = tuple(
            f"pixel size {size:g} nm ({source}) used instead of {_described(other)}"
            for other in stated
            if not (_same(other.x_nm, size) and _same(other.y_nm, size))
        )
        return Calibration(float(size), source), notes
    for size_ in stated:
        if not _same(size_.y_nm, size_.x_nm):
            raise MicrographError(
                f"its pixels are not square ({_described(size_)}); resample it, or {_HOW_TO_OVERRIDE} if that is wrong."
            )
        if not PLAUSIBLE_NM[0] <= size_.x_nm <= PLAUSIBLE_NM[1]:
            raise MicrographError(f"its pixel size is implausible ({_described(size_)}); {_HOW_TO_OVERRIDE}.")
    for other in stated[1:]:
        if not _same(other.x_nm, stated[0].x_nm):
            raise MicrographError(
                f"its pixel sizes disagree ({_described(stated[0])}, but {_described(other)}); {_HOW_TO_OVERRIDE}."
            )
    if not stated:
        return None, ()
    best = stated[0]
    return Calibration((best.y_nm + best.x_nm) / 2, f"metadata: {best.source}"), ()


def _described(size: StatedSize) -> str:
    if size.x_nm == size.y_nm:
        return f"{size.source}: {size.x_nm:.6g} nm"
    return f"{size.source}: y {size.y_nm:.6g} nm, x {size.x_nm:.6g} nm"


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_WITHIN * max(abs(a), abs(b))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _normal(name: str) -> str:
    # macOS decomposes accents in file names; a table typed on another system does not.
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")
