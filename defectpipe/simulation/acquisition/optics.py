"""What the probe makes of the specimen before anything is counted: its size, defocus, astigmatism."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numba import njit
from scipy import fft
from scipy.special import j1

from defectpipe.simulation.acquisition.settings import Acquisition

_STEPS_PER_RADIAN = 64  # of the tabulated disc: linear in between it is good to 1e-5


def blur(specimen: np.ndarray, acquisition: Acquisition, margin_px: int = 0) -> np.ndarray:
    """The specimen as the probe sees it, mirrored at the border: a Gaussian, and an elliptical disc out of focus.

    Parameters
    ----------
    specimen : ndarray, shape (height, width)
    acquisition : Acquisition
    margin_px : int
        Border that the caller cuts off afterwards; a specimen that carries one need not be mirrored as far.

    Returns
    -------
    ndarray of float32, same shape
    """
    values = np.asarray(specimen, np.float32)
    if acquisition.defocus_sigma_px <= 0:
        sigma = acquisition.probe_sigma_px
        return values if sigma <= 0 else cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    long = defocus_axes(acquisition)[0]
    reach = max(int(np.ceil(2 * long + 4 * acquisition.probe_sigma_px)) + 1 - margin_px, 0)
    (top, bottom), (left, right) = (_padding(n, reach) for n in values.shape)
    padded = cv2.copyMakeBorder(values, top, bottom, left, right, cv2.BORDER_REFLECT)
    spectrum = fft.rfft2(padded) * transfer(padded.shape, acquisition)
    full = fft.irfft2(spectrum, s=padded.shape)
    return np.ascontiguousarray(full[top : top + values.shape[0], left : left + values.shape[1]], np.float32)


def defocus_axes(acquisition: Acquisition) -> tuple[float, float]:
    """RMS widths of the defocused disc along its long and its short axis, in px: half its radii."""
    ratio = max(acquisition.astigmatism, 1.0)
    short = acquisition.defocus_sigma_px * np.sqrt(2 / (1 + ratio**2))
    return float(ratio * short), float(short)


def transfer(shape: tuple[int, ...], acquisition: Acquisition) -> np.ndarray:
    """Optical transfer function on the grid of `scipy.fft.rfft2`: 1 at frequency 0.

    Returns
    -------
    ndarray of float32, shape (height, width // 2 + 1)
    """
    down, across = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    angle = np.deg2rad(acquisition.astigmatism_deg)
    c, s = np.cos(angle), np.sin(angle)
    long, short = (4 * np.pi * v for v in defocus_axes(acquisition))
    gauss_y, gauss_x = (np.exp(-2 * (np.pi * acquisition.probe_sigma_px * f) ** 2) for f in (down, across))
    # y points down in the array and up in the angle's convention
    table = _disc_table(1 << int(0.75 * max(long, short) + 1).bit_length())
    return _elliptical(down, across, gauss_y, gauss_x, long * c, -long * s, short * s, short * c, table)


@lru_cache(maxsize=8)
def _disc_table(end: int) -> np.ndarray:
    phase = np.arange(1, end * _STEPS_PER_RADIAN + 2) / _STEPS_PER_RADIAN
    return np.append(1.0, 2 * j1(phase) / phase)


@njit(cache=True, fastmath=True)
def _elliptical(down, across, gauss_y, gauss_x, ux, uy, vx, vy, table):  # type: ignore[no-untyped-def]
    otf = np.empty((down.size, across.size), np.float32)
    for i in range(down.size):
        for j in range(across.size):
            u, v = ux * across[j] + uy * down[i], vx * across[j] + vy * down[i]
            place = np.sqrt(u * u + v * v) * _STEPS_PER_RADIAN
            k = int(place)
            disc = table[k] + (place - k) * (table[k + 1] - table[k])
            otf[i, j] = disc * gauss_y[i] * gauss_x[j]
    return otf


def _padding(size: int, reach: int) -> tuple[int, int]:
    # mirrored at most once over; to a length that transforms quickly
    reach = min(reach, size)
    total = fft.next_fast_len(size + 2 * reach, real=True) - size
    return total // 2, total - total // 2
