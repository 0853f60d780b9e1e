"""A finished run read again: equal to its own tables, and to those of a run with another threshold."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_helpers import build

from defectpipe.errors import MicrographError, ModelError, RunFolderError
from defectpipe.io.tables import IMAGE_COLUMNS, LOOP_COLUMNS, write_csv
from defectpipe.report.overlays import CANDIDATE_COLOUR
from defectpipe.review import RunFolder, agreement_of, at_threshold, sensitivity
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.loops.presets import PRESETS
from tasks.runall import RunAll

LOW = 0.2


def run_all(place: Path, name: str, **settings: float) -> Path:
    (place / f"{name}.json").write_text(json.dumps({"screening": settings}))
    out = place / name
    build(
        RunAll(
            input_dir=str(place / "set" / "images"),
            labels_dir=str(place / "set" / "labels.coco.json"),
            output_dir=str(out),
            settings=str(place / f"{name}.json"),
            engine="inline",
        )
    )
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small images and one that cannot be read, and two runs over them: as the model says, and with less."""
    place = tmp_path_factory.mktemp("review")
    preset = dataclasses.replace(PRESETS["demo"], shape=(300, 420))
    simulate_dataset("loops", 3, 2, preset, place / "set")
    (place / "set" / "images" / "broken.tif").write_bytes(b"")
    run_all(place, "run")
    run_all(place, "low", threshold=LOW)
    return place


@pytest.fixture(scope="module")
def run(place: Path) -> RunFolder:
    return RunFolder.open(place / "run")


