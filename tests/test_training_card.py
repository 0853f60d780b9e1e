"""What a training writes into the card beside the model's figures: the focus gate and the predicted F1; and without.

The parts are not trained here: what they would have found is made up, with a truth that is known.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from run_helpers import build

from defectpipe.io.tables import labels_table, loops_table, read_csv, read_parquet, write_parquet
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.model import FILES, LoopModel
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.training import TrainingImage, TrainingRecipe, focus_gate, loop_model, train_loop_model
from defectpipe.training.part import CANDIDATES, LOOPS
from defectpipe.training.workspace import PartJob
from tasks.runall import RunAll

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "fecral-loops"
SHAPE, N_IMAGES, N_LABELS = (180, 260), 24, 12


def marked(index: int) -> pd.DataFrame:
    place = np.arange(N_LABELS)
    x, y = 30.0 + 60 * (place % 4), 30.0 + 60 * (place // 4)
    d = np.random.default_rng(index).uniform(14, 30, N_LABELS)
    box = {"x0_px": x - d / 2, "y0_px": y - d / 2, "x1_px": x + d / 2, "y1_px": y + d / 2}
    size = {"diameter_px": d, "minor_px": d, "angle_deg": 0.0}
    return labels_table(pd.DataFrame({"x_px": x, "y_px": y} | box | size))


def image(index: int) -> TrainingImage:
    rng = np.random.default_rng(index)
    pixels = rng.integers(60, 200, SHAPE, dtype=np.uint8)
    m = Micrograph(pixels, f"field-{index}.tif", calibration=Calibration(0.28, "test"))
    return TrainingImage(m, marked(index), f"specimen-{index % 6}")


def found(index: int) -> pd.DataFrame:
    """The labels, and as many objects elsewhere; scores tell them apart, in some fields better than in others."""
    rng = np.random.default_rng([index, 1])
    true = marked(index).drop(columns="label")
    false = true.copy()
    false[["x_px", "x0_px", "x1_px"]] += 30.0
    quality = rng.normal(0, 0.7)
    z = np.concatenate([rng.normal(1.5 + quality, 0.9, N_LABELS), rng.normal(-1.2 - quality, 0.9, N_LABELS)])
    table = pd.concat([true, false], ignore_index=True)
    known = {"frame": 0, "on_edge": False, "fit_quality": 0.8, "detection_score": 0.5}
    score = 1 / (1 + np.exp(-z))
    return loops_table(
        table.assign(image=f"field-{index}.tif", loop_id=np.arange(1, 25), screening_score=score, **known)
    )


def train_parts(jobs: Sequence[PartJob], _n_jobs: int) -> list[Path]:
    for job in jobs:
        job.folder.mkdir(parents=True)
        for name in FILES:
            shutil.copy(SHIPPED / name, job.folder / name)
        own = [int(one.image.split("-")[1].split(".")[0]) for one in job.held_out_images]
        if own:
            loops = pd.concat([found(index) for index in own], ignore_index=True).assign(fold=job.held_out)
            write_parquet(loops, job.folder / LOOPS)
            write_parquet(loops, job.folder / CANDIDATES)
    return [job.folder for job in jobs]


def rescaled(jobs: Sequence[PartJob], _scales: object, _n_jobs: int) -> pd.DataFrame:
    return pd.concat([read_parquet(job.folder / LOOPS) for job in jobs], ignore_index=True)


def degraded_runs(parts: Sequence[PartJob], *_rest: object) -> pd.DataFrame:
    """Half of the F1 is lost at score 4."""
    rows = []
    for part in parts:
        for one in part.held_out_images:
            index = int(one.image.split("-")[1].split(".")[0])
            for sigma, score in ((0.0, 9.8), (1.5, 8.0), (3.0, 6.0), (5.0, 4.0), (8.0, 2.0)):
                n_true = round(N_LABELS * min(1.0, score / 8))
                counts = {"n_labels": N_LABELS, "n_found": n_true, "n_loops": N_LABELS, "n_true": n_true}
                scores = (found(index)["screening_score"].to_numpy() * score / 9.8).tolist()
                known = {"image": one.image, "group": f"specimen-{index % 6}", "fold": part.held_out}
                error = {"matched_diameter_relative_error": 0.01 * sigma}
                rows.append(
                    known | counts | error | {"added_sigma_px": sigma, "focus_score": score, "screening_scores": scores}
                )
    return pd.DataFrame(rows)


def test_a_training_writes_the_gate_and_the_predicted_f1_into_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_model, "_train_parts", train_parts)
    monkeypatch.setattr(loop_model, "_rescaled", rescaled)
    monkeypatch.setattr(focus_gate, "degraded_runs", degraded_runs)
    images = [image(i) for i in range(N_IMAGES)]
    folder = train_loop_model(images, "made", tmp_path, recipe=TrainingRecipe(n_folds=3), n_jobs=1)
    card = json.loads((folder / "card.json").read_text())
    gate, predicted = card["focus_gate"], card["predicted_f1"]
    assert gate["focus_model"]["name"] == "focus-stem"
    assert gate["n_images"] == N_IMAGES
    assert 6 < gate["lost_tenth_at"] < 8
    assert gate["reject_below"] < gate["lost_tenth_at"] < gate["ok_from"]
    assert gate["fields_as_they_are"]["n_images"] == N_IMAGES
    assert (predicted["n_images"], predicted["n_degraded_images"]) == (N_IMAGES, 4 * N_IMAGES)
    assert set(predicted["validation"]) == {"plain", "plain_and_degraded"}
    assert predicted["validation"]["plain_and_degraded"]["gain"] > 0.1
    assert len(read_parquet(folder / "held-out" / "degraded.parquet")) == 5 * N_IMAGES
    # And what is written is what a run takes.
    model = LoopModel.load(folder)
    assert model.focus_gate == gate
    assert model.f1_predictor is not None
    few, many = (model.f1_predictor.predict(np.full(20, score), model.threshold, 1.0) for score in (0.55, 0.95))
    assert 0 <= few.f1 < many.f1 <= 1


@pytest.mark.slow
def test_a_card_without_them_is_a_model_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("held-out"))
    card = json.loads((folder / "card.json").read_text())
    del card["focus_gate"], card["predicted_f1"]
    (folder / "card.json").write_text(json.dumps(card))
    model = LoopModel.load(folder)
    assert model.focus_gate is None
    assert model.f1_predictor is None
    source = tmp_path / "in"
    source.mkdir()
    made = simulate_field(PRESETS["demo"], 3).micrograph
    nm = made.pixel_size_nm
    tifffile.imwrite(
        source / "a.tif", made.pixels, imagej=True, resolution=(1 / nm, 1 / nm), metadata={"unit": "nm", "axes": "YX"}
    )
    assert build(RunAll(input_dir=str(source), model=str(folder), engine="inline")).scheduling_succeeded
    [row] = read_csv(tmp_path / "in-defects" / "images.csv").to_dict("records")
    assert row["n_loops"] > 0
    assert row["status"] == "ok"
    assert pd.isna([row[name] for name in ("predicted_f1", "predicted_f1_low", "focus_score", "focus_blur_px")]).all()
    assert [row[name] for name in ("focus_gate", "focus_state")] == ["", ""]
    summary = json.loads((tmp_path / "in-defects" / "summary.json").read_text())
    assert not {"focus", "predicted_f1"} & set(summary)
    page = (tmp_path / "in-defects" / "report.html").read_text()
    assert "Focus: not assessed." in page
    assert "Predicted F1" not in page
