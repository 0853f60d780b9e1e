"""Loops, black dots and cavities in diffraction contrast, with their exact outline.

Kinematic and parametric: each defect adds an attenuation c(x, y) to a map, and the specimen lets exp(-sum c) through.
The size of an open loop is that of the ellipse through the rim's ridge, its darkest line: there the experts' boxes
lie in real micrographs, and there the measurement looks. Of a double line it is the middle, where the dislocation is.
That of a closed one or of a black dot is where its attenuation falls to half, that of a cavity its edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectpipe.boxes import ellipse_bounds, ellipse_points
from defectpipe.simulation.loops.crystal import Variant

CLASSES = ("open", "closed", "edge_on", "black_dot", "cavity")
CONTRASTS = ("ring", "double_line", "solid")
HALF_WIDTH = float(np.sqrt(2 * np.log(2)))  # of a Gaussian at half maximum, in standard deviations


@dataclass(frozen=True)
class Loop:
    """One defect, in px of the undistorted image.

    Parameters
    ----------
    kind : str
        ``"open"``: a dark rim about a brighter interior. ``"closed"``: dark all over. ``"edge_on"``: a rod.
        ``"black_dot"``: a speck too small to resolve. ``"cavity"``: a disc with a Fresnel fringe.
    x_px, y_px : float
        Centre.
    diameter_px, minor_px : float
        Full axes of the rim's ridge (closed, cavity: of the edge; black dot: at half maximum); of a rod, its length and
        its width at half maximum.
    angle_deg : float
        Of the major axis from +x, counter-clockwise as seen.
    rim_sigma_px : float
        Standard deviation of the rim's Gaussian cross-section; its width at half maximum is 2.35 times that. Of a
        closed loop and a cavity: softness of the edge. Unused for rods and black dots.
    attenuation : float
        Peak attenuation c of the rim (else: of the body); contrast 1 - exp(-c). Below 0: bright, as a cavity out of
        focus on the one side.
    interior : float
        Attenuation inside an open loop's rim, as a share of the peak.
    lobes : float
        How much weaker the rim is along `lobes_deg` than across, 0 (even) to 1 (gone: the line of no contrast).
    lobes_deg : float
    halo : float
        Attenuation of the strained surroundings, as a share of the peak: even inside, fading outside. It lies under the
        rim, and is no part of it.
    contrast : str
        Of an open loop: ``"ring"``, or ``"double_line"``, two parallel rims on both sides of the ridge.
    gap_px : float
        From the one rim of a double line to the other.
    inner : float
        Attenuation of the inner rim of a double line, as a share of the outer one's.
    fringe_px, fringe : float
        Width of a cavity's Fresnel fringe, and its peak attenuation as a share of the body's, of opposite sign.
    variant : Variant or None
        What the loop is in the crystal, where its shape follows from that.
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
    contrast: str = "ring"
    gap_px: float = 0.0
    inner: float = 1.0
    fringe_px: float = 0.0
    fringe: float = 0.0
    variant: Variant | None = None


