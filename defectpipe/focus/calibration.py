"""From classical measures to the focus score, by regression on images whose score is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from defectpipe.errors import SettingsError

_MAX_KNOTS = 64
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class MeasureCalibration:
    """A curve from a measure to the score that never falls.

    Parameters
    ----------
    value, score : ndarray, shape (n_knots,)
        Both rising; between them the score is read by a straight line, beyond them it is that of the end.
    """

    value: np.ndarray
    score: np.ndarray

    def __call__(self, value: np.ndarray) -> np.ndarray:
        """Scores of values, same shape; NaN stays NaN."""
        return np.interp(np.asarray(value, float), self.value, self.score)


def calibrate_measure(value: np.ndarray, score: np.ndarray) -> MeasureCalibration:
    """Isotonic regression of the score on a measure (least squares among all curves that never fall).

    Source: Barlow et al. 1972, Statistical Inference under Order Restrictions; pooled adjacent violators.

    Parameters
    ----------
    value, score : ndarray, shape (n,)
        At least two images.

    Returns
    -------
    MeasureCalibration

    Raises
    ------
    SettingsError
        Fewer than two images, or a value that is not finite.
    """
    value, score = np.asarray(value, float), np.asarray(score, float)
    if value.size < 2 or not np.isfinite(value).all():
        raise SettingsError("A measure is calibrated on two images or more, with finite values.")
    # equal values have one score
    known, number = np.unique(value, return_inverse=True)
    weight = np.bincount(number).astype(float)
    fitted = isotonic_regression(np.bincount(number, score) / weight, weights=weight).x
    # knots at the middles of equally large groups: the steps of the fit are noise
    groups = np.array_split(np.arange(known.size), min(_MAX_KNOTS, known.size))
    means = [(np.average(known[g], weights=weight[g]), np.average(fitted[g], weights=weight[g])) for g in groups]
    knots = np.array(means)
    return MeasureCalibration(knots[:, 0], knots[:, 1])


@dataclass(frozen=True, eq=False)
class BandCalibration:
    """The score as a quadratic function of the octave bands' log energies relative to their mean.

    Parameters
    ----------
    centre : ndarray, shape (n_bands,)
    weights : ndarray, shape (1 + n_bands + n_bands (n_bands + 1) / 2,)
    """

    centre: np.ndarray
    weights: np.ndarray

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        """Scores, held within 0 and 10, of `measures.octave_spectrum` (n, n_bands)."""
        return np.clip(_quadratic(_relative(spectra) - self.centre) @ self.weights, 0, 10)


def calibrate_bands(spectra: np.ndarray, score: np.ndarray) -> BandCalibration:
    """Least squares, with a slight ridge, of the score on octave-band energies.

    Parameters
    ----------
    spectra : ndarray, shape (n, n_bands)
        `measures.octave_spectrum` of each image.
    score : ndarray, shape (n,)

    Returns
    -------
    BandCalibration
    """
    relative = _relative(spectra)
    centre = relative.mean(0)
    terms = _quadratic(relative - centre)
    normal = terms.T @ terms + _RIDGE * len(terms) * np.eye(terms.shape[1])
    return BandCalibration(centre, np.linalg.solve(normal, terms.T @ np.asarray(score, float)))


def by_magnification(
    calibrations: Mapping[float, MeasureCalibration | BandCalibration], values: np.ndarray, magnification: np.ndarray
) -> np.ndarray:
    """Scores by the calibration of each image's magnification.

    Parameters
    ----------
    calibrations : mapping of float
    values : ndarray, shape (n, ...)
    magnification : ndarray, shape (n,)

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where there is no calibration for a magnification.
    """
    scores = np.full(len(values), np.nan)
    for known, calibration in calibrations.items():
        rows = magnification == known
        scores[rows] = calibration(values[rows])
    return scores


def _relative(spectra: np.ndarray) -> np.ndarray:
    spectra = np.maximum(np.asarray(spectra, float), -20.0)  # a frame without any contrast has no energy at all
    return spectra - spectra.mean(1, keepdims=True)


def _quadratic(values: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(values.shape[1])
    return np.column_stack([np.ones(len(values)), values, values[:, first] * values[:, second] / 10])
