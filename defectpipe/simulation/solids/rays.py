"""Lengths of the beam's rays inside a body that is given by its distance function: compiled, for one body at a time.

Frames are right-handed. The body's own has z along its long axis, or its axis of symmetry. The image's has x to the
right, y down, and z along the beam, away from the viewer. Lengths are in nm.

A ray goes forward by steps that cannot leave out a surface: the distance to it, over the largest gradient that the
deformed body's distance function has (sphere tracing; Hart, The Visual Computer 12:527, 1996). Where the sign changes,
the root is found between the two last places.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

CLASSES = (
    "sphere",
    "ellipsoid",
    "cube",
    "cuboid",
    "cylinder",
    "cone",
    "pyramid",
    "octahedron",
    "tetrahedron",
    "torus",
    "helix",
    "tube",
)
# All that can be simulated: the classes of the named presets, and further ones, to be learned afterwards.
BODIES = (*CLASSES, "capsule", "shell", "prism", "cross", "star")
(
    _SPHERE,
    _ELLIPSOID,
    _CUBE,
    _CUBOID,
    _CYLINDER,
    _CONE,
    _PYRAMID,
    _OCTAHEDRON,
    _TETRAHEDRON,
    _TORUS,
    _HELIX,
    _TUBE,
    _CAPSULE,
    _SHELL,
    _PRISM,
    _CROSS,
    _STAR,
) = range(17)
_SQRT3 = math.sqrt(3.0)


@njit(cache=True, error_model="numpy")
def _plain_distance(kind, s, x, y, z):  # type: ignore[no-untyped-def]
    """Signed distance to the undeformed body, or a lower bound of it; negative inside. `s`: see `shapes.sizes`."""
    if kind == _SPHERE:
        return math.sqrt(x * x + y * y + z * z) - s[0]
    if kind == _ELLIPSOID:
        # first order in the distance: exact on the surface
        u, v, w = x / s[0], y / s[1], z / s[2]
        level = math.sqrt(u * u + v * v + w * w)
        u, v, w = u / s[0], v / s[1], w / s[2]
        slope = math.sqrt(u * u + v * v + w * w)
        return (level - 1.0) * level / slope if slope > 1e-12 else -min(s[0], s[1], s[2])
    if kind in (_CUBE, _CUBOID):
        return max(abs(x) - s[0], abs(y) - s[1], abs(z) - s[2])
    if kind == _CYLINDER:
        return max(math.sqrt(x * x + y * y) - s[0], abs(z) - s[1])
    if kind in (_CONE, _PYRAMID):
        across = math.sqrt(x * x + y * y) if kind == _CONE else max(abs(x), abs(y))
        slant = math.sqrt(4 * s[1] * s[1] + s[0] * s[0])
        return max((2 * s[1] * across - s[0] * (s[1] - z)) / slant, -z - s[1])
    if kind == _OCTAHEDRON:
        return (abs(x) + abs(y) + abs(z) - s[0]) / _SQRT3
    if kind == _TETRAHEDRON:
        return _tetrahedron_distance(s[0], x, y, z)
    if kind == _TORUS:
        across = math.sqrt(x * x + y * y) - s[0]
        return math.sqrt(across * across + z * z) - s[1]
    if kind == _TUBE:
        return max(abs(math.sqrt(x * x + y * y) - s[0]) - s[1], abs(z) - s[2])
    if kind == _CAPSULE:
        beyond = max(abs(z) - s[1], 0.0)
        return math.sqrt(x * x + y * y + beyond * beyond) - s[0]
    if kind == _SHELL:
        return abs(math.sqrt(x * x + y * y + z * z) - s[0]) - s[1]
    if kind == _PRISM:
        return max(y - s[0], 0.5 * (_SQRT3 * abs(x) - y) - s[0], abs(z) - s[1])
    if kind == _CROSS:
        x, y, z = abs(x), abs(y), abs(z)
        # of the three bars the one along the longest coordinate is the nearest
        longest = max(x, y, z)
        middle = max(min(x, y), min(max(x, y), z))
        return max(longest - s[1], middle - s[0])
    if kind == _STAR:
        return min(_tetrahedron_distance(s[0], x, y, z), _tetrahedron_distance(s[0], -x, -y, -z))
    return _helix_distance(s, x, y, z)


@njit(cache=True, error_model="numpy")
def _tetrahedron_distance(half, x, y, z):  # type: ignore[no-untyped-def]
    return (max(-x - y - z, y + z - x, x - y + z, x + y - z) - half) / _SQRT3


@njit(cache=True, error_model="numpy")
def _helix_distance(s, x, y, z):  # type: ignore[no-untyped-def]
    # the section in the half-plane through the axis is an ellipse, that of a round wire at a small pitch
    ring, wire, rise, end = s[0], s[1], s[2], s[3]
    cosine = ring / math.sqrt(ring * ring + rise * rise)
    theta = math.atan2(y, x)
    nearest = round((z / rise - theta) / (2 * math.pi))
    turn = min(max(nearest, math.ceil((-end - theta) / (2 * math.pi))), math.floor((end - theta) / (2 * math.pi)))
    along = (z - rise * (theta + 2 * math.pi * turn)) * cosine
    across = math.sqrt(x * x + y * y) - ring
    distance = math.sqrt(across * across + along * along) - wire
    if nearest != turn:  # beyond an end, which is round
        sign = 1.0 if nearest > turn else -1.0
        dx, dy, dz = x - ring * s[4], y - sign * ring * s[5], z - sign * rise * end
        distance = min(distance, math.sqrt(dx * dx + dy * dy + dz * dz) - wire)
    return distance


@njit(cache=True, error_model="numpy")
def _undo(w, x, y, z):  # type: ignore[no-untyped-def]
    """Where a point of the deformed body was before. `w`: see `deformation.warp`."""
    if w[0] > 0:  # a flat body is deformed along x
        x, y, z = y, z, x
    if w[2] != 0:
        sign = 1.0 if w[2] > 0 else -1.0
        radius = sign / w[2]
        left = radius - sign * x
        angle = math.atan2(z, left)
        x, z = sign * (radius - math.sqrt(left * left + z * z)), angle * radius
    x -= w[4] * z
    if w[1] != 0:
        c, s = math.cos(w[1] * z), math.sin(w[1] * z)
        x, y = c * x + s * y, c * y - s * x
    if w[3] != 0:
        # beyond the ends the section stays as it is there
        scale = 1 + w[3] * min(max(z / w[5], -1.5), 1.5)
        x, y = x / scale, y / scale
    if w[0] > 0:
        x, y, z = z, x, y
    return x, y, z


@njit(cache=True, error_model="numpy")
def distance(kind, s, w, dents, x, y, z):  # type: ignore[no-untyped-def]
    """Signed distance to the deformed body, up to a factor; negative inside.

    Parameters
    ----------
    kind : int
        Index in `BODIES`.
    s : ndarray, shape (6,)
        See `shapes.sizes`.
    w : ndarray, shape (6,)
        See `deformation.warp`.
    dents : ndarray, shape (n, 5)
        x, y, z of a place on the undeformed surface, depth there, standard deviation of the Gaussian around it.
    x, y, z : float
        In the body's frame.
    """
    x, y, z = _undo(w, x, y, z)
    value = _plain_distance(kind, s, x, y, z)
    for i in range(dents.shape[0]):
        dx, dy, dz = x - dents[i, 0], y - dents[i, 1], z - dents[i, 2]
        far = (dx * dx + dy * dy + dz * dz) / (2 * dents[i, 4] * dents[i, 4])
        if far < 12:
            value += dents[i, 3] * math.exp(-far)
    return value


@njit(cache=True, error_model="numpy")
def share_inside(kind, s, w, dents, radius):  # type: ignore[no-untyped-def]
    """Share of a lattice in the cube around a sphere of that radius that lies inside the body."""
    n = 17
    inside = 0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                x, y, z = (2 * i + 1.0) / n - 1, (2 * j + 1.0) / n - 1, (2 * k + 1.0) / n - 1
                inside += distance(kind, s, w, dents, radius * x, radius * y, radius * z) < 0
    return inside / n**3


@njit(cache=True, error_model="numpy")
def largest_gradient(kind, s, w, dents, half_box, band):  # type: ignore[no-untyped-def]
    """Largest gradient of `distance` on a lattice in the box, where its value is below `band`; at least 1."""
    largest = 1.0
    n = 11
    step = 1e-4 * (half_box[0] + half_box[1] + half_box[2])
    for i in range(n):
        for j in range(n):
            for k in range(n):
                # off the planes of symmetry, where the branches of the functions meet
                x = half_box[0] * ((2 * i + 1.13) / n - 1)
                y = half_box[1] * ((2 * j + 0.91) / n - 1)
                z = half_box[2] * ((2 * k + 1.07) / n - 1)
                here = distance(kind, s, w, dents, x, y, z)
                if abs(here) > band:
                    continue
                dx = distance(kind, s, w, dents, x + step, y, z) - here
                dy = distance(kind, s, w, dents, x, y + step, z) - here
                dz = distance(kind, s, w, dents, x, y, z + step) - here
                largest = max(largest, math.sqrt(dx * dx + dy * dy + dz * dz) / step)
    return largest


@njit(cache=True, error_model="numpy")
def _root(kind, s, w, dents, o, d, a, b, fa, fb, tolerance):  # type: ignore[no-untyped-def]
    # Illinois' regula falsi: bracketed, and seldom more than three steps
    side = 0
    c = a
    for _ in range(20):
        c = (a * fb - b * fa) / (fb - fa)
        fc = distance(kind, s, w, dents, o[0] + c * d[0], o[1] + c * d[1], o[2] + c * d[2])
        if abs(fc) < tolerance:
            break
        if (fc < 0) == (fb < 0):
            b, fb = c, fc
            if side == 1:
                fa *= 0.5
            side = 1
        else:
            a, fa = c, fc
            if side == -1:
                fb *= 0.5
            side = -1
    return c


@njit(cache=True, error_model="numpy")
def _chord(kind, s, w, dents, rotation, x, y, march):  # type: ignore[no-untyped-def]
    reach, shortest, longest, per_gradient, tolerance = march
    if x * x + y * y >= reach * reach:
        return 0.0
    end = math.sqrt(reach * reach - x * x - y * y)
    d = (rotation[2, 0], rotation[2, 1], rotation[2, 2])
    o = (
        rotation[0, 0] * x + rotation[1, 0] * y,
        rotation[0, 1] * x + rotation[1, 1] * y,
        rotation[0, 2] * x + rotation[1, 2] * y,
    )
    t = -end
    f = distance(kind, s, w, dents, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
    total = 0.0
    entered = t
    rate = -1.0 / per_gradient  # of |f| along the ray, between the two last places
    while t < end:
        a = abs(f)
        safe = max(a * per_gradient, shortest)
        near = 8 * shortest
        if rate < 0 and a < -rate * near:
            step = 0.3 * shortest - a / rate  # just behind the surface, if |f| goes on to fall as it does
        else:
            # as far as the next place's own distance will cover the way back, if |f| goes on as it does
            step = 1.9 * a / (1 / per_gradient - min(rate, 0.8 / per_gradient))
        further = min(t + min(max(step, safe), longest), end)
        g = distance(kind, s, w, dents, o[0] + further * d[0], o[1] + further * d[1], o[2] + further * d[2])
        # not known to leave no surface out: between equal signs by both distances, at a change by a short step
        proven = (a + abs(g)) * per_gradient if (f < 0) == (g < 0) else near + shortest
        if further - t > max(safe, proven):
            further = min(t + min(safe, longest), end)
            g = distance(kind, s, w, dents, o[0] + further * d[0], o[1] + further * d[1], o[2] + further * d[2])
        if (f < 0) != (g < 0):
            root = _root(kind, s, w, dents, o, d, t, further, f, g, tolerance)
            if f < 0:
                total += root - entered
            else:
                entered = root
            rate = (a + abs(g)) / (further - t)
        else:
            rate = (abs(g) - a) / max(further - t, 1e-12)
        t, f = further, g
    return total + (end - entered if f < 0 else 0.0)


@njit(cache=True, error_model="numpy")
def chords(kind, s, w, dents, rotation, x, y, march):  # type: ignore[no-untyped-def]
    """Lengths inside the body of rays along z through every (x, y).

    Parameters
    ----------
    kind, s, w, dents
        As in `distance`.
    rotation : ndarray, shape (3, 3)
        From the body's frame to the image's.
    x, y : ndarray, shape (n,) and (m,)
        In the image's frame, from the body's origin.
    march : tuple of float
        Radius of a sphere around the body, shortest and longest step, step over the value of `distance`, and the value
        below which a root is found.

    Returns
    -------
    ndarray of float64, shape (m, n)
    """
    lengths = np.zeros((y.size, x.size))
    for i in range(y.size):
        for j in range(x.size):
            lengths[i, j] = _chord(kind, s, w, dents, rotation, x[j], y[i], march)
    return lengths


@njit(cache=True, error_model="numpy")
def refine(kind, s, w, dents, rotation, x, y, march, lengths, side, jump):  # type: ignore[no-untyped-def]
    """Means over whole pixels, in place, where the ray through the centre does not stand for its pixel.

    That is at the silhouette, and where second differences exceed `jump`.

    Parameters
    ----------
    lengths : ndarray of float64, shape (m, n)
        From `chords`, on a grid with equal steps.
    side : int
        Rays along each side of such a pixel.

    Returns
    -------
    ndarray of float64, shape (m, n)
        Share of each pixel that the silhouette covers.
    """
    coverage = (lengths > 0).astype(np.float64)
    centre = lengths.copy()
    pitch = x[1] - x[0]
    for i in range(1, y.size - 1):
        for j in range(1, x.size - 1):
            here = centre[i, j]
            edge = False
            for near in (centre[i, j - 1], centre[i, j + 1], centre[i - 1, j], centre[i + 1, j]):
                edge |= (near > 0) != (here > 0)
            bend = max(
                abs(centre[i, j - 1] - 2 * here + centre[i, j + 1]), abs(centre[i - 1, j] - 2 * here + centre[i + 1, j])
            )
            if not edge and bend <= jump:
                continue
            total = 0.0
            hits = 0
            for a in range(side):
                for b in range(side):
                    u, v = x[j] + pitch * ((b + 0.5) / side - 0.5), y[i] + pitch * ((a + 0.5) / side - 0.5)
                    chord = _chord(kind, s, w, dents, rotation, u, v, march)
                    total += chord
                    hits += chord > 0
            lengths[i, j] = total / (side * side)
            coverage[i, j] = hits / (side * side)
    return coverage
