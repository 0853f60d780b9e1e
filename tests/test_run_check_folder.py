"""The look at a folder before a run, as a user has it: what is said, the exit status, nothing changed on disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import ROOT, command, run, write_blobs, write_folder

TASK_FAILED = 30


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in [root, *root.rglob("*")]}


def check(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command("CheckFolder", *arguments),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_sound_folder_ends_with_0_and_nothing_on_disk_changes(tmp_path):
    write_folder(tmp_path / "in", 3)
    before = snapshot(tmp_path)
    done = check("--input-dir", "in", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 files" in done.stdout
    assert "3 × 0.5 nm (metadata: ImageJ)" in done.stdout
    assert "in-defects: " in done.stdout
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (lambda root: (root / "broken.tif").write_text("no"), (), "refused     1 image: broken.tif"),
        (lambda root: [file.unlink() for file in root.iterdir()], (), "no file in this folder looks like a micrograph"),
        (lambda root: (root / "pixel_sizes.csv").write_text("image\nx\n"), (), "must name the columns"),
        (lambda root: None, ("--output-dir", "/proc/out"), "/proc/out: "),
        (lambda root: None, ("--input-dir", ""), "--input-dir: give the folder to look at"),
        (lambda root: None, ("--output-dir", "in"), "results need a folder of their own"),
        (
            lambda root: root.with_name("x.json").write_text("{"),
            ("--labels-dir", "x.json"),
            "x.json: this is not valid",
        ),
        (lambda root: None, ("--settings", "nothing.json"), "nothing.json: cannot be read"),
        (lambda root: None, ("--pixel-size-nm", "-1"), "a pixel size is a positive number"),
    ],
)
def test_what_would_be_refused_ends_with_a_failure_in_one_sentence(tmp_path, change, arguments, said):
    change(write_folder(tmp_path / "in", 2))
    before = snapshot(tmp_path)
    done = check("--input-dir", "in", *arguments, cwd=tmp_path)
    assert done.returncode == TASK_FAILED, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert snapshot(tmp_path) == before


def test_a_run_begins_with_the_table_and_stops_before_its_model_where_it_cannot_work(tmp_path):
    source, labels = write_folder(tmp_path / "in", 2), tmp_path / "labels.json"
    done = run("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.index("2 files") < done.stdout.index("candidates: 2 images: new")
    labels.write_text("{}")
    # A model that is not there would be the first complaint, had it been looked for.
    given = ("RunAll", "--input-dir", source, "--model", "no-such-model", "--output-dir", tmp_path / "out")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def stopped(*arguments: object) -> str:
        done = subprocess.run(
            command(*given, *arguments), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == TASK_FAILED
        return done.stderr

    assert "there is no model" in stopped().lower()
    assert "abacus" in stopped("--labels-dir", labels, "--label-format", "abacus")
    for file in source.iterdir():
        file.unlink()
    assert "looks like a micrograph" in stopped()


def test_what_was_skipped_is_in_the_summary_and_on_the_terminal(tmp_path):
    source = write_folder(tmp_path / "in", 2)
    write_blobs(tmp_path / "elsewhere" / "secret.tif")
    (source / "leaves").symlink_to(tmp_path / "elsewhere")
    (source / "loop").symlink_to(source)
    (source / "linked.tif").symlink_to(tmp_path / "elsewhere" / "secret.tif")
    done = run("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path)
    assert done.returncode == 0
    summary = json.loads((tmp_path / "in-defects" / "summary.json").read_text())
    assert summary["skipped"] == dict.fromkeys(["leaves", "linked.tif", "loop"], "a link, not followed")
    assert summary["pooled"]["n_images"] == 2
    assert "skipped: leaves (a link, not followed), linked.tif" in done.stdout
    written = [p.read_bytes() for p in (tmp_path / "in-defects").rglob("*") if p.is_file()]
    assert not any(b"secret" in content for content in written)


OFFLINE = """
import socket, sys

class Refused(socket.socket):
    def connect(self, *address):
        raise SystemExit(f"connected to {address}")
    connect_ex = sendto = connect

    def listen(self, *_):
        raise SystemExit("opened a port")

socket.socket = Refused
socket.getaddrinfo = lambda *given, **_: sys.exit(f"asked for the address of {given}")
sys.path.insert(0, sys.argv.pop(1))
import toy_chain
sys.modules["defectpipe.analysis"] = sys.modules["defectpipe.model"] = toy_chain
from luigi.cmdline import luigi_run
luigi_run(sys.argv[1:])
"""


def test_a_run_opens_no_connection(tmp_path):
    source = write_folder(tmp_path / "in", 1)
    given = ("--module", "defectpipe", "RunAll", "--input-dir", source, "--engine", "inline")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, ROOT / "tests" / "toy", *given],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "in-defects" / "images.csv").is_file()


def test_every_promise_names_a_test_that_is_there():
    promised = re.findall(r"`tests/(\w+)\.py(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(promised) > 10
    for module, test in promised:
        assert f"def {test}(" in (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8") if test else True, test
