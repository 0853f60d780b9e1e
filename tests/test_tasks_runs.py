"""Whole runs over small folders with the toy chain: what is computed, when, and what comes out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import TABLES, build, computed, table_bytes, write_blobs, write_folder

from defectpipe.io.tables import IMAGE_COLUMNS, LOOP_COLUMNS, read_csv
from tasks import plan as plans
from tasks.runall import RunAll
from tasks.stages import DetectCandidates, MeasureLoops

DONE = LuigiStatusCode.SUCCESS
STAGES = ("candidates", "screening", "measurement")


def run_all(source: Path, **parameters) -> LuigiStatusCode:
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def lines(stages, *images):
    return sorted(f"{stage} {image} 0" for stage in stages for image in images)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


@pytest.fixture
def output(source: Path) -> Path:
    return source.with_name("in-defects")


def test_a_run_writes_what_the_contract_says(toy, source, output):
    assert run_all(source) == DONE
    images, loops = (read_csv(output / name) for name in TABLES)
    assert list(images) == IMAGE_COLUMNS
    assert list(loops) == LOOP_COLUMNS
    assert list(images["image"]) == [f"field {i}.tif" for i in range(4)]
    assert list(images["n_loops"]) == [2] * 4
    assert list(images["status"]) == ["ok"] * 4
    assert set(images["pixel_size_nm"]) == {0.5}
    # Discs of radius 12 and 14, 15, 16, 17: their diameters are 2 r + 1.
    assert sorted(loops["diameter_px"]) == [25, 25, 25, 25, 29, 31, 33, 35]
    assert np.allclose(loops["diameter_nm"], loops["diameter_px"] / 2)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["pooled"]["n_loops"] == 8
    assert summary["time"]["stages_computed"] == dict.fromkeys(STAGES, 4)
    assert {path.name for path in (output / "overlays").iterdir()} == {f"field {i}.tif.jpg" for i in range(4)}
    assert not (output / "evaluation.json").exists()
    assert "8 loops" in (output / "run.log").read_text()


def test_a_second_run_computes_nothing_and_gives_the_same(toy, source, output):
    run_all(source)
    assert computed(toy) == lines(STAGES, *(f"field {i}.tif" for i in range(4)))
    before = table_bytes(output)
    # Somebody saved it from a spreadsheet.
    (output / "loops.csv").write_text("image;frame\n")
    assert run_all(source) == DONE
    assert computed(toy) == []
    assert table_bytes(output) == before


def test_an_added_image_costs_one_image_and_a_removed_one_leaves(toy, source, output):
    run_all(source)
    before = table_bytes(output)
    computed(toy)
    write_blobs(source / "new" / "field 1.tif", [(80, 60, 20)])
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "new/field 1.tif")
    assert (output / "overlays" / "new" / "field 1.tif.jpg").is_file()
    shutil.rmtree(source / "new")
    assert run_all(source) == DONE
    assert computed(toy) == []
    assert table_bytes(output) == before
    assert not (output / "overlays" / "new").exists()
    for stage in STAGES:
        assert len(list((output / ".defectpipe" / stage).rglob("*.json"))) == 4


def test_a_changed_image_is_computed_again_and_only_that(toy, source, output):
    run_all(source)
    computed(toy)
    write_blobs(source / "field 2.tif", [(80, 60, 20)])
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "field 2.tif")
    assert "candidates: 1 image: image changed" in (output / "run.log").read_text()


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"reading": {"crop_bottom_px": 5}}, STAGES),
        ({"tiling": {"tile_px": 512}}, STAGES),
        ({"detection": {"max_candidates_per_megapixel": 99}}, STAGES),
        ({"screening": {"threshold": 0.65}}, ("screening", "measurement")),
        ({"measurement": {"border_margin_px": 3.0}}, ("measurement",)),
        ({"statistics": {"seed": 7}}, ()),
        ({"labels": {"box_convention": "tight", "clip": True}}, ()),
    ],
)
def test_a_changed_setting_recomputes_what_depends_on_it(toy, source, output, tmp_path, settings, again):
    run_all(source)
    computed(toy)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert run_all(source, settings=str(tmp_path / "settings.json")) == DONE
    assert computed(toy) == lines(again, *(f"field {i}.tif" for i in range(4)))
    [(section, values)] = settings.items()
    recorded = json.loads((output / "summary.json").read_text())["settings"][section]
    assert values.items() <= recorded.items()
    if section == "screening":
        assert read_csv(output / "images.csv")["n_loops"].sum() == 4


def test_a_summary_is_taken_back_as_settings(toy, source, output, tmp_path):
    (tmp_path / "settings.json").write_text('{"screening": {"threshold": 0.65}}')
    run_all(source, settings=str(tmp_path / "settings.json"))
    before = table_bytes(output)
    computed(toy)
    shutil.copy(output / "summary.json", tmp_path / "summary.json")
    assert run_all(source, settings=str(tmp_path / "summary.json")) == DONE
    assert computed(toy) == []
    assert table_bytes(output) == before


def test_a_changed_model_recomputes_everything(toy, source, monkeypatch):
    import toy_chain

    run_all(source)
    computed(toy)
    monkeypatch.setattr(toy_chain.LoopModel, "sha256", "f" * 64)
    assert run_all(source) == DONE
    assert len(computed(toy)) == 12


def test_a_pixel_size_goes_before_the_files_own_and_recomputes_the_measurement_alone(toy, source, output):
    run_all(source)
    computed(toy)
    assert run_all(source, pixel_size_nm=2.0) == DONE
    assert computed(toy) == lines(("measurement",), *(f"field {i}.tif" for i in range(4)))
    (source / "pixel_sizes.csv").write_text("image,pixel_size_nm\nfield 3.tif,4\n")
    assert run_all(source, pixel_size_nm=2.0) == DONE
    assert computed(toy) == lines(("measurement",), "field 3.tif")
    images = read_csv(output / "images.csv")
    assert list(images["pixel_size_nm"]) == [2, 2, 2, 4]
    assert list(images["pixel_size_source"]) == ["argument"] * 3 + ["pixel_sizes.csv"]
    assert np.allclose(images["mean_diameter_nm"], images["mean_diameter_px"] * images["pixel_size_nm"])


def test_a_model_that_looks_at_the_pixel_size_makes_everything_depend_on_it(toy, source, monkeypatch):
    import toy_chain

    monkeypatch.setattr(toy_chain.LoopModel, "working_pixel_size_nm", 1.0)
    run_all(source)
    computed(toy)
    (source / "pixel_sizes.csv").write_text("image,pixel_size_nm\nfield 3.tif,4\n")
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "field 3.tif")


def test_without_a_pixel_size_there_are_no_nm(toy, tmp_path):
    write_blobs(tmp_path / "in" / "a.png")
    assert run_all(tmp_path / "in") == DONE
    images, loops = (read_csv(tmp_path / "in-defects" / name) for name in TABLES)
    assert images.filter(regex="nm|per_m2").isna().all(axis=None)
    assert loops.filter(regex="nm").isna().all(axis=None)
    assert loops["diameter_px"].notna().all()


def test_broken_files_are_rows_and_the_run_fails_after_writing_everything(toy, source, output):
    (source / "text.tif").write_text("<html>")
    (source / "empty.png").touch()
    (source / "cut.tif").write_bytes((source / "field 0.tif").read_bytes()[:5000])
    (source / "spectrum.spc").write_bytes(b"\0" * 100)
    assert run_all(source) == LuigiStatusCode.FAILED
    images = read_csv(output / "images.csv").set_index("image")
    bad = ["cut.tif", "empty.png", "spectrum.spc", "text.tif"]
    assert list(images.index[images["status"] == "failed"]) == bad
    assert (images.loc[bad, "reason"].str.len() > 10).all()
    assert images.loc[bad, "n_loops"].isna().all()
    assert list(images["n_loops"].dropna()) == [2] * 4
    assert set(json.loads((output / "summary.json").read_text())["failed"]) == set(bad)
    assert "4 images failed" in (output / "run.log").read_text()
    assert not (output / "overlays" / "text.tif.jpg").exists()
    assert len(computed(toy)) == 12


def test_a_failed_image_is_tried_again_only_when_its_file_changed(toy, source, output, monkeypatch):
    monkeypatch.setenv("TOY_BUG", "field 1.tif")
    assert run_all(source) == LuigiStatusCode.FAILED
    row = read_csv(output / "images.csv").set_index("image").loc["field 1.tif"]
    assert row["reason"] == "ZeroDivisionError: the toy is broken"
    assert "Traceback" in (output / "run.log").read_text()
    monkeypatch.delenv("TOY_BUG")
    computed(toy)
    assert run_all(source) == LuigiStatusCode.FAILED
    assert computed(toy) == []
    write_blobs(source / "field 1.tif", [(80, 60, 20)])
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "field 1.tif")


def test_a_picture_of_what_fails_later_is_taken_away(toy, source, output):
    run_all(source)
    assert (output / "overlays" / "field 1.tif.jpg").exists()
    (source / "field 1.tif").write_bytes(b"")
    assert run_all(source) == LuigiStatusCode.FAILED
    assert not (output / "overlays" / "field 1.tif.jpg").exists()
    assert (output / "overlays" / "field 2.tif.jpg").exists()


def test_nothing_found_is_a_row_with_0_and_a_table_with_its_header(toy, tmp_path):
    write_blobs(tmp_path / "in" / "a.tif", [])
    write_blobs(tmp_path / "in" / "b.tif", [])
    assert run_all(tmp_path / "in") == DONE
    images, loops = (read_csv(tmp_path / "in-defects" / name) for name in TABLES)
    assert list(images["n_loops"]) == [0, 0]
    assert (images["areal_density_per_m2"] == 0).all()
    assert (images["areal_density_per_m2_ci_high"] > 0).all()
    assert list(loops) == LOOP_COLUMNS
    assert len(loops) == 0
    assert (tmp_path / "in-defects" / "overlays" / "a.tif.jpg").is_file()


def test_a_single_loop_has_a_diameter_and_no_deviation(toy, tmp_path):
    write_blobs(tmp_path / "in" / "a.tif", [(60, 60, 12)])
    assert run_all(tmp_path / "in") == DONE
    log = (tmp_path / "in-defects" / "run.log").read_text()
    assert "mean diameter 12.5 nm" in log
    assert "std of the diameters" not in log


def test_a_stack_has_a_row_a_frame(toy, tmp_path, monkeypatch):
    stack = np.full((3, 90, 120), 200, np.uint8)
    stack[1, 30:60, 40:70] = 10
    stack[2, 10:35, 40:70] = 10
    stack[2, 50:75, 40:70] = 10
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    assert run_all(tmp_path / "in") == DONE
    images, loops = (read_csv(tmp_path / "in-defects" / name) for name in TABLES)
    assert list(images["frame"]) == [0, 1, 2]
    assert list(images["n_loops"]) == [0, 1, 2]
    assert list(loops["frame"]) == [1, 2, 2]
    pictures = {path.name for path in (tmp_path / "in-defects" / "overlays").iterdir()}
    assert pictures == {f"movie.tif.{frame:04d}.jpg" for frame in range(3)}


def test_the_same_stem_in_two_folders_and_extensions(toy, tmp_path):
    names = ["a/x.tif", "b/x.tif", "a/x.png", "a/X y, (2) - Copy.tif", "ü.tif", "=HYPERLINK(1).tif"]
    for i, name in enumerate(names):
        write_blobs(tmp_path / "in" / name, [(60, 60, 12 + i)])
    assert run_all(tmp_path / "in") == DONE
    images, loops = (read_csv(tmp_path / "in-defects" / name) for name in TABLES)
    assert list(images["image"]) == sorted(names)
    assert dict(zip(loops["image"], loops["diameter_px"], strict=True)) == {n: 25 + 2 * i for i, n in enumerate(names)}
    pictures = (tmp_path / "in-defects" / "overlays").rglob("*.jpg")
    assert {p.relative_to(tmp_path / "in-defects" / "overlays").as_posix() for p in pictures} == {
        f"{name}.jpg" for name in names
    }


def test_parts_grow_with_the_folder_and_cost_nothing(toy, source, output, monkeypatch):
    run_all(source)
    before = table_bytes(output)
    computed(toy)
    monkeypatch.setattr(plans, "IMAGES_PER_SHARD", 1)
    assert run_all(source) == DONE
    assert computed(toy) == []
    assert table_bytes(output) == before
    assert len(list((output / ".defectpipe" / "tables").glob("*-of-004.json"))) > 1
    assert not list((output / ".defectpipe" / "tables").glob("*-of-001*"))


def test_labels_are_scored_and_a_changed_label_costs_no_computation(toy, source, output, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for i in range(3):
        # Rows, columns, from 1: the first disc of each image, tight.
        x = 40 + 4 * i
        (labels / f"field {i}.txt").write_text(f"{50 - 12 + 1} {x - 12 + 1} {50 + 12 + 2} {x + 12 + 2}\n")
    (labels / "nobody.txt").write_text("10 10 30 30\n")
    (tmp_path / "settings.json").write_text('{"labels": {"box_convention": "tight"}}')
    given = {"labels_dir": str(labels), "label_format": "boxes", "settings": str(tmp_path / "settings.json")}
    assert run_all(source, **given) == DONE
    images = read_csv(output / "images.csv").set_index("image")
    assert list(images["n_labels"])[:3] == [1, 1, 1]
    assert pd.isna(images.loc["field 3.tif", "n_labels"])
    assert list(images["recall"])[:3] == [1, 1, 1]
    assert list(images["precision"])[:3] == [0.5, 0.5, 0.5]
    evaluation = json.loads((output / "evaluation.json").read_text())
    assert evaluation["iou_0.4"]["recall"] == 1
    assert evaluation["labels"]["unmatched_labels"] == ["nobody.txt"]
    assert evaluation["labels"]["unlabelled_images"] == ["field 3.tif"]
    computed(toy)
    pictures = {path.name: path.stat().st_mtime_ns for path in (output / "overlays").iterdir()}
    (labels / "field 0.txt").write_text("")
    assert run_all(source, **given) == DONE
    assert computed(toy) == []
    images = read_csv(output / "images.csv").set_index("image")
    assert images.loc["field 0.tif", "n_labels"] == 0
    assert images.loc["field 0.tif", "precision"] == 0
    redrawn = [name for name, then in pictures.items() if (output / "overlays" / name).stat().st_mtime_ns != then]
    assert redrawn == ["field 0.tif.jpg"]
    assert run_all(source) == DONE
    assert not (output / "evaluation.json").exists()
    assert read_csv(output / "images.csv")["n_labels"].isna().all()


def test_a_broken_label_file_costs_its_image_and_fails_the_run_at_the_end(toy, source, output, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "field 0.txt").write_text("39 29 64 54\n")
    (labels / "field 1.txt").write_text("39 29 64 5400\n")
    assert run_all(source, labels_dir=str(labels), label_format="boxes") == LuigiStatusCode.FAILED
    images = read_csv(output / "images.csv").set_index("image")
    assert images.loc["field 0.tif", "n_labels"] == 1
    assert pd.isna(images.loc["field 1.tif", "n_labels"])
    assert list(images["status"]) == ["ok"] * 4
    assert "field 1.txt" in (output / "run.log").read_text().split("label files failed")[1]


def test_labels_of_images_that_all_fail(toy, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_text("no image")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("10 10 30 30\n")
    given = {"labels_dir": str(tmp_path / "labels"), "label_format": "boxes"}
    assert run_all(tmp_path / "in", **given) == LuigiStatusCode.FAILED
    assert list(read_csv(tmp_path / "in-defects" / "images.csv")["status"]) == ["failed"]
    evaluation = json.loads((tmp_path / "in-defects" / "evaluation.json").read_text())
    assert evaluation["iou_0.4"]["recall"] is None
    assert evaluation["labels"]["unmatched_labels"] == []


def test_an_output_folder_that_cannot_be_written_is_said(toy, source, output, caplog):
    output.write_text("in the way")
    assert run_all(source) == LuigiStatusCode.FAILED
    assert "cannot be written" in caplog.text


def test_a_stage_stands_alone(toy, source, output):
    assert build(DetectCandidates(input_dir=str(source), engine="inline")).status == DONE
    assert computed(toy) == lines(("candidates",), *(f"field {i}.tif" for i in range(4)))
    assert build(MeasureLoops(input_dir=str(source), engine="inline")).status == DONE
    assert computed(toy) == lines(("screening", "measurement"), *(f"field {i}.tif" for i in range(4)))
    assert not (output / "loops.csv").exists()


def test_the_input_is_not_touched_and_results_inside_it_are_not_read(toy, source):
    before = {path: path.read_bytes() for path in source.rglob("*")}
    for _ in range(2):
        assert run_all(source, output_dir=str(source / "results")) == DONE
    assert len(read_csv(source / "results" / "images.csv")) == 4
    assert {path: path.read_bytes() for path in source.glob("*.tif")} == before


def test_an_empty_folder_and_a_wrong_parameter_are_failures(toy, tmp_path):
    (tmp_path / "in").mkdir()
    assert run_all(tmp_path / "in") == LuigiStatusCode.FAILED
    assert "looks like a micrograph" in (tmp_path / "in-defects" / "run.log").read_text()
    assert run_all(tmp_path / "missing") == LuigiStatusCode.FAILED
    assert not (tmp_path / "missing-defects").exists()


def test_an_image_is_decoded_once_to_be_analysed_and_once_to_be_drawn(toy, source, output, tmp_path, monkeypatch):
    from defectpipe.io import micrographs

    decoded: list[str] = []
    plain = micrographs.read_micrographs

    def counting(file, **how):
        decoded.append(how["image"])
        return plain(file, **how)

    monkeypatch.setattr(micrographs, "read_micrographs", counting)
    write_blobs(source / "field 4.tif", [(80, 60, 20)])
    assert run_all(source) == DONE
    assert (output / "report.html").is_file()
    every = [f"field {i}.tif" for i in range(5)]
    assert sorted(decoded) == sorted(2 * every)
    computed(toy)
    # All wait for one stage, one of them for more: each is read once for what it needs.
    decoded.clear()
    write_blobs(source / "field 4.tif", [(80, 60, 22)])
    (tmp_path / "settings.json").write_text('{"screening": {"threshold": 0.65}}')
    assert run_all(source, settings=str(tmp_path / "settings.json")) == DONE
    assert sorted(decoded) == sorted(2 * every)
    assert computed(toy) == sorted(lines(STAGES, "field 4.tif") + lines(STAGES[1:], *every[:4]))
