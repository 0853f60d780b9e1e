"""The two test samples of every SEM: tin balls on carbon, and grids (cross gratings, TEM meshes)."""

from __future__ import annotations

import numpy as np
from numba import njit

from defectpipe.simulation.sem.scale import FocusLimits, pixel_size_nm
from defectpipe.simulation.sem.surface import Light, add_balls, draw_light, roughness, shade, shadow

_ESCAPE_NM = 20.0  # depth from which electrons leave, that of the probe's spread in the solid included


def tin_balls(
    shape: tuple[int, int], magnification: float, limits: FocusLimits, rng: np.random.Generator
) -> np.ndarray:
    """Tin balls with a power law of sizes, heaped on a rough substrate.

    The largest are those that can just be told at score 1, the smallest barely a px wide, as an operator chooses the
    place: there is structure at every magnification.

    Parameters
    ----------
    shape : tuple of int
        Height and width in px.
    magnification : float
    limits : FocusLimits
        Of the focus score at this magnification.
    rng : Generator

    Returns
    -------
    ndarray of float32, shape (height, width)
        Electrons, relative to those of level tin.
    """
    light = draw_light(rng)
    largest = limits.lost_px * rng.uniform(3.0, 5.2)
    height_px = roughness(shape, rng, 1.9) * np.float32(rng.uniform(2.0, 5.0))
    carbon = np.full(shape, rng.uniform(0.25, 0.55), np.float32)
    signal = shade(height_px, carbon, light.yields, light.towards)
    balls = _draw_balls(shape, (1.0, largest), rng.uniform(0.6, 1.5), rng.uniform(0.6, 2.2), rng)
    _lay(signal, height_px, balls, magnification, light, rng)
    signal *= shadow(height_px, 0.5 * largest, light.shadow)
    return _finish(signal, rng)


def grid(shape: tuple[int, int], magnification: float, limits: FocusLimits, rng: np.random.Generator) -> np.ndarray:
    """A cross grating or a TEM mesh, turned at will, its pitch that of a grid one would choose here.

    Parameters and result are those of `tin_balls`.
    """
    light = draw_light(rng)
    mesh = rng.random() < 0.5
    pitch = limits.lost_px * rng.uniform(4.0, 9.0)
    bar = pitch * (rng.uniform(0.2, 0.5) if mesh else rng.uniform(0.3, 0.7))
    # a groove is shallow, a mesh has no ground; the flank takes a part of the bar
    depth = bar * (rng.uniform(0.5, 1.0) if mesh else rng.uniform(0.08, 0.3))
    flank = max(rng.uniform(0.03, 0.16) * min(bar, pitch - bar), 1.0)
    rough = roughness(shape, rng, 1.4)
    warp = roughness(shape, rng, 2.0, n_octaves=4, finest=2) * np.float32(0.02 * bar * rng.uniform(0.2, 1.0))
    angle, shear = rng.uniform(-np.pi / 4, np.pi / 4), rng.uniform(0.92, 1.0)
    x0, y0 = rng.random(2)
    ground = rng.uniform(0.08, 0.35) if mesh else rng.uniform(0.6, 1.0)
    height_px = rough * np.float32(rng.uniform(0.3, 0.9))
    level = _lattice(height_px, warp, np.array([pitch, bar, depth, flank, angle, shear, x0, y0, ground], np.float32))
    signal = shade(height_px, level, light.yields, light.towards)
    dust = _draw_balls(shape, (0.8, 0.35 * limits.lost_px + 1.0), 1.5, rng.uniform(0.002, 0.02), rng)
    _lay(signal, height_px, dust, magnification, light, rng)
    signal *= shadow(height_px, 0.4 * pitch, light.shadow)
    return _finish(signal, rng)


SAMPLES = {"tinball": tin_balls, "grid": grid}


def _draw_balls(
    shape: tuple[int, int], radii_px: tuple[float, float], power: float, cover: float, rng: np.random.Generator
) -> np.ndarray:
    """x, y, radius of balls whose sections cover a share of the field; the number above a radius falls as a power."""
    low, high = radii_px
    share = cover * shape[0] * shape[1]
    uniform = rng.random(4000)
    radii = (low**-power - uniform * (low**-power - high**-power)) ** (-1 / power)
    radii = np.sort(radii[: int(np.searchsorted(np.cumsum(np.pi * radii**2), share)) + 1])[::-1]
    places = rng.random((radii.size, 2)) * [shape[1] + 2 * high, shape[0] + 2 * high] - high
    return np.column_stack([places, radii])


def _lay(
    signal: np.ndarray,
    height_px: np.ndarray,
    balls: np.ndarray,
    magnification: float,
    light: Light,
    rng: np.random.Generator,
) -> None:
    radius_nm = balls[:, 2] * pixel_size_nm(magnification)
    shallow = np.sqrt(2 * _ESCAPE_NM / np.maximum(radius_nm, 2 * _ESCAPE_NM))
    # out of a ball as small as the escape depth electrons come on all sides: it is as bright as a rim all over
    level = np.clip(rng.normal(1.0, 0.08, len(balls)), 0.7, 1.3) * (1 + 0.7 * shallow)
    stays = rng.random(len(balls)) < 0.25
    laid = np.column_stack([balls, level, 0.15 + shallow, stays]).astype(np.float32)
    add_balls(signal, height_px, laid, light.yields, light.towards)


def _finish(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # films of dirt and oxide, and grains: the material is not as even as its shape
    signal *= 1 + np.float32(rng.uniform(0.02, 0.07)) * roughness(signal.shape, rng, 1.2, n_octaves=5)
    return signal


@njit(cache=True, fastmath=True)
def _lattice(height_px, warp, values):  # type: ignore[no-untyped-def]
    """Add crossed bars to a height map in place; gives the material's level yield."""
    pitch, bar, depth, flank, angle, shear, x0, y0, ground = values
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    # in units of the pitch
    per_px = one / pitch
    c, s = np.cos(angle) * per_px, np.sin(angle) * per_px
    reach, per_flank = half * bar * per_px, pitch / flank
    level = np.empty_like(height_px)
    for y in range(height_px.shape[0]):
        for x in range(height_px.shape[1]):
            wander = warp[y, x] * per_px
            u = c * np.float32(x) + s * np.float32(y) - x0 + wander
            v = (c * np.float32(y) - s * np.float32(x)) / shear - y0 + wander
            # distance from the nearest flank, positive on a bar
            inside = reach - min(abs(u - np.floor(u) - half), abs(v - np.floor(v) - half))
            t = min(max(inside * per_flank + half, zero), one)
            t = t * t * (np.float32(3) - (t + t))
            height_px[y, x] += depth * t
            level[y, x] = ground + (one - ground) * t
    return level
