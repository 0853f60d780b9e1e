"""Folders as they come: labels and images that do not match, odd and hostile names, no permission, a full disk."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_helpers import ROOT, run, table_bytes, write_blobs, write_folder

from defectpipe.io.tables import read_csv

TASK_FAILED = 30


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user reaches: pytest's own are its owner's alone."""
    folder = Path(tempfile.mkdtemp(prefix="defectpipe-test-"))
    folder.chmod(0o755)
    write_folder(folder / "warm", 1)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def limited(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A run with limits: what it said after its warm-up."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "unprivileged.py", folder / "warm", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    done.stdout = done.stdout.partition("--- the run ---\n")[2]
    done.stderr = done.stderr.partition("--- the run ---\n")[2]
    return done


# --- labels and images that do not match (row 15) ---


def test_labels_without_image_and_images_without_labels_are_listed_and_no_failure(tmp_path):
    source, labels = write_folder(tmp_path / "in", 3), tmp_path / "labels"
    labels.mkdir()
    for name in ("field 0", "nobody", "else/field 1"):
        (labels / name).parent.mkdir(exist_ok=True)
        (labels / f"{name}.txt").write_text("39 29 64 54\n")
    given = ("--input-dir", source, "--labels-dir", labels, "--label-format", "boxes", "--engine", "inline")
    done = run("RunAll", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (
        "labels without an image: else/field 1.txt, nobody.txt",
        "images without labels, not scored: field 1.tif, field 2.tif",
    ):
        assert said in done.stdout
    listed = json.loads((tmp_path / "in-defects" / "summary.json").read_text())["labels"]
    assert listed["unmatched_labels"] == ["else/field 1.txt", "nobody.txt"]
    assert listed["unlabelled_images"] == ["field 1.tif", "field 2.tif"]
    images = read_csv(tmp_path / "in-defects" / "images.csv")
    assert list(images["n_labels"].fillna(-1)) == [1, -1, -1]


@pytest.mark.parametrize(
    ("extra", "said"), [("nobody.txt", "1 labels have no image: nobody.txt"), (None, "1 images have no labels")]
)
def test_for_training_either_is_an_error(tmp_path, extra, said):
    source, labels = write_folder(tmp_path / "in", 2), tmp_path / "labels"
    labels.mkdir()
    for name in ("field 0.txt", *(["field 1.txt", extra] if extra else [])):
        (labels / name).write_text("39 29 64 54\n")
    given = ("--images-dir", source, "--labels-dir", labels, "--name", "m", "--label-format", "boxes")
    # The toy chain cannot be trained.
    done = run("TrainModel", *given, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == TASK_FAILED
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- names (rows 16, 26) ---

HOSTILE = (
    "<img src=x onerror=alert(1)>.tif",
    '=HYPERLINK("http:example","click").tif',
    "+1+1.tif",
    "-2+3.tif",
    "@SUM(1).tif",
    "\uff1dwide.tif",
    "a\rb.tif",
    "a\nb.tif",
    'quote",comma.tif',
    "\x1b[31mred\x1b[0m.tif",
    "\u202egnp.tif",
    "'=1.tif",
)


def test_names_that_are_alike_long_or_in_any_script_share_nothing(tmp_path):
    names = [
        *("a/x.tif", "b/x.tif", "a/x.png", "A.tif", "a.tif", "field one (1) - Copy.tif", "試样 α′.tif"),
        *(f"{unicodedata.normalize(form, 'é')}.tif" for form in ("NFC", "NFD")),
        *("n" * 200 + ".tif", "n" * 199 + "m.tif", "d" * 100 + "/" + "n" * 200 + ".tif"),
    ]
    for i, name in enumerate(names):
        write_blobs(tmp_path / "in" / name, [(60, 60, 12 + i)])
    # Bytes that are no UTF-8.
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.tif"))
    write_blobs(tmp_path / "in" / "plain.tif", [(60, 60, 12 + len(names))])
    (tmp_path / "in" / "plain.tif").rename(odd)
    names.append(r"caf\xe9.tif")
    given = ("--input-dir", tmp_path / "in", "--engine", "inline")
    done = run("RunAll", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "in-defects"
    images, loops = (read_csv(out / name) for name in ("images.csv", "loops.csv"))
    assert sorted(images["image"]) == sorted(names)
    assert set(images["status"]) == {"ok"}
    expected = {name: 25 + 2 * i for i, name in enumerate(names)}
    assert dict(zip(loops["image"], loops["diameter_px"], strict=True)) == expected
    assert len([p for p in (out / "overlays").rglob("*") if p.is_file()]) == len(names)
    said = next(line for line in done.stdout.splitlines() if "upper and lower case" in line)
    assert "2 × names" in said
    before = table_bytes(out)
    again = run("RunAll", *given, cwd=tmp_path, TOY_LOG=str(tmp_path / "computed.log"))
    assert again.returncode == 0
    assert not (tmp_path / "computed.log").exists()
    assert table_bytes(out) == before


def test_hostile_names_are_neutral_in_every_table_and_on_the_terminal(tmp_path):
    for i, name in enumerate(HOSTILE):
        write_blobs(tmp_path / "in" / name, [(60, 60, 12 + i)])
    (tmp_path / "in" / "\x1b]0;owned\x07.tif").touch()
    done = run("RunAll", "--input-dir", tmp_path / "in", "--engine", "inline", cwd=tmp_path)
    # The empty file fails, and its name is said.
    assert done.returncode == TASK_FAILED
    out = tmp_path / "in-defects"
    for name in ("images.csv", "loops.csv"):
        with (out / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert all(len(row) == len(rows[0]) for row in rows)
        cells = [row[0] for row in rows[1:]]
        assert len(cells) == len(HOSTILE) + (name == "images.csv")
        assert not any(cell.lstrip("'").startswith(("=", "+", "-", "@", "\uff1d")) and cell[0] != "'" for cell in cells)
        assert set(HOSTILE) <= set(read_csv(out / name)["image"])
        # No carriage return or line feed of a name stands outside quotes.
        bare = "".join((out / name).read_bytes().decode().split('"')[::2])
        assert "\r" not in bare
        assert bare.count("\n") == len(rows)
    assert len(json.loads((out / "summary.json").read_text())["failed"]) == 1
    for text in (done.stdout, done.stderr, (out / "run.log").read_text()):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    assert r"\x1b]0;owned\x07.tif" in done.stderr
    pictures = [p for p in (out / "overlays").rglob("*") if p.is_file()]
    assert len(pictures) == len(HOSTILE)
    assert {p.parent for p in pictures} == {out / "overlays"}


# --- permission and room (row 18) ---


def test_a_file_without_permission_is_a_row_and_the_others_go_on(open_folder):
    source = write_folder(open_folder / "in", 3)
    (source / "field 1.tif").chmod(0)
    out = open_folder / "out"
    out.mkdir()
    out.chmod(0o777)
    checked = limited(open_folder, "--nobody", "--", "CheckFolder", "--input-dir", source, "--output-dir", out)
    assert checked.returncode == TASK_FAILED
    assert "1 image: field 1.tif: the file cannot be opened (Permission denied)" in checked.stdout
    given = ("--input-dir", source, "--output-dir", out, "--engine", "inline")
    done = limited(open_folder, "--nobody", "--", "RunAll", *given)
    assert done.returncode == TASK_FAILED
    assert done.stdout.index("field 1.tif: the file cannot be opened") < done.stdout.index("candidates: ")
    images = read_csv(out / "images.csv").set_index("image")
    assert images.loc["field 1.tif", "reason"] == "the file cannot be opened (Permission denied)."
    assert list(images["status"]) == ["ok", "failed", "ok"]
    assert list(images["n_loops"].dropna()) == [2, 2]
    if os.geteuid() == 0:
        # It ran as nobody, and not as root.
        assert (out / "images.csv").stat().st_uid == 65534


@pytest.mark.parametrize("task", ["CheckFolder", "RunAll"])
def test_an_output_folder_without_permission_is_said_before_a_model_loads(open_folder, task):
    source = write_folder(open_folder / "in", 1)
    out = open_folder / "out"
    out.mkdir(mode=0o555)
    # A model that is not there would be named, had anything looked for it.
    model = ("--model", "no-such-model", "--engine", "inline") if task == "RunAll" else ()
    done = limited(open_folder, "--nobody", "--", task, "--input-dir", source, "--output-dir", out, *model)
    assert done.returncode == TASK_FAILED
    assert re.search(rf"{re.escape(str(out))}\S*: cannot be written", done.stderr)
    assert "no-such-model" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("at", ["the first table", "the largest file"])
def test_a_full_disk_leaves_no_half_written_file_and_the_next_run_goes_on(open_folder, at):
    source = write_folder(open_folder / "in", 3)
    given = ("--input-dir", source, "--engine", "inline")
    assert run("RunAll", *given, "--output-dir", open_folder / "whole", cwd=open_folder).returncode == 0
    sizes = {path: path.stat().st_size for path in (open_folder / "whole").rglob("*") if path.is_file()}
    tables = [size for path, size in sizes.items() if "candidates" in path.parts and path.suffix == ".parquet"]
    limit = min(tables) - 1 if at == "the first table" else max(sizes.values()) - 1
    done = limited(open_folder, "--fsize", limit, "--", "RunAll", *given)
    assert done.returncode == TASK_FAILED
    assert f"{open_folder / 'in-defects'}: there is no room for the results" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    out = open_folder / "in-defects"
    for path in out.rglob("*"):
        if path.is_file():
            assert path.stat().st_size <= limit
            assert not path.name.startswith(".writing-"), "a part of a file was left behind"
            if path.suffix == ".json":
                json.loads(path.read_text())
            if path.suffix == ".parquet":
                assert path.read_bytes().endswith(b"PAR1")
            if path.suffix == ".jpg":
                assert path.read_bytes().endswith(b"\xff\xd9")
            if path.suffix == ".csv":
                whole = open_folder / "whole" / path.name
                assert path.read_bytes() == whole.read_bytes()
    assert run("RunAll", *given, cwd=open_folder).returncode == 0
    assert table_bytes(out) == table_bytes(open_folder / "whole")


def test_a_disk_without_room_for_the_results_is_said_before_anything_is_read(open_folder):
    # Sparse files: their headers claim, rightly, more than the disk has room for the results of.
    import numpy as np
    import tifffile

    source = open_folder / "in"
    source.mkdir()
    side = 2**14
    tifffile.memmap(source / "0.tif", shape=(side, side), dtype=np.uint8).flush()
    n = int(shutil.disk_usage(open_folder).free / (0.1 * side * side)) + 2
    assert n < 200_000
    for i in range(1, n):
        (source / f"{i}.tif").hardlink_to(source / "0.tif")
    done = limited(open_folder, "--", "RunAll", "--input-dir", source, "--model", "no-such-model")
    assert done.returncode == TASK_FAILED
    assert "the disk is full: " in done.stderr
    assert "no-such-model" not in done.stderr
    assert not (open_folder / "in-defects" / "images.csv").exists()
