"""How the microscope turns a specimen into an image: probe, scan, dose, detector. Shared by every simulator.

The order is that of the instrument. The probe blurs the specimen, the scan samples it at displaced places, and only
then electrons are counted: noise that is added before a blur would be smooth, and would give every edge away.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_SAMPLES_PER_LINE = 16  # of the probe's wander in time; carries frequencies up to 8 per line


@dataclass(frozen=True)
class Acquisition:
    """Settings of one scan.

    Parameters
    ----------
    probe_sigma_px : float
        Standard deviation of the probe, and of all else that blurs the signal.
    dose_per_px : float
        Electrons per px where the specimen lets all of them through; the noise there is 1 / sqrt(dose) of the signal.
    scan_distortion : float
        RMS deviation of the local magnification (the Jacobian's determinant) from 1, without drift and flyback.
    mains_share : float
        Share of the wander that comes from the mains, 0 to 1; the rest falls as one over frequency.
    drift_x_px, drift_y_px : float
        Linear drift of the specimen from the first to the last pixel.
    flyback_px : float
        Lag at the start of each line; it decays within 4 % of the line.
    detector_rms : float
        Standard deviation of the detector's own noise, as a share of the full beam.
    line_rms : float
        Standard deviation of the offset of whole lines, as a share of the full beam.
    noise_length_x_px, noise_length_y_px : float
        Length of the two-sided exponential that correlates the shot noise; 0 leaves it white. Autocorrelation over k
        px: q^k (1 + k (1 - q²) / (1 + q²)) with q = exp(-1 / length). Real images have 0.4 to 0.9 for k = 1.
    grey_level : float
        Share of the full scale at which the median of the signal is recorded.
    gain : float
        Slope of the recorded grey value about that median, relative to the signal's.
    bits : int
        8 or 16.
    dwell_us, line_pause_us, mains_hz : float
        Timing.
    """

    probe_sigma_px: float = 0.8
    dose_per_px: float = 300.0
    scan_distortion: float = 0.05
    mains_share: float = 0.15
    drift_x_px: float = 0.0
    drift_y_px: float = 0.0
    flyback_px: float = 0.0
    detector_rms: float = 0.01
    line_rms: float = 0.0
    noise_length_x_px: float = 0.0
    noise_length_y_px: float = 0.0
    grey_level: float = 0.6
    gain: float = 1.0
    bits: int = 8
    dwell_us: float = 8.0
    line_pause_us: float = 800.0
    mains_hz: float = 50.0


def blur_probe(transmitted: np.ndarray, sigma_px: float) -> np.ndarray:
    """The specimen as the probe sees it: a Gaussian blur, mirrored at the border.

    Returns
    -------
    ndarray of float32, same shape
    """
    values = np.asarray(transmitted, np.float32)
    return values if sigma_px <= 0 else cv2.GaussianBlur(values, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)


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
    field = np.zeros((2, height, width))
    if acquisition.scan_distortion > 0:
        start = np.arange(height)[:, None] * line_s
        times = start + np.arange(width)[None] * acquisition.dwell_us * 1e-6
        for axis, mains in ((0, acquisition.mains_share), (1, 0.3 * acquisition.mains_share)):
            wander = _one_over_f(height * _SAMPLES_PER_LINE, line_s / _SAMPLES_PER_LINE, rng)
            hum = np.sqrt(2.0) * np.sin(2 * np.pi * (acquisition.mains_hz * times + rng.random()))
            knots = np.arange(wander.size) * (line_s / _SAMPLES_PER_LINE)
            field[axis] = (1 - mains) * np.interp(times.ravel(), knots, wander).reshape(shape) + mains * hum
        field *= _scale_to(field, acquisition.scan_distortion)
    share = np.arange(height)[:, None] / max(height - 1, 1) - 0.5
    field[0] += acquisition.drift_x_px * share
    field[1] += acquisition.drift_y_px * share
    field[0] += acquisition.flyback_px * np.exp(-np.arange(width)[None] / (0.04 * width))
    field -= field.mean((1, 2), keepdims=True)
    return field.astype(np.float32)


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
    x = np.arange(width, dtype=np.float32)[None] + field[0] + np.float32(margin_px)
    y = np.arange(height, dtype=np.float32)[:, None] + field[1] + np.float32(margin_px)
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
        at_x, at_y = x - u, y - v
    return np.stack([at_x, at_y], -1).reshape(points.shape)


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
    expected = np.maximum(np.asarray(fraction, float), 0)
    noise = (rng.poisson(expected * acquisition.dose_per_px) / acquisition.dose_per_px - expected).astype(np.float32)
    kernels = [_noise_kernel(v) for v in (acquisition.noise_length_x_px, acquisition.noise_length_y_px)]
    if max(k.size for k in kernels) > 1:
        noise = cv2.sepFilter2D(noise, cv2.CV_32F, kernels[0], kernels[1], borderType=cv2.BORDER_REFLECT)
    signal = expected.astype(np.float32) + noise
    signal += acquisition.detector_rms * rng.standard_normal(signal.shape, np.float32)
    return signal + acquisition.line_rms * rng.standard_normal((signal.shape[0], 1), np.float32)


def noise_std(fraction: float, acquisition: Acquisition) -> float:
    """Standard deviation of one pixel where `fraction` of the beam arrives, in units of the full beam."""
    variance = max(fraction, 0.0) / acquisition.dose_per_px + acquisition.detector_rms**2 + acquisition.line_rms**2
    return float(np.sqrt(variance))


def digitise(signal: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Grey values of 8 or 16 bit: the signal's median at `grey_level`, clipped at both ends of the scale.

    Returns
    -------
    ndarray of uint8 or uint16, same shape
    """
    full = 2**acquisition.bits - 1
    middle = float(np.median(signal))
    relative = signal / middle - 1 if middle > 0 else np.zeros_like(signal)
    grey = full * acquisition.grey_level * (1 + acquisition.gain * relative)
    return np.clip(np.rint(grey), 0, full).astype(np.uint8 if acquisition.bits <= 8 else np.uint16)


def _one_over_f(count: int, step_s: float, rng: np.random.Generator) -> np.ndarray:
    frequency = np.fft.rfftfreq(count, step_s)
    phase = rng.standard_normal(frequency.size) + 1j * rng.standard_normal(frequency.size)
    amplitude = np.divide(1.0, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    wander = np.fft.irfft(phase * amplitude, count)
    return wander / max(float(wander.std()), 1e-12)


def _scale_to(field: np.ndarray, target_rms: float) -> float:
    # the determinant is quadratic in the field: a few steps settle its scale
    xx, xy, yx, yy = _gradients(field)
    scale = 1.0
    for _ in range(5):
        rms = np.sqrt(np.mean(((1 + scale * xx) * (1 + scale * yy) - scale**2 * xy * yx - 1) ** 2))
        scale *= target_rms / max(float(rms), 1e-12)
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


def _noise_kernel(length_px: float) -> np.ndarray:
    if length_px <= 0:
        return np.ones(1, np.float32)
    reach = int(np.ceil(6 * length_px))
    kernel = np.exp(-np.abs(np.arange(-reach, reach + 1)) / length_px)
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
