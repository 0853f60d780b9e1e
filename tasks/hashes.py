"""Content hashes of many files, remembered by name, size and times of change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from defectpipe.io.files import write_atomic

# A file that changed so shortly before could change again without a change of its times: clocks of file systems tick
# in steps of up to two seconds.
RECENT_SECONDS = 2.0


class HashMemory:
    """SHA-256 of files, computed once as long as name, size and times of change stay.

    The time of the content's last change can be copied or set (`cp -p`, a camera with a wrong clock); that of the
    entry's last change (ctime) is the file system's own. Both have to be as they were.

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
        entries = {str(path): entry for path, (entry, lasting) in found.items() if lasting}
        if entries != self._known:
            self._known = entries
            write_atomic(self.path, json.dumps(entries).encode())
        return {path: str(entry[-1]) for path, (entry, _lasting) in found.items()}

    def _entry(self, path: Path) -> tuple[list[int | str], bool]:
        """Size, times and hash of a file, and whether they may be remembered."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                known = self._known.get(str(path))
                if known is not None and known[:-1] == seen:
                    return known, True
                lasting = time.time() - status.st_ctime > RECENT_SECONDS
                return [*seen, hashlib.file_digest(file, "sha256").hexdigest()], lasting
        except OSError:
            return [""], False
