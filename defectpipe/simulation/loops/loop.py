"""Dislocation loops in diffraction contrast, with their exact outline.

Kinematic and parametric: each defect adds an attenuation c(x, y) to a map, and the specimen lets exp(-sum c) through.
The size of an open loop is that of the ellipse through the rim's ridge, its darkest line: there the experts' boxes
lie in real micrographs, and there the measurement looks. That of a closed one is where its attenuation falls to half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectpipe.boxes import ellipse_bounds

CLASSES = ("open", "closed", "edge_on")
HALF_WIDTH = float(np.sqrt(2 * np.log(2)))  # of a Gaussian at half maximum, in standard deviations


@dataclass(frozen=True)
class Loop:
    """One loop, in px of the undistorted image.

    Parameters
    ----------
    kind : str
        ``"open"``: a dark rim about a brighter interior. ``"closed"``: dark all over. ``"edge_on"``: a rod.
    x_px, y_px : float
        Centre.
    diameter_px, minor_px : float
        Full axes of the rim's ridge (closed: of the edge); of a rod, its length and its width at half maximum.
    angle_deg : float
        Of the major axis from +x, counter-clockwise as seen.
    rim_sigma_px : float
        Standard deviation of the rim's Gaussian cross-section; its width at half maximum is 2.35 times that. Of a
        closed loop: softness of the edge. Unused for rods.
    attenuation : float
        Peak attenuation c of the rim (closed, edge-on: of the body); contrast 1 - exp(-c).
    interior : float
        Attenuation inside an open loop's rim, as a share of the peak.
    lobes : float
        How much weaker the rim is along `lobes_deg` than across, 0 (even) to 1 (gone: the line of no contrast).
    lobes_deg : float
    halo : float
        Attenuation of the strained surroundings, as a share of the peak: even inside, fading outside. It lies under the
        rim, and is no part of it.
    """

    kind: str
    x_px: float
    y_px: float
    diameter_px: float
    minor_px: float
    angle_deg: float
    rim_sigma_px: float
    attenuation: float
    interior: float = 0.0
    lobes: float = 0.0
    lobes_deg: float = 0.0
    halo: float = 0.0


def outline(loop: Loop, count: int = 64) -> np.ndarray:
    """Points on the loop's ridge (closed: its edge).

    Returns
    -------
    ndarray, shape (count, 2)
        x, y in px.
    """
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    u, v = 0.5 * loop.diameter_px * np.cos(angle), 0.5 * loop.minor_px * np.sin(angle)
    c, s = np.cos(np.deg2rad(loop.angle_deg)), np.sin(np.deg2rad(loop.angle_deg))
    # y points down in the array and up in the angle's convention
    return np.stack([loop.x_px + c * u - s * v, loop.y_px - s * u - c * v], 1)


def tight_box(loop: Loop) -> np.ndarray:
    """Bounds of the ridge (closed: of the edge), shape (4,): x0, y0, x1, y1 in px."""
    return ellipse_bounds(loop.x_px, loop.y_px, loop.diameter_px, loop.minor_px, loop.angle_deg)[0]  # type: ignore[arg-type]


def attenuation_map(loop: Loop, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    """Attenuation of one loop at given places.

    Parameters
    ----------
    x_px, y_px : ndarray
        Coordinates that broadcast to the result's shape.

    Returns
    -------
    ndarray of float64
    """
    dx, dy = np.broadcast_arrays(np.asarray(x_px, float) - loop.x_px, loop.y_px - np.asarray(y_px, float))
    c, s = np.cos(np.deg2rad(loop.angle_deg)), np.sin(np.deg2rad(loop.angle_deg))
    u, v = c * dx + s * dy, -s * dx + c * dy
    if loop.kind == "edge_on":
        return loop.attenuation * (
            _rod(u, v, loop.diameter_px, loop.minor_px)
            + _halo(loop, np.hypot(_beyond(u, loop.diameter_px, loop.minor_px), v), 0.8 * loop.minor_px)
        )
    distance = _distance(u, v, 0.5 * loop.diameter_px, 0.5 * loop.minor_px)
    if loop.kind == "closed":
        dome = 1 - 0.25 * np.clip((u / loop.diameter_px * 2) ** 2 + (v / loop.minor_px * 2) ** 2, 0, 1)
        body = dome / (1 + np.exp(np.clip(2.4 * distance / loop.rim_sigma_px, -40, 40)))
        return loop.attenuation * (body + _halo(loop, distance, 0.15 * loop.diameter_px))
    ridge = distance / loop.rim_sigma_px
    towards = np.cos(np.arctan2(dy, dx) - np.deg2rad(loop.lobes_deg)) ** 2
    rim = np.exp(-0.5 * ridge**2) * (1 - loop.lobes * towards)
    inside = loop.interior / (1 + np.exp(np.clip(2.5 * ridge, -40, 40)))
    return loop.attenuation * (np.maximum(rim, inside) + _halo(loop, distance, 0.15 * loop.diameter_px))


def add_loop(attenuation: np.ndarray, loop: Loop, margin_px: int = 0, texture: np.ndarray | None = None) -> None:
    """Add a loop's attenuation to a map, in place.

    Parameters
    ----------
    attenuation : ndarray, shape (height, width)
        Pixel (margin, margin) lies at (0, 0).
    texture : ndarray, same shape, optional
        Local factor: strain and surface damage make real rims uneven.
    """
    reach = 4 * loop.rim_sigma_px + 2 + (0.75 * loop.diameter_px if loop.halo > 0 else 0)
    x0, y0, x1, y1 = tight_box(loop) + margin_px
    rows = slice(max(int(y0 - reach), 0), max(int(y1 + reach) + 1, 0))
    columns = slice(max(int(x0 - reach), 0), max(int(x1 + reach) + 1, 0))
    part = attenuation[rows, columns]
    if part.size:
        y, x = np.ogrid[rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]]
        c = attenuation_map(loop, x - margin_px, y - margin_px)
        part += (c if texture is None else c * texture[rows, columns]).astype(attenuation.dtype)


def rim_contrast(loop: Loop) -> float:
    """Mean contrast 1 - exp(-c) along the rim's ridge (closed: half way in; rod: along its axis)."""
    inset = {"open": 0.0, "closed": 0.5 * loop.minor_px, "edge_on": loop.minor_px}
    u = max(loop.diameter_px - inset[loop.kind], 0.0)
    v = max(loop.minor_px - inset[loop.kind], 0.0)
    ridge = Loop("open", loop.x_px, loop.y_px, u, v, loop.angle_deg, loop.rim_sigma_px, 0.0)
    points = outline(ridge)
    return float(np.mean(1 - np.exp(-attenuation_map(loop, points[:, 0], points[:, 1]))))


