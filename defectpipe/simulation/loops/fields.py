"""One simulated field of view: pixels with exact truth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.boxes import touches_border
from defectpipe.io.tables import LABEL_COLUMNS, labels_table
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.acquisition import (
    Acquisition,
    blur,
    detect,
    digitise,
    distort,
    noise_std,
    scan_field,
    to_image,
)
from defectpipe.simulation.images import Annotation, SimulatedImage
from defectpipe.simulation.loops import distractors
from defectpipe.simulation.loops.loop import HALF_WIDTH, Loop, add_loop, outline, polygon_ellipse, rim_contrast
from defectpipe.simulation.loops.presets import Condition, LoopPreset
from defectpipe.simulation.preset import Range

TRUTH_COLUMNS = [
    "image",
    "loop_id",
    "x_px",
    "y_px",
    "diameter_px",
    "minor_px",
    "angle_deg",
    "diameter_nm",
    "class",
    "cnr",
    "visible",
    "on_edge",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
]
_MARGIN_PX = 32  # of specimen beyond the image, for the scan to wander into
_PLAIN = (
    10.0  # contrast to noise over the whole object: twice Rose's limit of seeing at all, for the foil is uneven too
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedField(SimulatedImage):
    """One image of loops and what is in it.

    `truth` has the columns `TRUTH_COLUMNS`, one row a loop of any class; the ellipse through the rim's ridge, moved and
    deformed as the scan does it. `cnr`: mean contrast of the rim over the noise of one px. `visible`: the centre is
    inside the image, and the contrast to noise over the whole rim reaches 10, twice Rose's limit.

    Parameters
    ----------
    outlines : tuple of ndarray, each of shape (64, 2)
        The ridge (closed: the edge) of each row's loop, in px of the image; it may leave the image.
    labelled_class : str
        The class that an expert would label here.
    acquisition : Acquisition
    """

    outlines: tuple[np.ndarray, ...]
    labelled_class: str
    acquisition: Acquisition

    @property
    def labelled(self) -> np.ndarray:
        """Which rows of `truth` an expert would label: those of the labelled class that are visible."""
        return _labelled_rows(self.truth, self.labelled_class)

    @property
    def labels(self) -> pd.DataFrame:
        """The labelled loops as a table of labels; the tight boxes of those at the border are clipped to the image."""
        rows = self.truth[self.labelled].rename(columns={"class": "label"})
        height, width = self.micrograph.shape
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
    # one stream for each stage: what one of them draws does not shift the others
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(index,)).spawn(4)]
    specimen_rng, loop_rng, scan_rng, count_rng = streams
    pixel_size_nm = float(loop_rng.choice(preset.pixel_size_nm))
    acquisition = _draw_acquisition(preset, condition, scan_rng)
    loops = _draw_loops(preset, condition, pixel_size_nm, loop_rng)
    plain = _foil(preset, specimen_rng)
    attenuation = plain.copy()
    _add_distractors(preset, attenuation, specimen_rng)
    texture = np.clip(1 + 0.16 * distractors.smooth_noise(plain.shape, 6, 6, specimen_rng), 0.4, 1.6)
    for loop in loops:
        add_loop(attenuation, loop, _MARGIN_PX, texture)
    field = scan_field(preset.shape, acquisition, scan_rng)
    clean = distort(blur(np.exp(-attenuation), acquisition), field, _MARGIN_PX)
    pixels = digitise(detect(clean, acquisition, count_rng), acquisition)
    name = f"{condition.name}_field-{number:03d}.tif"
    outlines = tuple(to_image(outline(loop), field) for loop in loops)
    truth = _truth(name, loops, outlines, plain, acquisition, pixel_size_nm, preset.shape)
    labelled = _labelled_rows(truth, preset.labelled_class)
    return SimulatedField(
        micrograph=Micrograph(pixels, name, calibration=Calibration(pixel_size_nm, "simulation"), modality="STEM"),
        truth=truth,
        annotations=tuple(Annotation(preset.labelled_class, outlines[row]) for row in np.flatnonzero(labelled)),
        outlines=outlines,
        labelled_class=preset.labelled_class,
        condition=condition.name,
        acquisition=acquisition,
    )


def _labelled_rows(truth: pd.DataFrame, labelled_class: str) -> np.ndarray:
    return ((truth["class"] == labelled_class) & truth["visible"]).to_numpy(bool)


def _draw_acquisition(preset: LoopPreset, condition: Condition, rng: np.random.Generator) -> Acquisition:
    return dataclasses.replace(
        preset.acquisition,
        probe_sigma_px=rng.uniform(*preset.probe_sigma_px),
        dose_per_px=rng.uniform(*preset.dose_per_px),
        noise_length_x_px=rng.uniform(*preset.noise_length_x_px),
        noise_length_y_px=rng.uniform(*preset.noise_length_y_px),
        grey_level=rng.uniform(*preset.grey_level),
        drift_x_px=rng.normal(0, 3),
        drift_y_px=rng.normal(0, 3),
        bits=condition.bits,
    )


def _foil(preset: LoopPreset, rng: np.random.Generator) -> np.ndarray:
    height, width = preset.shape
    shape = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
    return distractors.background(shape, rng.uniform(*preset.unevenness), rng)


def _add_distractors(preset: LoopPreset, attenuation: np.ndarray, rng: np.random.Generator) -> None:
    def count(per_megapixel: Range) -> int:
        return int(rng.poisson(rng.uniform(*per_megapixel) * attenuation.size / 1e6))

    for _ in range(count(preset.lines_per_megapixel)):
        length = np.exp(rng.uniform(np.log(60), np.log(600)))
        distractors.add_line(
            attenuation, rng, length, rng.uniform(*preset.line_width_px), rng.uniform(*preset.line_attenuation)
        )
    for _ in range(count(preset.pale_rings_per_megapixel)):
        distractors.add_pale_ring(attenuation, rng, rng.uniform(24, 50), rng.uniform(0.03, 0.08))
    distractors.add_black_dots(attenuation, rng, count(preset.black_dots_per_megapixel), (0.9, 2.2), 0.4)


def _draw_loops(preset: LoopPreset, condition: Condition, pixel_size_nm: float, rng: np.random.Generator) -> list[Loop]:
    height, width = preset.shape
    megapixels = height * width / 1e6
    loops: list[Loop] = []
    for _ in range(int(rng.integers(condition.n_labelled[0], condition.n_labelled[1], endpoint=True))):
        nm = np.exp(rng.normal(np.log(condition.median_diameter_nm), condition.sigma_ln))
        diameter = float(np.clip(nm / pixel_size_nm, *preset.diameter_limits_px))
        _place(_labelled(preset, diameter, rng), loops, preset, rng)
    if preset.labelled_class != "closed":
        for _ in range(rng.poisson(rng.uniform(*preset.closed_per_megapixel) * megapixels)):
            diameter = rng.uniform(*preset.closed_diameter_px)
            _place(_closed(preset, diameter, rng.uniform(*preset.closed_attenuation), rng), loops, preset, rng)
    for _ in range(rng.poisson(rng.uniform(*preset.edge_on_per_megapixel) * megapixels)):
        length, thick = rng.uniform(*preset.edge_on_length_px), rng.uniform(4.0, 7.5)
        dark = rng.uniform(*preset.edge_on_attenuation)
        angle, halo = rng.uniform(0, 180), 2 * rng.uniform(*preset.halo)
        rod = Loop("edge_on", 0, 0, max(length, 2.5 * thick), thick, angle, 1.0, dark, halo=halo)
        _place(rod, loops, preset, rng)
    return loops


def _labelled(preset: LoopPreset, diameter: float, rng: np.random.Generator) -> Loop:
    if preset.labelled_class == "closed":
        return _closed(preset, diameter, rng.uniform(*preset.attenuation), rng)
    # a minor axis of less than 9 px would close the ring
    ratio = max(rng.uniform(*preset.axis_ratio), min(9.0 / diameter, 1.0))
    # the rims of small loops must leave a hole, those of large ones have the width of a dislocation's image
    sigma = min(rng.uniform(*preset.rim_share) * diameter, 0.12 * ratio * diameter, 3.5)
    return Loop(
        kind="open",
        x_px=0,
        y_px=0,
        diameter_px=diameter,
        minor_px=ratio * diameter,
        angle_deg=rng.uniform(0, 180),
        rim_sigma_px=sigma,
        attenuation=rng.uniform(*preset.attenuation),
        interior=rng.uniform(*preset.interior),
        lobes=rng.uniform(*preset.lobes),
        lobes_deg=rng.uniform(0, 180),
        halo=rng.uniform(*preset.halo),
    )


def _closed(preset: LoopPreset, diameter: float, attenuation: float, rng: np.random.Generator) -> Loop:
    ratio, softness, halo = rng.uniform(0.55, 1.0), rng.uniform(*preset.closed_softness_px), rng.uniform(*preset.halo)
    return Loop("closed", 0, 0, diameter, ratio * diameter, rng.uniform(0, 180), softness, attenuation, halo=halo)


def _place(loop: Loop, placed: list[Loop], preset: LoopPreset, rng: np.random.Generator) -> None:
    """Put the loop anywhere, also across the border; on others only with the preset's probability of overlap."""
    height, width = preset.shape
    reach = 0.5 * loop.diameter_px
    others = np.array([(o.x_px, o.y_px, _width(o)) for o in placed]).reshape(-1, 3)
    free = rng.random() < preset.overlap
    for _ in range(200):
        x, y = rng.uniform(-reach, width - 1 + reach), rng.uniform(-reach, height - 1 + reach)
        near = 0.5 * (others[:, 2] + _width(loop)) * (0.6 if free else 1.0) + (0 if free else 2)
        if (np.hypot(others[:, 0] - x, others[:, 1] - y) > near).all():
            placed.append(dataclasses.replace(loop, x_px=x, y_px=y))
            return


