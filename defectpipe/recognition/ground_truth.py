"""What an object is, judged from several pictures of it.

The baseline adds up the logarithms of each view's class probabilities: views of other orientations are taken as
independent of each other, given the class. `fusion` learns what that leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from defectpipe.recognition.calibration import log_softmax
from defectpipe.recognition.recogniser import Layout


@dataclass(frozen=True)
class Verdict:
    """What one object is.

    Parameters
    ----------
    probabilities : mapping of str to float
        By class; they add up to 1.
    deformations : mapping of str to float
        Probability of each; the first is that of any.
    dimensions : mapping of str to float
        Of the likeliest class, medians over the views; in nm with a pixel size, else in px of the views; ``turns`` is
        a number.
    unit : str
        ``nm`` or ``px``.
    n_views : int
    """

    probabilities: Mapping[str, float]
    deformations: Mapping[str, float]
    dimensions: Mapping[str, float]
    unit: str
    n_views: int

    @property
    def label(self) -> str:
        """The likeliest class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.probabilities[self.label]


def fuse_classes(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Class probabilities of one object from its views, by their summed log-probabilities.

    Parameters
    ----------
    logits : ndarray, shape (..., views, classes)
    temperature : float
        What the logits are divided by first; chosen on other objects (`calibration.fit_temperature`).

    Returns
    -------
    ndarray of float64, shape (..., classes)
    """
    total = log_softmax(np.asarray(logits, float) / temperature).sum(-2)
    return np.exp(log_softmax(total))


def fuse_evenly(logits: np.ndarray) -> np.ndarray:
    """Probabilities of yes-or-no questions: the mean of the views' logits, which are no independent evidence.

    Parameters
    ----------
    logits : ndarray, shape (..., views, questions)

    Returns
    -------
    ndarray of float64, shape (..., questions)
    """
    return expit(np.asarray(logits, float).mean(-2))


def judge(
    answers: np.ndarray,
    layout: Layout,
    pixel_size_nm: float | None = None,
    fused: tuple[np.ndarray, np.ndarray] | None = None,
) -> Verdict:
    """From the answers to all views of one object to what it is.

    Parameters
    ----------
    answers : ndarray, shape (views, layout.n_answers)
        Of the recogniser.
    layout : Layout
    pixel_size_nm : float, optional
        Of the views; None: unknown.
    fused : tuple of ndarray, shapes (classes,) and (deformations,), optional
        Probabilities of a learned fusion, instead of summed logarithms and mean logits.
    """
    place = layout.slices
    answers = np.asarray(answers, float)
    probabilities, deformed = fused or (
        fuse_classes(answers[:, place["classes"]]),
        fuse_evenly(answers[:, place["deformations"]]),
    )
    label = layout.classes[int(np.argmax(probabilities))]
    size = 1.0 if pixel_size_nm is None else pixel_size_nm
    # the median: one view from an unlucky side does not count
    values = np.exp(np.median(answers[:, place["dimensions"]], 0))
    dimensions = {}
    for full_name, value in zip(layout.dimensions, values, strict=True):
        of, name = full_name.split(".")
        if of in ("any", label):
            dimensions[name.removesuffix("_nm")] = float(value * (1.0 if name == "turns" else size))
    return Verdict(
        probabilities=dict(zip(layout.classes, map(float, probabilities), strict=True)),
        deformations=dict(zip(layout.deformations, map(float, deformed), strict=True)),
        dimensions=dimensions,
        unit="px" if pixel_size_nm is None else "nm",
        n_views=len(answers),
    )
