"""What lies beside loops in a real foil and has no truth: dislocation lines, pale rings, precipitates."""

from __future__ import annotations

import cv2
import numpy as np

from defectpipe.simulation.loops.foil import smooth_noise


def add_line(attenuation: np.ndarray, rng: np.random.Generator, length_px: float, width_px: float, peak: float) -> None:
    """Add a dislocation line: bent, jerky, beaded, fading as it runs out of the foil. In place.

    Parameters
    ----------
    width_px : float
        At half maximum.
    peak : float
        Attenuation along an ordinary part.
    """
    height, width = attenuation.shape
    steps = max(int(length_px / 4), 4)
    # it never turns by more than a right angle or so: a line that curls up would be a loop
    turn = np.cumsum(np.clip(np.cumsum(rng.normal(0, 0.015, steps)), -0.12, 0.12))
    heading = rng.uniform(0, 2 * np.pi) + 1.2 * np.tanh(turn / 1.2) + rng.normal(0, 0.3, steps)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * (length_px / steps), 0)
    path += rng.uniform(0, [width, height]) - path[rng.integers(steps)]
    # contrast oscillates with depth, and jogs and pinned debris break it up
    along = np.linspace(0, 1, steps)
    strength = 1 + 0.35 * np.sin(rng.uniform(3, 40) * along + rng.uniform(0, 6)) + rng.normal(0, 0.3, steps)
    strength *= 1 - rng.uniform(0, 0.8) * (along if rng.random() < 0.5 else along[::-1])
    wing = rng.uniform(0, 0.5)
    reach = int(np.ceil(4 * width_px)) + 2
    low = np.maximum(np.floor(path.min(0)).astype(int) - reach, 0)
    high = np.minimum(np.ceil(path.max(0)).astype(int) + reach + 1, [width, height])
    if (high - low < 4).any():
        return
    shape = (int(high[1] - low[1]), int(high[0] - low[0]))
    drawn = np.zeros(shape, np.uint8)
    fine = np.rint((path - low) * 16).astype(int)
    greys = np.clip(127 * strength, 0, 255)
    for start, end, grey in zip(fine[:-1], fine[1:], greys[1:], strict=True):
        cv2.line(drawn, start.tolist(), end.tolist(), float(grey), 1, cv2.LINE_AA, 4)
    sigma = width_px / 2.355
    core = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    # a line of one px that is spread over a Gaussian loses height by its integral
    core *= np.float32(np.sqrt(2 * np.pi) * sigma / 127 * peak)
    if wing > 0:
        # a diffuse wing to the one side, as lines that are inclined to the foil have it
        core += np.float32(wing) * cv2.blur(core, (2 * int(width_px) + 1,) * 2, borderType=cv2.BORDER_CONSTANT)
    attenuation[low[1] : high[1], low[0] : high[0]] += core


def add_pale_ring(attenuation: np.ndarray, rng: np.random.Generator, diameter_px: float, depth: float) -> None:
    """Add a loop near invisibility: a faint bright halo about faint dark rings with a small core. In place."""
    height, width = attenuation.shape
    x, y = rng.uniform(0, [width, height])
    rows, columns = _window(x, y, 0.9 * diameter_px + 4, attenuation.shape)
    grid_y, grid_x = np.ogrid[rows, columns]
    radius = np.hypot(grid_x - x, (grid_y - y) * rng.uniform(1.0, 1.25)) / (0.5 * diameter_px)
    width_share = rng.uniform(0.13, 0.2)
    rings = -np.exp(-0.5 * ((radius - 0.85) / width_share) ** 2) + 1.3 * np.exp(-0.5 * ((radius - 0.5) / 0.12) ** 2)
    rings += 1.2 * np.exp(-0.5 * (radius / 0.14) ** 2) - 0.6 * np.exp(-0.5 * ((radius - 0.25) / 0.1) ** 2)
    attenuation[rows, columns] += (depth * rings).astype(attenuation.dtype)


def add_precipitate(attenuation: np.ndarray, rng: np.random.Generator, diameter_px: float, peak: float) -> None:
    """Add a second-phase particle: a rounded, uneven patch with a sharp edge, darker or brighter. In place."""
    height, width = attenuation.shape
    x, y = rng.uniform(0, [width, height])
    ratio, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    waves, phases = rng.uniform(0, 0.06, 3), rng.uniform(0, 2 * np.pi, 3)
    rows, columns = _window(x, y, 0.75 * diameter_px + 4, attenuation.shape)
    grid_y, grid_x = np.ogrid[rows, columns]
    u = np.cos(turn) * (grid_x - x) + np.sin(turn) * (grid_y - y)
    v = (np.cos(turn) * (grid_y - y) - np.sin(turn) * (grid_x - x)) / ratio
    angle = np.arctan2(v, u)
    edge = (
        0.5
        * diameter_px
        * (1 + sum(w * np.cos((k + 2) * angle + p) for k, (w, p) in enumerate(zip(waves, phases, strict=True))))
    )
    inside = 1 / (1 + np.exp(np.clip(2.0 * (np.hypot(u, v) - edge), -40, 40)))
    if inside.size:
        uneven = 1 + 0.15 * smooth_noise(inside.shape, 6, 6, rng)
        attenuation[rows, columns] += (peak * inside * uneven).astype(attenuation.dtype)


def _window(x: float, y: float, reach: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(int(v - reach), 0), max(min(int(v + reach) + 1, n), 0)) for v, n in ((y, shape[0]), (x, shape[1]))
    )
    return rows, columns
