"""The measuring stage with a model's conventions: tight boxes, units, the uncertainty's settings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.analysis import BOX_COLUMNS, measure_loops, tight_boxes
from defectpipe.boxes import convert, ellipse_bounds, shrink
from defectpipe.card_check import check_card
from defectpipe.errors import ModelError
from defectpipe.io.tables import LOOP_COLUMNS
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.model import LoopModel
from defectpipe.settings import MeasurementSettings, Settings

CARD = Path(__file__).resolve().parents[1] / "models" / "fecral-loops" / "card.json"
ELLIPSE = (110.0, 90.0, 100.0, 80.0, 0.0)


def model(**fields: object) -> LoopModel:
    card = {"box_convention": "padded", "polarity": "dark", "box_spread": 0.25, "tight_scale": 0.8} | fields
    return LoopModel(Path("nowhere"), card, "", None)


def micrograph() -> Micrograph:
    rows, columns = np.mgrid[:180, :220].astype(float)
    radius = np.hypot((columns - ELLIPSE[0]) / 50, (rows - ELLIPSE[1]) / 40)
    noise = np.random.default_rng(0).normal(0, 8, radius.shape)
    picture = 150 - 60 * np.exp(-0.5 * ((radius - 1) / 0.06) ** 2) + noise
    return Micrograph(np.clip(picture, 0, 255).astype(np.uint8), "a.tif", calibration=Calibration(0.5, "test"))


def screened(boxes: np.ndarray, **columns: object) -> pd.DataFrame:
    scores = {"detection_score": 0.9, "screening_score": 0.8, "kept": True}
    return pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(**scores, **columns)


def test_boxes_are_made_tight_by_what_the_card_says_and_drawn_ones_by_the_rule() -> None:
    boxes = np.array([[10.0, 20.0, 60.0, 100.0], [0.0, 0.0, 30.0, 20.0]])
    by_rule, learned = convert(boxes, "padded", "tight"), shrink(boxes, 1 / 0.8)
    np.testing.assert_allclose(learned[0, 2:] - learned[0, :2], [40, 64])
    np.testing.assert_array_equal(tight_boxes(boxes, model()), learned)
    np.testing.assert_array_equal(tight_boxes(boxes, model(tight_scale=None)), by_rule)
    mixed = tight_boxes(boxes, model(), np.array([True, False]))
    np.testing.assert_array_equal(mixed, [by_rule[0], learned[1]])


def test_the_uncertainty_has_its_columns_its_unit_and_its_settings() -> None:
    boxes, m = shrink(ellipse_bounds(*ELLIPSE), 0.8), micrograph()
    with_expert = measure_loops(m, screened(boxes), model(), Settings())
    alone = measure_loops(
        m, screened(boxes), model(), Settings(measurement=MeasurementSettings(expert_scatter=0, expert_scatter_px=0))
    )
    assert list(with_expert.columns) == LOOP_COLUMNS
    row, other = with_expert.iloc[0], alone.iloc[0]
    assert row["diameter_px"] == other["diameter_px"] == pytest.approx(100, rel=0.02)
    assert row["diameter_uncertainty_nm"] == pytest.approx(0.5 * row["diameter_uncertainty_px"])
    assert other["diameter_uncertainty_px"] < 6 < 9 < row["diameter_uncertainty_px"] < 15
    unscaled = measure_loops(dataclasses.replace(m, calibration=None), screened(boxes), model(), Settings())
    assert unscaled["diameter_uncertainty_nm"].isna().all()
    assert unscaled["diameter_uncertainty_px"].notna().all()


def test_a_loop_that_a_person_drew_is_measured_in_the_box_of_the_rule() -> None:
    m = micrograph()
    boxes = convert(ellipse_bounds(*ELLIPSE), "tight", "padded")
    drawn = measure_loops(m, screened(boxes, drawn=True), model(tight_scale=0.6), Settings()).iloc[0]
    found = measure_loops(m, screened(boxes, drawn=False), model(tight_scale=0.6), Settings()).iloc[0]
    assert drawn["diameter_px"] == pytest.approx(100, rel=0.02)
    # 0.6 of the padded box is 31 % too small: box and rim disagree, and the uncertainty says it.
    assert found["diameter_uncertainty_px"] > 1.5 * drawn["diameter_uncertainty_px"]


@pytest.mark.parametrize("value", [0.0, 3.0, "0.8", True, float("nan")])
def test_a_card_whose_boxes_cannot_be_made_tight_is_refused(value: object) -> None:
    card = json.loads(CARD.read_text(encoding="utf-8"))
    check_card(card | {"tight_scale": 0.8}, CARD)
    check_card({k: v for k, v in card.items() if k != "tight_scale"}, CARD)
    with pytest.raises(ModelError, match="tight_scale"):
        check_card(card | {"tight_scale": value}, CARD)
