"""Deformations of bodies: taper, twist, shear and bend along the long axis (in this order), and dents in the surface.

After Barr, Computer Graphics 18(3):21, 1984. Twist and shear keep the volume, a bend that of a body that is symmetric
about the plane x = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from defectpipe.errors import SettingsError
from defectpipe.simulation.preset import Range
from defectpipe.simulation.solids.rays import BODIES, distance, share_inside

DEFORMATIONS = ("twist", "bend", "taper", "shear", "dents")

# What leaves a body of the same class, or the very same body, cannot be seen, and is not drawn.
_UNSEEN = {
    "sphere": {"twist", "shear"},
    "ellipsoid": {"shear"},
    "cylinder": {"twist"},
    "cone": {"twist"},
    "helix": {"twist"},
    "tube": {"twist"},
    "capsule": {"twist"},
    "shell": {"twist", "shear"},
}
_AS_IT_IS = np.zeros(6)
_NO_DENTS = np.zeros((0, 5))


@dataclass(frozen=True)
class Deformation:
    """Amplitudes of a body's deformations; all 0: none.

    They act along z of the body's frame, of a torus along x, over the length of the box around the undeformed body.

    Parameters
    ----------
    twist_deg : float
        Turn of one end against the other.
    bend_deg : float
        Angle between the axis's two ends: the axis becomes an arc.
    taper : float
        Relative change of the section's width from the middle to an end, -0.6 to 0.6.
    shear : float
        Displacement along x over the distance along z.
    dents : tuple of tuple of float
        Of each: x, y, z (nm) of its centre on the undeformed surface, depth (nm), and standard deviation (nm).
    """

    twist_deg: float = 0.0
    bend_deg: float = 0.0
    taper: float = 0.0
    shear: float = 0.0
    dents: tuple[tuple[float, float, float, float, float], ...] = ()

    @property
    def dent_nm(self) -> float:
        """Depth of the deepest dent."""
        return max((dent[3] for dent in self.dents), default=0.0)

    @property
    def deformed(self) -> bool:
        """Whether anything differs from the ideal body."""
        return self.dent_nm > 0 or any(v != 0 for v in (self.twist_deg, self.bend_deg, self.taper, self.shear))


@dataclass(frozen=True)
class DeformationRanges:
    """What deformations are drawn from; (0, 0) switches one off and leaves the others as they are.

    Parameters
    ----------
    share : float
        Of the bodies that are deformed; each of these in one way or several.
    twist_deg, bend_deg, taper, shear : Range
        Absolute amplitudes; the sign is random.
    dent_depth : Range
        Over the body's smallest thickness.
    dent_width : Range
        Standard deviation over the body's smallest thickness.
    n_dents : tuple of int
        Smallest and largest number of dents.
    kept_share : float
        Of the undeformed body that dents leave at least: those that would take more are left out.
    """

    share: float = 0.5
    twist_deg: Range = (30.0, 90.0)
    bend_deg: Range = (20.0, 45.0)
    taper: Range = (0.15, 0.35)
    shear: Range = (0.15, 0.35)
    dent_depth: Range = (0.15, 0.3)
    dent_width: Range = (0.15, 0.3)
    n_dents: tuple[int, int] = (1, 3)
    kept_share: float = 0.0


def warp(label: str, half_box: np.ndarray, deformation: Deformation) -> np.ndarray:
    """What the distance function takes.

    Returns
    -------
    ndarray of float64, shape (6,)
        1 where the axis is x (else 0), twist in rad per nm, curvature in 1/nm, taper, shear, half length in nm.

    Raises
    ------
    SettingsError
        The body would run into itself.
    """
    flat = label == "torus"
    across, along = (half_box[2], half_box[0]) if flat else (half_box[0], half_box[2])
    if flat:  # the permutation that takes x to the long axis takes y to x
        across = half_box[1]
    twist, curvature = (math.radians(v) / (2 * along) for v in (deformation.twist_deg, deformation.bend_deg))
    widest = across * (1 + abs(deformation.taper)) + abs(deformation.shear) * along
    if abs(curvature) * widest > 0.95 or abs(deformation.taper) > 0.6:
        raise SettingsError(f"A {label} cannot be deformed as much as by {deformation}.")
    return np.array([float(flat), twist, curvature, deformation.taper, deformation.shear, along])


def deform(points: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Where points of the undeformed body are afterwards.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        In the body's frame, in nm.
    w : ndarray, shape (6,)
        From `warp`.

    Returns
    -------
    ndarray of float64, shape (n, 3)
    """
    flat, twist, curvature, taper, shear, half = w
    x, y, z = np.asarray(points, float)[:, [1, 2, 0] if flat else [0, 1, 2]].T
    scale = 1 + taper * np.clip(z / half, -1.5, 1.5)
    c, s = np.cos(twist * z), np.sin(twist * z)
    x, y = scale * (c * x - s * y), scale * (s * x + c * y)
    x = x + shear * z
    if curvature:
        left = 1 / curvature - x
        x, z = 1 / curvature - left * np.cos(curvature * z), left * np.sin(curvature * z)
    return np.stack([z, x, y] if flat else [x, y, z], 1)


