"""One run at a time on one output folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from defectpipe.errors import DefectpipeError


class FolderLock:
    """A lock on a file that the system takes back when its owner ends, however it ends.

    Parameters
    ----------
    path : Path
        The lock file; it stays, with the name of its last owner in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        DefectpipeError
            Another process holds it; names that process.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(file, 4096)
            os.close(file)
            raise DefectpipeError(
                f"{self.path.parent.parent}: another run is at work in this output folder ({_described(owner)}). "
                "Wait until it ends, or give another --output-dir."
            ) from error
        owner_now = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(owner_now).encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _described(owner: bytes) -> str:
    try:
        known = json.loads(owner)
        return f"host {known['host']}, process {known['process']}, since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has just begun"
