"""Progress of a training: bars of several processes in rows of their own on a terminal, plain lines elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from pathlib import Path

import pytest
from terminal import run_on_terminal

from defectpipe.training import progress
from defectpipe.training.progress import PartProgress, rows_for, share_rows

TWO_PROCESSES = """
import multiprocessing, sys, time
from defectpipe.training.progress import PartProgress, rows_for, share_rows

def begin(barrier, lock, rows):
    global both
    both = barrier
    share_rows(lock, rows)

def work(title):
    both.wait(300)  # a process that starts late would find the other's row free again
    with PartProgress(title) as progress:
        progress.begin("screener", 3)
        for step in range(1, 4):
            time.sleep(0.3)
            progress.loss(step, 0.5)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, begin, (context.Barrier(2), *rows_for(context, 2))) as pool:
        pool.map(work, ["one", "two"], chunksize=1)
"""


def test_bars_of_two_processes_have_a_row_each(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    said = bytearray()
    status = run_on_terminal([sys.executable, "two.py"], said.extend, cwd=tmp_path, env=environment)
    assert status == 0, said.decode()
    # Of each bar, how far below the first row it is written: the terminal's way back tells.
    rows = {
        title: {len(down) for down in re.findall(rf"(\n*)\r{title}: screener", said.decode().replace("\r\n", "\n"))}
        for title in ("one", "two")
    }
    assert {0, 1} == rows["one"] | rows["two"], said
    assert all(len(of) == 1 for of in rows.values()), said


def test_a_row_is_taken_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    lock, rows = rows_for(context, 2)
    monkeypatch.setattr(progress, "_shared", {})
    monkeypatch.setattr(progress.tqdm, "_lock", progress.tqdm.get_lock())
    share_rows(lock, rows)
    with PartProgress("a"):
        with PartProgress("b"):
            assert list(rows) == [1, 1]
            with PartProgress("more than there are rows"):
                pass
        assert list(rows) == [1, 0]
    assert list(rows) == [0, 0]


def test_elsewhere_there_are_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with PartProgress("without fold 0") as shown:
        shown.begin("candidates", 100)
        for _ in range(100):
            now[0] += 1
            shown.step()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "without fold 0: candidates: begins"
    assert lines[1] == "without fold 0: candidates: 31 of 100"
    assert lines[-1] == "without fold 0: candidates: 100 of 100"
    assert len(lines) == 5
