"""The focus gate: a curve with a known place where a tenth of F1 is lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.focus.gate import FocusGate
from defectpipe.focus.model import FocusModel
from defectpipe.model import LoopModel
from defectpipe.simulation.defocused import defocus
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.training import TrainingRecipe
from defectpipe.training.figures import HeldOut
from defectpipe.training.focus_gate import focus_gate, judged_fields, measure_focus_gate
from defectpipe.training.workspace import PartJob

MODELS = Path(__file__).resolve().parents[1] / "models"


def _degraded(n_groups: int = 12, per_group: int = 3, knee: float = 6.0, n_labels: int = 100) -> pd.DataFrame:
    """Images whose F1 is 0.8 above the knee and falls in a line to 0 at score 1."""
    rng, rows = np.random.default_rng(5), []
    for i in range(n_groups * per_group):
        for level, score in enumerate(np.linspace(9.8, 1.2, 9) + rng.normal(0, 0.02, 9)):
            f1 = 0.8 * np.clip((score - 1) / (knee - 1), 0, 1)
            rows.append(
                {
                    "image": f"i{i}",
                    "group": f"g{i % n_groups}",
                    "focus_score": score,
                    "n_labels": n_labels,
                    "n_loops": n_labels,
                    "n_true": f1 * n_labels,
                    "matched_diameter_relative_error": 0.02 * level,
                }
            )
    return pd.DataFrame(rows)


def test_the_tenth_is_lost_where_it_is():
    gate = focus_gate(_degraded(), "focus-x", "0" * 64)
    # 0.9 of the way from 1 to the knee
    assert gate["lost_tenth_at"] == pytest.approx(5.5, abs=0.2)
    assert gate["plateau_f1"] == pytest.approx(0.8, abs=0.01)
    assert gate["reject_below"] < gate["lost_tenth_at"] < gate["ok_from"]
    assert gate["ok_from"] - gate["reject_below"] < 1.5
    assert gate["focus_model"] == {"name": "focus-x", "sha256": "0" * 64}
    curve = pd.DataFrame(gate["curve"])
    assert curve["f1"].is_monotonic_increasing
    assert (curve["f1_ci_low"] <= curve["f1"]).all()
    assert (curve["f1"] <= curve["f1_ci_high"]).all()
    # the blurrier, the larger the error of the diameters
    assert curve["diameter_relative_error"].iloc[0] > curve["diameter_relative_error"].iloc[-1]


def test_groups_that_differ_widen_what_is_for_review():
    even, torn = _degraded(), _degraded()
    late = torn["group"].isin(["g0", "g1", "g2", "g3"])
    torn.loc[late, "n_true"] = 80 * np.clip((torn.loc[late, "focus_score"] - 5) / 4, 0, 1)
    narrow, wide = (focus_gate(table, "f", "0") for table in (even, torn))
    assert wide["ok_from"] - wide["reject_below"] > narrow["ok_from"] - narrow["reject_below"]


def test_no_gate_without_enough_images_or_loops():
    assert "too few" in focus_gate(_degraded(2, 2), "f", "0")["skipped"]
    assert "too few" in focus_gate(_degraded(n_labels=1), "f", "0")["skipped"]
    # Without a single pair there is no error either.
    blind = _degraded().assign(n_true=0, matched_diameter_relative_error=np.nan)
    assert "finds nothing" in focus_gate(blind, "f", "0")["skipped"]
    unscored = _degraded().assign(focus_score=np.nan)
    assert "too few" in focus_gate(unscored, "f", "0")["skipped"]


@pytest.mark.parametrize(
    ("score", "state", "judged"),
    [
        (9.0, "scored", "ok"),
        (6.0, "scored", "ok"),
        (5.99, "scored", "review"),
        (4.0, "scored", "review"),
        (3.99, "scored", "reject"),
        (0.0, "cannot_be_judged", "reject"),
        (None, "cannot_be_judged", "review"),
        (None, "not_calibrated", ""),
    ],
)
def test_what_the_gate_says_of_an_image(score, state, judged):
    gate = FocusGate(4.0, 6.0)
    assert gate.judge(score, state) == judged
    assert bool(gate.doubt(score, state, "why")) == (judged in ("review", "reject"))


def test_a_gate_holds_for_its_focus_model_only():
    card = {"focus_gate": {"focus_model": {"name": "f", "sha256": "a"}, "reject_below": 4.0, "ok_from": 6.0}}
    assert FocusGate.of_card(card, "a") == FocusGate(4.0, 6.0)
    assert FocusGate.of_card(card, "b") is None
    assert FocusGate.of_card({}, "a") is None
    assert FocusGate.of_card({"focus_gate": {"focus_model": {"name": "f", "sha256": "a"}, "skipped": "x"}}, "a") is None


def _unmeasured(name: str) -> dict:
    part = PartJob(Path("unused"), (), 0, None, TrainingRecipe(focus_model=name), 0)
    nothing = HeldOut({}, {}, {}, {}, pd.DataFrame(), pd.DataFrame(), "tight")
    section, degraded = measure_focus_gate([part], nothing, {}, {}, 1)
    assert degraded is None
    return section


def test_a_focus_model_that_cannot_be_used_is_told_with_the_reason(tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(MODELS / "focus-stem", damaged)
    network = damaged / "network.onnx"
    network.write_bytes(network.read_bytes()[:-200])
    for name, called, why in (
        ("no-such-model", "no-such-model", "There is no model"),
        (str(damaged), "damaged", "network.onnx"),
    ):
        section = _unmeasured(name)
        assert section["focus_model"] == {"name": called, "sha256": None}
        assert why in section["skipped"]
        assert FocusGate.of_card({"focus_gate": section}, "a") is None
    assert _unmeasured("none") is None


def test_a_loop_model_keeps_that_reason_in_its_card(tmp_path):
    folder = tmp_path / "loops"
    shutil.copytree(MODELS / "fecral-loops", folder, ignore=shutil.ignore_patterns("held-out"))
    card = json.loads((folder / "card.json").read_text())
    card["focus_gate"] = _unmeasured("no-such-model")
    (folder / "card.json").write_text(json.dumps(card))
    assert LoopModel.load(folder).focus_gate == card["focus_gate"]


def test_false_alarms_are_counted_on_fields_as_they_are():
    preset = PRESETS["demo"]
    fields = [simulate_field(preset, 4, i).micrograph for i in range(2)]
    blurred = defocus(fields[0].grey8(), 9.0, np.random.default_rng(0))
    flat = np.full_like(blurred, 90)
    given = [
        ("a", fields[0]),
        ("b", fields[1]),
        ("b", dataclasses.replace(fields[0], pixels=blurred)),
        ("c", dataclasses.replace(fields[0], pixels=flat)),
    ]
    found = judged_fields(iter(given), FocusModel.load(MODELS / "focus-stem"), FocusGate(2.0, 6.0))
    assert (found["n_images"], found["n_ok"], found["n_not_judged"]) == (4, 2, 0)
    assert found["n_review"] + found["n_reject"] == 2
    assert found["n_reject"] >= 1
    assert found["share_not_ok"] == 0.5
    assert found["groups_not_ok"] == {"b": [1, 2], "c": [1, 1]}
