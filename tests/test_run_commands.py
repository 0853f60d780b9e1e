"""The command line, as a user has it: exit status, what is said, kills, two runs at once. All with the toy chain."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from run_helpers import computed, kill_all, run, started, table_bytes, wait_for_lines, write_folder

from defectpipe.io.tables import read_csv

TASK_FAILED = 30
LOOPBACK = "0100007F" if sys.byteorder == "little" else "7F000001"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "some folder" / "in", 5)


@pytest.fixture
def output(source: Path) -> Path:
    return source.with_name("in-defects")


def test_from_another_folder_with_a_relative_path(source, output, tmp_path):
    done = run("RunAll", "--input-dir", "some folder/in", "--n-jobs", 2, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_csv(output / "images.csv")) == 5
    last = done.stdout.splitlines()[-1]
    assert str(output) in last
    assert "images.csv" in last
    log = (output / "run.log").read_text()
    assert all(line in log for line in done.stdout.splitlines())


def test_a_failed_image_ends_the_run_with_its_name_and_no_traceback(source, output, tmp_path):
    (source / "broken.tif").write_text("no image")
    done = run("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert "1 images failed" in done.stderr
    assert "broken.tif: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(read_csv(output / "images.csv")) == 6


def test_an_image_that_kills_its_process_is_a_row(source, output, tmp_path):
    done = run("RunAll", "--input-dir", source, "--n-jobs", 2, cwd=tmp_path, TOY_KILLER="field 2.tif")
    assert done.returncode == TASK_FAILED
    images = read_csv(output / "images.csv").set_index("image")
    assert list(images.index[images["status"] == "failed"]) == ["field 2.tif"]
    assert "killed" in images.loc["field 2.tif", "reason"]
    assert list(images["n_loops"].dropna()) == [2] * 4


@pytest.mark.parametrize(
    ("arguments", "configuration", "said"),
    [
        (("--input-dir", "nowhere"), "", "there is no such folder"),
        (("--input-dir", "some folder/in", "--engine", "abacus"), "", "--engine abacus: unknown"),
        (("--input-dir", "some folder/in"), "[RunAll]\nn_job=1\n", "did you mean 'n_jobs'"),
    ],
)
def test_what_cannot_run_says_so_in_one_sentence(source, output, tmp_path, arguments, configuration, said):
    (tmp_path / "luigi.cfg").write_text(configuration)
    done = run("RunAll", *arguments, cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (output / "images.csv").exists()


def test_a_killed_run_resumes_and_nothing_finished_is_done_twice(source, output, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    given = ("RunAll", "--input-dir", source, "--n-jobs", 2)
    assert run(*given, "--output-dir", undisturbed, cwd=tmp_path).returncode == 0
    log = tmp_path / "computed.log"
    begun: set[str] = set()
    finished: set[str] = set()
    for n_lines in (3, 4):
        with started(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_HOLD=str(n_lines)) as process:
            wait_for_lines(log, n_lines, process)
            kill_all(process)
        now = computed(log)
        assert not finished & set(now)
        begun.update(now)
        for stamp in (output / ".defectpipe").glob("*/*/*.json"):
            parts = json.loads(stamp.read_text())["parts"]
            finished |= {line for line in begun if line.split()[0] == parts.get("stage") and _is_of(stamp, line)}
    assert finished
    done = run(*given, cwd=tmp_path, TOY_LOG=str(log))
    assert done.returncode == 0
    now = computed(log)
    assert not finished & set(now)
    assert finished | set(now) == {
        f"{stage} field {i}.tif 0" for stage in ("candidates", "screening", "measurement") for i in range(5)
    }
    assert table_bytes(output) == table_bytes(undisturbed)
    assert not [path for path in output.rglob("*") if path.name.startswith(".writing-")]


def _is_of(stamp: Path, line: str) -> bool:
    from tasks.plan import image_key

    return stamp.stem == image_key(line.split(" ", 1)[1].rsplit(" ", 1)[0])


def test_a_second_run_at_once_names_the_first_and_leaves_it_alone(source, output, tmp_path):
    log = tmp_path / "computed.log"
    given = ("RunAll", "--input-dir", source, "--engine", "inline")
    go = tmp_path / "go"
    with started(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_HOLD="1", TOY_GO=str(go)) as first:
        wait_for_lines(log, 1, first)
        second = run(*given, cwd=tmp_path)
        assert first.poll() is None
        go.touch()
        said, _ = first.communicate(timeout=280)
    assert second.returncode == TASK_FAILED
    assert f"process {first.pid}" in second.stderr
    assert "another run is at work" in second.stderr
    assert first.returncode == 0, said
    assert len(computed(log)) == 15


def test_a_run_takes_over_a_dead_ones_lock_and_respects_another_hosts(source, output, tmp_path):
    log = tmp_path / "computed.log"
    given = ("RunAll", "--input-dir", source, "--engine", "inline")
    with started(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_HOLD="2") as first:
        wait_for_lines(log, 2, first)
        kill_all(first)
    lock = output / ".defectpipe" / "lock"
    owner = json.loads(lock.read_text())
    assert owner["process"] == first.pid
    lock.write_text(json.dumps(owner | {"host": "cluster-node-7"}))
    refused = run(*given, cwd=tmp_path)
    assert refused.returncode == TASK_FAILED
    assert f"a run on another host holds this output folder (host cluster-node-7, process {first.pid}" in refused.stderr
    assert f"remove {lock}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (output / "images.csv").exists()
    lock.write_text(json.dumps(owner))
    done = run(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"an earlier run was ended before it was done (host {owner['host']}, process {first.pid}" in done.stdout
    assert not lock.exists()


def listening(processes: set[int]) -> set[str]:
    """Addresses (hexadecimal, as the system writes them) on which these processes listen for connections."""
    sockets = set()
    for process in processes:
        for file in Path(f"/proc/{process}/fd").iterdir():
            # One may be closed while this looks.
            with contextlib.suppress(FileNotFoundError):
                sockets.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            # 0A: listens.
            if cells[3] == "0A" and cells[9] in sockets:
                found.add(cells[1].rpartition(":")[0])
    return found


@pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="Linux tells who listens; elsewhere the code is the same"
)
def test_a_run_listens_to_nobody_outside_this_machine(source, output, tmp_path):
    with socket.create_server(("0.0.0.0", 0)), socket.create_server(("127.0.0.1", 0)):
        assert listening({os.getpid()}) >= {"00000000", LOOPBACK}
    log = tmp_path / "computed.log"
    given = ("RunAll", "--input-dir", source, "--n-jobs", 2)
    go = tmp_path / "go"
    with started(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_HOLD="2", TOY_GO=str(go)) as run:
        wait_for_lines(log, 2, run)
        group = {int(p.name) for p in Path("/proc").glob("[0-9]*") if _group_of(p) == run.pid}
        assert len(group) > 2
        assert listening(group) <= {LOOPBACK}
        go.touch()
        said, _ = run.communicate(timeout=280)
    assert run.returncode == 0, said


def _group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def test_a_data_set_is_simulated_once(tmp_path):
    given = ("SimulateDataset", "--kind", "loops", "--n", 1, "--seed", 3, "--preset", "demo", "--output-dir", "set")
    assert run(*given, cwd=tmp_path).returncode == 0
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*") if path.is_file()}
    assert {"manifest.json", "truth.csv", "labels.coco.json"} <= {path.name for path in made}
    assert run(*given, cwd=tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    refused = run(*given[:-3], "nothing", "--output-dir", "set", cwd=tmp_path)
    assert refused.returncode == TASK_FAILED
    assert "nothing" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("TrainModel", "--images-dir", "somewhere"), "TrainModel needs --labels-dir, --name as well."),
        (("SimulateDataset",), "SimulateDataset needs --output-dir as well."),
    ],
)
def test_a_forgotten_option_is_named_without_a_traceback(tmp_path, arguments, said):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []
