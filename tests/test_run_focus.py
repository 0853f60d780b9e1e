"""Focus in a run, and for itself: columns, the gate, what is computed again, the page."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import ROOT, build, computed

from defectpipe.focus.model import FocusModel
from defectpipe.io.tables import read_csv
from tasks.focus import AssessFocus
from tasks.runall import RunAll

FOCUS = ROOT / "models" / "focus-stem"
SHARP, BLURRED, EMPTY = "<b>sharp</b>.tif", "blurred.tif", "flat.tif"


def _field(sigma_px: float) -> np.ndarray:
    """Dark discs and finer specks on a mottled ground, blurred, with noise added after the blur."""
    rng = np.random.default_rng(11)
    image = np.full((300, 420), 150.0) + 25 * cv2.GaussianBlur(rng.normal(0, 12, (300, 420)), (0, 0), 14)
    for x, y, r in rng.integers((10, 10, 3), (410, 290, 14), (60, 3)):
        cv2.circle(image, (int(x), int(y)), int(r), 60, 2)
    for x, y in ((80, 80), (330, 200)):
        cv2.circle(image, (x, y), 16, 0, -1)
    image = cv2.GaussianBlur(image, (0, 0), max(sigma_px, 0.7))
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, imagej=True, resolution=(1 / 0.3, 1 / 0.3), metadata={"unit": "nm", "axes": "YX"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    _write(folder / SHARP, _field(0.7))
    _write(folder / BLURRED, _field(7.0))
    _write(folder / EMPTY, np.full((300, 420), 120, np.uint8))
    return folder


@pytest.fixture
def gated(toy, monkeypatch: pytest.MonkeyPatch):
    """The toy model with a focus gate."""
    import toy_chain

    section = {
        "focus_model": {"name": str(FOCUS), "sha256": FocusModel.load(FOCUS).sha256},
        "reject_below": 4.5,
        "ok_from": 5.5,
    }
    monkeypatch.setattr(toy_chain.LoopModel, "focus_gate", section)
    return section


def run_all(source: Path, **parameters) -> LuigiStatusCode:
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def rows(output: Path):
    return read_csv(output / "images.csv").set_index("image")


def test_a_run_scores_gates_and_leaves_what_is_out_of_focus_out_of_the_pooled_figures(toy, gated, source, monkeypatch):
    import toy_chain

    output = source.with_name("in-defects")
    assert run_all(source) == LuigiStatusCode.SUCCESS
    table = rows(output)
    assert table.loc[SHARP, "focus_gate"] == "ok"
    assert table.loc[SHARP, "status"] == "ok"
    assert table.loc[BLURRED, "focus_gate"] == "reject"
    assert table.loc[BLURRED, "status"] == "review"
    assert "out of focus" in table.loc[BLURRED, "reason"]
    assert (table.loc[EMPTY, "focus_score"], table.loc[EMPTY, "focus_gate"]) == (0.0, "reject")
    assert table.loc[SHARP, "focus_score"] > table.loc[BLURRED, "focus_score"]
    assert table.loc[SHARP, "focus_blur_nm"] == pytest.approx(0.3 * table.loc[SHARP, "focus_blur_px"], rel=1e-3)
    # measured all the same
    assert table.loc[BLURRED, "n_loops"] >= 1
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["pooled"]["n_rejected"] == 2
    assert summary["pooled"]["n_loops"] == table.loc[SHARP, "n_loops"]
    assert summary["focus"]["rejected"] == sorted([BLURRED, EMPTY])
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "2 of 3 images are out of focus" in page
    assert "<b>sharp" not in page
    # another threshold costs no score and no loop
    computed(toy)
    before = {path: path.stat().st_mtime_ns for path in (output / ".defectpipe" / "focus").rglob("*.json")}
    monkeypatch.setattr(toy_chain.LoopModel, "focus_gate", gated | {"reject_below": 0.0, "ok_from": 0.0})
    assert run_all(source) == LuigiStatusCode.SUCCESS
    assert computed(toy) == []
    assert before == {path: path.stat().st_mtime_ns for path in (output / ".defectpipe" / "focus").rglob("*.json")}
    assert len(before) == 3
    assert set(rows(output)["focus_gate"]) == {"ok"}
    # a changed image costs its own score
    _write(source / BLURRED, _field(6.0))
    assert run_all(source) == LuigiStatusCode.SUCCESS
    after = {path: path.stat().st_mtime_ns for path in (output / ".defectpipe" / "focus").rglob("*.json")}
    assert sum(before[path] != after[path] for path in before) == 1
    # switched off, nothing of it is left
    settings = source.with_name("settings.json")
    settings.write_text('{"focus": {"model": "none"}}', encoding="utf-8")
    assert run_all(source, settings=str(settings)) == LuigiStatusCode.SUCCESS
    assert rows(output)["focus_score"].isna().all()
    assert not list((output / ".defectpipe" / "focus").rglob("*.json"))


def test_with_another_focus_model_there_are_scores_and_no_gate(toy, source, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"focus": {"model": str(FOCUS)}}), encoding="utf-8")
    assert run_all(source, settings=str(settings)) == LuigiStatusCode.SUCCESS
    table = rows(source.with_name("in-defects"))
    assert table.loc[SHARP, "focus_score"] > 5
    assert (table["focus_gate"].fillna("") == "").all()
    summary = json.loads((source.with_name("in-defects") / "summary.json").read_text(encoding="utf-8"))
    assert "card has none" in summary["focus"]["no_gate_because"]
    assert summary["pooled"]["n_rejected"] == 0


def test_a_model_whose_training_found_no_focus_model_runs_without_and_says_so(toy, source, tmp_path, monkeypatch):
    import toy_chain

    section = {"focus_model": {"name": "gone", "sha256": None}, "skipped": "the focus model 'gone' could not be used"}
    monkeypatch.setattr(toy_chain.LoopModel, "focus_gate", section)
    output = source.with_name("in-defects")
    assert run_all(source) == LuigiStatusCode.SUCCESS
    assert rows(output)["focus_score"].isna().all()
    assert "focus: not assessed, for in the model's training the focus model 'gone'" in (output / "run.log").read_text(
        encoding="utf-8"
    )
    # with one that is named there are scores, and the reason stands beside them
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"focus": {"model": str(FOCUS)}}), encoding="utf-8")
    assert run_all(source, settings=str(settings)) == LuigiStatusCode.SUCCESS
    assert rows(output).loc[SHARP, "focus_score"] > 5
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["focus"]["no_gate_because"] == section["skipped"]


def test_a_folder_by_itself_gives_a_table_and_a_page_that_loads_nothing(toy, source):
    (source / "broken.tif").write_bytes(b"II*\0 no image")
    task = AssessFocus(input_dir=str(source), engine="inline", focus_model=str(FOCUS))
    # a file that cannot be read fails the run, after everything is written
    assert build(task).status == LuigiStatusCode.FAILED
    output = source.with_name("in-focus")
    table = read_csv(output / "focus.csv")
    assert list(table["image"]) == [EMPTY, BLURRED, SHARP, "broken.tif"]
    assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]
    page = (output / "focus.html").read_text(encoding="utf-8")
    assert page.index("blurred.tif") < page.index("&lt;b&gt;sharp")
    assert page.count("<svg") == 3
    assert "<b>sharp" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert computed(toy) == []
