"""The predicted F1: what it is made from, what it says, and that it is judged on what it never saw."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.card_check import check_card
from defectpipe.errors import ModelError
from defectpipe.io.tables import labels_table, loops_table
from defectpipe.model import LoopModel
from defectpipe.settings import Settings
from defectpipe.statistics.images import image_row
from defectpipe.statistics.predicted_f1 import FEATURES, F1Predictor, Prediction, predict_frame, score_features
from defectpipe.statistics.scoring import f1_of
from defectpipe.training.figures import HeldOut
from defectpipe.training.predicted_f1 import (
    JudgedImages,
    counting_error,
    fit_predictor,
    fit_spread,
    judge_images,
    leave_fold_out,
    leave_fold_out_figures,
    predicted_f1_card,
)

MODELS = Path(__file__).resolve().parents[1] / "models"
THRESHOLD = 0.5
FACTS = {
    "frame": 0,
    "height_px": 500,
    "width_px": 700,
    "analysed_shape_px": (480, 700),
    "analysed_top_px": 20,
    "analysed_area_px2": 480 * 700,
    "pixel_size_nm": 0.5,
    "pixel_size_source": "argument",
    "magnification": None,
    "constant": False,
    "notes": [],
}


def simulated(n: int, seed: int, n_loops: int = 60, blur: float = 0.0) -> JudgedImages:
    """Images whose loops are true with the probability that their score says, and whose quality differs."""
    rng = np.random.default_rng(seed)
    rows, scores, loops = [], [], []
    while len(rows) < n:
        i = len(rows)
        quality = rng.normal(0.6 - blur, 0.8)
        z = rng.normal(quality, 1.0, n_loops)
        z = z[z > -1.7]
        is_true = rng.random(len(z)) < 1 / (1 + np.exp(-1.3 * z))
        if not is_true.any() and not (z >= np.log(THRESHOLD / (1 - THRESHOLD))).any():
            continue  # an image without labels and loops has no F1
        s = 1 / (1 + np.exp(-z))
        kept = s >= THRESHOLD
        counts = np.array([is_true.sum(), (is_true & kept).sum(), kept.sum(), (is_true & kept).sum()])
        names = ("n_labels", "n_found", "n_loops", "n_true")
        row = {"image": f"{i}", "group": f"g{i % 6}", "fold": i % 3, "degraded": blur > 0, "threshold": THRESHOLD}
        rows.append(row | dict(zip(names, counts, strict=True)) | {"f1": float(f1_of(counts)), "pixel_size_ratio": 1.0})
        scores.append(s)
        loops.append(pd.DataFrame({"fold": i % 3, "screening_score": s, "is_true": is_true}))
    return JudgedImages(pd.DataFrame(rows), scores, pd.concat(loops, ignore_index=True))


def joined(a: JudgedImages, b: JudgedImages) -> JudgedImages:
    return JudgedImages(pd.concat([a.rows, b.rows], ignore_index=True), a.scores + b.scores, a.loops)


def test_features_are_what_they_say() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2])
    found = dict(zip(FEATURES, score_features(scores, 0.5, scores, 2.0), strict=True))
    assert found["expected_f1"] == pytest.approx(2 * 2.4 / (3 + 2.9))
    assert found["mean_logit"] == pytest.approx(np.log([9, 4, 7 / 3]).mean())
    assert found["log_loops"] == pytest.approx(np.log(4))
    assert found["log_listed"] == pytest.approx(np.log(6))
    assert found["log_pixel_size"] == pytest.approx(np.log(2))
    empty = score_features(np.zeros(0), 0.5, np.zeros(0), None)
    assert np.isfinite(empty).all()
    assert empty[0] == 0


def test_the_calibration_is_found_again() -> None:
    predictor = fit_predictor(simulated(150, 1))
    assert predictor.calibration == pytest.approx([0, 1.3], abs=0.1)


def test_it_predicts_better_than_the_mean_and_no_better_than_counting_allows() -> None:
    figures = predicted_f1_card(simulated(150, 2))["validation"]["plain"]
    assert figures["gain"] > 0.3
    assert figures["mae"] < figures["mae_of_the_mean"]
    assert figures["correlation"] > 0.6
    assert figures["coverage"] == pytest.approx(0.9, abs=0.06)


def test_a_fold_is_predicted_from_the_others_alone() -> None:
    judged = simulated(60, 3)
    before = leave_fold_out(judged)
    changed = judged.rows.assign(f1=np.where(judged.folds == 1, 0.0, judged.f1))
    after = leave_fold_out(JudgedImages(changed, judged.scores, judged.loops))
    np.testing.assert_array_equal(before[judged.folds == 1], after[judged.folds == 1])
    assert np.abs(before - after)[judged.folds != 1].min() > 0


def test_where_scores_say_nothing_the_gain_is_none() -> None:
    judged = simulated(120, 4)
    shuffled = np.random.default_rng(0).permutation(len(judged.scores))
    mixed = JudgedImages(judged.rows, [judged.scores[i] for i in shuffled], judged.loops)
    assert leave_fold_out_figures(mixed, np.ones(len(shuffled), bool))["gain"] < 0.08


def test_counting_alone_errs_less_with_more_loops() -> None:
    few, many = counting_error(simulated(60, 5, n_loops=15).rows), counting_error(simulated(60, 5, n_loops=240).rows)
    assert few == pytest.approx(4 * many, rel=0.4)


def test_the_spread_of_errors_is_found_again() -> None:
    rng = np.random.default_rng(6)
    n_loops = rng.integers(0, 80, 4000).astype(float)
    errors = rng.normal(0, np.sqrt(0.002 + 0.2 / (n_loops + 1)))
    variance, per_loop, width = fit_spread(errors, n_loops)
    assert variance == pytest.approx(0.002, abs=0.0015)
    assert per_loop == pytest.approx(0.2, rel=0.15)
    assert width == pytest.approx(1.645, abs=0.1)


def test_degraded_images_are_judged_beside_the_plain_ones() -> None:
    card = predicted_f1_card(joined(simulated(60, 7), simulated(60, 8, blur=1.5)))
    assert card["n_images"] == card["n_degraded_images"] == 60
    assert card["validation"]["plain"]["n_images"] == 60
    assert card["validation"]["plain_and_degraded"]["n_images"] == 120
    assert card["validation"]["plain_and_degraded"]["mae_of_the_mean"] > card["validation"]["plain"]["mae_of_the_mean"]


def test_too_little_makes_no_predictor() -> None:
    assert "20 in 3 folds" in predicted_f1_card(simulated(12, 9))["skipped"]
    two = simulated(60, 9)
    two.rows["fold"] %= 2
    assert "2 folds" in predicted_f1_card(two)["skipped"]


def test_held_out_tables_are_judged_with_the_thresholds_of_their_folds() -> None:
    def box(x: float) -> dict[str, float]:
        size = {"diameter_px": 20.0, "minor_px": 20.0, "angle_deg": 0.0}
        return {"x_px": x, "y_px": 50.0, "x0_px": x - 10, "y0_px": 40, "x1_px": x + 10, "y1_px": 60} | size

    def loop(image: str, x: float, score: float, on_edge: bool = False) -> dict[str, object]:
        return {"image": image, "screening_score": score, "fit_quality": 0.5, "on_edge": on_edge} | box(x)

    loops = [loop("a", 50, 0.7), loop("a", 120, 0.5), loop("a", 200, 0.1), loop("a", 8, 0.9, True)]
    held_out = HeldOut(
        {"a": (100, 300), "b": (100, 300), "c": (100, 300)},
        {"a": labels_table([box(50), box(120)]), "b": labels_table(), "c": labels_table([box(50)])},
        {"a": "x", "b": "y", "c": "y"},
        {"a": 0, "b": 1, "c": 1},
        loops_table(loops),
        pd.DataFrame(),
        "tight",
    )
    blurred = {"n_labels": 2, "n_found": 0, "n_loops": 0, "n_true": 0, "screening_scores": [0.2]}
    degraded = pd.DataFrame([{"image": "a", "added_sigma_px": s} | blurred for s in (0.0, 3.0)])
    judged = judge_images(held_out, {0: 0.6, 1: 0.5}, {"a": 0.5, "b": None, "c": 0.25}, 0.25, degraded)
    assert judged.rows["image"].tolist() == ["a", "c", "a"]
    assert judged.rows["degraded"].tolist() == [False, False, True]
    assert judged.f1 == pytest.approx([2 / 3, 0, 0])
    assert judged.rows["pixel_size_ratio"].tolist() == [2, 1, 2]
    assert [s.tolist() for s in judged.scores] == [[0.7, 0.5], [], [0.2]]
    assert judged.loops["is_true"].tolist() == [True, True]


def test_a_card_keeps_the_predictor_and_a_damaged_one_is_refused() -> None:
    model = LoopModel.load(MODELS / "fecral-loops")
    card = model.card
    made = fit_predictor(simulated(60, 10))
    kept = F1Predictor.from_card(json.loads(json.dumps(made.to_card())))
    scores = np.linspace(0.2, 0.9, 30)
    before, after = made.predict(scores, 0.5, 1.0), kept.predict(scores, 0.5, 1.0)
    assert before is not None
    assert after is not None
    assert (after.f1, after.low, after.high) == pytest.approx((before.f1, before.low, before.high), abs=1e-4)
    for damage in (
        {"calibration": [1.0]},
        {"calibration": [1.0, float("nan")]},
        {"line": made.to_card()["line"] | {"scales": {"anchor_logit": 0.0}}},
        {"line": made.to_card()["line"] | {"means": 3}},
        {"interval": {}},
    ):
        with pytest.raises(ModelError, match="predicted_f1"):
            check_card(card | {"predicted_f1": made.to_card() | damage}, Path("card.json"))
    line = made.to_card()["line"]
    lacking = made.to_card() | {"line": line | {"means": {}}}
    with pytest.raises(ModelError, match="lacks 'expected_f1'"):
        _ = dataclasses.replace(model, card=card | {"predicted_f1": lacking}).f1_predictor
    assert dataclasses.replace(model, card={"predicted_f1": {"skipped": "too few"}}).f1_predictor is None


def test_the_shipped_model_predicts() -> None:
    predictor = LoopModel.load(MODELS / "fecral-loops").f1_predictor
    assert predictor is not None
    good, poor = (predictor.predict(np.linspace(0.2, highest, 60), 0.53, 1.0) for highest in (0.88, 0.65))
    assert good is not None
    assert poor is not None
    assert poor.f1 < good.f1
    assert good.low < good.f1 < good.high
    odd = predictor.predict(np.full(30, 0.85), 0.53, 1.0)
    assert odd is not None
    assert "mean_logit" in odd.strange
    far = predictor.predict(np.linspace(0.2, 0.8, 40), 0.53, 30.0)
    assert far is not None
    assert far.strange == ("log_pixel_size",)


def test_an_empty_field_has_no_prediction_and_a_lost_one_has() -> None:
    predictor = fit_predictor(simulated(60, 11))
    assert predictor.predict(np.zeros(0), 0.5, 1.0) is None
    assert predictor.predict(np.array([0.2]), 0.5, 1.0) is None
    lost = predictor.predict(np.full(40, 0.4), 0.5, 1.0)
    assert lost is not None
    assert lost.f1 < 0.5


def screened(xs: list[float], y: float = 250.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"x0_px": [x - 15 for x in xs], "y0_px": y - 15, "x1_px": [x + 15 for x in xs], "y1_px": y + 15}
    ).assign(screening_score=0.8)


def test_what_the_border_cuts_and_what_a_person_corrected_is_left_out() -> None:
    predictor = fit_predictor(simulated(60, 12))
    given = (0.5, 0.5, 2.0)
    inner, more = screened([100, 200]), screened([100, 200, 5])
    assert predict_frame(predictor, inner, FACTS, *given) == predict_frame(predictor, more, FACTS, *given)
    # The strip above what was analysed counts as the border.
    high = pd.concat([inner, screened([300], y=36.0)])
    assert predict_frame(predictor, high, FACTS, *given) == predict_frame(predictor, inner, FACTS, *given)
    counts = {"n_moved": 0, "n_added": 0, "n_deleted": 1}
    assert predict_frame(predictor, inner, FACTS | counts, *given) is None


@pytest.mark.parametrize(
    ("predicted", "reason"),
    [
        (Prediction(0.8, 0.7, 0.9), ""),
        (Prediction(0.5, 0.4, 0.6), "predicted F1 0.50, below 0.65: compare it with labels before you trust it"),
        (
            Prediction(0.8, 0.7, 0.9, ("mean_logit", "expected_f1", "log_pixel_size")),
            "unlike the images that the model was judged on in how its loops score, its pixel size",
        ),
    ],
)
def test_an_image_that_should_not_be_trusted_is_for_review(predicted: Prediction, reason: str) -> None:
    row = image_row(FACTS, loops_table(), Settings(), predicted=predicted)
    assert row["status"] == ("review" if reason else "ok")
    assert row["reason"] == reason
    assert (row["predicted_f1"], row["predicted_f1_low"]) == (predicted.f1, predicted.low)
    assert image_row(FACTS, loops_table(), Settings())["predicted_f1"] is None