def dent_array(deformation: Deformation) -> np.ndarray:
    """The dents, shape (n, 5), as the distance function takes them."""
    return np.array(deformation.dents, float) if deformation.dents else _NO_DENTS


def draw_deformation(
    label: str, s: np.ndarray, radius: float, gauge: float, ranges: DeformationRanges, rng: np.random.Generator
) -> Deformation:
    """Random deformations of a body, among those that can be seen of its class.

    Parameters
    ----------
    s : ndarray, shape (6,)
        See `shapes.sizes`.
    radius : float
        Of a sphere around the body, in nm.
    gauge : float
        The body's smallest thickness, in nm.
    """
    seen = np.array([name not in _UNSEEN.get(label, ()) for name in DEFORMATIONS])
    is_deformed = rng.random() < ranges.share
    luck = np.where(seen, rng.random(len(DEFORMATIONS)), 2.0)
    chosen = is_deformed & ((luck < 0.4) | (luck == luck.min()))
    signs = rng.choice([-1.0, 1.0], 4)
    amplitudes = np.array([rng.uniform(*r) for r in (ranges.twist_deg, ranges.bend_deg, ranges.taper, ranges.shear)])
    twist, bend, taper, shear = (float(v) for v in chosen[:4] * signs * amplitudes + 0.0)
    dents = []
    for _ in range(int(rng.integers(*ranges.n_dents, endpoint=True))):
        place = _on_surface(BODIES.index(label), s, radius, rng)
        depth, width = (rng.uniform(*r) * gauge for r in (ranges.dent_depth, ranges.dent_width))
        if chosen[4] and depth > 0:
            dents.append((*place, float(depth), float(width)))
    kind = BODIES.index(label)
    whole = share_inside(kind, s, _AS_IT_IS, _NO_DENTS, radius)
    least = ranges.kept_share * whole
    # several wide dents can leave nothing at all of a body
    while dents and whole > 0 and share_inside(kind, s, _AS_IT_IS, np.array(dents, float), radius) <= least:
        dents.pop()
    return Deformation(twist, bend, taper, shear, tuple(dents))


def _on_surface(kind: int, s: np.ndarray, radius: float, rng: np.random.Generator) -> tuple[float, float, float]:
    point = rng.standard_normal(3)
    point *= radius / np.linalg.norm(point)
    step = 1e-4 * radius
    for _ in range(12):
        here = distance(kind, s, _AS_IT_IS, _NO_DENTS, *point)
        if abs(here) < 1e-3 * radius:
            break
        gradient = np.array([distance(kind, s, _AS_IT_IS, _NO_DENTS, *(point + e)) - here for e in step * np.eye(3)])
        gradient /= step
        point -= here * gradient / max(float(gradient @ gradient), 1e-6)
    return float(point[0]), float(point[1]), float(point[2])
