"""Run a program on a terminal of its own, as a person at a keyboard does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def run_on_terminal(
    program: Sequence[str],
    told: Callable[[bytes], object],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    rows: int = 0,
    columns: int = 0,
) -> int:
    """Exit status of a program; `told` gets what it writes, as it comes.

    Parameters
    ----------
    rows, columns : int
        What the terminal says of its size; 0: it does not say.
    """
    ours, theirs = pty.openpty()
    # Height, width, and the same in px.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    with subprocess.Popen(program, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        # Linux ends a terminal that nobody holds any more with an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                told(part)
        os.close(ours)
    return process.returncode
