"""The focus gate: a curve with a known place where a tenth of F1 is lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from defectpipe.focus.gate import FocusGate
from defectpipe.training.focus_gate import focus_gate


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
    # Without a single pair there is no error either: a column of None.
    blind = _degraded().assign(n_true=0, matched_diameter_relative_error=None)
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
