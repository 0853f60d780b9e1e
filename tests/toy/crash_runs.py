"""Runs of the toy chain that die at a given moment; one request a line on standard input, one answer a line.

A request is the arguments of `RunAll` as JSON, with ``die_at``: the number of the change to the file system (a file
opened, renamed, removed, a folder made) before which the whole process group is killed; null: never. The answer is
``[signal or exit status, changes]``. ``largest_file``: no file can grow beyond this number of bytes, as on a full disk;
null: any can. Each run is a fork of this process, which has everything imported: none costs more than its work.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

import luigi
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import numpy  # noqa: F401
import pandas  # noqa: F401
import scipy.ndimage  # noqa: F401
import xlsxwriter  # noqa: F401

import defectpipe.export.coco
import defectpipe.export.figure
import defectpipe.export.imagejtable
import defectpipe.export.labelimage
import defectpipe.export.rois
import defectpipe.export.workbook
import defectpipe.io.labels
import defectpipe.io.micrographs
import defectpipe.io.tables
import defectpipe.report.report
import defectpipe.statistics.agreement
import defectpipe.statistics.summary  # noqa: F401
from tasks.runall import RunAll

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def run(parameters: dict[str, object], output: str, die_at: int | None, answer: int) -> None:
    """Run to the end, or to the moment of death; every change is written to `answer` before it is made."""
    n_changes = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n_changes
        # The target of a renaming comes second.
        path = arguments[1] if event == "os.rename" else arguments[0] if arguments else None
        if event in CHANGES and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(output):
            os.write(answer, f"{event} {os.path.relpath(path, output)}\n".encode())
            if n_changes == die_at:
                os.killpg(0, signal.SIGKILL)
            n_changes += 1

    sys.addaudithook(watch)
    found = luigi.build(
        [RunAll(**parameters, output_dir=output)], local_scheduler=True, log_level="CRITICAL", detailed_summary=True
    )
    # As the command line does.
    os._exit(0 if found.status == luigi.LuigiStatusCode.SUCCESS else 30)


def main() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        die_at, output, largest = (request.pop(name) for name in ("die_at", "output_dir", "largest_file"))
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            os.setsid()
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            if largest is not None:
                # Byte code that finds no room would be put in place cut, and read ever after (CPython issue 126606).
                sys.dont_write_bytecode = True
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            run(request, output, die_at, theirs)
        os.close(theirs)
        with os.fdopen(ours, encoding="utf-8") as changes:
            made = changes.read().splitlines()
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), made]), flush=True)


if __name__ == "__main__":
    main()
