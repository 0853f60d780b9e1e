"""Small folders of micrographs, and ways to run the tasks over them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import luigi
import numpy as np
import tifffile
from luigi.execution_summary import LuigiRunResult

from tasks.session import close_sessions

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("images.csv", "loops.csv")


def write_blobs(
    path: Path,
    circles: Sequence[tuple[int, int, int]] = ((50, 40, 12), (110, 70, 15)),
    shape: tuple[int, int] = (120, 160),
    nm: float | None = 0.5,
) -> None:
    """An image of dark discs (x, y, radius), which the toy chain finds; TIFFs are calibrated."""
    image = np.full(shape, 200, np.uint8)
    for x, y, radius in circles:
        cv2.circle(image, (x, y), radius, 10, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif" and nm is not None:
        tifffile.imwrite(path, image, imagej=True, resolution=(1 / nm, 1 / nm), metadata={"unit": "nm", "axes": "YX"})
    else:
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def write_folder(root: Path, n: int = 4) -> Path:
    """A folder of `n` images that differ."""
    for i in range(n):
        write_blobs(root / f"field {i}.tif", [(40 + 4 * i, 50, 12), (110, 60, 14 + i)])
    return root


def build(*tasks: luigi.Task) -> LuigiRunResult:
    """Run tasks in this process, as Luigi does."""
    try:
        return luigi.build(tasks, local_scheduler=True, detailed_summary=True, log_level="CRITICAL")
    finally:
        close_sessions()


def computed(log: Path) -> list[str]:
    """What the toy chain has computed since the last call: "stage image frame", sorted."""
    lines = sorted(log.read_text(encoding="utf-8").splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def table_bytes(output: Path) -> list[bytes]:
    """The tables of a run."""
    return [(output / name).read_bytes() for name in TABLES]


def command(*arguments: object) -> list[str]:
    """The command line of a run, as a user types it."""
    luigi_command = str(Path(sys.executable).with_name("luigi"))
    return [luigi_command, "--module", "defectpipe", *map(str, arguments)]


def toy_environment(**variables: str) -> dict[str, str]:
    """An environment in which every process of a run has the toy chain."""
    path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, **variables}


def run(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of Luigi to its end, with the toy chain."""
    environment = toy_environment(**variables)
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A run under way, with the toy chain; after the block its processes are gone and its pipes closed."""
    with subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=toy_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            kill_all(process)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a run and its processes: as when the machine is switched off."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for_lines(log: Path, n_lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run that holds at this line (``TOY_HOLD``) is there; patience is for loaded machines."""
    deadline = time.monotonic() + 280
    while not log.exists() or len(log.read_text(encoding="utf-8").splitlines()) < n_lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{log} did not get {n_lines} lines"
        time.sleep(0.05)
