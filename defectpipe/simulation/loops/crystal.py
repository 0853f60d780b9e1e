"""Habit planes, Burgers vectors and the direction of view: how a flat loop appears in projection.

Cubic crystals, so that directions and plane normals of the same indices are parallel. Frank loops in fcc lie on {111}
with b = 1/3<111>, perfect ones on {110} with b = 1/2<110>; loops in bcc lie on {100} with b = <100> or on {111} with
b = 1/2<111> (Hull & Bacon, Introduction to Dislocations, 5th ed., chapters 5 and 6). Image axes: x to the right, y up
as seen, z against the beam, towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from defectpipe.errors import SettingsError

Miller = tuple[int, int, int]
_111: tuple[Miller, ...] = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))
_100: tuple[Miller, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_110: tuple[Miller, ...] = ((1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1))


@dataclass(frozen=True)
class Habit:
    """One family of loops: pure edge, b along the plane's normal.

    Parameters
    ----------
    normals : tuple of Miller indices
        One for each variant.
    burgers_share : Fraction
        Of the normal's indices, in units of the lattice parameter: 1/3 for b = 1/3<111>.
    """

    normals: tuple[Miller, ...]
    burgers_share: Fraction

    def plane(self, variant: int) -> str:
        """Habit plane of a variant, as ``(1 -1 1)``."""
        return "({} {} {})".format(*self.normals[variant])

    def burgers(self, variant: int) -> str:
        """Burgers vector of a variant, as ``1/3[1 -1 1]``."""
        share = "" if self.burgers_share == 1 else str(self.burgers_share)
        return share + "[{} {} {}]".format(*self.normals[variant])

    def g_dot_b(self, variant: int, g: Miller) -> float:
        """Product of a reflection's indices with the Burgers vector; at 0 the loop is out of contrast."""
        return float(self.burgers_share * sum(a * b for a, b in zip(g, self.normals[variant], strict=True)))


HABITS: dict[str, Habit] = {
    "fcc-frank": Habit(_111, Fraction(1, 3)),
    "fcc-perfect": Habit(_110, Fraction(1, 2)),
    "bcc-100": Habit(_100, Fraction(1)),
    "bcc-111": Habit(_111, Fraction(1, 2)),
}


@dataclass(frozen=True)
class Variant:
    """What a loop is in the crystal.

    Parameters
    ----------
    habit : str
        A name in `HABITS`.
    number : int
        Of the variant, from 0.
    inclination_deg : float
        Between the plane's normal and the beam, 0 (seen face on) to 90 (edge on).
    g_dot_b : float
        NaN where no reflection is set.
    """

    habit: str
    number: int
    inclination_deg: float
    g_dot_b: float

    @property
    def invisible(self) -> bool:
        """Whether the loop is out of contrast."""
        return self.g_dot_b == 0


@dataclass(frozen=True)
class Projection:
    """Ellipse of a loop as seen, in the unit of its diameter.

    Parameters
    ----------
    major, minor : float
        Full axes.
    angle_deg : float
        Of the major axis from +x, counter-clockwise as seen, 0 to 180.
    inclination_deg : float
        Between the plane's normal and the beam, 0 (seen face on) to 90 (edge on).
    """

    major: float
    minor: float
    angle_deg: float
    inclination_deg: float


def view(zone_axis: Miller, rotation_deg: float = 0.0, tilt_deg: float = 0.0, tilt_axis_deg: float = 0.0) -> np.ndarray:
    """Rotation from the crystal to the image.

    Parameters
    ----------
    zone_axis : Miller indices
        Towards the viewer before the tilt.
    rotation_deg : float
        Of the crystal about the beam, counter-clockwise as seen.
    tilt_deg : float
        Angle by which the crystal is then tilted, right-handed, about a line in the image's plane.
    tilt_axis_deg : float
        Direction of that line from +x, counter-clockwise as seen.

    Returns
    -------
    ndarray, shape (3, 3)
        Takes a direction of the crystal to image x, y (up), z.

    Raises
    ------
    SettingsError
        The zone axis is zero.
    """
    z = np.array(zone_axis, float)
    if not z.any():
        raise SettingsError("A zone axis needs at least one index that is not 0.")
    z /= np.linalg.norm(z)
    # any direction across the zone axis may point to the right; this one has low indices for [001], [011] and [111]
    helper = np.eye(3)[int(np.argmin(np.abs(z)))]
    x = helper - (helper @ z) * z
    x /= np.linalg.norm(x)
    untilted = _turn(np.array([0.0, 0.0, 1.0]), rotation_deg) @ np.stack([x, np.cross(z, x), z])
    axis = np.deg2rad(tilt_axis_deg)
    return _turn(np.array([np.cos(axis), np.sin(axis), 0.0]), tilt_deg) @ untilted


def project(
    normal: Miller, to_image: np.ndarray, diameter: float, ratio: float = 1.0, in_plane_deg: float = 0.0
) -> Projection:
    """Parallel projection of a flat loop; exact.

    Parameters
    ----------
    normal : Miller indices
        Of the loop's plane.
    to_image : ndarray, shape (3, 3)
        From `view`.
    diameter : float
        The loop's own major axis.
    ratio : float
        The loop's own minor over its major axis: 1 for a circle.
    in_plane_deg : float
        Direction of its major axis within the plane, from the line where the plane cuts the image's.
    """
    n = to_image @ np.array(normal, float)
    n /= np.linalg.norm(n)
    across = np.hypot(n[0], n[1])
    # the line in which the two planes meet: it is seen at its full length
    first = np.array([-n[1], n[0], 0.0]) / across if across > 1e-9 else np.array([1.0, 0.0, 0.0])
    second = np.cross(n, first)
    c, s = np.cos(np.deg2rad(in_plane_deg)), np.sin(np.deg2rad(in_plane_deg))
    axes = 0.5 * diameter * np.stack([c * first + s * second, ratio * (c * second - s * first)], 1)
    directions, half, _ = np.linalg.svd(axes[:2])
    angle = float(np.rad2deg(np.arctan2(directions[1, 0], directions[0, 0])) % 180)
    inclination = float(np.rad2deg(np.arctan2(across, abs(n[2]))))
    return Projection(2 * float(half[0]), 2 * float(half[1]), angle, inclination)


def _turn(axis: np.ndarray, angle_deg: float) -> np.ndarray:
    """Rotation about a unit vector (Rodrigues' formula)."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return c * np.eye(3) + s * cross + (1 - c) * np.outer(axis, axis)
