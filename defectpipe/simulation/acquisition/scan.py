"""Where the probe is while it scans: wander, mains hum, drift, flyback, and objects that move meanwhile."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from defectpipe.simulation.acquisition.settings import Acquisition

_SAMPLES_PER_LINE = 16  # of the probe's wander in time; carries frequencies up to 8 per line


def scan_field(shape: tuple[int, int], acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Displacement of the probe from each pixel's nominal place, in px.

    The wander is a function of time (amplitude one over frequency, and the mains), read out line by line, so that slow
    parts bend the image and fast ones tear neighbouring lines apart. Its mean is zero.

    Parameters
    ----------
    shape : tuple of int
        Height and width.

    Returns
    -------
    ndarray of float32, shape (2, height, width)
        Along x, along y: pixel (x, y) of the image shows the specimen at (x + field[0], y + field[1]).
    """
    height, width = shape
    line_s = (width * acquisition.dwell_us + acquisition.line_pause_us) * 1e-6
    start, within = np.arange(height) * line_s, np.arange(width) * (acquisition.dwell_us * 1e-6)
    field = np.zeros((2, height, width), np.float32)
    if acquisition.scan_distortion > 0:
        at = _interpolation(within * (_SAMPLES_PER_LINE / line_s))
        factors = []
        for mains in (acquisition.mains_share, 0.3 * acquisition.mains_share):
            wander = _one_over_f(height * _SAMPLES_PER_LINE, line_s / _SAMPLES_PER_LINE, rng)
            phase = 2 * np.pi * (acquisition.mains_hz * start + rng.random())
            turn = 2 * np.pi * acquisition.mains_hz * within
            # sin(a + b) = sin a cos b + cos a sin b: line and place in it apart, as with the wander
            down = np.stack([np.sin(phase), np.cos(phase)], 1) * (np.sqrt(2.0) * mains)
            across = np.stack([np.cos(turn), np.sin(turn)])
            factors.append((np.hstack([(1 - mains) * _by_line(wander), down]), np.vstack([at, across])))
        scale = _scale_to(factors, acquisition.scan_distortion)
        for axis, (down, across) in enumerate(factors):
            field[axis] = _product(scale * down, across)
    share = (np.arange(height)[:, None] / max(height - 1, 1) - 0.5).astype(np.float32)
    field[0] += acquisition.drift_x_px * share
    field[1] += acquisition.drift_y_px * share
    field[0] += (acquisition.flyback_px * np.exp(-np.arange(width)[None] / (0.04 * width))).astype(np.float32)
    field -= field.mean((1, 2), keepdims=True, dtype=float).astype(np.float32)
    return field


def magnification_rms(field: np.ndarray) -> float:
    """RMS deviation from 1 of the local magnification of a displacement field of shape (2, height, width)."""
    xx, xy, yx, yy = _gradients(np.asarray(field, float))
    return float(np.sqrt(np.mean(((1 + xx) * (1 + yy) - xy * yx - 1) ** 2)))


def distort(specimen: np.ndarray, field: np.ndarray, margin_px: int = 0) -> np.ndarray:
    """The specimen sampled at the displaced places.

    Parameters
    ----------
    specimen : ndarray, shape (height + 2 margin, width + 2 margin)
        Pixel (margin, margin) lies at the image's (0, 0); what is sampled beyond its border is mirrored.
    field : ndarray, shape (2, height, width)

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    _, height, width = field.shape
    x = field[0] + np.arange(margin_px, margin_px + width, dtype=np.float32)[None]
    y = field[1] + np.arange(margin_px, margin_px + height, dtype=np.float32)[:, None]
    return cv2.remap(np.asarray(specimen, np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def to_image(points: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Where specimen points appear in the distorted image: the inverse of the field, by fixed-point iteration.

    Parameters
    ----------
    points : ndarray, shape (..., 2)
        x, y in px, in specimen coordinates. Beyond the image the field of its nearest pixel holds.
    field : ndarray, shape (2, height, width)

    Returns
    -------
    ndarray of float64, same shape
    """
    points = np.asarray(points, float)
    x, y = points[..., 0].ravel(), points[..., 1].ravel()
    at_x, at_y = x.copy(), y.copy()
    for _ in range(12):
        u, v = _sample(field, at_x, at_y)
        change = max(np.abs(x - u - at_x).max(initial=0), np.abs(y - v - at_y).max(initial=0))
        at_x, at_y = x - u, y - v
        if change < 1e-4:
            break
    return np.stack([at_x, at_y], -1).reshape(points.shape)


