"""Named kinds of simulated SEM series."""

from __future__ import annotations

from dataclasses import dataclass

from defectpipe.errors import SettingsError
from defectpipe.simulation.preset import Preset, Range
from defectpipe.simulation.sem.samples import SAMPLES
from defectpipe.simulation.sem.scale import MAGNIFICATION_LIMITS


@dataclass(frozen=True)
class SemPreset(Preset):
    """A series of SEM images. A range (low, high) is drawn from uniformly, once an image.

    Parameters
    ----------
    shape : tuple of int
        Height and width in px: a part of the full frame.
    magnifications : tuple of float
        From 500 to 10,000, taken in turns: any five images on end have each of five once.
    samples : tuple of str
        Names in `samples.SAMPLES`, taken in turns too.
    focus_score : Range
        Of images with a sample, within 1 and 10.
    zero_share : float
        Share of frames without a sample, score 0: white noise, correlated noise, white, black, a quarter each.
    astigmatism : Range
        Long over short axis of the defocused disc.
    contrast_to_noise : Range
        Standard deviation of the focused signal over that of one px's shot noise, drawn by its logarithm: for a faint
        sample the operator scans longer.
    detector_rms : Range
        Standard deviation of the detector's own noise, of the mean signal.
    contrast : Range
        Standard deviation of the focused signal on the grey scale, as a share of it, drawn by its logarithm.
    brightness : Range
        Grey value of the mean signal, as a share of the scale.
    correlated_share, lines_share : float
        Shares of images whose shot noise is correlated, and whose lines differ in brightness; the others' is white.
    noise_length_px : Range
        Of the correlated noise, along the scan and across it.
    line_rms : Range
        Standard deviation of the lines' offsets, of that of the focused signal.
    charging_share : float
        Share of images in which what charges leaves a dark trail behind itself in the line.
    distorted_share, scan_distortion : float, Range
        Share of images with a distorted scan, and its size as in `Acquisition`.
    """

    shape: tuple[int, int] = (240, 320)
    magnifications: tuple[float, ...] = (500, 1000, 2000, 5000, 10000)
    samples: tuple[str, ...] = ("tinball", "grid")
    focus_score: Range = (1.0, 10.0)
    zero_share: float = 0.1
    astigmatism: Range = (1.0, 1.6)
    contrast_to_noise: Range = (1.2, 10.0)
    detector_rms: Range = (0.0, 0.03)
    contrast: Range = (0.07, 0.25)
    brightness: Range = (0.25, 0.65)
    correlated_share: float = 0.25
    lines_share: float = 0.15
    noise_length_px: Range = (0.3, 1.2)
    line_rms: Range = (0.05, 0.25)
    charging_share: float = 0.15
    distorted_share: float = 0.1
    scan_distortion: Range = (0.002, 0.01)

    def __post_init__(self) -> None:
        low, high = MAGNIFICATION_LIMITS
        if not self.magnifications or not all(low <= m <= high for m in self.magnifications):
            raise SettingsError(f"Magnifications of simulated SEM images go from {low:g} to {high:g}.")
        if not self.samples or not set(self.samples) <= set(SAMPLES):
            raise SettingsError(f"Samples of simulated SEM images are {', '.join(SAMPLES)}.")
        if not 1 <= self.focus_score[0] <= self.focus_score[1] <= 10:
            raise SettingsError("Focus scores of images with a sample go from 1 to 10.")


# Larger than the 240 × 320 px that a network sees: training crops at random, the test takes the centre.
_CROPPED_FROM = (264, 352)
# 5 : 4 : 3 : 2 : 1
_UNEQUAL = (500, 1000, 500, 2000, 500, 1000, 5000, 500, 1000, 2000, 500, 5000, 1000, 2000, 10000)

PRESETS: dict[str, SemPreset] = {
    "focus": SemPreset("focus"),
    # the two data sets of Yang et al.: as many images at each magnification, and the older one
    "focus-new": SemPreset("focus-new", shape=_CROPPED_FROM),
    "focus-old": SemPreset("focus-old", shape=_CROPPED_FROM, magnifications=_UNEQUAL, zero_share=0.0),
}