def outline(loop: Loop, count: int = 64) -> np.ndarray:
    """Points on the loop's ridge (closed: its edge).

    Returns
    -------
    ndarray, shape (count, 2)
        x, y in px.
    """
    ellipse = np.array([loop.x_px, loop.y_px, loop.diameter_px, loop.minor_px, loop.angle_deg])
    return ellipse_points(ellipse, count)


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
    ndarray of float64, or of float32 where both coordinates are
    """
    x, y = np.asarray(x_px), np.asarray(y_px)
    dtype = np.dtype(np.float32 if x.dtype == y.dtype == np.float32 else np.float64)
    # Python's own numbers leave the type of an array as it is
    dx, dy = x.astype(dtype) - loop.x_px, loop.y_px - y.astype(dtype)
    c, s = (float(f(np.deg2rad(loop.angle_deg))) for f in (np.cos, np.sin))
    u, v = c * dx + s * dy, c * dy - s * dx
    if loop.kind == "edge_on":
        beyond = _beyond(u, loop.diameter_px, loop.minor_px)
        sigma = loop.minor_px / (2 * HALF_WIDTH)
        return loop.attenuation * (
            np.exp((beyond**2 + v**2) * (-0.5 / sigma**2)) + _halo(loop, np.hypot(beyond, v), 0.8 * loop.minor_px)
        )
    if loop.kind == "black_dot":
        level = (u * (2 / loop.diameter_px)) ** 2 + (v * (2 / loop.minor_px)) ** 2
        return loop.attenuation * np.exp2(-level)
    distance = _distance(u, v, 0.5 * loop.diameter_px, 0.5 * loop.minor_px)
    if loop.kind == "cavity":
        return loop.attenuation * (_inside(distance, 2.4 / loop.rim_sigma_px) - _fringe(loop, distance))
    if loop.kind == "closed":
        dome = 1 - 0.25 * np.minimum((u * (2 / loop.diameter_px)) ** 2 + (v * (2 / loop.minor_px)) ** 2, 1)
        body = dome * _inside(distance, 2.4 / loop.rim_sigma_px)
        return loop.attenuation * (body + _halo(loop, distance, 0.15 * loop.diameter_px))
    return loop.attenuation * (
        np.maximum(_rim(loop, distance) * _lobes(loop, dx, dy), _interior(loop, distance))
        + _halo(loop, distance, 0.15 * loop.diameter_px)
    )


def add_loop(attenuation: np.ndarray, loop: Loop, margin_px: int = 0, texture: np.ndarray | None = None) -> None:
    """Add a loop's attenuation to a map, in place.

    Parameters
    ----------
    attenuation : ndarray, shape (height, width)
        Pixel (margin, margin) lies at (0, 0).
    texture : ndarray, same shape, optional
        Local factor: strain and surface damage make real rims uneven.
    """
    reach = 4 * loop.rim_sigma_px + 2 + loop.gap_px + 3 * loop.fringe_px
    reach += 0.75 * loop.diameter_px if loop.halo > 0 or loop.kind == "black_dot" else 0
    x0, y0, x1, y1 = tight_box(loop) + margin_px
    rows = slice(max(int(y0 - reach), 0), max(int(y1 + reach) + 1, 0))
    columns = slice(max(int(x0 - reach), 0), max(int(x1 + reach) + 1, 0))
    part = attenuation[rows, columns]
    if part.size:
        x = np.arange(columns.start, columns.start + part.shape[1], dtype=attenuation.dtype)[None]
        y = np.arange(rows.start, rows.start + part.shape[0], dtype=attenuation.dtype)[:, None]
        c = attenuation_map(loop, x - margin_px, y - margin_px)
        part += c if texture is None else c * texture[rows, columns]


def rim_contrast(loop: Loop) -> float:
    """Mean contrast 1 - exp(-c) along the rim's ridge (closed, black dot, cavity: half way in; rod: along its axis).

    Of a double line: along the outer rim. Negative where the defect is brighter than the foil about it.
    """
    inset = {"open": -loop.gap_px, "edge_on": loop.minor_px}.get(loop.kind, 0.5 * loop.minor_px)
    u = max(loop.diameter_px - inset, 0.0)
    v = max(loop.minor_px - inset, 0.0)
    ridge = Loop("open", loop.x_px, loop.y_px, u, v, loop.angle_deg, loop.rim_sigma_px, 0.0)
    points = outline(ridge)
    return float(np.mean(1 - np.exp(-attenuation_map(loop, points[:, 0], points[:, 1]))))


def polygon_ellipses(points: np.ndarray) -> np.ndarray:
    """The ellipses with the area moments of closed polygons; exact for ellipses under any affine map, in the limit.

    Parameters
    ----------
    points : ndarray, shape (..., n, 2)
        x, y in px, not closed.

    Returns
    -------
    ndarray, shape (..., 5)
        x, y, full major axis, full minor axis, angle in degrees (from +x, counter-clockwise as seen, 0 to 180).
    """
    origin = points.mean(-2)
    p = points - origin[..., None, :]
    q = np.roll(p, -1, -2)
    cross = p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1]
    area = cross.sum(-1)[..., None] / 2
    centre = ((p + q) * cross[..., None]).sum(-2) / (6 * area)
    second = np.einsum("...ni,...nj,...n->...ij", p, p, cross) + np.einsum("...ni,...nj,...n->...ij", q, q, cross)
    mixed = np.einsum("...ni,...nj,...n->...ij", p, q, cross)
    moments = (2 * second + mixed + np.swapaxes(mixed, -1, -2)) / (24 * area[..., None])
    values, vectors = np.linalg.eigh(moments - centre[..., :, None] * centre[..., None, :])
    axes = 4 * np.sqrt(np.maximum(values, 0))
    angle = np.rad2deg(np.arctan2(-vectors[..., 1, 1], vectors[..., 0, 1])) % 180
    return np.concatenate([origin + centre, axes[..., ::-1], angle[..., None]], -1)


def _rim(loop: Loop, distance: np.ndarray) -> np.ndarray:
    if loop.contrast != "double_line":
        return np.exp(distance**2 * (-0.5 / loop.rim_sigma_px**2))
    outer = np.exp((distance - 0.5 * loop.gap_px) ** 2 * (-0.5 / loop.rim_sigma_px**2))
    return np.maximum(outer, loop.inner * np.exp((distance + 0.5 * loop.gap_px) ** 2 * (-0.5 / loop.rim_sigma_px**2)))


def _lobes(loop: Loop, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """1, less by `lobes` times the squared cosine of the angle to `lobes_deg`."""
    c, s = (float(f(np.deg2rad(loop.lobes_deg))) for f in (np.cos, np.sin))
    return 1 - loop.lobes * (c * dx + s * dy) ** 2 / np.maximum(dx**2 + dy**2, 1e-12)


def _interior(loop: Loop, distance: np.ndarray) -> np.ndarray:
    return loop.interior * _inside(distance, 2.5 / loop.rim_sigma_px)


def _inside(distance: np.ndarray, steepness: float) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(distance * steepness, -40, 40)))


def _fringe(loop: Loop, distance: np.ndarray) -> np.ndarray:
    """First Fresnel fringe of an edge, just outside it; those that follow are lost in partial coherence."""
    if loop.fringe_px <= 0:
        return np.zeros_like(distance)
    return loop.fringe * np.exp((distance - 0.75 * loop.fringe_px) ** 2 * (-0.5 / (0.4 * loop.fringe_px) ** 2))


def _distance(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    # first order in the distance: exact on the ellipse itself and along its axes
    p, q = u * (1 / a), v * (1 / b)
    level = np.sqrt(p**2 + q**2)
    slope = np.sqrt((p * (1 / a)) ** 2 + (q * (1 / b)) ** 2)
    return np.where(level > 1e-6, (level - 1) * level / np.maximum(slope, 1e-12), -min(a, b))


def _beyond(u: np.ndarray, length: float, width: float) -> np.ndarray:
    return np.maximum(np.abs(u) - 0.5 * (length - width), 0)


def _halo(loop: Loop, distance: np.ndarray, length: float) -> np.ndarray | float:
    return loop.halo * np.exp(np.maximum(distance, 0) * (-1 / length)) if loop.halo > 0 else 0.0
