"""The same input on another day, with other numbers of jobs, on the other engine: the same bytes (the real chain)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from crash_helpers import outcome
from run_helpers import ROOT, command

from defectpipe.io.tables import read_csv
from defectpipe.simulation.dataset import simulate_dataset

pytestmark = pytest.mark.slow
NAMES = ("field ü.tif", "deep/field 2.tif", "Zebra.tif")
ANOTHER_DAY = {"TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3"}
ANOTHER_USER = {"TZ": "America/Los_Angeles", "LC_ALL": "C", "PYTHONHASHSEED": "1234", "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts of simulated micrographs, one of them labelled, one a stack."""
    place = tmp_path_factory.mktemp("determinism")
    folder = simulate_dataset("loops", 2, 3, "demo", place / "set").parent / "images"
    fields = [tifffile.imread(path) for path in sorted(folder.iterdir())]
    parts = [fields[0][:400, :500], fields[1][:380, :450], np.stack([fields[0][-300:, -320:], fields[1][-300:, -320:]])]
    for name, pixels in zip(NAMES, parts, strict=True):
        (place / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        axes = {"axes": "TYX" if pixels.ndim == 3 else "YX", "unit": "nm"}
        tifffile.imwrite(
            place / "in" / name, np.ascontiguousarray(pixels), imagej=True, resolution=(4, 4), metadata=axes
        )
    (place / "labels").mkdir()
    (place / "labels" / "field ü.txt").write_text("50 60 90 95\n120 200 160 230\n")
    return place


def everything(output: Path) -> dict[str, Any]:
    """What a run left, less where and how it ran."""
    found = outcome(output)
    del found["summary.json"]["run"]
    return found


def run(place: Path, output: Path, *more: object, cwd: Path, **variables: str) -> dict[str, Any]:
    given = ("--input-dir", place / "in", "--labels-dir", place / "labels", "--label-format", "boxes")
    done = subprocess.run(
        command("RunAll", *given, "--output-dir", output, *more),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return everything(output)


def test_any_engine_any_number_of_jobs_any_day_the_same_bytes(place, tmp_path):
    first = run(place, place / "first", "--engine", "inline", "--n-jobs", 1, cwd=place)
    assert len(read_csv(place / "first" / "loops.csv")) > 5
    assert {"evaluation.json", "images.csv", "loops.csv", "overlays/Zebra.tif.0001.jpg"} < set(first)
    # Another day: files copied, with other times, in another order.
    copied = tmp_path / "copied elsewhere"
    for name in reversed(NAMES):
        (copied / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / "in" / name, copied / "in" / name)
        os.utime(copied / "in" / name, (time.time() - 10**8,) * 2)
    shutil.copytree(place / "labels", copied / "labels")
    for i, (n_jobs, variables) in enumerate(((2, ANOTHER_DAY), (3, ANOTHER_USER))):
        given = ("--engine", "processes", "--n-jobs", n_jobs)
        again = run(copied, tmp_path / f"out {i}", *given, cwd=tmp_path, **variables)
        assert set(again) == set(first)
        for name in first:
            assert again[name] == first[name], (name, n_jobs)
