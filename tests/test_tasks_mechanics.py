"""The parts of the tasks, each by itself: engine, lock, hashes, stamps, options, configuration."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from luigi.configuration import get_config
from run_helpers import ROOT

from defectpipe.errors import DefectpipeError, SettingsError
from tasks import hashes, lock
from tasks.engine import ProcessEngine, WorkerLostError, open_engine
from tasks.hashes import HashMemory
from tasks.lock import FolderLock
from tasks.options import resolve_options
from tasks.overlays import overlay_paths
from tasks.plan import image_key
from tasks.register import refuse_unknown_keys
from tasks.stamps import Inputs, Stamp, stale_because, write_stamp

OPTIONS = {
    "input_dir": "",
    "output_dir": "",
    "labels_dir": "",
    "label_format": "",
    "model": "",
    "pixel_size_nm": None,
    "engine": "inline",
    "n_jobs": 1,
    "settings": "",
    "verify": False,
}


def test_the_face_loads_nothing_heavy_and_defaults_are_luigis():
    code = (
        "import sys, defectpipe, luigi.retcodes, luigi.interface\n"
        "heavy = {'numpy', 'pandas', 'cv2', 'scipy', 'numba', 'onnxruntime', 'tensorflow', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(luigi.retcodes.retcode().task_failed, luigi.interface.core().no_lock)\n"
        "print(luigi.task_register.Register.get_task_cls('RunAll').__module__)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "30 True", "tasks.runall"]


def test_the_users_own_configuration_is_stronger(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[retcode]\ntask_failed=77\n")
    code = "import defectpipe, luigi.retcodes as r; print(r.retcode().task_failed, r.retcode().not_run)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["77", "25"]


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("RunAll", "n_job", "did you mean 'n_jobs'"),
        ("core", "local_schedular", "did you mean 'local_scheduler'"),
        ("RunAl", "n_jobs", r"nothing is called \[RunAl\]; \[RunAll\] is"),
        ("retcode", "task-faild", "task_failed"),
    ],
)
def test_unknown_configuration_is_refused(section, key, said):
    config = get_config()
    had_section = config.has_section(section)
    config.set(section, key, "1")
    try:
        with pytest.raises(SettingsError, match=said):
            refuse_unknown_keys()
    finally:
        config.remove_option(section, key)
        if not had_section:
            config.remove_section(section)
    refuse_unknown_keys()


@pytest.mark.parametrize(
    ("section", "key"), [("RunAll", "n-jobs"), ("hdfs", "anything"), ("core", "default-scheduler-port")]
)
def test_known_and_foreign_configuration_is_let_through(section, key):
    config = get_config()
    had_section = config.has_section(section)
    config.set(section, key, "1")
    try:
        refuse_unknown_keys()
    finally:
        config.remove_option(section, key)
        if not had_section:
            config.remove_section(section)


def _square(x: int) -> int:
    if x == 13:
        raise ValueError("thirteen")
    return x * x


def _square_or_die(x: int) -> int:
    if x == 3:
        os._exit(1)
    return x * x


@pytest.mark.parametrize("name", ["inline", "processes"])
def test_engines_give_every_job_its_result_or_its_error(name):
    engine = open_engine(name, 2)
    try:
        results = dict(engine.map(_square, [1, 2, 13, 4]))
    finally:
        engine.close()
    error = results.pop(13)
    assert results == {1: 1, 2: 4, 4: 16}
    assert isinstance(error, ValueError)
    assert str(error) == "thirteen"


def test_a_job_that_kills_its_process_costs_only_itself():
    engine = ProcessEngine(2)
    try:
        results = dict(engine.map(_square_or_die, [1, 2, 3, 4, 5]))
        again = dict(engine.map(_square_or_die, [6, 7]))
    finally:
        engine.close()
    assert isinstance(results.pop(3), WorkerLostError)
    assert results == {1: 1, 2: 4, 4: 16, 5: 25}
    assert again == {6: 36, 7: 49}


@pytest.mark.parametrize(("name", "n_jobs"), [("dusk", 1), ("inline", -1)])
def test_unknown_engines_are_refused(name, n_jobs):
    with pytest.raises(SettingsError, match=str(n_jobs) if n_jobs < 0 else name):
        open_engine(name, n_jobs)


def test_the_lock_names_its_owner_and_outlives_nobody(tmp_path):
    path = tmp_path / "out" / ".defectpipe" / "lock"
    code = (
        "import sys, time; from pathlib import Path; from tasks.lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen([sys.executable, "-c", code, str(path)], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(DefectpipeError, match=f"host .*, process {owner.pid}, since"):
            FolderLock(path).acquire()
    finally:
        owner.kill()
        owner.communicate()
    holder = FolderLock(path)
    holder.acquire()
    assert f"process {owner.pid}" in holder.taken_over
    assert json.loads(path.read_text())["process"] == os.getpid()
    with pytest.raises(DefectpipeError, match=str(os.getpid())):
        FolderLock(path).acquire()
    holder.release()
    assert not path.exists()
    other = FolderLock(path)
    other.acquire()
    assert other.taken_over == ""
    other.release()


def _write_owner(path: Path, **owner: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": socket.gethostname(), "process": 1, "since": "2026-11-21"} | owner))


def test_a_lock_of_another_host_is_respected_until_it_is_removed(tmp_path):
    path = tmp_path / "out" / ".defectpipe" / "lock"
    # A number that is alive here, and says nothing of there; one that is not.
    for process in (os.getpid(), 2**22 + 1):
        _write_owner(path, host="cluster-node-7", process=process)
        with pytest.raises(DefectpipeError) as refusal:
            FolderLock(path).acquire()
        for part in (str(tmp_path / "out"), "host cluster-node-7", f"process {process}", f"remove {path}"):
            assert part in str(refusal.value)
        assert json.loads(path.read_text())["host"] == "cluster-node-7"
    path.unlink()
    holder = FolderLock(path)
    holder.acquire()
    holder.release()


def test_where_the_file_system_cannot_lock_the_named_process_decides(tmp_path, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    path = tmp_path / "out" / ".defectpipe" / "lock"
    _write_owner(path, process=os.getppid())
    with pytest.raises(DefectpipeError, match=f"process {os.getppid()}"):
        FolderLock(path).acquire()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    _write_owner(path, process=gone.pid)
    holder = FolderLock(path)
    holder.acquire()
    assert f"process {gone.pid}" in holder.taken_over
    holder.release()


def test_a_lock_whose_owner_removes_it_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path = tmp_path / "out" / ".defectpipe" / "lock"
    flock, removed = lock.fcntl.flock, []

    def and_removed(file: int, how: int) -> None:
        flock(file, how)
        if not removed:
            path.unlink()
            removed.append(path)

    monkeypatch.setattr(lock.fcntl, "flock", and_removed)
    holder = FolderLock(path)
    holder.acquire()
    assert json.loads(path.read_text())["process"] == os.getpid()
    with pytest.raises(DefectpipeError, match="another run is at work"):
        FolderLock(path).acquire()
    holder.release()


def _hashes_read(monkeypatch, memory: HashMemory, files: list[Path]) -> tuple[dict[Path, str], int]:
    """Hashes of the files, and how many of them were read for it."""
    read: list[object] = []
    with monkeypatch.context() as patch:
        digest = hashlib.file_digest
        patch.setattr(hashlib, "file_digest", lambda file, name: read.append(file) or digest(file, name))
        return memory.hash_files(files), len(read)


def test_a_file_is_read_again_only_when_size_or_a_time_changed_and_verify_reads_all(tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "RECENT_SECONDS", -1.0)
    file, state = tmp_path / "a.tif", tmp_path / "state" / "hashes.json"
    file.write_bytes(b"one")
    first, n = _hashes_read(monkeypatch, HashMemory(state), [file])
    assert (first[file], n) == (hashlib.sha256(b"one").hexdigest(), 1)
    assert _hashes_read(monkeypatch, HashMemory(state), [file]) == (first, 0)
    assert _hashes_read(monkeypatch, HashMemory(state, verify=True), [file]) == (first, 1)
    file.write_bytes(b"three")
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 1
    assert HashMemory(state).hash_files([file, tmp_path / "gone"])[tmp_path / "gone"] == ""
    state.write_text("{ half")
    assert HashMemory(state).hash_files([file])[file] == hashlib.sha256(b"three").hexdigest()
    # What an older version remembered, without the entry's own time.
    state.write_text(json.dumps({str(file): [file.stat().st_size, file.stat().st_mtime_ns, "0" * 64]}))
    assert HashMemory(state).hash_files([file])[file] == hashlib.sha256(b"three").hexdigest()


def test_another_content_of_the_same_size_with_a_copied_time_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "RECENT_SECONDS", -1.0)
    file, state = tmp_path / "a.tif", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    status = file.stat()
    HashMemory(state).hash_files([file])
    # The clock of a file system ticks in milliseconds.
    time.sleep(0.05)
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert HashMemory(state).hash_files([file])[file] == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_changed_a_moment_ago_or_in_the_future_is_not_remembered(tmp_path, monkeypatch):
    file, state = tmp_path / "a.tif", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 1
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 1
    now = time.time()
    # The clock of this machine is behind that of the file server.
    monkeypatch.setattr(hashes.time, "time", lambda: now - 3600)
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 1
    monkeypatch.setattr(hashes.time, "time", lambda: now + 60)
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 1
    assert _hashes_read(monkeypatch, HashMemory(state), [file])[1] == 0


def test_a_stamp_says_what_changed(tmp_path):
    path, table = tmp_path / "s" / "stamp.json", tmp_path / "table"
    inputs = Inputs({"image": "a", "screening.threshold": None, "upstream": "x"}, {"pixel size": None})
    assert stale_because(path, inputs) == "new"
    write_stamp(path, Stamp(inputs.parts, inputs.reading))
    table.touch()
    assert stale_because(path, inputs, table) == ""
    other = Inputs({**inputs.parts, "screening.threshold": 0.5, "upstream": "y"}, {"pixel size": 2.0})
    assert stale_because(path, other, table) == "screening.threshold changed"
    assert stale_because(path, Inputs({**inputs.parts, "upstream": "y"}), table) == "upstream changed"
    assert stale_because(path, Inputs(inputs.parts, {"pixel size": 2.0}), table) == ""
    table.unlink()
    assert stale_because(path, inputs, table) == "result gone"
    path.write_text("{")
    assert stale_because(path, inputs) == "new"


def test_a_failed_result_is_stale_when_what_it_was_read_with_changes(tmp_path):
    inputs = Inputs({"image": "a"}, {"pixel size": None})
    write_stamp(tmp_path / "stamp", Stamp(inputs.parts, inputs.reading, failed=True))
    assert stale_because(tmp_path / "stamp", inputs) == ""
    assert stale_because(tmp_path / "stamp", Inputs({"image": "a"}, {"pixel size": 2.0})) == "pixel size changed"


def test_no_two_images_share_a_picture_or_a_result():
    names = ["a/x.tif", "b/x.tif", "a/x.png", "a/X.tif", "x.tif", "ä" * 100 + "1.tif", "ä" * 100 + "2.tif"]
    for n_frames in (1, 3):
        paths = [path for name in names for path in overlay_paths(Path("o"), name, n_frames)]
        assert len(set(paths)) == len(names) * n_frames
        assert all(len(path.name.encode()) <= 255 for path in paths)
    assert len({image_key(name) for name in names}) == len(names)
    assert overlay_paths(Path("o"), "a/x.tif", 1) == [Path("o/a/x.tif.jpg")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_dir": "nowhere"}, "no such folder"),
        ({"output_dir": "."}, "results need a folder of their own"),
        ({"output_dir": "in"}, "results need a folder of their own"),
        ({"labels_dir": "nothing.json"}, "no such folder or file"),
        ({"pixel_size_nm": -0.5}, "positive"),
        ({"pixel_size_nm": float("nan")}, "positive"),
        ({"settings": "settings.json"}, "screening.treshold"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "settings.json").write_text('{"screening": {"treshold": 0.4}}')
    with pytest.raises(DefectpipeError, match=said):
        resolve_options(**{**OPTIONS, "input_dir": "in", **changes})


def test_results_go_beside_the_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    assert resolve_options(**{**OPTIONS, "input_dir": "in"}).output_dir == tmp_path / "in-defects"
    demonstration = resolve_options(**OPTIONS)
    assert (demonstration.is_demonstration, demonstration.output_dir) == (True, tmp_path / "demo-defects")


def test_workers_end_with_their_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "from tasks.engine import ProcessEngine\n"
        "if __name__ == '__main__':\n"
        "    engine = ProcessEngine(1)\n"
        "    [(job, pid)] = engine.map(eval, ['__import__(\"os\").getpid()'])\n"
        "    print(pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=env, stdout=subprocess.PIPE, text=True, check=False)
    worker = int(done.stdout)
    deadline = time.monotonic() + 20
    status = Path(f"/proc/{worker}/stat")
    while status.exists() and time.monotonic() < deadline:
        # It may be gone between two looks.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                break
        time.sleep(0.05)
    else:
        assert not status.exists()
