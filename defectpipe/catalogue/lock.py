"""One process at a time builds a catalogue."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from defectpipe.errors import CatalogueError


@contextlib.contextmanager
def building_lock(path: Path) -> Iterator[None]:
    """One process at a time builds a catalogue; the system takes the lock back from one that dies.

    Raises
    ------
    CatalogueError
        Another process is building it, or its file system cannot lock files.
    """
    file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise CatalogueError(
                f"{path}: another process is building this catalogue; wait until it ends, then start again."
            ) from error
        raise CatalogueError(
            f"{path}: its file system cannot lock files ({error.strerror}); keep the catalogue on another."
        ) from error
    try:
        yield
    finally:
        os.close(file)
