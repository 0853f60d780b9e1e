"""One simulated dark-field image of solids: pixels with exact truth, from one side or from several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defectpipe.errors import SettingsError
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.acquisition import (
    Acquisition,
    blur,
    detect,
    digitise,
    distort,
    moving,
    scan_field,
    to_image,
)
from defectpipe.simulation.images import Annotation, SimulatedImage
from defectpipe.simulation.loops.distractors import smooth_noise
from defectpipe.simulation.preset import Range
from defectpipe.simulation.solids import shapes
from defectpipe.simulation.solids.contrast import adf_signal, mean_free_path_nm
from defectpipe.simulation.solids.deformation import draw_deformation
from defectpipe.simulation.solids.presets import SolidPreset
from defectpipe.simulation.solids.solid import Projection, Solid, project
from defectpipe.simulation.solids.truth import PlacedSolid, silhouette, truth_table

_MARGIN_PX = 32  # of specimen beyond the image, for the scan to wander into
_SMALLEST_PX = 8.0


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSolids(SimulatedImage):
    """One image of solids and what is in it; for the columns of `truth` see `truth.truth_table`.

    Parameters
    ----------
    bodies : tuple of PlacedSolid
    outlines : tuple of ndarray, each of shape (n, 2)
        Of each body, in px of the image; it may leave the image.
    thicknesses_nm : ndarray of float32, shape (bodies, height, width)
        Of each body, as the scan shows it; the map of truth is their sum.
    acquisition : Acquisition
    """

    bodies: tuple[PlacedSolid, ...]
    outlines: tuple[np.ndarray, ...]
    thicknesses_nm: np.ndarray
    acquisition: Acquisition


def simulate_solids(preset: SolidPreset, seed: int, index: int = 0) -> SimulatedSolids:
    """One image of a data set.

    Depends on `preset`, `seed` and `index` alone: the images of a larger set begin with those of a smaller one.

    Parameters
    ----------
    preset : SolidPreset
    seed : int
        Not negative.
    index : int
        Number of the image in the set, from 0.
    """
    return _simulate(preset, seed, index, 0, "")


def simulate_views(preset: SolidPreset, seed: int, index: int, n_views: int) -> list[SimulatedSolids]:
    """Images of the same bodies, each turned, placed and scanned anew.

    The first shows what `simulate_solids` shows; more views of it begin with fewer. Class, dimensions, deformation and
    material stay, and so does the pixel size.

    Raises
    ------
    SettingsError
        Fewer than one view is asked for.
    """
    if n_views < 1:
        raise SettingsError(f"At least one view is needed, not {n_views}.")
    return [_simulate(preset, seed, index, view, f"_view-{view + 1}") for view in range(n_views)]


def simulate_tilts(preset: SolidPreset, seed: int, index: int, tilts_deg: Sequence[float]) -> list[SimulatedSolids]:
    """A tilt series of the same bodies, each image placed and scanned anew.

    At a tilt of 0 the bodies lie as in the first of `simulate_views`; they turn about the image's vertical axis, each
    about its own centre.

    Parameters
    ----------
    tilts_deg : sequence of float
        Positive: what lies to the right goes away from the viewer.

    Raises
    ------
    SettingsError
        No tilt is given.
    """
    if not len(tilts_deg):
        raise SettingsError("A tilt series needs at least one tilt.")
    return [_simulate(preset, seed, index, i, f"_tilt-{i + 1}", float(tilt)) for i, tilt in enumerate(tilts_deg)]


def _simulate(
    preset: SolidPreset, seed: int, index: int, view: int, suffix: str, tilt_deg: float | None = None
) -> SimulatedSolids:
    # one stream for each stage, and in it one for each body: what one of them draws does not shift the others
    of_bodies = np.random.SeedSequence(seed, spawn_key=(index, 0)).spawn(4)
    of_view = np.random.SeedSequence(seed, spawn_key=(index, 1, view)).spawn(6)
    if tilt_deg is not None:  # turned from the first view's orientation
        of_view[0] = np.random.SeedSequence(seed, spawn_key=(index, 1, 0)).spawn(1)[0]
    scene = _draw_scene(preset, of_bodies[0])
    bodies = _draw_bodies(preset, index, scene, of_bodies[1:3], of_view[:3], tilt_deg or 0.0)
    film = _film(preset, scene, of_bodies[3])
    pixel_size_nm = scene.pixel_size_nm
    acquisition = _draw_acquisition(preset, np.random.default_rng(of_view[3]))
    field = scan_field(preset.shape, acquisition, np.random.default_rng(of_view[4]))
    fields = [_field_of(body, field) for body in bodies]
    projections = [project(body.solid, body.x_px, body.y_px, pixel_size_nm) for body in bodies]
    specimens = [_on_specimen(projection, preset.shape) for projection in projections]
    thicknesses = np.zeros((len(bodies), *preset.shape), np.float32)
    for thickness, specimen, own in zip(thicknesses, specimens, fields, strict=True):
        # the cubic interpolation overshoots at steps
        thickness[:] = np.clip(distort(specimen, own, _MARGIN_PX), 0, specimen.max())
    clean = _clean(preset, bodies, specimens, fields, film, field, acquisition)
    acquisition = _set_detector(preset, clean, acquisition, np.random.default_rng(of_view[3].spawn(1)[0]))
    pixels = digitise(detect(clean, acquisition, np.random.default_rng(of_view[5])), acquisition)
    outlines = tuple(to_image(silhouette(p), own) for p, own in zip(projections, fields, strict=True))
    condition = _condition(preset, index)
    turns = len(preset.classes) if preset.n_objects == (1, 1) else 1
    name = f"{condition}_field-{index // turns + 1:03d}{suffix}.tif"
    truth = truth_table(
        name,
        bodies,
        projections,
        outlines,
        thicknesses,
        distort(film, field, _MARGIN_PX),
        scene.gamma,
        preset.saturating,
        acquisition,
        pixel_size_nm,
    )
    return SimulatedSolids(
        micrograph=Micrograph(pixels, name, calibration=Calibration(pixel_size_nm, "simulation"), modality="STEM"),
        condition=condition,
        truth=truth,
        annotations=tuple(
            Annotation(body.solid.label, outline)
            for body, outline, visible in zip(bodies, outlines, truth["visible"], strict=False)
            if visible
        ),
        maps={"thickness_nm": thicknesses.sum(0)},
        bodies=tuple(bodies),
        outlines=outlines,
        thicknesses_nm=thicknesses,
        acquisition=acquisition,
    )


def _condition(preset: SolidPreset, index: int) -> str:
    return preset.classes[index % len(preset.classes)] if preset.n_objects == (1, 1) else preset.name


def _log_uniform(limits: Range, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


@dataclass(frozen=True)
class _Scene:
    pixel_size_nm: float
    gamma: float
    gold_path_nm: float
    n_objects: int


def _draw_scene(preset: SolidPreset, sequence: np.random.SeedSequence) -> _Scene:
    rng = np.random.default_rng(sequence)
    return _Scene(
        pixel_size_nm=float(f"{_log_uniform(preset.field_nm, rng) / min(preset.shape):.4g}"),
        gamma=float(rng.uniform(*preset.gamma)),
        gold_path_nm=float(rng.uniform(*preset.gold_path_nm)),
        n_objects=int(rng.integers(*preset.n_objects, endpoint=True)),
    )


def _draw_bodies(
    preset: SolidPreset,
    index: int,
    scene: _Scene,
    of_bodies: Sequence[np.random.SeedSequence],
    of_view: Sequence[np.random.SeedSequence],
    tilt_deg: float,
) -> list[PlacedSolid]:
    side, pixel_size_nm = min(preset.shape), scene.pixel_size_nm
    streams = [sequence.spawn(scene.n_objects) for sequence in (*of_bodies, *of_view)]
    bodies: list[PlacedSolid] = []
    for number, sequences in enumerate(zip(*streams, strict=True), 1):
        make, change, turn, place, move = (np.random.default_rng(s) for s in sequences)
        drawn = preset.classes[int(make.integers(len(preset.classes)))]
        label = _condition(preset, index) if preset.n_objects == (1, 1) else drawn
        number_z = int(make.choice(preset.atomic_numbers))
        diameter_px = make.uniform(*preset.size_share) * side
        if diameter_px < _SMALLEST_PX:
            raise SettingsError(f"Preset {preset.name}: a body of {diameter_px:.1f} px is too small to be simulated.")
        radius = 0.5 * diameter_px * pixel_size_nm
        dimensions = shapes.draw_dimensions(label, radius, make)
        s, gauge = shapes.sizes(label, dimensions), shapes.gauge_nm(label, dimensions)
        deformation = draw_deformation(label, s, radius, gauge, preset.deformations, change)
        quaternion = turn.standard_normal(4)  # evenly distributed over all rotations
        if tilt_deg:
            quaternion = _tilted(quaternion, tilt_deg)
        norm = np.copysign(np.linalg.norm(quaternion), quaternion[0])
        solid = Solid(label, dimensions, deformation, tuple(float(v / norm) for v in quaternion))  # type: ignore[arg-type]
        moves = move.random() < preset.moving_share
        angle, length, turned = (
            move.uniform(0, 2 * np.pi),
            move.uniform(*preset.shift_px),
            move.uniform(*preset.turn_deg),
        )
        turned *= move.choice([-1.0, 1.0])
        shift = (float(length * np.cos(angle)), float(length * np.sin(angle)))
        at = _place(preset, solid, bodies, pixel_size_nm, place)
        if at is not None:
            path = mean_free_path_nm(number_z, scene.gamma, scene.gold_path_nm)
            body = PlacedSolid(number, solid, *at, number_z, path)
            bodies.append(dataclasses.replace(body, shift_px=shift, turn_deg=float(turned)) if moves else body)
    return bodies


def _tilted(quaternion: np.ndarray, degrees: float) -> np.ndarray:
    """A rotation (w, x, y, z; of any length) followed by one about the image's y axis."""
    w, x, y, z = quaternion
    # of x towards z, which points away from the viewer, hence against the sense of y
    c, s = np.cos(np.deg2rad(degrees) / 2), -np.sin(np.deg2rad(degrees) / 2)
    return np.array([c * w - s * y, c * x + s * z, c * y + s * w, c * z - s * x])


