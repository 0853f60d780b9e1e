"""One simulated field of view: pixels with exact truth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.io.tables import LABEL_COLUMNS, labels_table
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.acquisition import Acquisition, blur, detect, digitise, distort, scan_field, to_image
from defectpipe.simulation.images import Annotation, SimulatedImage
from defectpipe.simulation.loops import distractors, foil
from defectpipe.simulation.loops.data_bar import bar_height_px, burn_in
from defectpipe.simulation.loops.loop import Loop, add_loop, outline
from defectpipe.simulation.loops.population import Streams, draw_objects
from defectpipe.simulation.loops.settings import Condition, LoopPreset
from defectpipe.simulation.loops.truth import TRUTH_COLUMNS, labelled_rows, truth_table
from defectpipe.simulation.preset import Range

__all__ = ["TRUTH_COLUMNS", "SimulatedField", "simulate_field"]

_MARGIN_PX = 32  # of specimen beyond the image, for the scan to wander into
# One stream for each part: what one of them draws does not shift the others. New ones come last.
_STREAMS = (
    *("foil", "loops", "scan", "count", "acquisition", "texture", "crystal", "closed", "edge_on", "black_dots"),
    *("cavities", "lines", "pale_rings", "precipitates", "bend_contours", "wedge", "thickness_fringes"),
    *("grain_boundaries", "data_bar"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedField(SimulatedImage):
    """One image of loops and what is in it.

    `truth` has the columns `TRUTH_COLUMNS`, one row an object of any class; the ellipse through the rim's ridge, moved
    and deformed as the scan does it. `cnr`: mean contrast of the rim over the noise of one px, on the plain foil.
    `visible`: the centre is inside the image, the contrast to noise over the whole rim reaches 10, twice Rose's limit,
    and g·b is not 0. `polarity`: ``dark`` or ``bright`` against the foil. `true_diameter_nm`: major axis before the
    scan deformed it, which for a round loop is its diameter whatever the direction of view. `habit` to `g_dot_b`: of
    loops with a habit; `variant` counts from 0. A data bar lies outside `micrograph.rows`, and outside the image as the
    truth sees it.

    Parameters
    ----------
    outlines : tuple of ndarray, each of shape (64, 2)
        The ridge (closed: the edge) of each row's object, in px of the image; it may leave the image.
    labelled_classes : tuple of str
        The classes that an expert would label here.
    acquisition : Acquisition
    """

    outlines: tuple[np.ndarray, ...]
    labelled_classes: tuple[str, ...]
    acquisition: Acquisition

    @property
    def labelled(self) -> np.ndarray:
        """Which rows of `truth` an expert would label: those of the labelled classes that are visible."""
        return labelled_rows(self.truth, self.labelled_classes)

    @property
    def labels(self) -> pd.DataFrame:
        """The labelled objects as a table of labels; tight boxes at the border are clipped to the image."""
        rows = self.truth[self.labelled].rename(columns={"class": "label"})
        height, width = self.micrograph.analysed_shape
        for names, size in ((["x0_px", "x1_px"], width), (["y0_px", "y1_px"], height)):
            rows[names] = rows[names].clip(-0.5, size - 0.5)
        return labels_table(rows[LABEL_COLUMNS])


def simulate_field(preset: LoopPreset, seed: int, index: int = 0) -> SimulatedField:
    """One image of a data set.

    Depends on `preset`, `seed` and `index` alone: the images of a larger set begin with those of a smaller one.

    Parameters
    ----------
    preset : LoopPreset
    seed : int
        Not negative.
    index : int
        Number of the image in the set, from 0; the conditions take turns.
    """
    condition = preset.conditions[index % len(preset.conditions)]
    number = index // len(preset.conditions) + 1
    seeds = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(len(_STREAMS))
    streams = {name: np.random.default_rng(s) for name, s in zip(_STREAMS, seeds, strict=True)}
    pixel_size_nm = float(streams["acquisition"].choice(preset.pixel_size_nm))
    acquisition = _draw_acquisition(preset, condition, streams["acquisition"])
    loops = draw_objects(preset, condition, pixel_size_nm, streams)
    size = (preset.shape[0] + 2 * _MARGIN_PX, preset.shape[1] + 2 * _MARGIN_PX)
    attenuation = foil.background(size, streams["foil"].uniform(*preset.unevenness), streams["foil"])
    foil_levels = _transmitted(preset, _at(attenuation, loops))
    _add_distractors(preset, attenuation, pixel_size_nm, streams)
    texture = np.clip(1 + np.float32(0.16) * foil.smooth_noise(size, 6, 6, streams["texture"]), 0.4, 1.6)
    for loop in loops:
        add_loop(attenuation, loop, _MARGIN_PX, texture if loop.kind in ("open", "closed", "edge_on") else None)
    transmitted = _transmitted(preset, attenuation)
    field = scan_field(preset.shape, acquisition, streams["scan"])
    fraction = blur(transmitted if preset.contrast == "bf" else 1 - transmitted, acquisition)
    counted = detect(distort(fraction, field, _MARGIN_PX), acquisition, streams["count"])
    pixels = digitise(counted, acquisition)
    bar = bar_height_px(preset.shape[0], preset.data_bar)
    burn_in(pixels, bar, pixel_size_nm, preset.contrast, preset.modality, streams["data_bar"])
    picture = (preset.shape[0] - bar, preset.shape[1])
    name = f"{condition.name}_field-{number:03d}.tif"
    outlines = to_image(np.array([outline(loop) for loop in loops]).reshape(-1, 64, 2), field)
    truth = truth_table(name, loops, outlines, foil_levels, acquisition, preset, pixel_size_nm, picture)
    return SimulatedField(
        micrograph=Micrograph(
            pixels,
            name,
            calibration=Calibration(pixel_size_nm, "simulation"),
            modality=preset.modality,
            rows=(0, picture[0]) if bar else None,
        ),
        truth=truth,
        annotations=tuple(
            Annotation(loops[row].kind, np.minimum(outlines[row], [np.inf, picture[0] - 0.5]))
            for row in np.flatnonzero(labelled_rows(truth, preset.labelled_classes))
        ),
        outlines=tuple(outlines),
        labelled_classes=preset.labelled_classes,
        condition=condition.name,
        acquisition=acquisition,
    )


def _draw_acquisition(preset: LoopPreset, condition: Condition, rng: np.random.Generator) -> Acquisition:
    return dataclasses.replace(
        preset.acquisition,
        probe_sigma_px=rng.uniform(*preset.probe_sigma_px),
        dose_per_px=rng.uniform(*preset.dose_per_px),
        noise_length_x_px=rng.uniform(*preset.noise_length_x_px),
        noise_length_y_px=rng.uniform(*preset.noise_length_y_px),
        grey_level=rng.uniform(*preset.grey_level),
        gain=rng.uniform(*preset.gain),
        drift_x_px=rng.normal(0, 3),
        drift_y_px=rng.normal(0, 3),
        bits=condition.bits,
    )


def _at(attenuation: np.ndarray, loops: list[Loop]) -> np.ndarray:
    """Attenuation at the centres, those outside moved to the border."""
    centres = np.array([(loop.y_px, loop.x_px) for loop in loops]).reshape(-1, 2)
    rows, columns = np.clip(np.rint(centres).astype(int) + _MARGIN_PX, 0, np.array(attenuation.shape) - 1).T
    return attenuation[rows, columns].astype(float)


def _transmitted(preset: LoopPreset, attenuation: np.ndarray) -> np.ndarray:
    foil_itself = preset.foil_attenuation if preset.contrast == "adf" else 0.0
    return np.exp(-(attenuation + attenuation.dtype.type(foil_itself)))


def _add_distractors(preset: LoopPreset, attenuation: np.ndarray, pixel_size_nm: float, streams: Streams) -> None:
    shape = attenuation.shape
    megapixels = attenuation.size / 1e6

    def count(rng: np.random.Generator, per_megapixel: Range) -> int:
        return int(rng.poisson(rng.uniform(*per_megapixel) * megapixels))

    rng = streams["wedge"]
    if (rise := rng.uniform(*preset.wedge)) > 0:
        attenuation += foil.wedge(shape, rise, rng.uniform(0, 360))
    rng = streams["thickness_fringes"]
    if (peak := rng.uniform(*preset.thickness_fringes)) > 0:
        period = rng.uniform(*preset.thickness_fringe_px)
        attenuation += foil.thickness_fringes(shape, peak, period, rng.uniform(0, 360), rng)
    rng = streams["bend_contours"]
    for _ in range(int(rng.integers(*preset.bend_contours, endpoint=True))):
        sigma = rng.uniform(0.02, 0.08) * max(shape)
        attenuation += foil.bend_contour(shape, rng.uniform(*preset.bend_contour), sigma, rng)
    rng = streams["grain_boundaries"]
    for _ in range(int(rng.integers(*preset.grain_boundaries, endpoint=True))):
        step = rng.uniform(*preset.grain_step) * rng.choice((-1, 1))
        peak, period = rng.uniform(*preset.grain_boundary), rng.uniform(7, 20)
        attenuation += foil.grain_boundary(shape, step, peak, period, rng)
    rng = streams["precipitates"]
    for _ in range(count(rng, preset.precipitates_per_megapixel)):
        diameter = rng.uniform(*preset.precipitate_diameter_nm) / pixel_size_nm
        distractors.add_precipitate(attenuation, rng, diameter, rng.uniform(*preset.precipitate_attenuation))
    rng = streams["lines"]
    for _ in range(count(rng, preset.lines_per_megapixel)):
        length, width = np.exp(rng.uniform(np.log(60), np.log(600))), rng.uniform(*preset.line_width_px)
        distractors.add_line(attenuation, rng, length, width, rng.uniform(*preset.line_attenuation))
    rng = streams["pale_rings"]
    for _ in range(count(rng, preset.pale_rings_per_megapixel)):
        distractors.add_pale_ring(attenuation, rng, rng.uniform(24, 50), rng.uniform(0.03, 0.08))
