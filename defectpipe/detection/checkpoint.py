"""Where the training of a cascade stands after a stage, and how that is kept: a killed training goes on from there."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectpipe.detection.boosting import Stage, Stump


@dataclass(frozen=True)
class StageReport:
    """What a stage did, for the progress bar and the card."""

    stage: int
    n_positives: int
    n_negatives: int
    n_stumps: int
    hit_rate: float
    false_alarm_rate: float
    acceptance: float


@dataclass(frozen=True, eq=False)
class Standing:
    """The stages that are trained, what each did, and the state of the random numbers after the last."""

    stages: tuple[Stage, ...]
    reports: tuple[StageReport, ...]
    random_state: dict[str, Any]

    def to_json(self) -> bytes:
        """All of it as JSON, to the last bit."""
        stages = [
            {
                "threshold": float(stage.threshold),
                "stumps": [
                    [s.feature, np.packbits(s.subset).tobytes().hex(), float(s.inside), float(s.outside)]
                    for s in stage.stumps
                ],
            }
            for stage in self.stages
        ]
        reports = [dataclasses.asdict(report) for report in self.reports]
        return json.dumps({"stages": stages, "reports": reports, "random_state": self.random_state}).encode()

    @classmethod
    def of_json(cls, data: bytes) -> Standing | None:
        """What `to_json` gave; None where it is anything else: the training then begins anew."""
        try:
            found = json.loads(data)
            stages = tuple(
                Stage(tuple(_stump(*row) for row in stage["stumps"]), np.float32(stage["threshold"]))
                for stage in found["stages"]
            )
            reports = tuple(StageReport(**report) for report in found["reports"])
            return cls(stages, reports, dict(found["random_state"]))
        except (ValueError, TypeError, KeyError):
            return None


def _stump(feature: int, subset: str, inside: float, outside: float) -> Stump:
    codes = np.unpackbits(np.frombuffer(bytes.fromhex(subset), np.uint8)).astype(bool)
    return Stump(feature, codes, np.float32(inside), np.float32(outside))
