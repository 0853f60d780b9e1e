"""A micrograph defocused after the fact: blurred, then given back the noise that the blur took away."""

from __future__ import annotations

import numpy as np
from scipy import fft

from defectpipe.simulation.acquisition import Acquisition, blur
from defectpipe.simulation.acquisition.optics import transfer

# From this frequency (cycles per px) on, the spectrum of a micrograph in focus counts as its noise.
_NOISE_FROM = 0.25
_TILE_PX = 128
_N_BANDS = 16
_MOST_ABOVE = 4.0


def defocus(grey: np.ndarray, sigma_px: float, rng: np.random.Generator, kind: str = "disc") -> np.ndarray:
    """Blur an image and add as much noise as the blur took from it.

    A blurred image gives itself away by its missing noise: a microscope out of focus counts as many electrons as one in
    focus. The noise's spectrum is estimated (`noise_spectrum`), and what the blur left of it, the square of the
    transfer function, is made up to the whole by Gaussian noise of that spectrum. What this leaves out: the noise is
    the same at bright and at dark places, and structure finer than 4 px counts as noise.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)
        Taken in focus; at least 128 px a side.
    sigma_px : float
        RMS width of the blur along one direction, in px; 0 gives the image itself.
    rng : Generator
    kind : str
        ``disc``: a defocused probe; ``gaussian``.

    Returns
    -------
    ndarray of uint8, same shape
    """
    if sigma_px <= 0:
        return grey.copy()
    if kind == "disc":
        acquisition = Acquisition(probe_sigma_px=0.0, defocus_sigma_px=sigma_px)
    else:
        acquisition = Acquisition(probe_sigma_px=sigma_px, defocus_sigma_px=0.0)
    seen = blur(grey, acquisition)
    shape = tuple(fft.next_fast_len(n, real=True) for n in grey.shape)
    radius = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None])
    frequencies, power = noise_spectrum(grey)
    taken = np.interp(radius, frequencies, power) * np.maximum(1 - transfer(shape, acquisition) ** 2, 0)
    white = fft.rfft2(rng.standard_normal(shape, np.float32))
    noise = fft.irfft2(white * np.sqrt(taken).astype(np.float32), s=shape)[: grey.shape[0], : grey.shape[1]]
    return np.clip(np.rint(seen + noise), 0, 255).astype(np.uint8)


def noise_spectrum(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of an image's noise: the image's own from a quarter of a cycle per px on, continued below.

    Below, the logarithm goes on as a parabola in frequency, as that of noise smoothed by a resampling or a detector
    does (not above four times its value at a quarter cycle). Each frequency is the median over tiles.

    Parameters
    ----------
    grey : ndarray, shape (height, width)
        At least 128 px a side.

    Returns
    -------
    frequencies, power : ndarray of float64
        Cycles per px, and grey values² (of white noise, its variance).
    """
    window = np.outer(*(np.hanning(_TILE_PX + 2)[1:-1],) * 2).astype(np.float32)
    spectra = []
    for y in range(0, grey.shape[0] - _TILE_PX + 1, _TILE_PX):
        for x in range(0, grey.shape[1] - _TILE_PX + 1, _TILE_PX):
            tile = grey[y : y + _TILE_PX, x : x + _TILE_PX].astype(np.float32)
            spectra.append(np.abs(fft.rfft2((tile - tile.mean()) * window)) ** 2)
    # the median of an exponential distribution is ln 2 of its mean
    power = np.median(spectra, 0) / np.log(2) / float((window**2).sum())
    radius = np.hypot(fft.fftfreq(_TILE_PX)[:, None], fft.rfftfreq(_TILE_PX)[None])
    edges = np.linspace(_NOISE_FROM, 0.5 * np.sqrt(2), _N_BANDS + 1)
    band = np.digitize(radius.ravel(), edges) - 1
    inside = (band >= 0) & (band < _N_BANDS)
    total = np.bincount(band[inside], power.ravel()[inside], _N_BANDS)
    count = np.bincount(band[inside], minlength=_N_BANDS)
    frequencies, power = (edges[:-1] + edges[1:])[count > 0] / 2, total[count > 0] / count[count > 0]
    fitted = (frequencies < 0.45) & (power > 0)
    if np.count_nonzero(fitted) < 2:
        return frequencies, power
    slope, start = np.polyfit(frequencies[fitted] ** 2, np.log(power[fitted]), 1)
    below = np.linspace(0, _NOISE_FROM, 9)[:-1]
    most = np.log(_MOST_ABOVE)
    rise = np.clip(start + slope * below**2 - (start + slope * _NOISE_FROM**2), 0, most)
    level = np.exp(start + slope * _NOISE_FROM**2)
    return np.concatenate([below, frequencies]), np.concatenate([level * np.exp(rise), power])
