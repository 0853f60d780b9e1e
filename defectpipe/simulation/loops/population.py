"""What objects with truth a field holds, and where: loops, black dots, cavities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from defectpipe.simulation.loops.crystal import HABITS, Variant, project, view
from defectpipe.simulation.loops.loop import HALF_WIDTH, Loop
from defectpipe.simulation.loops.settings import Condition, CrystalHabit, LoopPreset
from defectpipe.simulation.preset import Range

Streams = Mapping[str, np.random.Generator]


def draw_objects(preset: LoopPreset, condition: Condition, pixel_size_nm: float, streams: Streams) -> list[Loop]:
    """All objects of a field, loops first."""
    megapixels = preset.shape[0] * preset.shape[1] / 1e6
    loops: list[Loop] = []
    _draw_counted(preset, condition, pixel_size_nm, streams, loops)

    def draw(name: str, per_megapixel: Range, make: Callable[[np.random.Generator], Loop]) -> None:
        rng = streams[name]
        for _ in range(rng.poisson(rng.uniform(*per_megapixel) * megapixels)):
            _place(make(rng), loops, preset, rng)

    if preset.loop_class != "closed" or preset.habit is not None:
        draw("closed", preset.closed_per_megapixel, lambda rng: _other_closed(preset, rng))
    draw("edge_on", preset.edge_on_per_megapixel, lambda rng: _rod(preset, rng))
    return [*loops, *_dots(preset, megapixels, streams), *_cavities(preset, megapixels, pixel_size_nm, streams)]


def wavelength_nm(beam_kv: float) -> float:
    """Relativistic wavelength of electrons (Reimer & Kohl, Transmission Electron Microscopy, eq. 2.12)."""
    volts = 1e3 * beam_kv
    return float(1.226426 / np.sqrt(volts * (1 + 0.9784756e-6 * volts)))


def _draw_counted(
    preset: LoopPreset, condition: Condition, pixel_size_nm: float, streams: Streams, loops: list[Loop]
) -> None:
    rng = streams["loops"]
    to_image = None if preset.habit is None else _view(preset.habit, streams["crystal"])
    for _ in range(int(rng.integers(condition.n_labelled[0], condition.n_labelled[1], endpoint=True))):
        nm = np.exp(rng.normal(np.log(condition.median_diameter_nm), condition.sigma_ln))
        diameter = float(np.clip(nm / pixel_size_nm, *preset.diameter_limits_px))
        if preset.habit is not None and to_image is not None:
            loop = _of_habit(preset, preset.habit, to_image, diameter, rng)
        elif preset.loop_class == "closed":
            ratio = rng.uniform(*preset.closed_ratio)
            loop = _closed(preset, (diameter, ratio * diameter, rng.uniform(0, 180)), preset.attenuation, rng)
        else:
            # a minor axis of less than 9 px would close the ring
            ratio = max(rng.uniform(*preset.axis_ratio), min(9.0 / diameter, 1.0))
            loop = _open(preset, (diameter, ratio * diameter, rng.uniform(0, 180)), preset.open_contrasts, rng)
        _place(loop, loops, preset, rng)


def _view(habit: CrystalHabit, rng: np.random.Generator) -> np.ndarray:
    ranges = (habit.rotation_deg, habit.tilt_deg, habit.tilt_axis_deg)
    return view(habit.zone_axis, *(float(rng.uniform(*limits)) for limits in ranges))


def _of_habit(
    preset: LoopPreset, habit: CrystalHabit, to_image: np.ndarray, diameter: float, rng: np.random.Generator
) -> Loop:
    shares = np.array([family.share for family in habit.families], float)
    family = habit.families[int(rng.choice(len(shares), p=shares / shares.sum()))]
    planes = HABITS[family.habit]
    number = int(rng.integers(len(planes.normals)))
    ratio, turn = rng.uniform(*habit.axis_ratio), rng.uniform(0, 180)
    seen = project(planes.normals[number], to_image, diameter, ratio, turn)
    axes = (seen.major, seen.minor, seen.angle_deg)
    contrast = str(rng.choice(family.contrasts))
    if seen.minor < habit.edge_on_ratio * seen.major:
        thick = float(np.hypot(seen.minor, rng.uniform(*preset.edge_on_width_px)))
        dark, halo = rng.uniform(*preset.edge_on_attenuation), 2 * rng.uniform(*preset.halo)
        loop = Loop("edge_on", 0, 0, seen.major, min(thick, seen.major), seen.angle_deg, 1.0, dark, halo=halo)
    elif contrast == "solid":
        loop = _closed(preset, axes, preset.attenuation, rng)
    else:
        loop = _open(preset, axes, (contrast,), rng)
    g_dot_b = np.nan if habit.g is None else planes.g_dot_b(number, habit.g)
    variant = Variant(family.habit, number, seen.inclination_deg, g_dot_b)
    attenuation = loop.attenuation * (habit.residual if variant.invisible else 1)
    return dataclasses.replace(loop, attenuation=attenuation, variant=variant)


def _open(
    preset: LoopPreset, axes: tuple[float, float, float], contrasts: tuple[str, ...], rng: np.random.Generator
) -> Loop:
    diameter, minor, angle = axes
    # the rims of small loops must leave a hole, those of large ones have the width of a dislocation's image
    sigma = min(rng.uniform(*preset.rim_share) * diameter, 0.12 * minor, preset.rim_sigma_limit_px)
    contrast = str(rng.choice(contrasts))
    # two rims in the room of one
    single = contrast == "ring"
    gap, inner = rng.uniform(*preset.line_gap) * 0.6 * sigma, rng.uniform(0.5, 1.0)
    return Loop(
        kind="open",
        x_px=0,
        y_px=0,
        diameter_px=diameter,
        minor_px=minor,
        angle_deg=angle,
        rim_sigma_px=sigma if single else 0.6 * sigma,
        attenuation=rng.uniform(*preset.attenuation),
        interior=rng.uniform(*preset.interior),
        lobes=rng.uniform(*preset.lobes),
        lobes_deg=rng.uniform(0, 180),
        halo=rng.uniform(*preset.halo),
        contrast=contrast,
        gap_px=0.0 if single else gap,
        inner=1.0 if single else inner,
    )


def _closed(preset: LoopPreset, axes: tuple[float, float, float], attenuation: Range, rng: np.random.Generator) -> Loop:
    softness, halo = rng.uniform(*preset.closed_softness_px), rng.uniform(*preset.halo)
    return Loop("closed", 0, 0, *axes, softness, rng.uniform(*attenuation), halo=halo, contrast="solid")


def _other_closed(preset: LoopPreset, rng: np.random.Generator) -> Loop:
    diameter, ratio = rng.uniform(*preset.closed_diameter_px), rng.uniform(*preset.closed_ratio)
    return _closed(preset, (diameter, ratio * diameter, rng.uniform(0, 180)), preset.closed_attenuation, rng)


def _rod(preset: LoopPreset, rng: np.random.Generator) -> Loop:
    length, thick = rng.uniform(*preset.edge_on_length_px), rng.uniform(*preset.edge_on_width_px)
    dark, halo = rng.uniform(*preset.edge_on_attenuation), 2 * rng.uniform(*preset.halo)
    long = max(length, 2.5 * thick)
    return Loop("edge_on", 0, 0, long, thick, rng.uniform(0, 180), 1.0, dark, halo=halo, contrast="solid")


def _dots(preset: LoopPreset, megapixels: float, streams: Streams) -> list[Loop]:
    rng = streams["black_dots"]
    dots = []
    for _ in range(rng.poisson(rng.uniform(*preset.black_dots_per_megapixel) * megapixels)):
        diameter, ratio = rng.uniform(*preset.black_dot_diameter_px), rng.uniform(0.75, 1.0)
        axes = (diameter, ratio * diameter, rng.uniform(0, 180))
        x, y = rng.uniform(0, preset.shape[::-1]).tolist()
        dark = rng.uniform(*preset.black_dot_attenuation)
        dots.append(Loop("black_dot", x - 0.5, y - 0.5, *axes, 1.0, dark, contrast="solid"))
    return dots


def _cavities(preset: LoopPreset, megapixels: float, pixel_size_nm: float, streams: Streams) -> list[Loop]:
    rng = streams["cavities"]
    count = rng.poisson(rng.uniform(*preset.cavities_per_megapixel) * megapixels)
    defocus_nm = rng.uniform(*preset.cavity_defocus_nm)
    # the first fringe of an edge is about as wide as the root of wavelength and defocus
    fringe_px = float(np.sqrt(wavelength_nm(preset.beam_kv) * abs(defocus_nm))) / pixel_size_nm
    cavities = []
    for _ in range(count):
        diameter = max(rng.uniform(*preset.cavity_diameter_nm) / pixel_size_nm, 2.0)
        x, y = rng.uniform(0, preset.shape[::-1]).tolist()
        peak, fringe = rng.uniform(*preset.cavity_attenuation), rng.uniform(0.5, 0.9)
        axes = (diameter, rng.uniform(0.85, 1.0) * diameter, rng.uniform(0, 180))
        if preset.contrast == "adf":  # incoherent: there is less matter, and no fringe
            cavity = Loop("cavity", x - 0.5, y - 0.5, *axes, 1.0, -peak, contrast="solid")
        else:
            peak = -peak if defocus_nm <= 0 else peak
            cavity = Loop(
                "cavity", x - 0.5, y - 0.5, *axes, 1.0, peak, contrast="solid", fringe_px=fringe_px, fringe=fringe
            )
        cavities.append(cavity)
    return cavities


def _place(loop: Loop, placed: list[Loop], preset: LoopPreset, rng: np.random.Generator) -> None:
    """Put the loop anywhere, also across the border; on others only with the preset's probability of overlap."""
    height, width = preset.shape
    reach = 0.5 * loop.diameter_px
    others = np.array([(o.x_px, o.y_px, _width(o)) for o in placed]).reshape(-1, 3)
    free = rng.random() < preset.overlap
    near = 0.5 * (others[:, 2] + _width(loop)) * (0.6 if free else 1.0) + (0 if free else 2)
    for _ in range(200):
        x, y = rng.uniform(-reach, width - 1 + reach), rng.uniform(-reach, height - 1 + reach)
        if (np.hypot(others[:, 0] - x, others[:, 1] - y) > near).all():
            placed.append(dataclasses.replace(loop, x_px=x, y_px=y))
            return


def _width(loop: Loop) -> float:
    """Length of all that is dark, half of the rim outside its ridge included."""
    return loop.diameter_px + (2 * HALF_WIDTH * loop.rim_sigma_px + loop.gap_px if loop.kind == "open" else 0.0)
