"""How far stated probabilities are right: expected calibration error, and the temperature that lowers it.

Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities along the last axis."""
    logits = np.asarray(logits, float)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray, n_bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equally wide bins of the confidence, weighted by their numbers.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
    label : ndarray of int, shape (n,)
        The right class.
    n_bins : int

    Returns
    -------
    float
        0 to 1; NaN without any row.
    """
    probabilities = np.asarray(probabilities, float)
    if not len(probabilities):
        return float("nan")
    confidence, right = probabilities.max(1), probabilities.argmax(1) == label
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    gap = np.abs(np.bincount(bins, right, n_bins) - np.bincount(bins, confidence, n_bins))
    return float(gap[n > 0].sum() / len(confidence))


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """What logits have to be divided by for the highest likelihood of the right classes.

    Parameters
    ----------
    logits : ndarray, shape (n, classes) or (n, views, classes)
        Of several views, their log-probabilities are summed up as `ground_truth.fuse_classes` does.
    label : ndarray of int, shape (n,)

    Returns
    -------
    float
        0.05 to 20.
    """
    logits = np.asarray(logits, float)
    if logits.ndim == 2:
        logits = logits[:, None]

    def loss(log_temperature: float) -> float:
        total = log_softmax(log_softmax(logits / np.exp(log_temperature)).sum(1))
        return -float(total[np.arange(len(label)), label].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