def _place(
    preset: SolidPreset, solid: Solid, others: list[PlacedSolid], pixel_size_nm: float, rng: np.random.Generator
) -> tuple[float, float] | None:
    hull = solid.seen_hull_nm[:, :2] / pixel_size_nm
    reach = np.linalg.norm(hull, axis=1).max()
    high = np.array(preset.shape[::-1]) - 1.0
    low = np.zeros(2)
    if preset.whole:
        low, high = low - hull.min(0) + 3, high - hull.max(0) - 3
        middle = 0.5 * (low + high)
        low, high = np.minimum(low, middle), np.maximum(high, middle)
    for _ in range(200):
        at = rng.uniform(low, high)
        gaps = [
            np.hypot(at[0] - o.x_px, at[1] - o.y_px)
            - reach
            - np.linalg.norm(o.solid.seen_hull_nm[:, :2], axis=1).max() / pixel_size_nm
            for o in others
        ]
        if preset.overlap or all(gap > 3 for gap in gaps):
            return float(at[0]), float(at[1])
    return None


def _film(preset: SolidPreset, scene: _Scene, sequence: np.random.SeedSequence) -> np.ndarray:
    rng = np.random.default_rng(sequence)
    thickness, roughness = rng.uniform(*preset.film_nm), rng.uniform(*preset.film_roughness)
    height, width = preset.shape
    texture = smooth_noise((height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX), 4, 4, rng)
    path = mean_free_path_nm(preset.film_atomic_number, scene.gamma, scene.gold_path_nm)
    return np.maximum(thickness / path * (1 + roughness * texture), 0)


