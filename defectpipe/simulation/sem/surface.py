"""Secondary electrons from a rough surface: yield by tilt, edges, the detector's side, shadow, roughness."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit


@dataclass(frozen=True)
class Light:
    """How tilt and the detector make contrast.

    Parameters
    ----------
    tilt_power : float
        The yield goes as 1 / cos(tilt) to this power; near 1 for light elements, less for heavy ones (Reimer, Scanning
        Electron Microscopy, 1998, section 4.2).
    side : float
        Share by which a slope that faces the detector is brighter, one that faces away darker.
    side_deg : float
        Direction of the detector from +x, counter-clockwise as seen.
    shadow : float
        How strongly what lies below its surroundings is dimmed: few of its electrons reach the detector.
    """

    tilt_power: float
    side: float
    side_deg: float
    shadow: float

    @property
    def towards(self) -> np.ndarray:
        """Share of brightness per unit of the surface normal along x and y of the array (y points down)."""
        angle = np.deg2rad(self.side_deg)
        return np.array([self.side * np.cos(angle), -self.side * np.sin(angle)], np.float32)

    @property
    def yields(self) -> np.ndarray:
        """Yield at 1 / cos(tilt) = 1, 1 + 1/64 … 9: a power a px would take longer than all else."""
        return (np.arange(1, 9 + 1 / 64, 1 / 64) ** self.tilt_power).astype(np.float32)


def draw_light(rng: np.random.Generator) -> Light:
    """Detector and yield of one image."""
    return Light(rng.uniform(0.65, 0.95), rng.uniform(0.1, 0.4), rng.uniform(0, 360), rng.uniform(0.3, 0.8))


def roughness(
    shape: tuple[int, int], rng: np.random.Generator, growth: float = 1.8, n_octaves: int = 6, finest: int = 0
) -> np.ndarray:
    """Self-affine random texture of mean 0 and about unit standard deviation.

    Parameters
    ----------
    growth : float
        Ratio of amplitudes from one octave of lengths to the next longer one: 1 is as rough at every length, 2 smooth.
    n_octaves : int
        Octaves of lengths, from the finest on.
    finest : int
        Shortest length: 2 to this power, in px.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    last = finest + n_octaves - 1
    # two spare knots a side at the coarsest octave, so that no octave runs out when the next is twice as large
    n_y, n_x = (int(np.ceil(n / 2**last)) + 2 for n in shape)
    total = _white((n_y, n_x), rng)
    amplitude, power = 1.0, 1.0
    for octave in range(last - 1, -1, -1):
        total = cv2.resize(total, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        total = total[: int(np.ceil(shape[0] / 2**octave)) + 2, : int(np.ceil(shape[1] / 2**octave)) + 2]
        if octave >= finest:
            amplitude /= growth
            power += amplitude**2
            total += np.float32(amplitude) * _white(total.shape, rng)
    return np.ascontiguousarray(total[: shape[0], : shape[1]]) * np.float32(1 / np.sqrt(power))


def _white(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    # uniform, of unit standard deviation: quicker than normal, and a sum of octaves does not show it
    return (rng.random(shape, np.float32) - np.float32(0.5)) * np.float32(np.sqrt(12))


@njit(cache=True, fastmath=True)
def shade(height_px, level, yields, towards):  # type: ignore[no-untyped-def]
    """Electrons from a height map, relative to those of a level surface of level 1.

    Parameters
    ----------
    height_px : ndarray of float32, shape (height, width)
    level : ndarray of float32, same shape
        Yield of the material where it lies level.
    yields : ndarray of float32
        `Light.yields`.
    towards : ndarray of float32, shape (2,)
        `Light.towards`.

    Returns
    -------
    ndarray of float32, same shape
    """
    rows, columns = height_px.shape
    signal = np.empty((rows, columns), np.float32)
    for y in range(rows):
        up, down = max(y - 1, 0), min(y + 1, rows - 1)
        for x in range(columns):
            left, right = max(x - 1, 0), min(x + 1, columns - 1)
            slope_x = (height_px[y, right] - height_px[y, left]) * np.float32(0.5)
            slope_y = (height_px[down, x] - height_px[up, x]) * np.float32(0.5)
            # electrons leave over the length of their escape: steeper than 80 degrees is no brighter
            secant = np.sqrt(min(np.float32(1) + slope_x * slope_x + slope_y * slope_y, np.float32(30)))
            facing = np.float32(1) - (slope_x * towards[0] + slope_y * towards[1]) / secant
            signal[y, x] = level[y, x] * yields[int((secant - np.float32(1)) * np.float32(64))] * facing
    return signal


@njit(cache=True, fastmath=True)
def add_balls(signal, height_px, balls, yields, towards):  # type: ignore[no-untyped-def]
    """Lay balls on a surface, one after the other, each where the surface then is. In place.

    Parameters
    ----------
    signal, height_px : ndarray of float32, shape (height, width)
    balls : ndarray of float32, shape (n, 6)
        x, y, radius (px), yield where level, share of the escape depth in the yield of the rim (without it, the 1 / cos
        of a ball would have no end), and whether it stays where it comes to lie on another ball.
    yields, towards : ndarray of float32
        As for `shade`.
    """
    one = np.float32(1)
    rows, columns = signal.shape
    covered = np.zeros(signal.shape, np.uint8)
    for i in range(balls.shape[0]):
        x0, y0, radius, level, soft, stays = balls[i]
        at_y, at_x = min(max(int(y0 + 0.5), 0), rows - 1), min(max(int(x0 + 0.5), 0), columns - 1)
        if covered[at_y, at_x] and not stays:
            continue
        centre = height_px[at_y, at_x] + np.float32(0.7) * radius
        inverse, rim = one / radius, (one + soft) * np.float32(64)
        for y in range(max(int(y0 - radius), 0), min(int(y0 + radius) + 2, rows)):
            v = (np.float32(y) - y0) * inverse
            half = (one + inverse) * (one + inverse) - v * v
            if half <= 0:
                continue
            reach = np.sqrt(half) * radius
            for x in range(max(int(x0 - reach), 0), min(int(x0 + reach) + 2, columns)):
                u = (np.float32(x) - x0) * inverse
                squared = u * u + v * v
                up = np.sqrt(max(one - squared, np.float32(0)))
                top = centre + radius * up
                if top <= height_px[y, x]:
                    continue
                # only a px on the limb is partly covered
                cover = min((one - np.sqrt(squared)) * radius + np.float32(0.5), one)
                if cover <= 0:
                    continue
                bright = level * yields[int(rim / (up + soft)) - 64] * (one + u * towards[0] + v * towards[1])
                signal[y, x] += cover * (bright - signal[y, x])
                if cover >= 0.5:
                    height_px[y, x] = top
                    covered[y, x] = 1


def shadow(height_px: np.ndarray, reach_px: float, strength: float) -> np.ndarray:
    """Share of the electrons that get out between higher surroundings.

    Parameters
    ----------
    height_px : ndarray of float32, shape (height, width)
    reach_px : float
        Distance over which surroundings count; a depth of as much dims by exp(-strength).

    Returns
    -------
    ndarray of float32, same shape
    """
    small = cv2.resize(height_px, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(reach_px / 4, 0.5), borderType=cv2.BORDER_REFLECT)
    around = cv2.resize(small, height_px.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.exp(np.minimum((height_px - around) * np.float32(strength / reach_px), 0))
