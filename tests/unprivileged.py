"""A run as a user without privileges, or with a limit on what it may write: what a child process of the tests starts.

``python unprivileged.py WARM [--nobody] [--fsize BYTES] -- ARGUMENTS OF LUIGI``: a run over the folder WARM comes
first, so that everything is imported before this process may no longer read the checkout, which may lie in root's home.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

NOBODY = 65534


def luigi(arguments: list[str]) -> int:
    """Luigi's command line; its exit status."""
    from luigi.retcodes import run_with_retcodes

    try:
        run_with_retcodes(["--module", "defectpipe", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main() -> int:
    warm, *options = sys.argv[1 : sys.argv.index("--")]
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    for task in ("CheckFolder", "RunAll"):
        engine = ["--engine", "inline"] * (task == "RunAll")
        status = luigi([task, "--input-dir", warm, *engine])
        assert status == 0, f"the warm-up ended with {status}"
    # What the tests read begins here.
    for stream in (sys.stdout, sys.stderr):
        print("--- the run ---", file=stream, flush=True)
    if "--fsize" in options:
        # A write beyond it fails as on a full disk, with an error in the middle of a file.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        # Byte code that finds no room would be put in place cut, and read ever after (CPython issue 126606).
        sys.dont_write_bytecode = True
        limit = int(options[options.index("--fsize") + 1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if "--nobody" in options and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return luigi(arguments)


if __name__ == "__main__":
    # The toy chain stands in for the real one, as in every run of the tests.
    sys.path.insert(0, str(Path(__file__).resolve().parent / "toy"))
    import toy_chain

    sys.modules["defectpipe.analysis"] = sys.modules["defectpipe.model"] = toy_chain
    sys.exit(main())
