"""Runs of the toy chain that are killed, or find no room, over one small folder; and what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from run_helpers import ROOT, toy_environment, write_blobs

KILLED, IMAGE_FAILED = -9, 30


def write_source(place: Path) -> None:
    """A labelled image, a stack, and a file that fails."""
    write_blobs(place / "in" / "a.tif")
    stack = np.full((2, 90, 120), 200, np.uint8)
    stack[1, 30:60, 40:70] = 10
    (place / "in" / "deep").mkdir()
    tifffile.imwrite(place / "in" / "deep" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    (place / "in" / "broken.tif").write_text("no image")
    (place / "labels").mkdir()
    (place / "labels" / "a.txt").write_text("29 39 54 64\n")


class Runs:
    """Runs over one folder by `toy/crash_runs.py`, itself started by the command `within`."""

    def __init__(self, place: Path, within: Sequence[str] = ()) -> None:
        self.output, self.log = place / "out", place / "computed.log"
        self.parameters = {
            "input_dir": str(place / "in"),
            "output_dir": str(self.output),
            "labels_dir": str(place / "labels"),
            "label_format": "boxes",
            "engine": "inline",
        }
        self._process = subprocess.Popen(
            [*within, sys.executable, "-W", "ignore::DeprecationWarning", ROOT / "tests" / "toy" / "crash_runs.py"],
            env=toy_environment(TOY_LOG=str(self.log)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, die_at: int | None = None, largest_file: int | None = None, settings: Path | str = ""
    ) -> tuple[int, list[str]]:
        """Exit status (-9: killed) and the changes to the file system, until the end or the moment of death."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = self.parameters | {"settings": str(settings), "die_at": die_at, "largest_file": largest_file}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status, changes = json.loads(self._process.stdout.readline())
        return status, changes

    @property
    def root(self) -> Path:
        """The root of the file systems that the runs see."""
        return Path(f"/proc/{self._process.pid}/root")

    def close(self) -> None:
        self._process.communicate()


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


def differences(now: dict[str, Any], expected: dict[str, Any]) -> dict[str, str]:
    """What is other than expected, by name and, within a file, with the first place where it is."""
    return {
        name: _difference(now.get(name, "absent"), expected.get(name, "absent"))
        for name in sorted({*now, *expected})
        if now.get(name) != expected.get(name)
    }


def _difference(now: Any, expected: Any) -> str:
    if isinstance(now, dict) and isinstance(expected, dict):
        return str(
            {key: (now.get(key), expected.get(key)) for key in {*now, *expected} if now.get(key) != expected.get(key)}
        )
    if isinstance(now, bytes) and isinstance(expected, bytes):
        at = next(
            (i for i, (a, b) in enumerate(zip(now, expected, strict=False)) if a != b), min(len(now), len(expected))
        )
        return f"at byte {at}: {now[max(at - 60, 0) : at + 60]!r}, not {expected[max(at - 60, 0) : at + 60]!r}"
    return f"{str(now)[:120]}, not {str(expected)[:120]}"


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
