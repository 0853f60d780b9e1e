"""What a person sees of a run: bars on a terminal, plain lines elsewhere, and at the end what was found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import command, toy_environment, write_folder
from terminal import run_on_terminal

from tasks import logs
from tasks.logs import Progress

STAGES = ("candidates", "screening", "measurement")
BARS = ("analysis", "statistics", "overlays", "exports")
SIX_LINES = ("3 images: 6 loops", "mean diameter", "areal density", "no labels", "look first at", "all of it: ")


def on_a_terminal(*arguments: object, cwd: Path, columns: int = 100) -> tuple[int, str]:
    """Exit status of a run on a terminal of its own, and everything that it wrote there."""
    said = bytearray()
    environment, rows = toy_environment(TERM="xterm-256color"), 40 if columns else 0
    given = command(*arguments)
    status = run_on_terminal(given, said.extend, cwd=cwd, env=environment, rows=rows, columns=columns)
    return status, said.decode()


# 0: a terminal that does not say how large it is.
@pytest.mark.parametrize("columns", [100, 0])
def test_a_terminal_shows_a_bar_a_stage_and_then_six_lines(tmp_path, columns):
    source = write_folder(tmp_path / "in", 3)
    status, said = on_a_terminal("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path, columns=columns)
    assert status == 0, said
    for bar in BARS:
        last = re.findall(rf"\r({bar} [^\r\n]*)", said)[-1]
        assert re.search(r"100 %\|[^|]+\| 3 of 3 images, +\S+ images/s, 00:00 left", last), last
    # A stage is announced below the bar of the one before.
    assert said.rindex("\ranalysis ") < said.index("statistics: 3 images: new")
    # One job does all of an image, so all of it is announced before.
    begins = [said.index(f"{stage}: 3 images: new") for stage in STAGES]
    assert begins == sorted(begins)
    assert begins[-1] < said.index("\ranalysis ")
    # Nothing of Luigi's, nothing else that draws over itself, and the lines stand below the bars.
    assert "Luigi" not in said
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).split("\r")[-1] for line in said.split("\r\n")]
    closing = [line for line in lines if line][-6:]
    assert all(line.startswith(begin) for line, begin in zip(closing, SIX_LINES, strict=True)), closing
    # Once more: nothing to compute, so no bar.
    status, said = on_a_terminal("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path)
    assert status == 0
    assert "%|" not in said


def test_a_file_gets_lines_that_nothing_draws_over(tmp_path):
    source = write_folder(tmp_path / "in", 3)
    given = command("RunAll", "--input-dir", source, "--engine", "inline")
    done = subprocess.run(given, cwd=tmp_path, env=toy_environment(), capture_output=True, check=True)
    assert done.stderr == b""
    assert b"\r" not in done.stdout
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode().splitlines()
    assert [line for line in lines if line.startswith("candidates: ")] == ["candidates: 3 images: new"]
    assert all(line.startswith(begin) for line, begin in zip(lines[-6:], SIX_LINES, strict=True))


def test_a_long_stage_says_how_far_it_is(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level("INFO", "defectpipe.run")
    progress = Progress()
    progress.expect("candidates", 100)
    for _ in range(100):
        now[0] += 1.5
        progress.step("candidates")
    progress.close()
    assert caplog.messages == [
        "candidates: 20 of 100 images, 0.667 images/s, 02:00 left",
        "candidates: 40 of 100 images, 0.667 images/s, 01:30 left",
        "candidates: 60 of 100 images, 0.667 images/s, 01:00 left",
        "candidates: 80 of 100 images, 0.667 images/s, 00:30 left",
        "candidates: 100 images in 02:30",
    ]


@pytest.mark.parametrize("total", [0, 3, None])
def test_a_short_stage_says_nothing(total, monkeypatch, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level("INFO", "defectpipe.run")
    progress = Progress()
    progress.expect("screening", total)
    progress.step("screening", 3)
    progress.close()
    assert caplog.messages == []
