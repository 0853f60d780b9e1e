"""A trained cascade: stages of LBP stumps, and how they judge windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numba import njit

from defectpipe.detection.boosting import PASS_MARGIN, Stage
from defectpipe.detection.lbp import corner_offsets, integral_windows, lbp_code


@dataclass(frozen=True, eq=False)
class PackedCascade:
    """The stages as flat arrays, for compiled loops."""

    first_stump: np.ndarray  # int32 (stages + 1,)
    features: np.ndarray  # int32 (stumps, 4)
    tables: np.ndarray  # float32 (stumps, 256)
    thresholds: np.ndarray  # float32 (stages,)


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
        offsets = corner_offsets(packed.features, self.window_px + 1)
        return _stages_passed(integral_windows(windows), offsets, packed.first_stump, packed.tables, packed.thresholds)


@njit(cache=True)
def _stages_passed(
    integrals: np.ndarray, offsets: np.ndarray, first_stump: np.ndarray, tables: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    passed = np.zeros(integrals.shape[0], np.int32)
    for n in range(integrals.shape[0]):
        for s in range(len(thresholds)):
            total = 0.0
            for k in range(first_stump[s], first_stump[s + 1]):
                total += np.float64(tables[k, lbp_code(integrals[n], 0, offsets[k])])
            if total < thresholds[s]:
                break
            passed[n] += 1
    return passed