def moving(
    field: np.ndarray, centre_px: tuple[float, float], shift_px: tuple[float, float], turn_deg: float = 0.0
) -> np.ndarray:
    """Displacement field for an object that moves evenly while the frame is scanned.

    It is where the specimen says at half time, and the scan's own field acts on it besides.

    Parameters
    ----------
    field : ndarray, shape (2, height, width)
        Of the scan.
    centre_px : tuple of float
        x, y about which the object turns.
    shift_px : tuple of float
        Movement along x and y from the first line to the last.
    turn_deg : float
        Turn from the first line to the last, counter-clockwise as seen.

    Returns
    -------
    ndarray of float32, shape (2, height, width)
    """
    _, height, width = field.shape
    # a line takes the share 1 / height of the frame's time, the place within it hardly any
    time = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    back = np.deg2rad(turn_deg) * time
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    u = x + field[0] - centre_px[0] - shift_px[0] * time
    v = y + field[1] - centre_px[1] - shift_px[1] * time
    c, s = np.cos(back), np.sin(back)
    # y points down: a counter-clockwise turn takes (u, v) to (c u + s v, -s u + c v); this undoes it
    moved = np.stack([c * u - s * v + centre_px[0] - x, s * u + c * v + centre_px[1] - y])
    return moved.astype(np.float32)


def _one_over_f(count: int, step_s: float, rng: np.random.Generator) -> np.ndarray:
    frequency = np.fft.rfftfreq(count, step_s)
    phase = rng.standard_normal(frequency.size) + 1j * rng.standard_normal(frequency.size)
    amplitude = np.divide(1.0, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    wander = np.fft.irfft(phase * amplitude, count)
    return wander / max(float(wander.std()), 1e-12)


def _by_line(wander: np.ndarray) -> np.ndarray:
    """Samples of each line and the first one of the next, shape (height, samples + 1)."""
    lines = wander.reshape(-1, _SAMPLES_PER_LINE)
    following = np.append(lines[1:, 0], wander[-1])
    return np.hstack([lines, following[:, None]])


def _interpolation(places: np.ndarray) -> np.ndarray:
    """Weights of a line's samples at given places among them, shape (samples + 1, places)."""
    return np.maximum(1 - np.abs(np.arange(_SAMPLES_PER_LINE + 1)[:, None] - places[None]), 0)


def _product(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    return _matrix_product(np.ascontiguousarray(down, np.float32), np.ascontiguousarray(across, np.float32))


@njit(cache=True, nogil=True)
def _matrix_product(down, across):  # type: ignore[no-untyped-def]
    # NumPy's would take every core, and its sums could hang on their number
    product = np.zeros((down.shape[0], across.shape[1]), np.float32)
    for i in range(down.shape[0]):
        for k in range(down.shape[1]):
            for j in range(across.shape[1]):
                product[i, j] += down[i, k] * across[k, j]
    return product


def _scale_to(factors: list[tuple[np.ndarray, np.ndarray]], target_rms: float) -> float:
    """Scale of a field, given as products of a part along the lines and one across them, that meets the target."""
    xx, yx = (_product(down, np.gradient(across, axis=1)) for down, across in factors)
    xy, yy = (_product(np.gradient(down, axis=0), across) for down, across in factors)
    linear, square = xx + yy, xx * yy - xy * yx
    # the determinant is quadratic in the scale: a few steps settle it
    a, b, c = (float(np.mean(p * q, dtype=float)) for p, q in ((linear, linear), (linear, square), (square, square)))
    scale = 1.0
    for _ in range(5):
        scale *= target_rms / max(float(np.sqrt(scale**2 * a + 2 * scale**3 * b + scale**4 * c)), 1e-12)
    return scale


def _gradients(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    xy, xx = np.gradient(field[0])
    yy, yx = np.gradient(field[1])
    return xx, xy, yx, yy


def _sample(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = field.shape[1:]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    top = field[:, y0, x0] * (1 - fx) + field[:, y0, x1] * fx
    bottom = field[:, y1, x0] * (1 - fx) + field[:, y1, x1] * fx
    u, v = top * (1 - fy) + bottom * fy
    return u, v