def _draw_acquisition(preset: SolidPreset, rng: np.random.Generator) -> Acquisition:
    out_of_focus = rng.random() < preset.defocus_share
    defocus, astigmatism = rng.uniform(*preset.defocus_sigma_px), rng.uniform(*preset.astigmatism)
    return dataclasses.replace(
        preset.acquisition,
        probe_sigma_px=rng.uniform(*preset.probe_sigma_px),
        defocus_sigma_px=float(defocus) if out_of_focus else 0.0,
        astigmatism=float(astigmatism),
        astigmatism_deg=rng.uniform(0, 180),
        dose_per_px=_log_uniform(preset.dose_per_px, rng),
        scan_distortion=rng.uniform(*preset.scan_distortion),
        drift_x_px=preset.drift_px * rng.standard_normal(),
        drift_y_px=preset.drift_px * rng.standard_normal(),
        flyback_px=rng.uniform(*preset.flyback_px),
        detector_rms=rng.uniform(*preset.detector_rms),
        line_rms=rng.uniform(*preset.line_rms),
        noise_length_x_px=rng.uniform(*preset.noise_length_x_px),
    )


def _set_detector(
    preset: SolidPreset, clean: np.ndarray, acquisition: Acquisition, rng: np.random.Generator
) -> Acquisition:
    """As an operator sets it: the background nearly black, the brightest nearly white."""
    black, white = rng.uniform(*preset.black_level), rng.uniform(*preset.white_level)
    brightest = max(float(np.percentile(clean, 99.8)), (white - black) / preset.largest_gain)
    return dataclasses.replace(acquisition, black_level=float(black), gain=float((white - black) / brightest))


