"""Runs killed at any moment, and started again: the same bytes as undisturbed, nothing finished done twice."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from run_helpers import ROOT, toy_environment, write_blobs

N_KILLS = 20
SEED = 19
KILLED, IMAGE_FAILED = -9, 30
# In the order in which a run comes to them; the last for what is in none of them.
PLACES = {
    "candidates": r"\.defectpipe/candidates",
    "screening": r"\.defectpipe/screening",
    "measurement": r"\.defectpipe/measurement",
    "statistics": r"\.defectpipe/tables",
    "agreement": r"\.defectpipe/agreement|evaluation\.json",
    "overlays": r"\.defectpipe/overlays|overlays",
    "lock, hashes, tables, summary": "",
}


class Runs:
    """Runs over one folder by `crash_runs.py`."""

    def __init__(self, place: Path) -> None:
        self.output, self.log = place / "out", place / "computed.log"
        self.parameters = {
            "input_dir": str(place / "in"),
            "output_dir": str(self.output),
            "labels_dir": str(place / "labels"),
            "label_format": "boxes",
            "engine": "inline",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", ROOT / "tests" / "toy" / "crash_runs.py"],
            env=toy_environment(TOY_LOG=str(self.log)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, die_at: int | None = None) -> tuple[int, list[str]]:
        """Exit status (-9: killed) and the changes to the file system, until the end or the moment of death."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self.parameters | {"die_at": die_at}) + "\n")
        self._process.stdin.flush()
        status, changes = json.loads(self._process.stdout.readline())
        return status, changes

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A labelled image, a stack, and a file that fails."""
    write_blobs(tmp_path / "in" / "a.tif")
    stack = np.full((2, 90, 120), 200, np.uint8)
    stack[1, 30:60, 40:70] = 10
    (tmp_path / "in" / "deep").mkdir()
    tifffile.imwrite(tmp_path / "in" / "deep" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "in" / "broken.tif").write_text("no image")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("29 39 54 64\n")
    runs = Runs(tmp_path)
    yield runs
    runs.close()


def outcome(output: Path) -> dict[str, Any]:
    """Everything that a run leaves, by name: content, less what tells the time."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_dir():
            found[name] = "folder"
        elif path.name == "summary.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "time"}
        elif path.name == "hashes.json":
            # Files of this moment are not remembered yet.
            continue
        elif path.suffix == ".json" and ".defectpipe" in name:
            stamp = json.loads(path.read_text())
            found[name] = {key: value for key, value in stamp.items() if key != "seconds"}
        else:
            found[name] = path.read_bytes() if path.name != "run.log" else "log"
    return found


def finished(output: Path) -> dict[Path, tuple[int, int]]:
    """The results that are whole, with what changes when a file is written again."""
    found = {}
    for stamp in output.glob(".defectpipe/*/**/[!.]*.json"):
        if json.loads(stamp.read_text())["parts"]:
            pictures = [output / "overlays" / entry["picture"] for entry in _entries(stamp) if "picture" in entry]
            for path in (stamp, stamp.with_suffix(".parquet"), *pictures):
                if path.exists():
                    found[path] = (path.stat().st_mtime_ns, path.stat().st_ino)
    return found


def _entries(stamp: Path) -> list[dict[str, Any]]:
    return list(json.loads(stamp.read_text())["frames"])


def moments(changes: list[str], n: int) -> list[tuple[str, int]]:
    """`n` random moments, the places in turn."""
    draw = random.Random(SEED)
    by_place: dict[str, list[int]] = {place: [] for place in PLACES}
    for i, change in enumerate(changes):
        name = change.split(" ", 1)[1]
        by_place[next(place for place, start in PLACES.items() if re.match(start, name))].append(i)
    assert all(len(places) > 2 for places in by_place.values()), by_place
    names = [list(PLACES)[i % len(PLACES)] for i in range(n)]
    drawn = {place: draw.sample(by_place[place], names.count(place)) for place in PLACES}
    return [(place, drawn[place].pop()) for place in names]


def test_a_run_killed_at_any_of_twenty_moments_goes_on_to_the_same_bytes(runs):
    status, changes = runs.run()
    assert status == IMAGE_FAILED
    undisturbed = outcome(runs.output)
    assert {"images.csv", "loops.csv", "evaluation.json", "overlays/a.tif.jpg"} < set(undisturbed)
    assert not {name for name in undisturbed if "lock" in name or ".writing-" in name}
    everything = set(finished(runs.output))
    first_log = runs.log.read_text().splitlines()
    n_kept = []
    for place, moment in moments(changes, N_KILLS):
        shutil.rmtree(runs.output)
        assert runs.run(die_at=moment)[0] == KILLED, (place, moment)
        kept = finished(runs.output)
        runs.log.unlink(missing_ok=True)
        assert runs.run()[0] == IMAGE_FAILED
        assert outcome(runs.output) == undisturbed, (place, moment)
        now = finished(runs.output)
        assert {path: now[path] for path in kept} == kept, (place, moment)
        again = runs.log.read_text().splitlines() if runs.log.exists() else []
        assert set(again) <= set(first_log)
        n_kept.append(len(kept))
    # The moments are spread: nothing was finished at the first, all at the last.
    assert min(n_kept) == 0
    assert max(n_kept) == len(everything)
    assert len(set(n_kept)) > 6


def test_a_run_killed_again_and_again_gets_there(runs):
    changes = runs.run()[1]
    undisturbed = outcome(runs.output)
    shutil.rmtree(runs.output)
    kept: dict[Path, tuple[int, int]] = {}
    n_kills = 0
    while runs.run(die_at=len(changes) // 5)[0] == KILLED:
        now = finished(runs.output)
        assert {path: now[path] for path in kept} == kept
        kept = now
        n_kills += 1
        assert n_kills < 30
    assert n_kills > 2
    assert outcome(runs.output) == undisturbed
