"""Classes of bodies: their dimensions in nm, their volumes, and how they are drawn.

Each body's origin is its centre; of a cone, pyramid or helix, the middle of its height.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from defectpipe.errors import SettingsError
from defectpipe.simulation.solids.rays import BODIES

# Every dimension that some class has: the columns of the truth. Of a torus and a helix, `diameter_nm` is that of the
# wire's centre line; of a cone, of its base; of a tube or shell, the outer one. A capsule's length includes its round
# ends. A prism is triangular; a cross has three bars at right angles, a star two tetrahedra of the same centre.
# `hand` is 1 of a right-handed helix, else -1.
DIMENSIONS = (
    "diameter_nm",
    "length_nm",
    "width_nm",
    "height_nm",
    "edge_nm",
    "wire_diameter_nm",
    "wall_nm",
    "pitch_nm",
    "turns",
    "hand",
)

DIMENSIONS_OF: dict[str, tuple[str, ...]] = {
    "sphere": ("diameter_nm",),
    "ellipsoid": ("length_nm", "width_nm", "height_nm"),
    "cube": ("edge_nm",),
    "cuboid": ("length_nm", "width_nm", "height_nm"),
    "cylinder": ("diameter_nm", "length_nm"),
    "cone": ("diameter_nm", "height_nm"),
    "pyramid": ("edge_nm", "height_nm"),
    "octahedron": ("edge_nm",),
    "tetrahedron": ("edge_nm",),
    "torus": ("diameter_nm", "wire_diameter_nm"),
    "helix": ("diameter_nm", "wire_diameter_nm", "pitch_nm", "turns", "hand"),
    "tube": ("diameter_nm", "length_nm", "wall_nm"),
    "capsule": ("diameter_nm", "length_nm"),
    "shell": ("diameter_nm", "wall_nm"),
    "prism": ("edge_nm", "length_nm"),
    "cross": ("length_nm", "width_nm"),
    "star": ("edge_nm",),
}


def sizes(label: str, dimensions: Mapping[str, float]) -> np.ndarray:
    """What the distance function of a class takes.

    Returns
    -------
    ndarray of float64, shape (6,)
        In nm, unused ones 0. Ellipsoid, cube, cuboid: half of the width, height, length. Sphere, cylinder, cone:
        radius, half length. Pyramid: half edge, half height. Octahedron: from centre to corner. Tetrahedron: half the
        edge of the cube around it, and of a star. Torus, helix, tube, shell: radius of the middle line; then the wire's
        radius (helix: then the rise per rad, the angle in rad from the middle to an end, its cosine and sine), or half
        the wall and, of a tube, half the length. Capsule: radius, half the straight part. Prism: radius of the circle
        within, half length. Cross: half width and half length of a bar.

    Raises
    ------
    SettingsError
        There is no such class, its dimensions are others, not positive, or contradict each other.
    """
    if label not in DIMENSIONS_OF:
        raise SettingsError(f"There is no class of solids '{label}'; known: {', '.join(BODIES)}.")
    if set(dimensions) != set(DIMENSIONS_OF[label]):
        raise SettingsError(f"A {label} is given by {', '.join(DIMENSIONS_OF[label])}, not {', '.join(dimensions)}.")
    d = dict(dimensions)
    if min(v for name, v in d.items() if name != "hand") <= 0:
        raise SettingsError(f"The dimensions of a {label} have to be positive, not {d}.")
    values: tuple[float, ...]
    if label in ("ellipsoid", "cuboid"):
        values = (d["width_nm"] / 2, d["height_nm"] / 2, d["length_nm"] / 2)
    elif label == "cube":
        values = (d["edge_nm"] / 2,) * 3
    elif label == "octahedron":
        values = (d["edge_nm"] / math.sqrt(2),)
    elif label in ("tetrahedron", "star"):
        values = (d["edge_nm"] / math.sqrt(8),)
    elif label == "pyramid":
        values = (d["edge_nm"] / 2, d["height_nm"] / 2)
    elif label == "torus":
        values = (d["diameter_nm"] / 2, d["wire_diameter_nm"] / 2)
    elif label == "helix":
        rise = math.copysign(d["pitch_nm"], d["hand"]) / (2 * math.pi)
        end = math.pi * d["turns"]
        values = (d["diameter_nm"] / 2, d["wire_diameter_nm"] / 2, rise, end, math.cos(end), math.sin(end))
    elif label == "tube":
        values = ((d["diameter_nm"] - d["wall_nm"]) / 2, d["wall_nm"] / 2, d["length_nm"] / 2)
    elif label == "shell":
        values = ((d["diameter_nm"] - d["wall_nm"]) / 2, d["wall_nm"] / 2)
    elif label == "capsule":
        values = (d["diameter_nm"] / 2, (d["length_nm"] - d["diameter_nm"]) / 2)
    elif label == "prism":
        values = (d["edge_nm"] / math.sqrt(12), d["length_nm"] / 2)
    elif label == "cross":
        values = (d["width_nm"] / 2, d["length_nm"] / 2)
    else:
        values = (d["diameter_nm"] / 2, d.get("length_nm", d.get("height_nm", 0.0)) / 2)
    s = np.array([*values, *[0.0] * (6 - len(values))])
    if label in ("torus", "tube", "helix", "shell") and s[0] <= s[1]:
        raise SettingsError(f"A {label} has a hole; with {d} it is closed.")
    if (label == "capsule" and s[1] <= 0) or (label == "cross" and s[1] <= s[0]):
        raise SettingsError(f"A {label} is longer than wide, not {d}.")
    if label == "helix" and d["turns"] < 1:
        raise SettingsError(f"A helix has at least one turn, not {d['turns']}.")
    return s


def volume_nm3(label: str, dimensions: Mapping[str, float]) -> float:
    """Volume by the closed formula; of a helix that of its wire (Pappus) with round ends."""
    s = [float(v) for v in sizes(label, dimensions)]
    if label == "sphere":
        return 4 / 3 * math.pi * s[0] ** 3
    if label == "ellipsoid":
        return 4 / 3 * math.pi * s[0] * s[1] * s[2]
    if label in ("cube", "cuboid"):
        return 8 * s[0] * s[1] * s[2]
    if label == "cylinder":
        return 2 * math.pi * s[0] ** 2 * s[1]
    if label == "cone":
        return 2 / 3 * math.pi * s[0] ** 2 * s[1]
    if label == "pyramid":
        return 8 / 3 * s[0] ** 2 * s[1]
    if label == "octahedron":
        return 4 / 3 * s[0] ** 3
    if label == "tetrahedron":
        return 8 / 3 * s[0] ** 3
    if label == "torus":
        return 2 * math.pi**2 * s[0] * s[1] ** 2
    if label == "tube":
        return 8 * math.pi * s[0] * s[1] * s[2]
    if label == "capsule":
        return 2 * math.pi * s[0] ** 2 * s[1] + 4 / 3 * math.pi * s[0] ** 3
    if label == "shell":
        return 4 / 3 * math.pi * ((s[0] + s[1]) ** 3 - (s[0] - s[1]) ** 3)
    if label == "prism":
        return 6 * math.sqrt(3) * s[0] ** 2 * s[1]
    if label == "cross":
        return 24 * s[1] * s[0] ** 2 - 16 * s[0] ** 3
    if label == "star":
        return 4 * s[0] ** 3
    return 2 * math.pi * s[1] ** 2 * s[3] * math.hypot(s[0], s[2]) + 4 / 3 * math.pi * s[1] ** 3


def half_box(label: str, dimensions: Mapping[str, float]) -> np.ndarray:
    """Half sides along x, y, z of the box around the undeformed body, in nm, shape (3,)."""
    s = sizes(label, dimensions)
    if label in ("ellipsoid", "cube", "cuboid"):
        return s[:3]
    if label in ("sphere", "octahedron", "tetrahedron", "star"):
        return np.full(3, s[0])
    if label == "shell":
        return np.full(3, s[0] + s[1])
    if label == "capsule":
        return np.array([s[0], s[0], s[0] + s[1]])
    if label == "prism":
        return np.array([math.sqrt(3) * s[0], 2 * s[0], s[1]])
    if label == "cross":
        return np.full(3, s[1])
    if label in ("cylinder", "cone", "pyramid"):
        return np.array([s[0], s[0], s[1]])
    across = s[0] + s[1]
    along = {"torus": s[1], "tube": s[2]}.get(label, abs(s[2]) * s[3] + s[1])
    return np.array([across, across, along])


def radius_nm(label: str, dimensions: Mapping[str, float]) -> float:
    """Radius of the smallest sphere about the origin that holds the undeformed body (helix: a little more)."""
    s = sizes(label, dimensions)
    box = half_box(label, dimensions)
    if label in ("sphere", "octahedron", "ellipsoid", "shell", "capsule"):
        return float(box.max())
    if label in ("cube", "cuboid", "tetrahedron", "star"):
        return float(np.linalg.norm(box))
    if label == "prism":
        return math.hypot(2 * s[0], s[1])
    if label == "cross":
        return math.hypot(math.sqrt(2) * s[0], s[1])
    if label == "pyramid":
        return math.hypot(math.sqrt(2) * s[0], s[1])
    if label == "torus":
        return float(s[0] + s[1])
    if label == "helix":
        return math.hypot(s[0], s[2] * s[3]) + float(s[1])
    return math.hypot(box[0], box[2])


def gauge_nm(label: str, dimensions: Mapping[str, float]) -> float:
    """How thick the body is where a dent may lie: the wire, the wall, the bar, or the shortest side of the box.

    Of a star half of that side: its points are slender. Of a shell twice the wall: less would not be seen.
    """
    d = dimensions
    if label in ("torus", "helix"):
        return d["wire_diameter_nm"]
    if label == "tube":
        return d["wall_nm"]
    if label == "shell":
        return 2 * d["wall_nm"]
    if label == "cross":
        return d["width_nm"]
    return (1 if label == "star" else 2) * float(half_box(label, d).min())


def draw_dimensions(label: str, radius: float, rng: np.random.Generator) -> dict[str, float]:
    """Random dimensions of a class that fill a sphere of the given radius in nm.

    The ranges keep the classes apart: the longest axis of an ellipsoid or cuboid is at least 1.25 times the next, a
    tube's bore is at least half its diameter, a torus has a hole, the turns of a helix do not touch.

    Raises
    ------
    SettingsError
        There is no such class.
    """
    proportions = _proportions(label, rng)
    scale = radius / radius_nm(label, proportions)
    return {name: value if name in ("turns", "hand") else value * scale for name, value in proportions.items()}


def _proportions(label: str, rng: np.random.Generator) -> dict[str, float]:
    u = rng.uniform
    if label in ("ellipsoid", "cuboid"):
        return {"length_nm": 1.0, "width_nm": u(0.45, 0.8), "height_nm": u(0.35, 0.8)}
    if label == "cylinder":
        return {"diameter_nm": u(0.3, 0.85), "length_nm": 1.0}
    if label == "cone":
        return {"diameter_nm": u(0.6, 1.2), "height_nm": 1.0}
    if label == "pyramid":
        return {"edge_nm": u(0.6, 1.2), "height_nm": 1.0}
    if label == "torus":
        return {"diameter_nm": 1.0, "wire_diameter_nm": u(0.2, 0.55)}
    if label == "helix":
        wire = u(0.2, 0.35)
        pitch, turns, hand = wire * u(1.6, 2.6), u(2.5, 5.0), float(rng.choice([-1, 1]))
        return {"diameter_nm": 1.0, "wire_diameter_nm": wire, "pitch_nm": pitch, "turns": turns, "hand": hand}
    if label == "tube":
        return {"diameter_nm": 1.0, "length_nm": u(1.2, 3.0), "wall_nm": u(0.1, 0.25)}
    if label == "capsule":
        return {"diameter_nm": u(0.3, 0.6), "length_nm": 1.0}
    if label == "shell":
        return {"diameter_nm": 1.0, "wall_nm": u(0.08, 0.25)}
    if label == "prism":
        return {"edge_nm": 1.0, "length_nm": u(0.8, 1.6)}
    if label == "cross":
        return {"length_nm": 1.0, "width_nm": u(0.18, 0.35)}
    if label == "sphere":
        return {"diameter_nm": 1.0}
    return {"edge_nm": 1.0}
