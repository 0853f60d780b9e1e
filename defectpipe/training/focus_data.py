"""Simulated data sets of focus scores: images with the true score, and what an expert would have said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectpipe.simulation.sem.frames import simulate_sem
from defectpipe.simulation.sem.presets import PRESETS

PATCH_SHAPE = (240, 320)  # rows, columns that a network sees
EXPERT_RMSE = 0.39  # of an expert's whole scores, rounding included
_ROUNDING_RMSE = 1 / np.sqrt(12)
OLD_BEST = 7.0


@dataclass(frozen=True)
class FocusDataset:
    """A training set and its test set: other seeds, so that no specimen is in both.

    Parameters
    ----------
    preset : str
        Of `simulation.sem`.
    n_train, n_test : int
    train_seed, test_seed : int
    """

    preset: str
    n_train: int
    n_test: int
    train_seed: int
    test_seed: int


# Sizes of Yang et al., and a tenth; the smaller sets are the beginnings of the larger ones.
DATASETS: dict[str, FocusDataset] = {
    "new": FocusDataset("focus-new", 27_235, 3_037, 51_000, 52_000),
    "new-quick": FocusDataset("focus-new", 2_724, 304, 51_000, 52_000),
    "old": FocusDataset("focus-old", 27_235, 3_037, 53_000, 54_000),
    "old-quick": FocusDataset("focus-old", 2_724, 304, 53_000, 54_000),
}


@dataclass(frozen=True, eq=False)
class FocusSamples:
    """Images with their scores.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, height, width)
    score : ndarray of float32, shape (n,)
        The truth, which is without noise.
    expert : ndarray of float32, shape (n,)
        Whole scores as `expert_scores` simulates them.
    magnification : ndarray of float32, shape (n,)
    kind : ndarray of str, shape (n,)
        tinball, grid, or an empty frame.
    specimen : ndarray of int64, shape (n, 2)
        Seed and number of the specimen, by which sets are split.
    """

    pixels: np.ndarray
    score: np.ndarray
    expert: np.ndarray
    magnification: np.ndarray
    kind: np.ndarray
    specimen: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: np.ndarray) -> FocusSamples:
        """A part of them, in the order of `rows` (numbers or a mask)."""
        parts = (self.pixels, self.score, self.expert, self.magnification, self.kind, self.specimen)
        return FocusSamples(*(part[rows] for part in parts))

    def patches(self, shape: tuple[int, int] = PATCH_SHAPE) -> np.ndarray:
        """Centre crops, as in the test: (n, height, width)."""
        top, left = ((a - b) // 2 for a, b in zip(self.pixels.shape[1:], shape, strict=True))
        return self.pixels[:, top : top + shape[0], left : left + shape[1]]


def simulate_focus_samples(preset: str, seed: int, n: int, first: int = 0) -> FocusSamples:
    """Images `first` to `first + n` of a series, each of a specimen of its own.

    Parameters
    ----------
    preset : str
        Of `simulation.sem`.
    seed : int
    n, first : int

    Returns
    -------
    FocusSamples
    """
    settings = PRESETS[preset]
    pixels = np.empty((n, *settings.shape), np.uint8)
    score, magnification = np.empty(n, np.float32), np.empty(n, np.float32)
    kinds: list[str] = []
    for i in range(n):
        made = simulate_sem(settings, seed, first + i)
        pixels[i] = np.asarray(made.micrograph.pixels)
        truth = made.truth.iloc[0]
        score[i], magnification[i] = truth["focus_score"], truth["magnification"]
        kinds.append(str(truth["sample"]))
    numbers = np.arange(first, first + n)
    # drawn image by image, so that a smaller set begins a larger one
    noise = np.array([np.random.default_rng((seed, int(i), 1)).normal() for i in numbers])
    specimen = np.column_stack([np.full(n, seed), numbers])
    return FocusSamples(pixels, score, expert_scores(score, noise), magnification, np.array(kinds, "<U16"), specimen)


def expert_scores(score: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Whole scores with an error of `EXPERT_RMSE` in all; what shows no sample gets 0, anything else 1 to 10.

    Parameters
    ----------
    score : ndarray, shape (n,)
        True scores.
    noise : ndarray, shape (n,)
        Of unit standard deviation.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    unsure = np.sqrt(EXPERT_RMSE**2 - _ROUNDING_RMSE**2)
    return np.where(score > 0, np.clip(np.round(score + unsure * noise), 1, 10), 0).astype(np.float32)


def old_labels(score: np.ndarray) -> np.ndarray:
    """The older whole scores, 0 (just recognisable) to 7, of scores or expert's scores from 1 to 10."""
    return np.round((np.clip(score, 1, 10) - 1) * np.float32(OLD_BEST / 9)).astype(np.float32)


def score_of_old(label: np.ndarray) -> np.ndarray:
    """Scores from 1 to 10 for older ones from 0 to 7."""
    return (1 + np.asarray(label, np.float32) * np.float32(9 / OLD_BEST)).astype(np.float32)


def split_by_specimen(samples: FocusSamples, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows held out; no specimen is in both.

    Parameters
    ----------
    samples : FocusSamples
    share : float
        Of the specimens held out.
    seed : int

    Returns
    -------
    tuple of ndarray of int
    """
    known, number = np.unique(samples.specimen, axis=0, return_inverse=True)
    held = np.zeros(len(known), bool)
    held[np.random.default_rng(seed).permutation(len(known))[: round(share * len(known))]] = True
    is_held = held[number.ravel()]
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
