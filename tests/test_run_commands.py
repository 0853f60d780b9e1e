"""The command line, as a user has it: exit status, what is said, kills, two runs at once. All with the toy chain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from run_helpers import command, computed, run, table_bytes, toy_environment, write_folder

from defectpipe.io.tables import read_csv

TASK_FAILED = 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "some folder" / "in", 5)


@pytest.fixture
def output(source: Path) -> Path:
    return source.with_name("in-defects")


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=toy_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(log: Path, n_lines: int) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if log.exists() and len(log.read_text().splitlines()) >= n_lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"{log} did not get {n_lines} lines")


def test_from_another_folder_with_a_relative_path(source, output, tmp_path):
    done = run("RunAll", "--input-dir", "some folder/in", "--n-jobs", 2, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_csv(output / "images.csv")) == 5
    last = done.stdout.splitlines()[-1]
    assert str(output) in last
    assert "images.csv" in last
    log = (output / "run.log").read_text()
    assert all(line in log for line in done.stdout.splitlines())


def test_any_number_of_jobs_on_any_engine_gives_the_same_bytes(source, tmp_path):
    outputs = []
    for engine, n_jobs in (("inline", 1), ("processes", 3)):
        out = tmp_path / f"{engine}{n_jobs}"
        given = ("--input-dir", source, "--output-dir", out, "--engine", engine, "--n-jobs", n_jobs)
        assert run("RunAll", *given, cwd=tmp_path).returncode == 0
        outputs.append(table_bytes(out))
    assert outputs[0] == outputs[1]


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
    started: Counter[str] = Counter()
    finished: set[str] = set()
    for n_lines in (3, 4):
        process = start(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_DELAY="0.4")
        wait_for(log, n_lines)
        # The run and its processes: as when the machine is switched off.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        now = computed(log)
        assert not finished & set(now)
        started.update(now)
        for stamp in (output / ".defectpipe").glob("*/*/*.json"):
            parts = json.loads(stamp.read_text())["parts"]
            finished |= {line for line in started if line.split()[0] == parts.get("stage") and _is_of(stamp, line)}
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
    first = start(*given, cwd=tmp_path, TOY_LOG=str(log), TOY_DELAY="0.5")
    try:
        wait_for(log, 1)
        second = run(*given, cwd=tmp_path)
        assert first.poll() is None
    finally:
        said, _ = first.communicate(timeout=100)
    assert second.returncode == TASK_FAILED
    assert f"process {first.pid}" in second.stderr
    assert "another run is at work" in second.stderr
    assert first.returncode == 0, said
    assert len(computed(log)) == 15


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
