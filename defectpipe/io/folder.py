"""Which files of a folder are micrographs, under which name they go in every table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectpipe.errors import MicrographError

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp"})
MICROSCOPE_SUFFIXES = frozenset(
    {".dm3", ".dm4", ".emd", ".mrc", ".mrcs", ".st", ".ali", ".rec", ".ser", ".emi"},
)
# Listed, so that each has its row and its reason; never read.
SPECTRUM_SUFFIXES = frozenset({".spc", ".spx", ".msa", ".emsa"})
OTHER_SUFFIXES = frozenset({".gif", ".webp", ".jp2", ".j2k", ".pgm", ".ppm", ".czi", ".lif", ".nd2", ".bcf"})
IMAGE_SUFFIXES = TIFF_SUFFIXES | RASTER_SUFFIXES | MICROSCOPE_SUFFIXES | SPECTRUM_SUFFIXES | OTHER_SUFFIXES


@dataclass(frozen=True)
class ImageFile:
    """A file that should be a micrograph.

    Parameters
    ----------
    image : str
        Path relative to the input folder, with ``/``, extension kept: no two files share it. Bytes of a name that are
        not UTF-8 are written as ``\\xNN``.
    path : Path
    size_bytes : int
    mtime_ns : int
        Time of the last change, in ns since 1970.
    """

    image: str
    path: Path
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class FolderListing:
    """What is in a folder of micrographs.

    Parameters
    ----------
    images : list of ImageFile
        Sorted by name.
    skipped : dict
        Name -> why it was not looked at, in a few words: links, and what has an image's name but is no file.
    """

    images: list[ImageFile]
    skipped: dict[str, str]


def list_images(root: Path, exclude: Sequence[Path] = ()) -> list[ImageFile]:
    """The images of `list_folder`."""
    return list_folder(root, exclude).images


def list_folder(root: Path, exclude: Sequence[Path] = ()) -> FolderListing:
    """Every file below a folder whose name ends like an image format, and what was passed over.

    Links are not followed, neither to folders nor to files (they can loop, leave the folder, or count an image twice);
    they are named. Hidden files and folders are left out. A pair ``X.emi``, ``X_1.ser`` is one image: the ``.ser``.
    Spectra and formats that are not read are listed too: reading them says why they are refused.

    Parameters
    ----------
    root : Path
        The input folder; it may itself be a link.
    exclude : sequence of Path
        Folders (or files) that are left out with all below them, such as the output folder.

    Returns
    -------
    FolderListing
        Without images for a folder without images.

    Raises
    ------
    MicrographError
        `root` is no folder, or a folder cannot be listed.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file; give the folder that holds it" if root.exists() else "does not exist"
        raise MicrographError(f"{root}: the input folder {what}.")
    left_out = {os.path.realpath(path) for path in exclude}
    top = os.path.realpath(root)
    images, skipped = [], {}
    for path, why_skipped in _walk(top, left_out):
        name = os.path.relpath(path, top)
        printable = _printable(name).replace(os.sep, "/")
        if why_skipped:
            skipped[printable] = why_skipped
            continue
        stat = os.stat(path, follow_symlinks=False)
        images.append(ImageFile(printable, root / name, stat.st_size, stat.st_mtime_ns))
    return FolderListing(sorted(images, key=lambda file: file.image), dict(sorted(skipped.items())))


def shown(text: str, keep: str = "") -> str:
    """Text for a terminal: what could move its cursor, colour it or turn the writing round is written as an escape.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay as they are, such as a newline.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def _walk(folder: str, left_out: set[str]) -> Iterator[tuple[str, str]]:
    """Paths below a folder, each with the reason why it is skipped; empty: it is an image."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.path not in left_out]
    except OSError as error:
        raise MicrographError(f"{_printable(folder)}: the folder cannot be listed ({error.strerror}).") from error
    files = [e for e in found if e.is_file(follow_symlinks=False)]
    series = {re.sub(r"_\d+$", "", e.name[:-4]) for e in files if e.name.lower().endswith(".ser")}
    for entry in files:
        stem, suffix = os.path.splitext(entry.name)
        is_half_of_pair = suffix.lower() == ".emi" and stem in series
        if suffix.lower() in IMAGE_SUFFIXES and not is_half_of_pair:
            yield entry.path, ""
    for entry in found:
        if reason := _why_skipped(entry):
            yield entry.path, reason
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, left_out)


def _why_skipped(entry: os.DirEntry[str]) -> str:
    looks_like_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    # Only what could have held images is worth a line: a link to a text is not.
    if entry.is_symlink():
        return "a link, not followed" if looks_like_image or _leads_to_folder(entry) else ""
    special = not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
    return "no regular file" if looks_like_image and special else ""


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return True


def _printable(name: str) -> str:
    """The name with bytes that are not UTF-8 escaped, so that it can be written to any table."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
