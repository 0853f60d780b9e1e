"""The report as a task: made again when what it shows has changed, and only then; and how a run ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import tifffile
from luigi import LuigiStatusCode
from report_helpers import Html
from run_helpers import build, run, write_blobs, write_folder

from tasks.runall import RunAll

DONE = LuigiStatusCode.SUCCESS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", 3)


@pytest.fixture
def output(source: Path) -> Path:
    return source.with_name("in-defects")


def run_all(source: Path, **parameters) -> LuigiStatusCode:
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def written(output: Path) -> tuple[int, dict[str, int]]:
    """When the report and each of its small pictures were written."""
    pictures = (output / ".defectpipe" / "pictures").rglob("*.parquet")
    return (output / "report.html").stat().st_mtime_ns, {p.name: p.stat().st_mtime_ns for p in pictures}


def test_it_is_written_again_only_when_what_it_shows_has_changed(toy, source, output, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "field 0.txt").write_text("39 29 64 54\n")
    given = {"labels_dir": str(labels), "label_format": "boxes"}
    assert run_all(source, **given) == DONE
    first, report = written(output), (output / "report.html").read_bytes()
    assert len(first[1]) == 3
    assert "evaluation.json" in report.decode()
    assert run_all(source, **given) == DONE
    assert written(output) == first
    # Gone: the same again. A label: a new report of the same pictures.
    (output / "report.html").unlink()
    assert run_all(source, **given) == DONE
    assert (output / "report.html").read_bytes() == report
    assert written(output)[1] == first[1]
    (labels / "field 0.txt").write_text("39 29 64 54\n50 60 90 95\n")
    assert run_all(source, **given) == DONE
    assert (output / "report.html").read_bytes() != report
    assert written(output)[1] == first[1]
    # An image more costs one picture, and takes it along when it goes.
    write_blobs(source / "new.tif", [(80, 60, 20)])
    assert run_all(source, **given) == DONE
    now = written(output)[1]
    assert len(now) == 4
    assert first[1].items() < now.items()
    assert "new.tif" in (output / "report.html").read_text()
    (source / "new.tif").unlink()
    assert run_all(source, **given) == DONE
    assert written(output)[1] == first[1]
    assert "new.tif" not in (output / "report.html").read_text()
    assert (output / "run.log").read_text().count("report: ") == 5


def test_it_shows_what_the_run_found_whatever_the_names(toy, source, output):
    name = '<b onclick="alert(1)">&amp;.tif'
    write_blobs(source / name, [(80, 60, 20)])
    write_blobs(source / "plain.png", [(60, 60, 12)])
    odd = Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.png"))
    (source / "plain.png").rename(odd)
    (source / "broken.tif").write_text("no image")
    assert run_all(source) == LuigiStatusCode.FAILED
    page = Html((output / "report.html").read_text())
    summary = json.loads((output / "summary.json").read_text())
    assert f"Loops {summary['pooled']['n_loops']} " in page.words("headline")
    assert f"Mean diameter {summary['pooled']['mean_diameter_nm']:.2f} nm" in page.words("headline")
    for shown in (name, r"caf\xe9.png", "broken.tif failed", "1 image has no pixel size"):
        assert shown in page.words("main")
    # One picture for each image but the failed one, with its loops over it.
    assert len(page.all("image")) == 5
    assert len(page.all("ellipse")) == summary["pooled"]["n_loops"]
    for link in {values["href"] for values in page.all("a") if values["href"].startswith("./overlays/")} - {
        "./overlays/"
    }:
        assert Path(os.fsdecode(os.fsencode(output) + b"/" + unquote_to_bytes(link))).is_file()


def test_a_stack_has_a_picture_a_frame(toy, tmp_path):
    stack = np.full((2, 90, 120), 200, np.uint8)
    stack[1, 30:60, 40:70] = 10
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    assert run_all(tmp_path / "in") == DONE
    page = Html((tmp_path / "in-defects" / "report.html").read_text())
    assert "movie.tif, frame 1" in page.words("g2")
    assert {v["href"] for v in page.all("a") if "overlays/m" in v["href"]} == {
        f"./overlays/movie.tif.000{frame}.jpg" for frame in (0, 1)
    }


def test_a_run_ends_with_six_lines_and_luigi_is_silent_unless_asked(source, output, tmp_path):
    given = ("RunAll", "--input-dir", source, "--engine", "inline")
    done = run(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts, sizes, density, labels, look, where = done.stdout.splitlines()[-6:]
    assert counts.startswith("3 images: 6 loops, 0 of them cut by the border")
    assert sizes.startswith("mean diameter ")
    assert "std of the diameters" in sizes
    assert density.startswith("areal density ")
    assert "no labels were given" in labels
    assert look.startswith(f"look first at {output / 'report.html'}; in it first: field ")
    assert where.startswith(f"all of it: {output} (report.html, images.csv, ")
    assert done.stderr == ""
    assert "Execution Summary" not in done.stdout
    loud = run(*given, "--verbose", cwd=tmp_path)
    assert loud.returncode == 0
    assert "Luigi Execution Summary" in loud.stderr
    assert loud.stdout.splitlines()[-6:-2] == [counts, sizes, density, labels]
