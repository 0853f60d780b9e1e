"""What the probe makes of the specimen before anything is counted: its size, defocus, astigmatism."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import fft
from scipy.special import j1

from defectpipe.simulation.acquisition.settings import Acquisition


def blur(specimen: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """The specimen as the probe sees it, mirrored at the border: a Gaussian, and an elliptical disc out of focus.

    Parameters
    ----------
    specimen : ndarray, shape (height, width)

    Returns
    -------
    ndarray of float32, same shape
    """
    values = np.asarray(specimen, np.float32)
    if acquisition.defocus_sigma_px <= 0:
        sigma = acquisition.probe_sigma_px
        return values if sigma <= 0 else cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    long = defocus_axes(acquisition)[0]
    reach = int(np.ceil(2 * long + 4 * acquisition.probe_sigma_px)) + 1
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
    down, across = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    angle = np.deg2rad(acquisition.astigmatism_deg)
    c, s = np.cos(angle), np.sin(angle)
    long, short = defocus_axes(acquisition)
    # y points down in the array and up in the angle's convention
    phase = 4 * np.pi * np.hypot((c * across - s * down) * long, (s * across + c * down) * short)
    disc = np.divide(2 * j1(phase), phase, out=np.ones_like(phase), where=phase > 1e-6)
    gauss = np.exp(-2 * (np.pi * acquisition.probe_sigma_px) ** 2 * (across**2 + down**2))
    return (disc * gauss).astype(np.float32)


def _padding(size: int, reach: int) -> tuple[int, int]:
    # mirrored at most once over; to a length that transforms quickly
    reach = min(reach, size)
    total = fft.next_fast_len(size + 2 * reach, real=True) - size
    return total // 2, total - total // 2
