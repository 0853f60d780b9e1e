"""Whether there is anything in a picture that focus could be judged by."""

from __future__ import annotations

import cv2
import numpy as np

from defectpipe.focus.measures import octave_spectrum

# Noise has as much power per frequency in coarse octaves as in middle ones (resampling and detectors only take the
# finest); structure has more. In nats: noise reaches 1.0 in 256 px, real fields have 2 to 7, in focus or not.
_LEAST_RISE = 1.2
# Sparse small objects rise little, but are no Gaussian noise: excess kurtosis after smoothing.
_LEAST_KURTOSIS = 1.0
_SMOOTHING_PX = (1.5, 4.0)
# Periodic structure stands out of its octave. Of noise the strongest of some thousand frequencies is 12 medians high.
_LEAST_PEAK = 40.0
_GRID = 4.0  # px between samples that count as independent, in units of the smoothing


def has_structure(pixels: np.ndarray) -> bool:
    """Whether a patch holds more than noise, flat grey or a gradient.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Grey values; 64 px a side or more.
    """
    grey = _without_gradient(np.asarray(pixels, np.float64))
    if grey.std() < 1e-6:
        return False
    return rise(grey) > _LEAST_RISE or kurtosis(grey) > _LEAST_KURTOSIS or peak(grey) > _LEAST_PEAK


def rise(grey: np.ndarray) -> float:
    """How much more power per frequency there is at 32 to 128 px than at 8 to 16 px, as a natural logarithm."""
    bands = octave_spectrum(grey, 6)
    return float(bands[4:6].mean() - bands[2:4].mean())


def kurtosis(grey: np.ndarray) -> float:
    """Largest excess kurtosis of the smoothed patch over two scales, less three of its standard errors for noise."""
    found = []
    for sigma in _SMOOTHING_PX:
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma) - cv2.GaussianBlur(grey, (0, 0), 4 * sigma)
        spread = smooth.std()
        if spread < 1e-9:
            continue
        n = grey.size / (_GRID * sigma) ** 2 * 4
        found.append(((smooth / spread) ** 4).mean() - 3 - 3 * np.sqrt(24 / n))
    return float(max(found, default=0.0))


def peak(grey: np.ndarray) -> float:
    """Strongest frequency between 4 and 32 px over the median of its octave."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in grey.shape))
    power = np.abs(np.fft.rfft2(grey * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.rfftfreq(grey.shape[1])[None])
    octaves = [power[(radius >= low) & (radius < 2 * low)] for low in (1 / 32, 1 / 16, 1 / 8)]
    return float(max(band.max() / max(np.median(band), 1e-12) for band in octaves))


def _without_gradient(grey: np.ndarray) -> np.ndarray:
    y, x = (np.linspace(-1, 1, n) for n in grey.shape)
    flat = grey - grey.mean()
    return flat - np.outer(y, np.ones_like(x)) * (flat.mean(1) @ y / (y @ y)) - x * (flat.mean(0) @ x / (x @ x))