def _width(loop: Loop) -> float:
    """Length of all that is dark, half of the rim outside its ridge included."""
    return loop.diameter_px + (2 * HALF_WIDTH * loop.rim_sigma_px if loop.kind == "open" else 0.0)


def _truth(
    name: str,
    loops: list[Loop],
    outlines: tuple[np.ndarray, ...],
    plain: np.ndarray,
    acquisition: Acquisition,
    pixel_size_nm: float,
    shape: tuple[int, int],
) -> pd.DataFrame:
    rows = []
    for number, (loop, points) in enumerate(zip(loops, outlines, strict=True), 1):
        x, y, diameter, minor, angle = polygon_ellipse(points)
        row, column = (int(np.clip(round(v) + _MARGIN_PX, 0, n - 1)) for v, n in zip((y, x), plain.shape, strict=True))
        level = float(np.exp(-plain[row, column]))
        cnr = level * rim_contrast(loop) / noise_std(level, acquisition)
        inside = -0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5
        seen = inside and cnr * np.sqrt(_independent_px(loop, acquisition)) >= _PLAIN
        box = [*points.min(0), *points.max(0)]
        cut = bool(touches_border(np.array([box]), shape)[0])
        nm = diameter * pixel_size_nm
        rows.append((name, number, x, y, diameter, minor, angle, nm, loop.kind, cnr, bool(seen), cut, *box))
    types = dict.fromkeys(TRUTH_COLUMNS, "float64")
    types |= {"image": "str", "loop_id": "int64", "class": "str", "visible": "bool", "on_edge": "bool"}
    return pd.DataFrame(rows, columns=TRUTH_COLUMNS).astype(types)


def _independent_px(loop: Loop, acquisition: Acquisition) -> float:
    if loop.kind == "open":
        area = 0.5 * np.pi * (loop.diameter_px + loop.minor_px) * 2.355 * loop.rim_sigma_px
    else:
        area = 0.25 * np.pi * loop.diameter_px * loop.minor_px
    # the integral of (1 + r / l) exp(-r / l) over both directions is 4 l
    lengths = (acquisition.noise_length_x_px, acquisition.noise_length_y_px)
    return float(area / np.prod([max(4 * length, 1.0) for length in lengths]))
