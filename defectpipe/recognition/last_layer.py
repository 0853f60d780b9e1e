"""The last layer of a transfer-learnt classifier: a linear one on standardised features, trained to its optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from defectpipe.errors import SettingsError
from defectpipe.recognition.calibration import log_softmax

# Strengths of the penalty on squared weights that are tried.
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class LastLayer:
    """Multinomial logistic regression.

    Parameters
    ----------
    classes : tuple of str
    mean, scale : ndarray, shape (features,)
        What is subtracted from the features, and what they are then multiplied by.
    weights : ndarray, shape (features, classes)
    bias : ndarray, shape (classes,)
    penalty : float
        Chosen by cross-validation on the training set.
    """

    classes: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    penalty: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, features) to (n, classes)."""
        return (np.asarray(features, float) - self.mean) * self.scale @ self.weights + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, features) to (n, classes)."""
        return np.exp(log_softmax(self.logits(features)))


def fit_last_layer(
    features: np.ndarray, label: np.ndarray, classes: tuple[str, ...], groups: np.ndarray | None = None, seed: int = 0
) -> LastLayer:
    """Train a last layer; the strength of its penalty is the one with the highest likelihood in cross-validation.

    Parameters
    ----------
    features : ndarray, shape (n, k)
    label : ndarray of int, shape (n,)
        Indices in `classes`; each class occurs.
    classes : tuple of str
    groups : ndarray of int, shape (n,), optional
        Pictures of the same object have the same number and stay in one fold; by default each has its own.
    seed : int
        Of the folds.

    Raises
    ------
    SettingsError
        A class has no picture.
    """
    features, label = np.asarray(features, float), np.asarray(label)
    missing = [name for i, name in enumerate(classes) if not (label == i).any()]
    if missing:
        raise SettingsError(f"There is no picture of: {', '.join(missing)}.")
    mean, spread = features.mean(0), features.std(0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    x = (features - mean) * scale
    groups = np.arange(len(label)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % min(_FOLDS, groups.max() + 1)
    best, highest = _PENALTIES[-1], -np.inf
    for penalty in _PENALTIES:
        likelihoods = []
        for k in np.unique(fold):
            kept, held = fold != k, fold == k
            if not kept.any():
                continue
            weights, bias = _optimum(x[kept], label[kept], len(classes), penalty)
            likelihoods.append(log_softmax(x[held] @ weights + bias)[np.arange(held.sum()), label[held]])
        mean_likelihood = float(np.concatenate(likelihoods).mean()) if likelihoods else -np.inf
        if mean_likelihood > highest:
            best, highest = penalty, mean_likelihood
    weights, bias = _optimum(x, label, len(classes), best)
    return LastLayer(classes, mean, scale, weights, bias, best)


def _optimum(x: np.ndarray, label: np.ndarray, n_classes: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    n, k = x.shape
    truth = np.eye(n_classes)[label]

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = p[:-n_classes].reshape(k, n_classes), p[-n_classes:]
        logarithms = log_softmax(x @ weights + bias)
        error = (np.exp(logarithms) - truth) / n
        gradient = np.concatenate([(x.T @ error + 2 * penalty * weights).ravel(), error.sum(0)])
        return -float((truth * logarithms).sum()) / n + penalty * float((weights**2).sum()), gradient

    found = minimize(loss, np.zeros((k + 1) * n_classes), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x[:-n_classes].reshape(k, n_classes), found.x[-n_classes:]
