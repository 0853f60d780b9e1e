"""A disk that fills up at any point of a run: no final file is half-written, and with room again the run goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_helpers import IMAGE_FAILED, Runs, differences, outcome, write_source
from luigi import LuigiStatusCode
from run_helpers import build, command, computed, toy_environment, write_folder

from tasks.runall import RunAll

ROOM_BYTES = 4 * 2**20
TASK_FAILED = 30
# The limit is for the semaphores of the process pool and for trials of the folder for temporary files, too.
SMALLEST_LIMIT_BYTES = 48
# A file system of its own, as far as the machine allows it: with a user's rights, or with those of root.
NAMESPACES = (("unshare", "-rm"), ("unshare", "-m"))


class SmallDisk(Runs):
    """Runs whose output is on a small file system of its own, or whose files cannot grow."""

    def __init__(self, place: Path, namespace: tuple[str, ...] | None) -> None:
        output = place / "out"
        output.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size={ROOM_BYTES} tmpfs "{output}" && exec "$@"'
        self.has_own = namespace is not None
        self.undisturbed: dict[str, Any] = {}
        self.used = self.needed = self.largest = 0
        super().__init__(place, within=(*namespace, "sh", "-c", mount, "sh") if namespace else ())
        self.seen = self.root / output.relative_to("/") if namespace else output

    def full_run(self, share: float, settings: Path | str = "") -> int:
        """A run with room for this share of what it writes (or of its largest file); its exit status."""
        # The toy's own log would find no room either.
        self.log.unlink(missing_ok=True)
        if not self.has_own:
            return self.run(largest_file=max(SMALLEST_LIMIT_BYTES, round(share * self.largest)), settings=settings)[0]
        filler = self.seen / "filler"
        filler.write_bytes(b"\0" * round(ROOM_BYTES - self.used - share * self.needed))
        status = self.run(settings=settings)[0]
        filler.unlink()
        return status

    def measure(self) -> None:
        """Remember how much a run that had room has written, and clear it away."""
        files = [path for path in self.seen.rglob("*") if path.is_file()]
        self.largest = max(path.stat().st_size for path in files)
        self.needed = self._used()

    def keep(self) -> None:
        """What is written by now stays."""
        self.used = self._used()

    def _used(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self.seen.rglob("*"))

    def clear(self) -> None:
        """Remove all results."""
        self.used = 0
        subprocess.run(["find", self.seen, "-mindepth", "1", "-delete"], check=True)


def _allowed() -> tuple[str, ...] | None:
    for namespace in NAMESPACES:
        try:
            tried = subprocess.run(
                [*namespace, "sh", "-c", "mount -t tmpfs tmpfs /tmp"], capture_output=True, check=False
            )
        except FileNotFoundError:
            continue
        if tried.returncode == 0:
            return namespace
    return None


@pytest.fixture(scope="module", params=["small file system", "files that cannot grow"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """Both ways in which a disk is full, with an undisturbed run; where no mount is allowed, the second way twice."""
    place = tmp_path_factory.mktemp("disk")
    write_source(place)
    disk = SmallDisk(place, _allowed() if request.param == "small file system" else None)
    assert disk.run()[0] == IMAGE_FAILED
    disk.undisturbed = outcome(disk.seen)
    disk.measure()
    yield disk
    disk.close()


@pytest.mark.parametrize("share", [0, 0.05, 0.2, 0.5, 0.8, 0.97])
def test_a_disk_that_fills_up_leaves_whole_files_and_the_same_run_goes_on(disk, share):
    disk.clear()
    assert disk.full_run(share) == TASK_FAILED
    left = outcome(disk.seen)
    assert not {name for name in left if ".writing-" in name}
    # The summary comes last: where it is missing, the disk did fill up.
    assert "summary.json" not in left
    for name in set(left) & set(disk.undisturbed):
        # A stamp that vouches for nothing stands beside pictures that are being drawn.
        if not (isinstance(left[name], dict) and left[name]["parts"] == {}):
            assert left[name] == disk.undisturbed[name], name
    assert set(left) - set(disk.undisturbed) <= {".defectpipe/lock"}
    assert disk.run()[0] == IMAGE_FAILED
    assert differences(outcome(disk.seen), disk.undisturbed) == {}


@pytest.mark.parametrize("share", [0, 0.06])
def test_results_of_an_earlier_run_stay_whole_when_new_ones_find_no_room(disk, tmp_path, share):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"screening": {"threshold": 0.65}}))
    disk.clear()
    assert disk.run(settings=settings)[0] == IMAGE_FAILED
    new = outcome(disk.seen)
    disk.clear()
    assert disk.run()[0] == IMAGE_FAILED
    old = outcome(disk.seen)
    assert differences(old, disk.undisturbed) == {}
    disk.keep()
    assert disk.full_run(share, settings) == TASK_FAILED
    left = outcome(disk.seen)
    assert not {name for name in left if ".writing-" in name}
    for name in ("images.csv", "loops.csv", "evaluation.json", "summary.json", "overlays/a.tif.jpg"):
        assert left[name] in (old[name], new[name]), name
    assert left["summary.json"] == old["summary.json"]
    assert disk.run(settings=settings)[0] == IMAGE_FAILED
    assert differences(outcome(disk.seen), new) == {}


@pytest.mark.parametrize("largest", [SMALLEST_LIMIT_BYTES, 3_000])
def test_a_full_disk_is_said_in_one_sentence(tmp_path, largest):
    write_folder(tmp_path / "in", 2)
    done = subprocess.run(
        command("RunAll", "--input-dir", "in", "--n-jobs", 1),
        cwd=tmp_path,
        # Byte code that finds no room is put in place cut, and read ever after (CPython issue 126606).
        env=toy_environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
    )
    assert done.returncode == TASK_FAILED
    assert f"{tmp_path / 'in-defects'}: there is no room for the results" in done.stderr
    assert "goes on from what is finished" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Logging error" not in done.stderr


def test_a_full_disk_is_no_images_fault(toy, tmp_path, monkeypatch):
    import toy_chain

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = write_folder(tmp_path / "in", 2)
    with monkeypatch.context() as patch:
        patch.setattr(toy_chain, "screen_candidates", full)
        assert build(RunAll(input_dir=str(source), engine="inline")).status == LuigiStatusCode.FAILED
    assert "there is no room for the results" in (tmp_path / "in-defects" / "run.log").read_text()
    computed(toy)
    assert build(RunAll(input_dir=str(source), engine="inline")).status == LuigiStatusCode.SUCCESS
    # Of the first image its candidates were there already.
    assert len(computed(toy)) == 5
