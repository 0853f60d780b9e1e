"""What a focus score means for a loop model: the thresholds were measured, and are kept with that model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

OK, REVIEW, REJECT = "ok", "review", "reject"


@dataclass(frozen=True)
class FocusGate:
    """Thresholds on the focus score.

    Parameters
    ----------
    reject_below, ok_from : float
        Below the first an image is rejected, from the second on it is ok, between them it is for review.
    """

    reject_below: float
    ok_from: float

    @classmethod
    def of_card(cls, card: dict[str, Any], focus_sha256: str) -> FocusGate | None:
        """The gate in a loop model's card; None where there is none, or where it is another focus model's."""
        section = card.get("focus_gate") or {}
        if "ok_from" not in section or section["focus_model"]["sha256"] != focus_sha256:
            return None
        return cls(float(section["reject_below"]), float(section["ok_from"]))

    def doubt(self, score: float | None, state: str, reason: str) -> str:
        """Why an image is not ok, in a few words; empty where it is, or where nothing can be said."""
        judged = self.judge(score, state)
        if judged == REJECT:
            return f"out of focus (score {score:.1f}, below {self.reject_below:.1f}): left out of the pooled figures"
        if judged == REVIEW and state == "scored":
            return f"focus score {score:.1f}, below {self.ok_from:.1f}: loops may be missed"
        return f"focus: {reason}" if judged == REVIEW else ""

    def judge(self, score: float | None, state: str) -> str:
        """``ok``, ``review`` or ``reject``; empty where the score is not calibrated for the image.

        Parameters
        ----------
        score : float or None
        state : str
            See `assessment.FocusAssessment`: an image without anything to judge by is for review, a constant one, of
            score 0, is rejected.
        """
        if score is None or not math.isfinite(score):
            return REVIEW if state == "cannot_be_judged" else ""
        return REJECT if score < self.reject_below else REVIEW if score < self.ok_from else OK


def judged_frames(frames: Iterable[Mapping[str, Any]], gate: FocusGate | None) -> dict[int, dict[str, Any]]:
    """What the tables say of the focus of each frame.

    Parameters
    ----------
    frames : iterable of mapping
        Of each frame ``frame``, ``focus_score``, ``focus_state``, ``focus_reason`` and more, which is kept.
    gate : FocusGate or None

    Returns
    -------
    dict
        By frame: what was given, with ``focus_gate`` and ``focus_doubt``, which are empty without a gate.
    """
    found = {}
    for facts in frames:
        score, state = facts["focus_score"], facts["focus_state"]
        judged, doubt = (
            ("", "")
            if gate is None
            else (
                gate.judge(score, state),
                gate.doubt(score, state, facts["focus_reason"]),
            )
        )
        found[int(facts["frame"])] = {**facts, "focus_gate": judged, "focus_doubt": doubt}
    return found
