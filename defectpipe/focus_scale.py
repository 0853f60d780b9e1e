"""What the magnification says: the pixel size, and between which blurs an image goes from perfect to lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REFERENCE_WIDTH_MM = 127.0  # of the photograph that the magnification refers to (5 inches)
FULL_FRAME_PX = 640  # across the whole scan; a smaller image is a part of it
MAGNIFICATION_LIMITS = (500.0, 10000.0)


def pixel_size_nm(magnification: float) -> float:
    """Side of a pixel of the full frame: 397 nm at 500 times, 19.8 nm at 10,000 times."""
    return REFERENCE_WIDTH_MM * 1e6 / FULL_FRAME_PX / magnification


@dataclass(frozen=True)
class FocusScale:
    """Where the focus score ends, by magnification: the only place for its parameters.

    Parameters
    ----------
    probe_sigma_nm : float
        Standard deviation of the best probe.
    least_sigma_px : float
        What the pixel itself and the signal's origin blur, at any magnification.
    lost_sigma_px : float
        Blur at 500 times with which a sample is just recognisable.
    lost_growth : float
        Exponent with which that blur grows with the magnification: a field of less specimen has larger structures in
        px, but not in proportion, for there are small ones too.
    """

    probe_sigma_nm: float = 12.0
    least_sigma_px: float = 0.5
    lost_sigma_px: float = 6.0
    lost_growth: float = 0.3


@dataclass(frozen=True)
class FocusLimits:
    """The two ends of the score.

    Parameters
    ----------
    perfect_px : float
        Total blur (RMS width along one direction) in perfect focus, score 10.
    lost_px : float
        Total blur with which the sample is just recognisable, score 1.
    """

    perfect_px: float
    lost_px: float


def focus_limits(magnification: float, scale: FocusScale | None = None) -> FocusLimits:
    """The ends of the score at a magnification."""
    scale = scale or FocusScale()
    perfect = np.hypot(scale.least_sigma_px, scale.probe_sigma_nm / pixel_size_nm(magnification))
    lost = scale.lost_sigma_px * (magnification / MAGNIFICATION_LIMITS[0]) ** scale.lost_growth
    return FocusLimits(float(perfect), float(lost))


def score_of_blur(sigma_px: float, limits: FocusLimits) -> float:
    """Focus score of a total blur: S = 10 - 9 ln(sigma / perfect) / ln(lost / perfect), held within 1 and 10.

    It counts lost octaves of resolution, as the eye does. The ends are those of Yang et al., "Robust deep-learning
    based autofocus score prediction for scanning electron microscope": 10 in perfect focus, 1 where the sample begins
    to be recognisable. Their 0, for frames without a sample, is not a matter of blur.
    """
    lost = np.log(max(sigma_px, limits.perfect_px) / limits.perfect_px) / np.log(limits.lost_px / limits.perfect_px)
    return float(10 - 9 * min(lost, 1.0))


def blur_of_score(score: float, limits: FocusLimits) -> float:
    """Total blur in px of a focus score from 1 to 10: the inverse of `score_of_blur`."""
    return float(limits.perfect_px * (limits.lost_px / limits.perfect_px) ** ((10 - score) / 9))


def defocus_of_blur(sigma_px: float, probe_px: float) -> float:
    """RMS width of the defocused disc with which the probe's blur becomes the total one: variances add."""
    return float(np.sqrt(max(sigma_px**2 - probe_px**2, 0.0)))


def magnification_of(pixel_nm: float) -> float:
    """Magnification at which a pixel of the full frame has this size: the inverse of `pixel_size_nm`."""
    return REFERENCE_WIDTH_MM * 1e6 / FULL_FRAME_PX / pixel_nm


# Of STEM loop images, at the resolution that the model works at: a field in focus resolves about a pixel; at twelve
# the loops of a usual size (20 to 80 px) are gone.
STEM_LIMITS = FocusLimits(1.0, 12.0)
