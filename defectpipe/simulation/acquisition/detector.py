"""Counting of electrons, the detector's own noise, and grey values."""

from __future__ import annotations

import cv2
import numpy as np

from defectpipe.simulation.acquisition.settings import Acquisition

_MANY = 25.0  # electrons a px
_PLAIN = 10.0


def detect(fraction: np.ndarray, acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Counted electrons, over those of the full beam.

    The correlation acts on the shot noise alone, at constant variance: what it would do to the signal is counted in the
    probe's blur, so that the truth does not hang on the noise.

    Parameters
    ----------
    fraction : ndarray, shape (height, width)
        Share of the beam that reaches the detector; negative values count as 0.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    expected = np.maximum(np.asarray(fraction, np.float32), 0)
    noise = _shot_noise(expected * np.float32(acquisition.dose_per_px), rng) * np.float32(1 / acquisition.dose_per_px)
    kernels = _noise_kernels(acquisition)
    if max(k.size for k in kernels) > 1:
        noise = cv2.sepFilter2D(noise, cv2.CV_32F, kernels[0], kernels[1], borderType=cv2.BORDER_REFLECT)
    signal = expected + noise
    if acquisition.detector_rms > 0:
        signal += acquisition.detector_rms * rng.standard_normal(signal.shape, np.float32)
    return signal + acquisition.line_rms * rng.standard_normal((signal.shape[0], 1), np.float32)


def noise_std(fraction: float, acquisition: Acquisition) -> float:
    """Standard deviation of one pixel where `fraction` of the beam arrives, in units of the full beam."""
    variance = max(fraction, 0.0) / acquisition.dose_per_px + acquisition.detector_rms**2 + acquisition.line_rms**2
    return float(np.sqrt(variance))


def noise_area_px(acquisition: Acquisition) -> float:
    """Area over which the shot noise is one value, as far as means over larger areas go: 1 of white noise."""
    return float(np.prod([kernel.sum() ** 2 for kernel in _noise_kernels(acquisition)]))


def stands_out(cnr: float, area_px: float, acquisition: Acquisition) -> bool:
    """Whether an object is seen: its contrast to the noise of one px, over its whole area, reaches twice Rose's 5.

    Twice Rose's limit, for what lies under it is uneven too.
    """
    return bool(cnr * np.sqrt(area_px / noise_area_px(acquisition)) >= _PLAIN)


def digitise(signal: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Grey values of 8 or 16 bit, clipped at both ends of the scale.

    The signal's median lies at `grey_level`, as an operator sets the brightness; with a `black_level` the detector's
    scale is fixed, whatever is in the image.

    Returns
    -------
    ndarray of uint8 or uint16, same shape
    """
    full = 2**acquisition.bits - 1
    if acquisition.black_level is not None:
        grey = full * (acquisition.black_level + acquisition.gain * signal)
    else:
        middle = float(np.median(signal))
        relative = signal / middle - 1 if middle > 0 else np.zeros_like(signal)
        grey = full * acquisition.grey_level * (1 + acquisition.gain * relative)
    return np.clip(np.rint(grey), 0, full).astype(np.uint8 if acquisition.bits <= 8 else np.uint16)


def _shot_noise(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts less their expectation.

    From `_MANY` electrons on: a Gaussian with Fisher's and Cornish's first correction, which gives the skewness of the
    counts too (Cornish & Fisher, Revue de l'Institut International de Statistique 5, 307 (1938)).
    """
    z = rng.standard_normal(counts.shape, np.float32)
    noise = np.sqrt(counts) * z
    z *= z
    z -= 1
    z *= np.float32(1 / 6)
    noise += z
    few = counts < _MANY
    if few.any():
        noise[few] = rng.poisson(counts[few]) - counts[few]
    return noise


def _noise_kernels(acquisition: Acquisition) -> list[np.ndarray]:
    """Along x, along y; the sum of their squares is 1."""
    lengths = (acquisition.noise_length_x_px, acquisition.noise_length_y_px)
    return [_noise_kernel(length, acquisition.noise_sigma_px) for length in lengths]


def _noise_kernel(length_px: float, sigma_px: float) -> np.ndarray:
    kernel = np.ones(1)
    if length_px > 0:
        reach = int(np.ceil(6 * length_px))
        kernel = np.exp(-np.abs(np.arange(-reach, reach + 1)) / length_px)
    if sigma_px > 0:
        reach = int(np.ceil(4 * sigma_px))
        kernel = np.convolve(kernel, np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2))
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
