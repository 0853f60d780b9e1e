"""Classical focus measures: the larger, the sharper, for one sample at one brightness, contrast and noise.

All of them take a grey image and know nothing of magnification. Differences are taken along both axes and averaged,
where the source takes one: astigmatism must not depend on the direction of the scan. Images need 8 px a side or more.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def absolute_variance(pixels: np.ndarray) -> float:
    """Mean absolute deviation (1/A) Σ |g - mean|: Groen's family of variances with m = 1.

    Source: Groen, Young & Ligthart 1985, Cytometry 6:81-91.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Grey values.

    Returns
    -------
    float
        In grey values.
    """
    grey = _grey(pixels)
    return float(np.abs(grey - grey.mean()).mean())


def variance(pixels: np.ndarray) -> float:
    """Mean squared deviation (1/A) Σ (g - mean)²: Groen's family with m = 2 (see `absolute_variance`)."""
    return float(_grey(pixels).var())


def normalised_variance(pixels: np.ndarray) -> float:
    """Variance over the mean, which takes out the brightness of shot noise; 0 for an image whose mean is not positive.

    Source: Groen et al. 1985; Sun, Duthaler & Nelson 2004, Microscopy Research and Technique 65:139-149.
    """
    grey = _grey(pixels)
    mean = float(grey.mean())
    return float(grey.var() / mean) if mean > 0 else 0.0


def tenengrad(pixels: np.ndarray) -> float:
    """Mean squared gradient by Sobel's operator, in (grey values per px)².

    Source: Krotkov 1988, International Journal of Computer Vision 1:223-237, after Tenenbaum 1970. Without a threshold.
    """
    grey = _grey(pixels)
    # Sobel's weights add up to 8
    along, down = (cv2.Sobel(grey, cv2.CV_64F, *order, scale=1 / 8)[1:-1, 1:-1] for order in ((1, 0), (0, 1)))
    return float((along**2 + down**2).mean())


def brenner(pixels: np.ndarray) -> float:
    """Mean squared difference of grey values two px apart.

    Source: Brenner et al. 1976, Journal of Histochemistry and Cytochemistry 24:100-111.
    """
    grey = _grey(pixels)
    return float((((grey[:, 2:] - grey[:, :-2]) ** 2).mean() + ((grey[2:] - grey[:-2]) ** 2).mean()) / 2)


def vollath_f4(pixels: np.ndarray) -> float:
    """Autocorrelation at one px less that at two: what white noise adds to neither drops out.

    Source: Vollath 1987, Journal of Microscopy 147:279-288, F4.
    """
    grey = _grey(pixels)
    # the two products run over different px: the mean would not cancel
    grey = grey - grey.mean()
    across = (grey[:, :-1] * grey[:, 1:]).mean() - (grey[:, :-2] * grey[:, 2:]).mean()
    down = (grey[:-1] * grey[1:]).mean() - (grey[:-2] * grey[2:]).mean()
    return float((across + down) / 2)


def vollath_f5(pixels: np.ndarray) -> float:
    """Autocovariance at one px: the variance without that of white noise.

    Source: Vollath 1988, Journal of Microscopy 151:133-146, F5 ("standard deviation based on autocorrelation").
    """
    grey = _grey(pixels)
    grey = grey - grey.mean()
    return float(((grey[:, :-1] * grey[:, 1:]).mean() + (grey[:-1] * grey[1:]).mean()) / 2)


def entropy(pixels: np.ndarray) -> float:
    """Shannon's entropy of the histogram in bins of one grey value, in bits.

    Unlike the others it may rise with blur, where edges of two even materials become a ramp of many greys.

    Source: Firestone et al. 1991, Cytometry 12:195-206.
    """
    _, counts = np.unique(np.floor(_grey(pixels)), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def laplacian_variance(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of four neighbours.

    Source: Pech-Pacheco et al. 2000, Proceedings of the 15th International Conference on Pattern Recognition 3:314-317.
    """
    return float(cv2.Laplacian(_grey(pixels), cv2.CV_64F)[1:-1, 1:-1].var())


def octave_spectrum(pixels: np.ndarray, n_octaves: int = 6) -> np.ndarray:
    """Logarithm of the mean power in octave bands of spatial frequency.

    Blur takes the bands away one after the other, from the finest; white noise adds the same power to each and is soon
    all there is in the finest, while the coarse ones hardly feel it.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
    n_octaves : int
        From half a cycle per px down; at most as many as the image holds periods for.

    Returns
    -------
    ndarray of float64, shape (n_octaves,)
        Natural logarithm of power per frequency in grey values², finest band first: 0.25 to 0.5 cycles per px, 0.125
        to 0.25, and so on. For white noise each is the logarithm of its variance.
    """
    grey = _grey(pixels)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in grey.shape))
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.rfftfreq(grey.shape[1])[None])
    octave = np.floor(-np.log2(np.maximum(2 * frequency, 1e-9))).astype(int)
    # beyond half a cycle lie the corners (-1), on it the last of the finest band
    octave[frequency == 0.5] = 0
    known = (octave >= 0) & (octave < n_octaves)
    total = np.bincount(octave[known], power[known], n_octaves)
    count = np.bincount(octave[known], minlength=n_octaves)
    return np.log(total / np.maximum(count, 1) + np.finfo(np.float32).tiny)


def octave_power(pixels: np.ndarray) -> float:
    """Mean of `octave_spectrum` without its finest band, which is mostly noise; in octaves of amplitude.

    Each band counts by its logarithm, so that the weak fine ones say as much as the strong coarse ones. That is the
    scale of the focus score, which counts lost octaves.
    """
    return float(octave_spectrum(pixels)[1:].mean() / (2 * np.log(2)))


MEASURES: dict[str, Callable[[np.ndarray], float]] = {
    "absolute_variance": absolute_variance,
    "variance": variance,
    "normalised_variance": normalised_variance,
    "tenengrad": tenengrad,
    "brenner": brenner,
    "vollath_f4": vollath_f4,
    "vollath_f5": vollath_f5,
    "entropy": entropy,
    "laplacian_variance": laplacian_variance,
    "octave_power": octave_power,
}


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels, np.float64)