def polygon_ellipse(points: np.ndarray) -> tuple[float, float, float, float, float]:
    """The ellipse with the area moments of a closed polygon; exact for an ellipse under any affine map, in the limit.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        x, y in px, not closed.

    Returns
    -------
    tuple of float
        x, y, full major axis, full minor axis, angle in degrees (from +x, counter-clockwise as seen, 0 to 180).
    """
    origin = points.mean(0)
    p, q = points - origin, np.roll(points - origin, -1, 0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    area = cross.sum() / 2
    centre = ((p + q) * cross[:, None]).sum(0) / (6 * area)
    second = np.einsum("ni,nj,n->ij", p, p, cross) + np.einsum("ni,nj,n->ij", q, q, cross)
    mixed = np.einsum("ni,nj,n->ij", p, q, cross)
    moments = (2 * second + mixed + mixed.T) / (24 * area) - np.outer(centre, centre)
    values, vectors = np.linalg.eigh(moments)
    minor, major = 4 * np.sqrt(np.maximum(values, 0))
    angle = float(np.rad2deg(np.arctan2(-vectors[1, 1], vectors[0, 1])) % 180)
    x, y = origin + centre
    return float(x), float(y), float(major), float(minor), angle


def _distance(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    # first order in the distance: exact on the ellipse itself and along its axes
    level = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    slope = np.hypot(u / a**2, v / b**2)
    return np.where(level > 1e-6, (level - 1) * level / np.maximum(slope, 1e-12), -min(a, b))


def _rod(u: np.ndarray, v: np.ndarray, length: float, width: float) -> np.ndarray:
    sigma = width / (2 * HALF_WIDTH)
    return np.exp(-0.5 * (_beyond(u, length, width) ** 2 + v**2) / sigma**2)


def _beyond(u: np.ndarray, length: float, width: float) -> np.ndarray:
    return np.maximum(np.abs(u) - 0.5 * (length - width), 0)


def _halo(loop: Loop, distance: np.ndarray, length: float) -> np.ndarray:
    return loop.halo * np.exp(-np.maximum(distance, 0) / length)
