"""Settings of one scan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Acquisition:
    """Settings of one scan.

    Parameters
    ----------
    probe_sigma_px : float
        Standard deviation of the focused probe, and of all else that blurs the signal.
    defocus_sigma_px : float
        RMS width along one direction of the disc into which defocus spreads the probe, half the disc's radius; with
        astigmatism, the root of the mean square over both of its axes.
    astigmatism : float
        Long over short axis of the defocused disc, at least 1.
    astigmatism_deg : float
        Direction of the long axis from +x, counter-clockwise as seen.
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
    noise_sigma_px : float
        Standard deviation of a Gaussian that correlates the shot noise besides, as resampling of an image does; alone,
        its autocorrelation over k px is exp(-k² / (4 sigma²)).
    grey_level : float
        Share of the full scale at which the median of the signal is recorded. Unused with a `black_level`.
    gain : float
        Slope of the recorded grey value about that median, relative to the signal's; with a `black_level`, the share
        of the full scale that the full beam is recorded with.
    black_level : float or None
        Share of the full scale at which no signal is recorded; None where brightness follows the median.
    bits : int
        8 or 16.
    dwell_us, line_pause_us, mains_hz : float
        Timing.
    """

    probe_sigma_px: float = 0.8
    defocus_sigma_px: float = 0.0
    astigmatism: float = 1.0
    astigmatism_deg: float = 0.0
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
    noise_sigma_px: float = 0.0
    grey_level: float = 0.6
    gain: float = 1.0
    black_level: float | None = None
    bits: int = 8
    dwell_us: float = 8.0
    line_pause_us: float = 800.0
    mains_hz: float = 50.0
