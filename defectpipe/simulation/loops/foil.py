"""The foil itself: its thickness, its bending, its surface, its grains. Each part is a map of attenuation."""

from __future__ import annotations

import cv2
import numpy as np

_COARSE = 4  # broad parts are drawn on every fourth px


def smooth_noise(
    shape: tuple[int, int], length_x_px: float, length_y_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Random texture of mean 0 and standard deviation 1 that varies over the given lengths.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    height, width = shape
    knots = rng.standard_normal((int(height / length_y_px) + 4, int(width / length_x_px) + 4), np.float32)
    full = cv2.resize(knots, None, fx=length_x_px, fy=length_y_px, interpolation=cv2.INTER_CUBIC)
    top, left = int(length_y_px), int(length_x_px)  # the outermost knots lack neighbours
    full = full[top : top + height, left : left + width]
    (mean,), (std,) = (v.ravel() for v in cv2.meanStdDev(full))
    return (full - np.float32(mean)) * np.float32(1 / max(float(std), 1e-9))


def background(shape: tuple[int, int], unevenness: float, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of an ordinary foil: slowly changing thickness, broad bend contrast, mottle of the surface.

    Parameters
    ----------
    unevenness : float
        Overall amplitude; 1 is that of an ordinary foil, 0 gives a flat one.

    Returns
    -------
    ndarray of float32, shape (height, width); lowest value 0
    """
    coarse = _coarse(shape)
    foil = rng.uniform(0.02, 0.2) * _ramp(coarse, rng.uniform(0, 2 * np.pi))
    long = 0.25 * max(coarse)
    foil += rng.uniform(0.02, 0.06) * smooth_noise(coarse, long, long * rng.uniform(0.6, 1.6), rng)
    foil += rng.uniform(0.015, 0.035) * smooth_noise(coarse, 45 / _COARSE, 30 / _COARSE, rng)
    foil = _to_full(foil, shape)
    foil += np.float32(rng.uniform(0.012, 0.028)) * smooth_noise(shape, 14, 9, rng)
    foil += np.float32(rng.uniform(0.01, 0.022)) * smooth_noise(shape, 5, 4, rng)
    foil -= foil.min()
    foil *= np.float32(unevenness)
    return foil


def wedge(shape: tuple[int, int], rise: float, direction_deg: float) -> np.ndarray:
    """Attenuation that grows evenly by `rise` across the image's diagonal, towards `direction_deg`."""
    return _to_full(rise * (_ramp(_coarse(shape), np.deg2rad(direction_deg)) + 0.5), shape)


def thickness_fringes(
    shape: tuple[int, int], peak: float, period_px: float, direction_deg: float, rng: np.random.Generator
) -> np.ndarray:
    """Dark and bright bands along a wedge's edge, one for each extinction distance; they fade as it grows thicker."""
    coarse = _coarse(shape)
    depth = _across(coarse, direction_deg, 0.15, rng)
    depth -= depth.min()
    bands = 0.5 - 0.5 * np.cos(2 * np.pi / period_px * depth)
    return _to_full(peak * bands * np.exp(-depth / (3 * period_px)), shape)


def bend_contour(shape: tuple[int, int], peak: float, sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """A broad dark band where the bent foil meets a Bragg condition, with a fainter one of the same bend beside it."""
    distance = _across(_coarse(shape), rng.uniform(0, 360), 0.1, rng)
    apart = rng.uniform(2.5, 6) * sigma_px
    band = np.exp(-0.5 * (distance / sigma_px) ** 2)
    band += rng.uniform(0, 0.6) * np.exp(-0.5 * ((distance - apart) / (0.7 * sigma_px)) ** 2)
    return _to_full(peak * band, shape)


def grain_boundary(
    shape: tuple[int, int], step: float, peak: float, period_px: float, rng: np.random.Generator
) -> np.ndarray:
    """A boundary between two grains of different brightness, inclined to the foil: fringes fill its projection.

    Parameters
    ----------
    step : float
        Attenuation of the one grain beyond that of the other.
    peak : float
        Attenuation of the fringes.
    period_px : float
        From fringe to fringe.
    """
    distance = _to_full(_across(_coarse(shape), rng.uniform(0, 360), 0.012, rng), shape)
    projected_px = rng.uniform(1.5, 4) * period_px
    share = np.clip(distance / projected_px, 0, 1)
    band = np.clip(np.minimum(distance, projected_px - distance) / 1.5 + 1, 0, 1)
    fringes = 0.6 - 0.4 * np.cos(2 * np.pi / period_px * distance)
    return (step * share + peak * band * fringes).astype(np.float32)


def _across(shape: tuple[int, int], direction_deg: float, waviness: float, rng: np.random.Generator) -> np.ndarray:
    """Distance, in px of the full image, from a wavy line through the coarse one; it runs across `direction_deg`."""
    height, width = shape
    c, s = np.cos(np.deg2rad(direction_deg)), np.sin(np.deg2rad(direction_deg))
    x0, y0 = rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height
    y, x = np.ogrid[:height, :width]
    waves = smooth_noise(shape, 0.3 * max(shape), 0.3 * max(shape), rng)
    return _COARSE * (c * (x - x0) - s * (y - y0) + waviness * max(shape) * waves)


def _ramp(shape: tuple[int, int], direction: float) -> np.ndarray:
    """From -0.5 to 0.5 across the diagonal."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    # y points down in the array and up in the angle's convention
    along = np.cos(direction) * (x - 0.5 * (width - 1)) - np.sin(direction) * (y - 0.5 * (height - 1))
    return along / np.hypot(height, width)


def _coarse(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // _COARSE), -(-shape[1] // _COARSE)


def _to_full(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = (n * _COARSE for n in coarse.shape)
    full = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(full[: shape[0], : shape[1]])
