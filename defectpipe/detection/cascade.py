"""A trained cascade: stages of LBP stumps, and how they judge windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from defectpipe.detection.boosting import PASS_MARGIN, Stage
from defectpipe.detection.judging import judge_block
from defectpipe.detection.lbp import window_blocks


@dataclass(frozen=True, eq=False)
class PackedCascade:
    """The stages as flat arrays, for compiled loops."""

    first_stump: np.ndarray  # int32 (stages + 1,)
    features: np.ndarray  # int32 (stumps, 4)
    tables: np.ndarray  # float32 (stumps, 256)
    thresholds: np.ndarray  # float32 (stages,)

    @cached_property
    def judged_by(self) -> tuple[np.ndarray, ...]:
        """What `judging.judge_block` takes after the offsets."""
        return self.first_stump, self.tables, self.thresholds


@dataclass(frozen=True, eq=False)
class Cascade:
    """Stages over the features of a square window.

    Parameters
    ----------
    window_px : int
        Side of the window.
    features : ndarray of int32, shape (n, 4)
        x, y, cell width, cell height of each feature.
    stages : tuple of Stage
    """

    window_px: int
    features: np.ndarray
    stages: tuple[Stage, ...] = field(default=())

    @cached_property
    def packed(self) -> PackedCascade:
        """Flat arrays of all stages."""
        stumps = [stump for stage in self.stages for stump in stage.stumps]
        counts = [len(stage.stumps) for stage in self.stages]
        used = np.array([stump.feature for stump in stumps], np.int64)
        return PackedCascade(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            self.features[used].reshape(-1, 4),
            np.array([stump.table() for stump in stumps], np.float32).reshape(-1, 256),
            np.array([np.float32(stage.threshold) - PASS_MARGIN for stage in self.stages], np.float32),
        )

    def judge(self, windows: np.ndarray) -> np.ndarray:
        """Stages that each window passes.

        Parameters
        ----------
        windows : ndarray of uint8, shape (n, window_px, window_px)

        Returns
        -------
        ndarray of int32, shape (n,)
            A window passes the cascade when this equals the number of stages.
        """
        packed = self.packed
        passed = np.zeros(len(windows), np.int32)
        for part, integrals, offsets in window_blocks(windows, packed.features):
            n = part.stop - part.start
            places, margins = np.arange(n, dtype=np.uint64), np.empty(n)
            judge_block(integrals, n, places, offsets, *packed.judged_by, passed[part], margins)
        return passed
