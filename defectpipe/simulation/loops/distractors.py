"""What lies beside loops in a real foil, unlabelled: dislocation lines, pale rings, black dots, uneven background."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(
    shape: tuple[int, int], length_x_px: float, length_y_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Random texture of mean 0 and standard deviation 1 that varies over the given lengths.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    height, width = shape
    knots = rng.standard_normal((int(height / length_y_px) + 4, int(width / length_x_px) + 4), np.float32)
    full = cv2.resize(knots, None, fx=length_x_px, fy=length_y_px, interpolation=cv2.INTER_CUBIC)
    top, left = int(length_y_px), int(length_x_px)  # the outermost knots lack neighbours
    full = full[top : top + height, left : left + width]
    return (full - full.mean()) / max(float(full.std()), 1e-9)


def background(shape: tuple[int, int], unevenness: float, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of the foil itself: a wedge, broad bend contrast, mottle of the surface.

    Parameters
    ----------
    unevenness : float
        Overall amplitude; 1 is that of an ordinary foil, 0 gives a flat one.

    Returns
    -------
    ndarray of float32, shape (height, width); lowest value 0
    """
    height, width = shape
    direction = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    foil = rng.uniform(0.02, 0.2) * (np.float32(np.cos(direction)) * x + np.float32(np.sin(direction)) * y)
    long = 0.25 * max(shape)
    foil = foil + rng.uniform(0.02, 0.06) * smooth_noise(shape, long, long * rng.uniform(0.6, 1.6), rng)
    foil += rng.uniform(0.015, 0.035) * smooth_noise(shape, 45, 30, rng)
    foil += rng.uniform(0.012, 0.028) * smooth_noise(shape, 14, 9, rng)
    foil += rng.uniform(0.01, 0.022) * smooth_noise(shape, 5, 4, rng)
    foil *= np.float32(unevenness)
    return (foil - foil.min()).astype(np.float32)


def add_line(attenuation: np.ndarray, rng: np.random.Generator, length_px: float, width_px: float, peak: float) -> None:
    """Add a dislocation line: bent, uneven, fading towards one end as it runs out of the foil. In place.

    Parameters
    ----------
    width_px : float
        At half maximum.
    peak : float
        Attenuation along the strongest part.
    """
    height, width = attenuation.shape
    steps = max(int(length_px / 4), 4)
    # it never turns by more than a right angle or so: a line that curls up would be a loop
    turn = np.cumsum(np.clip(np.cumsum(rng.normal(0, 0.015, steps)), -0.12, 0.12))
    heading = rng.uniform(0, 2 * np.pi) + 1.2 * np.tanh(turn / 1.2) + rng.normal(0, 0.12, steps)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * (length_px / steps), 0)
    path += rng.uniform(0, [width, height]) - path[rng.integers(steps)]
    reach = int(np.ceil(3 * width_px)) + 2
    low = np.maximum(np.floor(path.min(0)).astype(int) - reach, 0)
    high = np.minimum(np.ceil(path.max(0)).astype(int) + reach + 1, [width, height])
    if (high - low < 4).any():
        return
    shape = (int(high[1] - low[1]), int(high[0] - low[0]))
    # drawn on a finer grid, so that the distance is good to a quarter px
    mask = np.full((2 * shape[0], 2 * shape[1]), 255, np.uint8)
    fine = np.rint((path - low) * 2 * 16).astype(np.int32)
    cv2.polylines(mask, [fine.reshape(-1, 1, 2)], False, 0, 1, cv2.LINE_8, 4)
    distance = cv2.resize(cv2.distanceTransform(mask, cv2.DIST_L2, 5), shape[::-1], interpolation=cv2.INTER_AREA) / 2
    spread = width_px / 2.355 * (1 + 0.2 * smooth_noise(shape, 40, 40, rng))
    profile = np.exp(-0.5 * (distance / np.maximum(spread, 0.4 * width_px / 2.355)) ** 2)
    # a diffuse wing, as lines that are inclined to the foil have it
    profile += rng.uniform(0, 0.25) * np.exp(-distance / (1.5 * width_px))
    along = path[-1] - path[0]
    grid_y, grid_x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    share = ((grid_x + low[0] - path[0, 0]) * along[0] + (grid_y + low[1] - path[0, 1]) * along[1]) / (
        along @ along + 1
    )
    fade = 1 - rng.uniform(0, 0.7) * np.clip(share, 0, 1)
    uneven = np.clip(1 + 0.3 * smooth_noise(shape, 18, 18, rng), 0.2, 1.6)
    attenuation[low[1] : high[1], low[0] : high[0]] += (peak * profile * fade * uneven).astype(attenuation.dtype)


def add_pale_ring(attenuation: np.ndarray, rng: np.random.Generator, diameter_px: float, depth: float) -> None:
    """Add a loop near invisibility: a faint bright halo about faint dark rings with a small core. In place."""
    height, width = attenuation.shape
    x, y = rng.uniform(0, [width, height])
    reach = int(0.9 * diameter_px) + 4
    rows = slice(max(int(y) - reach, 0), min(int(y) + reach, height))
    columns = slice(max(int(x) - reach, 0), min(int(x) + reach, width))
    grid_y, grid_x = np.ogrid[rows, columns]
    radius = np.hypot(grid_x - x, (grid_y - y) * rng.uniform(1.0, 1.25)) / (0.5 * diameter_px)
    width_share = rng.uniform(0.13, 0.2)
    rings = -np.exp(-0.5 * ((radius - 0.85) / width_share) ** 2) + 1.3 * np.exp(-0.5 * ((radius - 0.5) / 0.12) ** 2)
    rings += 1.2 * np.exp(-0.5 * (radius / 0.14) ** 2) - 0.6 * np.exp(-0.5 * ((radius - 0.25) / 0.1) ** 2)
    attenuation[rows, columns] += (depth * rings).astype(attenuation.dtype)


def add_black_dots(
    attenuation: np.ndarray, rng: np.random.Generator, count: int, sigma_px: tuple[float, float], peak: float
) -> None:
    """Add `count` small dark specks with sigmas in the given range: damage too small to resolve. In place."""
    height, width = attenuation.shape
    for x, y in rng.uniform(0, [width, height], (count, 2)):
        sigma = rng.uniform(*sigma_px)
        reach = int(4 * sigma) + 1
        rows = slice(max(int(y) - reach, 0), min(int(y) + reach + 1, height))
        columns = slice(max(int(x) - reach, 0), min(int(x) + reach + 1, width))
        grid_y, grid_x = np.ogrid[rows, columns]
        squared = (grid_x - x) ** 2 + ((grid_y - y) * rng.uniform(0.8, 1.25)) ** 2
        speck = peak * rng.uniform(0.3, 1.0) * np.exp(-0.5 * squared / sigma**2)
        attenuation[rows, columns] += speck.astype(attenuation.dtype)