def same(a: pd.DataFrame, path: Path, tmp_path: Path) -> bool:
    write_csv(a, tmp_path / path.name)
    return (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_run_is_read_with_what_it_kept(run, place):
    assert list(run.images.columns) == IMAGE_COLUMNS
    assert list(run.loops.columns) == LOOP_COLUMNS
    assert len(run.images) == 4
    assert len(run.analysed) == 3
    assert run.threshold == run.model.threshold
    assert set(run.screened["image"]) == set(run.analysed)
    assert len(run.screened) > run.screened["kept"].sum() == len(run.loops) > 0
    assert list(run.labels) == ["labels"]
    by_image = run.images.set_index("image")["n_labels"]
    assert [len(run.labels_of(image)) for image in run.analysed] == [by_image[image] for image in run.analysed]
    assert run.labels_of("broken.tif") is None
    assert run.micrograph(run.analysed[0]).shape == (300, 420)
    assert RunFolder.open(place / "low").threshold == LOW


def test_the_runs_own_threshold_gives_its_own_tables(run, tmp_path):
    chosen = at_threshold(run)
    assert same(chosen.images, run.path / "images.csv", tmp_path)
    assert same(chosen.loops, run.path / "loops.csv", tmp_path)
    pooled = run.summary["pooled"]
    assert chosen.pooled.keys() == pooled.keys()
    for name, value in pooled.items():
        # The run pools the rounded figures of images.csv and loops.csv.
        assert chosen.pooled[name] == (value if isinstance(value, str) else pytest.approx(value, rel=2e-4)), name
    assert agreement_of(run, chosen)["iou_0.4"] == run.evaluation["iou_0.4"]


@pytest.mark.parametrize("name", ["run", "low"])
def test_another_threshold_gives_the_tables_of_a_run_with_it(place, tmp_path, name):
    """Downwards what was refused is measured now; upwards the loops are filtered."""
    first, other = RunFolder.open(place / name), RunFolder.open(place / ("low" if name == "run" else "run"))
    chosen = at_threshold(first, other.threshold)
    assert len(first.loops) != len(other.loops)
    assert same(chosen.loops, other.path / "loops.csv", tmp_path)
    assert same(chosen.images, other.path / "images.csv", tmp_path)
    assert agreement_of(first, chosen)["iou_0.4"] == other.evaluation["iou_0.4"]


def test_loops_that_were_fitted_badly_can_be_left_out(run):
    limit = float(run.loops["fit_quality"].median())
    chosen = at_threshold(run, min_fit_quality=limit)
    assert 0 < len(chosen.loops) < len(run.loops)
    assert chosen.loops["fit_quality"].min() >= limit
    assert chosen.images["n_loops"].sum() == len(chosen.loops)
    image = run.analysed[0]
    assert chosen.of(image)["loop_id"].tolist() == list(range(1, len(chosen.of(image)) + 1))


def test_loops_on_the_border_can_be_counted(run):
    plain, chosen = at_threshold(run), at_threshold(run, count_border=True)
    assert plain.pooled["n_on_edge"] == chosen.pooled["n_on_edge"] > 0
    pd.testing.assert_frame_equal(plain.loops, chosen.loops)
    good = chosen.images[chosen.images["status"] != "failed"]
    assert good["n_on_edge"].tolist() == [run.loops["on_edge"][run.loops["image"] == i].sum() for i in good["image"]]
    per_m2 = good["n_loops"].astype(float) / (good["analysed_area_px2"] * (good["pixel_size_nm"] * 1e-9) ** 2)
    np.testing.assert_allclose(good["areal_density_per_m2"], per_m2)
    means = chosen.loops.groupby("image")["diameter_px"].mean()
    np.testing.assert_allclose(good["mean_diameter_px"], means[good["image"]])
    assert chosen.pooled["mean_diameter_px"] == pytest.approx(chosen.loops["diameter_px"].mean())
    # What the agreement says leaves the border out, and is the same.
    pd.testing.assert_series_equal(plain.images["recall"], chosen.images["recall"])


def test_the_figures_over_the_threshold(run):
    table = sensitivity(run, [LOW, run.threshold, 1.01])
    assert table["threshold"].tolist() == [LOW, run.threshold, 1.01]
    assert table["n_counted"].is_monotonic_decreasing
    assert table["n_counted"].tolist()[1:] == [(~run.loops["on_edge"]).sum(), 0]
    assert table["recall"][0] >= table["recall"][1] > table["recall"][2] == 0
    assert table["mean_diameter_nm"][1] == pytest.approx(run.summary["pooled"]["mean_diameter_nm"], rel=2e-4)
    assert table["areal_density_per_m2"][2] == 0
    assert np.isnan(table["mean_diameter_nm"].astype(float)[2])


def test_the_picture_shows_what_is_chosen(run):
    image = run.analysed[0]
    candidate = np.array([channel * 7 // 10 for channel in CANDIDATE_COLOUR])
    pictures = [
        run.overlay(image),
        run.overlay(image, at_threshold(run, 1.01).loops),
        run.overlay(image, candidates_below=run.threshold),
    ]
    faint = [int((np.abs(p[:-80].astype(int) - candidate).max(-1) < 12).sum()) for p in pictures]
    assert pictures[0].shape[1] == pictures[1].shape[1] == 768
    assert not np.array_equal(pictures[0][:400], pictures[1][:400])
    assert faint[2] > faint[0] + 100


def test_a_folder_that_is_no_run_is_refused(tmp_path, place):
    with pytest.raises(
        RunFolderError, match=r"not the output folder of a finished run \(images\.csv, loops\.csv, summ"
    ):
        RunFolder.open(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    (copy / "summary.json").write_text("{}")
    with pytest.raises(RunFolderError, match="cannot be read"):
        RunFolder.open(copy)


def test_what_was_moved_is_named(tmp_path, place):
    copy = tmp_path / "copy"
    shutil.copytree(place / "run", copy)
    with pytest.raises(RunFolderError, match="input_dir"):
        RunFolder.open(copy, input_dir=tmp_path / "gone").micrograph("broken.tif")
    (tmp_path / "empty").mkdir()
    moved = RunFolder.open(copy, input_dir=tmp_path / "empty")
    with pytest.raises(MicrographError, match="cannot be opened"):
        at_threshold(moved, LOW)
    with pytest.raises(RunFolderError, match=r"broken\.tif"):
        RunFolder.open(copy).micrograph("broken.tif")
    summary = json.loads((copy / "summary.json").read_text())
    summary["model"]["sha256"] = "0" * 64
    summary["run"]["labels_dir"] = None
    (copy / "summary.json").write_text(json.dumps(summary))
    other = RunFolder.open(copy)
    with pytest.raises(ModelError, match="not the model that the run was made with"):
        at_threshold(other, LOW)
    chosen = at_threshold(other)
    assert chosen.images["n_labels"].isna().all()
    with pytest.raises(RunFolderError, match="no labels"):
        agreement_of(other, chosen)
    shutil.rmtree(copy / ".defectpipe")
    with pytest.raises(RunFolderError, match="run it again"):
        at_threshold(RunFolder.open(copy))
