"""A folder of many small micrographs: peak memory of the run and of its processes, and seconds an image.

Usage: many_images.py [NUMBER_OF_IMAGES ...]   (default: 1000 10000)

The images are parts of simulated fields, each with a few loops and turned or mirrored its own way. Tables and
lists of files grow with their number, by a few kilobytes an image; pixels must not. (Below 1,000 images the bootstrap's
chunks grow too, to 32 MB.) Results: results/many-images.json; other numbers of images there stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from provenance import provenance

from defectpipe.io.tables import write_json
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "many-images.json"
SIDE_PX = (192, 256)
N_FIELDS = 4
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Measured:
    """One run: peak memory of the parent and of the largest worker, seconds, exit status."""

    n_images: int
    parent_mib: float
    worker_mib: float
    seconds: float
    status: int

    def __str__(self) -> str:
        return (
            f"{self.n_images:6d} images: parent {self.parent_mib:.0f} MiB, largest worker {self.worker_mib:.0f} MiB, "
            f"{self.seconds:.0f} s ({self.seconds / self.n_images:.3f} s an image), status {self.status}"
        )


def write_images(folder: Path, n: int) -> None:
    """`n` images of `SIDE_PX`, no two alike."""
    fields = [simulate_field(PRESETS["demo"], 11, i).micrograph for i in range(N_FIELDS)]
    height, width = SIDE_PX
    for i in range(n):
        rng = np.random.default_rng(i)
        pixels = fields[i % N_FIELDS].pixels
        y, x = (int(rng.integers(0, whole - part)) for whole, part in zip(pixels.shape, SIDE_PX, strict=True))
        part = pixels[y : y + height, x : x + width][:: 1 if rng.random() < 0.5 else -1]
        path = folder / f"{i // 500:03d}" / f"field {i:05d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ascontiguousarray(part), imagej=True, resolution=(2, 2), metadata={"unit": "nm"})


def measure(arguments: list[str], n_images: int, environment: dict[str, str] | None = None) -> Measured:
    """Run a command line in a process group of its own, and watch the memory of every process in it."""
    began = time.monotonic()
    # Its lines are in run.log; a pipe that nobody reads would stop it.
    run = subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parent = worker = 0.0
    while run.poll() is None:
        for process, peak in _peaks(run.pid).items():
            if process == run.pid:
                parent = max(parent, peak)
            else:
                worker = max(worker, peak)
        time.sleep(SAMPLE_SECONDS)
    return Measured(n_images, parent, worker, time.monotonic() - began, run.returncode)


def _peaks(group: int) -> dict[int, float]:
    """Peak resident memory in MiB of each process of a group, as the system keeps it."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                lines = (place / "status").read_text().splitlines()
                found[int(place.name)] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            continue
    return found


def main(numbers: list[int]) -> None:
    """Measure each number of images: a first run, and a second that has nothing to compute."""
    luigi = str(Path(sys.executable).with_name("luigi"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for n in numbers:
        runs = {}
        with tempfile.TemporaryDirectory() as place:
            write_images(Path(place) / "in", n)
            given = [luigi, "--module", "defectpipe", "RunAll", "--input-dir", str(Path(place) / "in")]
            for what in ("first run", "second run"):
                found = measure(given, n, environment)
                pooled = json.loads((Path(place) / "in-defects" / "summary.json").read_text())["pooled"]
                report_mb = (Path(place) / "in-defects" / "report.html").stat().st_size / 1e6
                print(f"{what:10s} {found}; {pooled['n_loops']} loops, report {report_mb:.1f} MB", flush=True)
                runs[what] = {
                    "parent_mib": round(found.parent_mib),
                    "largest_worker_mib": round(found.worker_mib),
                    "seconds": round(found.seconds, 1),
                    "status": found.status,
                    "n_loops": pooled["n_loops"],
                    "report_mb": round(report_mb, 2),
                }
        said = provenance("make bench-many", "luigi", "pandas", "pyarrow")
        before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        write_json(before | said | {f"{n} images": {"date": said["date"], **runs}}, RESULT)


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]] or [1000, 10_000])
