"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"
# Errors of a full disk, a used-up quota, a limited file size.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file under a temporary name in its folder, then put it in place.

    A reader sees the old file or the new one, never a part; after an error (a full disk, an exception of the writer)
    the old one is untouched and nothing is left behind. Missing folders are made.

    Parameters
    ----------
    path : Path
        The file to make or replace. A link is replaced, not followed.
    content : bytes or callable
        What to write, or a function that writes the file whose path it is given: that path has the extension of
        `path`, by which many writers choose their format, and does not exist yet.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name itself is left out: with a prefix, one of 255 bytes would become too long.
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}"
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        _flush_file(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def sweep_leftovers(folder: Path) -> list[Path]:
    """Remove what killed writers left under `folder`, which must not be in use by another run.

    Returns
    -------
    list of Path
        The files and folders removed, sorted.
    """
    found = sorted(path for path in Path(folder).rglob(f"{TEMPORARY_PREFIX}*") if not path.is_symlink())
    for leftover in found:
        # The workbook's writer has a folder of its own for its parts.
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)
    return found


def _flush_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    # Some network file systems refuse to sync a folder; the file itself is in place by then.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
