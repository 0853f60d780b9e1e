"""One run at a time on one output folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from defectpipe.errors import DefectpipeError

# What some network file systems answer instead of locking.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderLock:
    """A lock on a file that the system takes back when its owner ends, however it ends.

    A file system that several hosts share need not tell one of the other's locks: an owner on another host, named in
    the file, is therefore believed. Its name goes when it gives the lock back.

    Parameters
    ----------
    path : Path
        The lock file; there as long as somebody holds the lock, and after an owner that was killed.

    Attributes
    ----------
    taken_over : str
        The owner that ended without giving the lock back; empty: none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken_over = ""
        self._file = -1

    def acquire(self) -> None:
        """Take the lock, also one that a process of this host left as it died.

        Raises
        ------
        DefectpipeError
            Another process holds it, or one of another host may hold it; names that process.
        OSError
            The file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self._file < 0:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                claimed = self._claim(file)
            except BaseException:
                os.close(file)
                raise
            if claimed:
                self._file = file
            else:
                os.close(file)

    def release(self) -> None:
        """Give the lock back."""
        if self._file >= 0:
            if self._is_in_place(self._file):
                self.path.unlink()
            os.close(self._file)
            self._file = -1

    def _claim(self, file: int) -> bool:
        """Lock the open file and write the owner's name; False: its owner has removed it meanwhile."""
        locks = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._in_use(_owner(file)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            locks = False
        if not self._is_in_place(file):
            return False
        owner = _owner(file)
        if owner is not None and owner["host"] != socket.gethostname():
            raise DefectpipeError(
                f"{self.path.parent.parent}: a run on another host holds this output folder ({_described(owner)}), and "
                "whether it is still at work can only be seen there. Wait until it ends, or give another --output-dir; "
                f"if it was killed, remove {self.path}."
            )
        if not locks and owner is not None and _is_alive(owner["process"]):
            raise self._in_use(owner)
        self.taken_over = "" if owner is None else _described(owner)
        owner_now = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        text = json.dumps(owner_now).encode()
        if os.pwrite(file, text, 0) < len(text):
            os.ftruncate(file, 0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    def _is_in_place(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _in_use(self, owner: dict[str, Any] | None) -> DefectpipeError:
        return DefectpipeError(
            f"{self.path.parent.parent}: another run is at work in this output folder ({_described(owner)}). "
            "Wait until it ends, or give another --output-dir."
        )


def _owner(file: int) -> dict[str, Any] | None:
    """The owner named in an open lock file; None: it names none."""
    try:
        known = json.loads(os.pread(file, 4096, 0))
        return {"host": str(known["host"]), "process": int(known["process"]), "since": str(known["since"])}
    except (ValueError, KeyError, TypeError):
        return None


def _described(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "it has just begun"
    return f"host {owner['host']}, process {owner['process']}, since {owner['since']}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
