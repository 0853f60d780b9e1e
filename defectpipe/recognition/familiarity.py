"""Whether a view is like those that the recogniser learned from, by how far its features lie from theirs.

Gaussians of the classes' features with one covariance: Lee et al., "A simple unified framework for detecting
out-of-distribution samples and adversarial attacks", NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The features of known views.

    Parameters
    ----------
    means : ndarray, shape (classes, features)
    whitening : ndarray, shape (features, features)
        Turns differences of features to independent ones of unit variance.
    limit : float
        Distance below which the stated share of known views lies.
    """

    means: np.ndarray
    whitening: np.ndarray
    limit: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Of (n, features) to the nearest class, in standard deviations: (n,)."""
        white = np.asarray(features, float) @ self.whitening
        gaps = white[:, None] - (self.means @ self.whitening)[None]
        return np.sqrt((gaps**2).sum(-1).min(1) / white.shape[1])

    def is_known(self, features: np.ndarray) -> np.ndarray:
        """Whether each lies within the limit: bool (n,)."""
        return self.distance(features) <= self.limit


def fit_familiarity(features: np.ndarray, label: np.ndarray, share: float = 0.99) -> Familiarity:
    """Learn what known views look like, from views that the recogniser has not learned from.

    Parameters
    ----------
    features : ndarray, shape (n, k)
    label : ndarray of int, shape (n,)
        0 to the number of classes less 1; each occurs.
    share : float
        Of those views that count as known. One half of each class gives the Gaussians, the other the limit.

    Returns
    -------
    Familiarity
    """
    features, label = np.asarray(features, float), np.asarray(label)
    first = np.zeros(len(label), bool)
    for i in range(label.max() + 1):
        first[np.flatnonzero(label == i)[::2]] = True
    means = np.stack([features[first & (label == i)].mean(0) for i in range(label.max() + 1)])
    around = features[first] - means[label[first]]
    values, vectors = np.linalg.eigh(np.cov(around.T))
    # directions in which known views hardly differ must not decide alone
    whitening = vectors / np.sqrt(np.maximum(values, 0) + _RIDGE * values.max())
    made = Familiarity(means, whitening, np.inf)
    return Familiarity(means, whitening, float(np.quantile(made.distance(features[~first]), share)))
