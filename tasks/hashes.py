"""Content hashes of many files, remembered by name, size and time of change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from defectpipe.io.files import write_atomic


class HashMemory:
    """SHA-256 of files, computed once as long as name, size and time of change stay.

    Parameters
    ----------
    path : Path
        Where the memory is kept from run to run.
    verify : bool
        Trust nothing that is remembered: read every file again.
    """

    def __init__(self, path: Path, verify: bool = False) -> None:
        self.path = path
        self._known: dict[str, list[int | str]] = {}
        if not verify:
            try:
                self._known = dict(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                self._known = {}

    def hash_files(self, files: Iterable[Path], threads: int = 1) -> dict[Path, str]:
        """Hashes of the files; empty for one that cannot be read. The memory is written, without what is not asked for.

        Returns
        -------
        dict
            From path to hexadecimal SHA-256.
        """
        files = list(files)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            found = dict(zip(files, pool.map(self._entry, files), strict=True))
        entries = {str(path): entry for path, entry in found.items() if entry[2]}
        if entries != self._known:
            self._known = entries
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(entries).encode())
        return {path: str(entry[2]) for path, entry in found.items()}

    def _entry(self, path: Path) -> list[int | str]:
        try:
            status = path.stat()
            known = self._known.get(str(path))
            if known is not None and known[:2] == [status.st_size, status.st_mtime_ns]:
                return known
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return [0, 0, ""]
        return [status.st_size, status.st_mtime_ns, content]
