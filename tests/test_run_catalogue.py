"""The catalogue on the command line, and at the end of a run. With the toy chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_helpers import run, write_folder

from defectpipe.catalogue import Catalogue
from defectpipe.io.tables import read_csv

TASK_FAILED = 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", 3)


def test_a_run_indexes_searches_and_exports(source, tmp_path):
    done = run("RunAll", "--input-dir", source, "--engine", "inline", "--catalogue-file", "c.duckdb", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "c.duckdb: 3 images, 6 loops, 0 objects" in done.stdout
    assert json.loads((source.with_name("in-defects") / "summary.json").read_text())["pooled"]["n_loops"] == 6
    again = run("IndexFolder", "--input-dir", source, "--catalogue-file", "c.duckdb", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "unchanged, not read again: 1" in again.stdout
    found = run(
        *("SearchCatalogue", "--catalogue-file", "c.duckdb", "--text", "FIELD 1.TIF"),
        *("--where", "n_loops=1..5, pixel_size_nm=0.5", "--export-dir", "picked"),
        cwd=tmp_path,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "field 1.tif" in found.stdout
    assert "1 found" in found.stdout
    assert read_csv(tmp_path / "picked" / "found.csv")["file"].tolist() == ["000001_field_1.tif"]
    assert len(read_csv(tmp_path / "picked" / "loops.csv")) == 2
    like = run("SearchCatalogue", "--catalogue-file", "c.duckdb", "--like", source / "field 1.tif", cwd=tmp_path)
    assert (like.returncode, like.stdout.splitlines()[-1]) == (0, "2 found")


def test_a_run_with_a_failed_image_is_indexed_all_the_same(source, tmp_path):
    (source / "broken.tif").write_text("no image")
    done = run("RunAll", "--input-dir", source, "--engine", "inline", "--catalogue-file", "c.duckdb", cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert "1 images failed" in done.stderr
    with Catalogue.open(tmp_path / "c.duckdb") as catalogue:
        assert catalogue.search(status="failed")["image"].tolist() == ["broken.tif"]


def test_a_run_without_a_catalogue_makes_none(source, tmp_path):
    assert run("RunAll", "--input-dir", source, "--engine", "inline", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.rglob("*.duckdb"))
    # One that cannot be taken is said, after everything is written.
    (tmp_path / "mine.txt").write_text("mine")
    done = run("RunAll", "--input-dir", source, "--engine", "inline", "--catalogue-file", "mine.txt", cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert "this is no catalogue" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (source.with_name("in-defects") / "summary.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("IndexFolder",), "IndexFolder needs --catalogue-file"),
        (("IndexFolder", "--catalogue-file", "c.duckdb"), "holds no folders yet"),
        (("IndexFolder", "--catalogue-file", "c.duckdb", "--output-dir", "none"), "no such folder"),
        (("SearchCatalogue", "--catalogue-file", "c.duckdb"), "no such catalogue; IndexFolder makes one"),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path, arguments, said):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
