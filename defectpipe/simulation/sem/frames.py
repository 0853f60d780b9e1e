"""One simulated SEM image: a sample or an empty frame, with its focus score."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numba import njit

from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.acquisition import Acquisition, blur, detect, digitise, distort, scan_field
from defectpipe.simulation.images import SimulatedImage
from defectpipe.simulation.preset import Range
from defectpipe.simulation.sem.presets import SemPreset
from defectpipe.simulation.sem.samples import SAMPLES
from defectpipe.simulation.sem.scale import FocusLimits, blur_of_score, defocus_of_blur, focus_limits, pixel_size_nm

TRUTH_COLUMNS = [
    "image",
    "sample",
    "magnification",
    "pixel_size_nm",
    "focus_score",
    "blur_sigma_px",
    "defocus_sigma_px",
    "astigmatism",
    "astigmatism_deg",
    "dose_per_px",
    "contrast",
    "brightness",
    "noise",
    "charging",
    "scan_distortion",
]
EMPTY_FRAMES = ("white-noise", "correlated-noise", "white-frame", "black-frame")
# nothing that a sample's image gets unless it is drawn
_PLAIN = Acquisition(probe_sigma_px=0, scan_distortion=0, detector_rms=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSem(SimulatedImage):
    """One SEM image and how it came about.

    `truth` has the columns `TRUTH_COLUMNS` and one row. `sample`: tinball, grid, or one of `EMPTY_FRAMES`, whose score
    is 0 and whose blur is unknown (NaN). `blur_sigma_px`: RMS width of the whole blur along one direction, probe and
    defocus. `dose_per_px`: electrons where the signal has its mean. `brightness`: share of the grey scale at which the
    mean of the focused signal is recorded; `contrast`: share of the scale by which twice that signal is brighter.
    `noise`: white, correlated, or lines.

    Parameters
    ----------
    clean : ndarray of float32, shape (height, width)
        The signal before it was counted: what the probe makes of the sample, relative to the mean.
    acquisition : Acquisition
    """

    clean: np.ndarray
    acquisition: Acquisition


def simulate_sem(preset: SemPreset, seed: int, index: int = 0) -> SimulatedSem:
    """One image of a series.

    Depends on `preset`, `seed` and `index` alone: the images of a larger set begin with those of a smaller one.

    Parameters
    ----------
    preset : SemPreset
    seed : int
        Not negative.
    index : int
        Number of the image in the series, from 0; magnifications and samples take turns.
    """
    # one stream for each stage: what one of them draws does not shift the others
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(index,)).spawn(6)]
    choice_rng, sample_rng, focus_rng, exposure_rng, scan_rng, count_rng = streams
    magnification = preset.magnifications[index % len(preset.magnifications)]
    if choice_rng.random() < preset.zero_share:
        sample, score, blur_px = str(choice_rng.choice(EMPTY_FRAMES)), 0.0, np.nan
        acquisition = _draw_empty(sample, exposure_rng)
        clean, charging = np.ones(preset.shape, np.float32), False
    else:
        # with as many magnifications as a multiple of the samples, the turns would coincide
        turn = index + index // math.lcm(len(preset.magnifications), len(preset.samples))
        sample = preset.samples[turn % len(preset.samples)]
        limits = focus_limits(magnification)
        score = float(focus_rng.uniform(*preset.focus_score))
        blur_px = blur_of_score(score, limits)
        margin = _margin_px(preset, limits)
        shape = (preset.shape[0] + 2 * margin, preset.shape[1] + 2 * margin)
        signal = SAMPLES[sample](shape, magnification, limits, sample_rng)
        signal *= np.float32(1 / signal.mean())
        acquisition = _draw_exposure(preset, float(signal.std()), exposure_rng)
        acquisition = _draw_focus(preset, acquisition, limits, blur_px, focus_rng)
        acquisition = dataclasses.replace(acquisition, scan_distortion=_draw_distortion(preset, scan_rng))
        charging = bool(exposure_rng.random() < preset.charging_share)
        clean = _scan(blur(signal, acquisition, margin), acquisition, margin, scan_rng)
        if charging:
            clean = charge(clean, exposure_rng.uniform(0.15, 0.5), exposure_rng.uniform(15, 80))
    pixels = digitise(detect(clean, acquisition, count_rng), acquisition)
    condition = f"{sample}-{magnification:g}x"
    name = f"{condition}_field-{index // len(preset.magnifications) + 1:03d}.tif"
    size_nm = pixel_size_nm(magnification)
    return SimulatedSem(
        micrograph=Micrograph(
            pixels,
            name,
            calibration=Calibration(size_nm, "simulation"),
            modality="SEM",
            magnification=float(magnification),
        ),
        condition=condition,
        truth=_truth(name, sample, magnification, score, blur_px, acquisition, charging),
        clean=clean,
        acquisition=acquisition,
    )


def _margin_px(preset: SemPreset, limits: FocusLimits) -> int:
    # as far as the widest disc of any score reaches, so that a specimen does not hang on its score
    ratio = max(preset.astigmatism[1], 1.0)
    return int(np.ceil(2 * limits.lost_px * np.sqrt(2 * ratio**2 / (1 + ratio**2)) + 4 * limits.perfect_px)) + 1


def _draw_focus(
    preset: SemPreset, acquisition: Acquisition, limits: FocusLimits, blur_px: float, rng: np.random.Generator
) -> Acquisition:
    return dataclasses.replace(
        acquisition,
        probe_sigma_px=limits.perfect_px,
        defocus_sigma_px=defocus_of_blur(blur_px, limits.perfect_px),
        astigmatism=float(rng.uniform(*preset.astigmatism)),
        astigmatism_deg=float(rng.uniform(0, 180)),
    )


def _draw_exposure(preset: SemPreset, spread: float, rng: np.random.Generator) -> Acquisition:
    """Dose, noise, contrast and brightness for a focused signal of mean 1 and standard deviation `spread`."""
    dose = (_log_uniform(preset.contrast_to_noise, rng) / spread) ** 2
    detector_rms, kind = rng.uniform(*preset.detector_rms), rng.random()
    lengths, line_rms = rng.uniform(*preset.noise_length_px, 2), spread * rng.uniform(*preset.line_rms)
    gain = _log_uniform(preset.contrast, rng) / spread
    correlated = kind < preset.correlated_share
    lines = not correlated and kind < preset.correlated_share + preset.lines_share
    return dataclasses.replace(
        _PLAIN,
        dose_per_px=dose,
        detector_rms=detector_rms,
        noise_length_x_px=lengths.max() if correlated else 0.0,
        noise_length_y_px=lengths.min() if correlated else 0.0,
        line_rms=line_rms if lines else 0.0,
        gain=gain,
        black_level=rng.uniform(*preset.brightness) - gain,
    )


def _draw_empty(kind: str, rng: np.random.Generator) -> Acquisition:
    lengths = rng.uniform(0.5, 2.0, 2) if kind == "correlated-noise" else np.zeros(2)
    dose = _log_uniform((10.0, 300.0), rng)
    gain = _log_uniform((0.1, 1.0), rng) * np.sqrt(dose) / 5 if kind.endswith("noise") else rng.uniform(0.02, 0.3)
    # a saturated detector, or none at all: a little noise may come back from the end of the scale
    level = {"white-frame": rng.uniform(1.0, 1.3), "black-frame": rng.uniform(-0.3, 0.0)}.get(kind)
    level = rng.uniform(0.2, 0.75) if level is None else level
    return dataclasses.replace(
        _PLAIN,
        dose_per_px=dose,
        noise_length_x_px=float(lengths.max()),
        noise_length_y_px=float(lengths.min()),
        gain=float(gain),
        black_level=float(level - gain),
    )


def _draw_distortion(preset: SemPreset, rng: np.random.Generator) -> float:
    size = float(rng.uniform(*preset.scan_distortion))
    return size if rng.random() < preset.distorted_share else 0.0


def _scan(seen: np.ndarray, acquisition: Acquisition, margin: int, rng: np.random.Generator) -> np.ndarray:
    if acquisition.scan_distortion <= 0:
        return np.ascontiguousarray(seen[margin:-margin, margin:-margin])
    shape = (seen.shape[0] - 2 * margin, seen.shape[1] - 2 * margin)
    return distort(seen, scan_field(shape, acquisition, rng), margin)


@njit(cache=True)
def charge(signal, strength, length_px):  # type: ignore[no-untyped-def]
    """The signal with a trail behind whatever is brighter (dark trail) or darker (bright) than the mean of 1.

    Parameters
    ----------
    signal : ndarray of float32, shape (height, width)
        Scanned along its rows.
    strength : float
        Share of a long bright stretch's excess that is taken away at its end.
    length_px : float
        In which a trail falls to 1 / e.

    Returns
    -------
    ndarray of float32, same shape
    """
    keep = np.float32(np.exp(-1 / length_px))
    take = np.float32(strength)
    charged = np.empty_like(signal)
    for y in range(signal.shape[0]):
        potential = np.float32(0)
        for x in range(signal.shape[1]):
            charged[y, x] = signal[y, x] - take * potential
            potential = keep * potential + (np.float32(1) - keep) * (signal[y, x] - np.float32(1))
    return charged


def _log_uniform(limits: Range, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _truth(
    name: str,
    sample: str,
    magnification: float,
    score: float,
    blur_px: float,
    acquisition: Acquisition,
    charging: bool,
) -> pd.DataFrame:
    if acquisition.line_rms > 0:
        noise = "lines"
    else:
        noise = "correlated" if acquisition.noise_length_x_px > 0 else "white"
    focused = (acquisition.defocus_sigma_px, acquisition.astigmatism, acquisition.astigmatism_deg)
    focus = focused if score > 0 else (np.nan,) * 3
    brightness = (acquisition.black_level or 0.0) + acquisition.gain
    row = [name, sample, float(magnification), pixel_size_nm(magnification), score, blur_px, *focus]
    row += [acquisition.dose_per_px, acquisition.gain, brightness, noise, charging, acquisition.scan_distortion]
    return pd.DataFrame([row], columns=TRUTH_COLUMNS)
