"""What F1 an image without labels can be expected to have, from the scores of what was found in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.boxes import touches_border
from defectpipe.io.tables import CORRECTION_COUNTS
from defectpipe.statistics.scoring import BOX_COLUMNS

FEATURES = (
    "expected_f1",
    "anchor_logit",
    "mean_logit",
    "spread_of_logits",
    "log_loops",
    "log_listed",
    "log_pixel_size",
)
"""What is seen of an image; see `score_features`."""

LOWEST_SCORE = 0.15
"""Screened candidates of a lower score are not looked at, and in training not listed: no threshold lies there."""

MOST_STRANGE = 3.0
"""Standard deviations from the training images' mean from which on a feature counts as unlike them, and is clipped."""

_ANCHOR_LOOPS = 5
_EXTREME = 1e-3


@dataclass(frozen=True)
class Prediction:
    """Predicted F1 of an image, the ends of its interval, and the features that are unlike the training images'."""

    f1: float
    low: float
    high: float
    strange: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class F1Predictor:
    """A line in `FEATURES`, made by `training.predicted_f1` and kept in the model's card.

    Parameters
    ----------
    calibration : ndarray, shape (2,)
        Offset and slope of the logit of a loop's probability to be true, in the logit of its screening score.
    means, scales, coefficients : ndarray, shape (7,)
        Of the features: mean and standard deviation over the images it was made from, and the line's slopes.
    intercept : float
    variance, variance_per_loop : float
        Of the errors on images that the model never saw: the part that stays with any number of loops, and the part
        that counting brings, divided by the number of loops.
    width : float
        Standard deviations on either side that hold `coverage` of those errors.
    coverage : float
    """

    calibration: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    coefficients: np.ndarray
    intercept: float
    variance: float
    variance_per_loop: float
    width: float
    coverage: float

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> F1Predictor:
        """From what `to_card` gave."""
        line, spread = values["line"], values["interval"]
        means, scales, slopes = (
            np.array([line[name][f] for f in FEATURES], float) for name in ("means", "scales", "coefficients")
        )
        numbers = (float(spread[name]) for name in ("variance", "variance_per_loop", "width", "coverage"))
        return cls(np.array(values["calibration"], float), means, scales, slopes, float(line["intercept"]), *numbers)

    def to_card(self) -> dict[str, Any]:
        """As plain values, with names."""
        columns = {"means": self.means, "scales": self.scales, "coefficients": self.coefficients}
        named = {
            name: {f: round(float(v), 6) for f, v in zip(FEATURES, column, strict=True)}
            for name, column in columns.items()
        }
        return {
            "calibration": [round(float(v), 6) for v in self.calibration],
            "line": named | {"intercept": round(self.intercept, 6)},
            "interval": {
                name: round(getattr(self, name), 6) for name in ("variance", "variance_per_loop", "width", "coverage")
            },
        }

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Probability of each loop to be one that an expert labels too."""
        offset, slope = self.calibration
        return 1 / (1 + np.exp(-(offset + slope * logits(scores))))

    def line(self, features: np.ndarray) -> np.ndarray:
        """Predicted F1 of rows of features, shape (n, 7)."""
        z = np.clip((features - self.means) / self.scales, -MOST_STRANGE, MOST_STRANGE)
        return np.clip(self.intercept + z @ self.coefficients, 0, 1)

    def predict(self, scores: np.ndarray, threshold: float, pixel_size_ratio: float | None) -> Prediction | None:
        """Predicted F1 of one image.

        Parameters
        ----------
        scores : ndarray, shape (n,)
            Screening scores of all that was screened, kept or not, without what the border cuts.
        threshold : float
            Score from which a loop is kept.
        pixel_size_ratio : float or None
            Pixel size over the model's working pixel size; None: unknown, taken as 1.

        Returns
        -------
        Prediction or None
            None where no loop is kept and less than one can be expected: the F1 of an empty field is not defined.
        """
        listed = scores[scores >= LOWEST_SCORE]
        n_kept = int(np.count_nonzero(listed >= threshold))
        if n_kept == 0 and self.probabilities(listed).sum() < 1:
            return None
        features = score_features(listed, threshold, self.probabilities(listed), pixel_size_ratio)
        f1 = float(self.line(features[None])[0])
        half = self.width * math.sqrt(self.variance + self.variance_per_loop / (n_kept + 1))
        far = np.abs((features - self.means) / self.scales) > MOST_STRANGE
        strange = tuple(name for name, is_far in zip(FEATURES, far, strict=True) if is_far)
        return Prediction(f1, max(0.0, f1 - half), min(1.0, f1 + half), strange)


def predict_frame(
    predictor: F1Predictor,
    screened: pd.DataFrame,
    facts: Mapping[str, Any],
    threshold: float,
    working_pixel_size_nm: float | None,
    border_margin_px: float,
) -> Prediction | None:
    """Predicted F1 of one frame as it was found; None of an empty one, and of one that a person has corrected.

    Parameters
    ----------
    predictor : F1Predictor
    screened : DataFrame
        What was screened of the frame, kept or not: boxes, ``screening_score``.
    facts : mapping
        As for `images.image_row`.
    threshold : float
        Score from which a loop is kept.
    working_pixel_size_nm : float or None
        The model's.
    border_margin_px : float
        Boxes that come so near to the border of what was analysed are cut.
    """
    if any(facts.get(name) is not None for name in CORRECTION_COUNTS):
        return None
    height, width = facts["analysed_shape_px"]
    top = float(facts.get("analysed_top_px", 0))
    boxes = screened[BOX_COLUMNS].to_numpy(float) - [0.0, top, 0.0, top]
    whole = ~touches_border(boxes, (int(height), int(width)), border_margin_px)
    size_nm = facts["pixel_size_nm"]
    ratio = None if size_nm is None or working_pixel_size_nm is None else size_nm / working_pixel_size_nm
    return predictor.predict(screened["screening_score"].to_numpy(float)[whole], threshold, ratio)


def logits(scores: np.ndarray) -> np.ndarray:
    """Logits of scores from 0 to 1, those at the ends moved a thousandth inwards."""
    inside = np.clip(np.asarray(scores, float), _EXTREME, 1 - _EXTREME)
    return np.log(inside / (1 - inside))


def score_features(
    scores: np.ndarray, threshold: float, probabilities: np.ndarray, pixel_size_ratio: float | None
) -> np.ndarray:
    """What can be seen of an image without labels.

    Parameters
    ----------
    scores, probabilities : ndarray, shape (n,)
        Of all that is listed: screening score, and probability to be true.
    threshold : float
    pixel_size_ratio : float or None

    Returns
    -------
    ndarray, shape (7,)
        In the order of `FEATURES`: 2 Σ p over the kept / (number kept + Σ p over all), which is the F1 to be expected
        if every loop that there is was listed; mean logit of the five best; mean and standard deviation of the logits
        of the kept; logarithm of one more than the number kept, and listed; logarithm of the ratio of pixel sizes.
    """
    kept = scores >= threshold
    n_kept, z = int(kept.sum()), logits(scores)
    total = n_kept + probabilities.sum()
    best = np.sort(z)[::-1][:_ANCHOR_LOOPS]
    return np.array(
        [
            2 * probabilities[kept].sum() / total if total > 0 else 0.0,
            best.mean() if len(best) else logits(np.array([LOWEST_SCORE]))[0],
            z[kept].mean() if n_kept else logits(np.array([threshold]))[0],
            z[kept].std() if n_kept else 0.0,
            math.log1p(n_kept),
            math.log1p(len(scores)),
            0.0 if pixel_size_ratio is None else math.log(pixel_size_ratio),
        ]
    )