def _field_of(body: PlacedSolid, field: np.ndarray) -> np.ndarray:
    return moving(field, (body.x_px, body.y_px), body.shift_px, body.turn_deg) if body.moves else field


def _on_specimen(projection: Projection, shape: tuple[int, int]) -> np.ndarray:
    """The thickness on the specimen's grid, which is larger than the image by the margin."""
    full = np.zeros((shape[0] + 2 * _MARGIN_PX, shape[1] + 2 * _MARGIN_PX), np.float32)
    part = projection.thickness_nm
    row, column = projection.row + _MARGIN_PX, projection.column + _MARGIN_PX
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + part.shape[0], full.shape[0]), min(column + part.shape[1], full.shape[1])
    if top < bottom and left < right:
        full[top:bottom, left:right] = part[top - row : bottom - row, left - column : right - column]
    return full


def _clean(
    preset: SolidPreset,
    bodies: Sequence[PlacedSolid],
    specimens: Sequence[np.ndarray],
    fields: Sequence[np.ndarray],
    film: np.ndarray,
    field: np.ndarray,
    acquisition: Acquisition,
) -> np.ndarray:
    """Share of the beam on the detector, before counting.

    What is at rest is summed up and blurred together. A body that moves is blurred and scanned by itself; then the
    shares of the beam that pass both are multiplied, which differs only where blurred edges lie over one another.
    """
    still = film.copy()
    layers = [(still, field)]
    for body, specimen, own in zip(bodies, specimens, fields, strict=True):
        attenuation = specimen / np.float32(body.mean_free_path_nm)
        if body.moves:
            layers.append((attenuation, own))
        else:
            still += attenuation
    signal = np.zeros(preset.shape, np.float32)
    for attenuation, own in layers:
        seen = distort(blur(adf_signal(attenuation, preset.saturating), acquisition), own, _MARGIN_PX)
        signal += seen * (1 - signal) if preset.saturating else seen
    return signal
