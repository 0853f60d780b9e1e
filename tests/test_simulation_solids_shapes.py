"""Bodies, their deformations and their thickness along the beam, against closed formulas."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from defectpipe.errors import SettingsError
from defectpipe.simulation.solids import shapes
from defectpipe.simulation.solids.contrast import adf_signal, mean_free_path_nm
from defectpipe.simulation.solids.deformation import (
    DEFORMATIONS,
    Deformation,
    DeformationRanges,
    deform,
    dent_array,
    draw_deformation,
    warp,
)
from defectpipe.simulation.solids.rays import BODIES, chords, distance
from defectpipe.simulation.solids.solid import Solid, project

PX = 0.5
STRONG = DeformationRanges(share=1.0)
DIMENSIONS = {
    "sphere": {"diameter_nm": 27.0},
    "ellipsoid": {"length_nm": 36.0, "width_nm": 20.0, "height_nm": 14.0},
    "cube": {"edge_nm": 21.0},
    "cuboid": {"length_nm": 31.0, "width_nm": 17.0, "height_nm": 12.0},
    "cylinder": {"diameter_nm": 16.0, "length_nm": 29.0},
    "cone": {"diameter_nm": 24.0, "height_nm": 26.0},
    "pyramid": {"edge_nm": 23.0, "height_nm": 25.0},
    "octahedron": {"edge_nm": 24.0},
    "tetrahedron": {"edge_nm": 32.0},
    "torus": {"diameter_nm": 25.0, "wire_diameter_nm": 9.0},
    "helix": {"diameter_nm": 20.0, "wire_diameter_nm": 5.0, "pitch_nm": 9.0, "turns": 3.3, "hand": -1.0},
    "tube": {"diameter_nm": 17.0, "length_nm": 30.0, "wall_nm": 3.5},
    "capsule": {"diameter_nm": 14.0, "length_nm": 33.0},
    "shell": {"diameter_nm": 29.0, "wall_nm": 4.5},
    "prism": {"edge_nm": 24.0, "length_nm": 27.0},
    "cross": {"length_nm": 34.0, "width_nm": 9.0},
    "star": {"edge_nm": 30.0},
}
VOLUMES = {
    "sphere": math.pi / 6 * 27**3,
    "ellipsoid": math.pi / 6 * 36 * 20 * 14,
    "cube": 21**3,
    "cuboid": 31 * 17 * 12,
    "cylinder": math.pi / 4 * 16**2 * 29,
    "cone": math.pi / 12 * 24**2 * 26,
    "pyramid": 23**2 * 25 / 3,
    "octahedron": math.sqrt(2) / 3 * 24**3,
    "tetrahedron": 32**3 / (6 * math.sqrt(2)),
    "torus": math.pi**2 / 4 * 25 * 9**2,
    # a round wire along the coil, and the two halves of a ball at its ends
    "helix": math.pi / 4 * 5**2 * 3.3 * math.hypot(math.pi * 20, 9) + math.pi / 6 * 5**3,
    "tube": math.pi / 4 * (17**2 - 10**2) * 30,
    "capsule": math.pi / 4 * 14**2 * (33 - 14) + math.pi / 6 * 14**3,
    "shell": math.pi / 6 * (29**3 - 20**3),
    "prism": math.sqrt(3) / 4 * 24**2 * 27,
    "cross": 3 * 34 * 9**2 - 2 * 9**3,
    # eight points on an octahedron of half the edge: one and a half tetrahedra
    "star": 1.5 * 30**3 / (6 * math.sqrt(2)),
}


def turned(seed: int) -> tuple[float, ...]:
    q = np.random.default_rng(seed).standard_normal(4)
    return tuple(q / np.linalg.norm(q))


def about(axis: str, degrees: float) -> tuple[float, ...]:
    return tuple(Rotation.from_euler(axis, degrees, degrees=True).as_quat(scalar_first=True))


def seen(label: str, quaternion=(1.0, 0.0, 0.0, 0.0), deformation: Deformation | None = None):
    """Thickness in nm with the nm coordinates of its pixels from the body's origin."""
    solid = Solid(label, DIMENSIONS[label], deformation or Deformation(), quaternion)
    p = project(solid, 40.3, 29.8, PX)
    height, width = p.thickness_nm.shape
    x = (np.arange(width) + p.column - 40.3) * PX
    y = (np.arange(height) + p.row - 29.8) * PX
    return p, x[None] + 0 * y[:, None], y[:, None] + 0 * x[None]


def drawn(label: str, seed: int) -> Solid:
    rng = np.random.default_rng(seed)
    dimensions = shapes.draw_dimensions(label, 20.0, rng)
    s, gauge = shapes.sizes(label, dimensions), shapes.gauge_nm(label, dimensions)
    return Solid(label, dimensions, draw_deformation(label, s, 20.0, gauge, STRONG, rng), turned(seed))


@pytest.mark.parametrize("label", BODIES)
def test_the_thickness_integrates_to_the_analytic_volume_in_any_orientation(label):
    assert shapes.volume_nm3(label, DIMENSIONS[label]) == pytest.approx(VOLUMES[label])
    for number, quaternion in enumerate(((1.0, 0.0, 0.0, 0.0), turned(1), turned(2))):
        p, _, _ = seen(label, quaternion)
        error = 0.006 if label == "helix" else 0.0025
        if label == "prism" and number == 0:  # a side along a row of px is seen to a sixth of a px
            error = PX / 6 * 24 / (math.sqrt(3) / 4 * 24**2)
        assert p.volume_nm3 == pytest.approx(VOLUMES[label], rel=error)
        assert p.thickness_nm.min() >= 0
        assert p.thickness_nm.max() <= 2 * shapes.radius_nm(label, DIMENSIONS[label]) + 1e-6
        border = np.concatenate([p.thickness_nm[[0, -1]].ravel(), p.thickness_nm[:, [0, -1]].ravel()])
        assert border.max() == 0, "nothing lies beyond the part that is computed"


def test_a_sphere_is_as_thick_as_its_chords():
    p, x, y = seen("sphere", turned(3))
    expected = 2 * np.sqrt(np.maximum(13.5**2 - x**2 - y**2, 0))
    inside = x**2 + y**2 < 12.5**2
    assert np.sqrt(np.mean((p.thickness_nm - expected)[inside] ** 2)) < 0.02 * PX
    assert p.area_nm2 == pytest.approx(math.pi * 13.5**2, rel=0.003)


@pytest.mark.parametrize("seed", range(4))
def test_an_ellipsoid_is_as_thick_as_its_quadratic_form_says(seed):
    p, x, y = seen("ellipsoid", turned(seed))
    rotation = Rotation.from_quat(turned(seed), scalar_first=True).as_matrix()
    a = rotation @ np.diag(1 / np.array([10.0, 7.0, 18.0]) ** 2) @ rotation.T
    half = a[0, 2] * x + a[1, 2] * y
    rest = a[0, 0] * x**2 + 2 * a[0, 1] * x * y + a[1, 1] * y**2 - 1
    expected = 2 * np.sqrt(np.maximum(half**2 - a[2, 2] * rest, 0)) / a[2, 2]
    plain = expected > 0.6 * expected.max()  # towards the edge pixels are means
    np.testing.assert_allclose(p.thickness_nm[plain], expected[plain], atol=0.1 * PX)
    assert p.area_nm2 == pytest.approx((expected > 0).sum() * PX**2, rel=0.02)


def test_a_cube_along_an_axis_and_tilted():
    p, x, y = seen("cube")
    inside = np.maximum(abs(x), abs(y)) < 10
    np.testing.assert_allclose(p.thickness_nm[inside], 21, atol=1e-2)
    assert p.area_nm2 == pytest.approx(21**2, rel=0.01)
    p, x, y = seen("cube", about("x", 45))
    roof = 2 * (21 / math.sqrt(2) - abs(y))
    inside = (abs(x) < 10) & (abs(y) < 13.5) & (abs(y) > 1)
    np.testing.assert_allclose(p.thickness_nm[inside], roof[inside], atol=0.05)
    assert p.area_nm2 == pytest.approx(21**2 * math.sqrt(2), rel=0.01)


def test_cylinder_and_tube_end_on_and_side_on():
    for label, length, outer, inner in (("cylinder", 29, 8.0, 0.0), ("tube", 30, 8.5, 5.0)):
        p, x, y = seen(label)
        rho = np.hypot(x, y)
        wall = (rho < outer - 0.6) & (rho > inner + (0.6 if inner else 0))
        np.testing.assert_allclose(p.thickness_nm[wall], length, atol=1e-2)
        assert p.thickness_nm[rho < inner - 0.6].sum() == 0
        assert p.area_nm2 == pytest.approx(math.pi * (outer**2 - inner**2), rel=0.01)
        p, x, y = seen(label, about("y", 90))
        expected = 2 * (np.sqrt(np.maximum(outer**2 - y**2, 0)) - np.sqrt(np.maximum(inner**2 - y**2, 0)))
        inside = (abs(x) < length / 2 - 0.6) & (abs(y) < outer - 1) & (abs(abs(y) - inner) > 1.5)
        np.testing.assert_allclose(p.thickness_nm[inside], expected[inside], atol=0.1)
        assert p.area_nm2 == pytest.approx(length * 2 * outer, rel=0.01)


def test_torus_cone_pyramid_and_octahedron_along_their_axes():
    p, x, y = seen("torus")
    off = np.hypot(x, y) - 12.5
    ring = abs(off) < 4
    np.testing.assert_allclose(p.thickness_nm[ring], 2 * np.sqrt(4.5**2 - off[ring] ** 2), atol=0.1)
    assert p.thickness_nm[np.hypot(x, y) < 7].max() == 0
    assert p.area_nm2 == pytest.approx(math.pi * (17**2 - 8**2), rel=0.01)
    p, x, y = seen("cone")
    across = np.hypot(x, y)
    inside = (across < 11) & (across > 1)
    np.testing.assert_allclose(p.thickness_nm[inside], 26 * (1 - across[inside] / 12), atol=0.05)
    p, x, y = seen("pyramid")
    across = np.maximum(abs(x), abs(y))
    inside = (across < 11) & (across > 1) & (abs(abs(x) - abs(y)) > 1)
    np.testing.assert_allclose(p.thickness_nm[inside], 25 * (1 - across[inside] / 11.5), atol=0.05)
    p, x, y = seen("octahedron")
    across, corner = abs(x) + abs(y), 24 / math.sqrt(2)
    inside = (across < corner - 1) & (np.minimum(abs(x), abs(y)) > 1)
    np.testing.assert_allclose(p.thickness_nm[inside], 2 * (corner - across[inside]), atol=0.05)


def test_capsule_shell_and_prism_side_on():
    p, x, y = seen("capsule", about("y", 90))
    beyond = np.maximum(abs(x) - (33 - 14) / 2, 0)
    square = 7**2 - beyond**2 - y**2
    np.testing.assert_allclose(p.thickness_nm[square > 8], 2 * np.sqrt(square[square > 8]), atol=0.1)
    assert p.area_nm2 == pytest.approx(math.pi * 7**2 + 14 * (33 - 14), rel=0.01)
    p, x, y = seen("shell", turned(4))
    rho = np.hypot(x, y)
    expected = 2 * (np.sqrt(np.maximum(14.5**2 - rho**2, 0)) - np.sqrt(np.maximum(10**2 - rho**2, 0)))
    inside = (rho < 13.5) & (abs(rho - 10) > 1)
    np.testing.assert_allclose(p.thickness_nm[inside], expected[inside], atol=0.1)
    p, _, _ = seen("prism")
    assert p.area_nm2 == pytest.approx(math.sqrt(3) / 4 * 24**2, rel=0.01)
    np.testing.assert_allclose(p.thickness_nm[p.coverage == 1], 27, atol=0.05)
    p, x, y = seen("prism", about("x", 90))  # a ridge along the beam's cross direction: the triangle seen from a side
    assert p.area_nm2 == pytest.approx(24 * 27, rel=0.01)
    inside = (abs(x) < 11) & (abs(x) > 1) & (abs(y) < 12)
    height = math.sqrt(3) / 2 * 24
    np.testing.assert_allclose(p.thickness_nm[inside], height * (1 - abs(x[inside]) / 12), atol=0.05)


def test_a_cross_and_a_star_along_their_axes():
    p, x, y = seen("cross")
    across, along = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
    np.testing.assert_allclose(p.thickness_nm[along < 4], 34, atol=1e-2)
    np.testing.assert_allclose(p.thickness_nm[(across < 4) & (along > 5) & (along < 16)], 9, atol=1e-2)
    assert p.thickness_nm[across > 5].max() == 0
    assert p.area_nm2 == pytest.approx(2 * 34 * 9 - 9**2, rel=0.01)
    p, x, y = seen("star")  # inside the cube whose diagonals its edges are
    half = 30 / math.sqrt(8)
    assert p.area_nm2 == pytest.approx((2 * half) ** 2, rel=0.02)
    middle = np.hypot(x, y) < 0.5
    np.testing.assert_allclose(p.thickness_nm[middle], 2 * half, atol=0.6)


def test_a_tetrahedron_lies_between_its_corners():
    corners = 32 / math.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    s = shapes.sizes("tetrahedron", DIMENSIONS["tetrahedron"])
    kind, ideal = BODIES.index("tetrahedron"), np.zeros(6)
    for i in range(4):
        assert distance(kind, s, ideal, np.zeros((0, 5)), *corners[i]) == pytest.approx(0, abs=1e-9)
        for j in range(i):  # edges lie on the surface, and are as long as stated
            assert distance(kind, s, ideal, np.zeros((0, 5)), *(corners[i] + corners[j]) / 2) == pytest.approx(
                0, abs=1e-9
            )
            assert np.linalg.norm(corners[i] - corners[j]) == pytest.approx(32)


@pytest.mark.parametrize("hand", [1.0, -1.0])
def test_a_helix_winds_to_its_hand(hand):
    s = shapes.sizes("helix", DIMENSIONS["helix"] | {"hand": hand})
    angle = np.linspace(-0.95, 0.95, 41) * math.pi * 3.3
    for a in angle:
        place = (10 * math.cos(a), 10 * math.sin(a), hand * 9 * a / (2 * math.pi))
        at = distance(BODIES.index("helix"), s, np.zeros(6), np.zeros((0, 5)), *place)
        assert at == pytest.approx(-2.5, abs=1e-6), "the wire's middle"


@pytest.mark.parametrize("label", BODIES)
@pytest.mark.parametrize("seed", [4, 5])
def test_long_steps_leave_no_surface_of_a_deformed_body_out(label, seed):
    solid = drawn(label, seed)
    assert solid.deformation.deformed
    p = project(solid, 0, 0, PX)
    x, y = (np.arange(n)[::3] * PX + PX * o for n, o in zip(p.thickness_nm.shape[::-1], (p.column, p.row), strict=True))
    kind, s = BODIES.index(label), shapes.sizes(label, solid.dimensions)
    w = warp(label, shapes.half_box(label, solid.dimensions), solid.deformation)
    plain = (40.0, 0.2 * PX, 0.2 * PX, 1.0, 1e-3)
    expected = chords(kind, s, w, dent_array(solid.deformation), solid.rotation, x, y, plain)
    away = np.abs(p.thickness_nm[::3, ::3] - expected)[(p.coverage[::3, ::3] == 1) | (p.coverage[::3, ::3] == 0)]
    # pixels at an edge within the body are means
    assert np.percentile(away, 90) < 0.1 * PX
    assert p.volume_nm3 == pytest.approx(expected.sum() * (3 * PX) ** 2, rel=0.03)


@pytest.mark.parametrize("label", BODIES)
def test_the_distance_function_undoes_what_deform_does(label):
    rng = np.random.default_rng(6)
    box = shapes.half_box(label, DIMENSIONS[label])
    deformation = Deformation(twist_deg=70, bend_deg=-40, taper=-0.3, shear=0.25)
    w, s, kind = warp(label, box, deformation), shapes.sizes(label, DIMENSIONS[label]), BODIES.index(label)
    points = rng.uniform(-1, 1, (50, 3)) * box
    for before, after in zip(points, deform(points, w), strict=True):
        expected = distance(kind, s, np.zeros(6), np.zeros((0, 5)), *before)
        assert distance(kind, s, w, np.zeros((0, 5)), *after) == pytest.approx(expected, abs=1e-9)
    assert np.abs(deform(points, w) - points).max() > 1


@pytest.mark.parametrize(
    ("label", "deformation", "factor"),
    [
        ("cuboid", Deformation(twist_deg=80), 1),
        ("cuboid", Deformation(shear=-0.35), 1),
        ("cuboid", Deformation(bend_deg=45), 1),
        ("torus", Deformation(twist_deg=60), 1),
        ("octahedron", Deformation(shear=0.3, twist_deg=-50), 1),
        ("tube", Deformation(bend_deg=-40), 1),
        # the section grows with (1 + taper z / h)²
        ("cuboid", Deformation(taper=0.4), 1 + 0.4**2 / 3),
        ("cylinder", Deformation(taper=-0.3), 1 + 0.3**2 / 3),
    ],
)
def test_volumes_of_deformed_bodies(label, deformation, factor):
    for quaternion in (turned(7), turned(8)):
        p, _, _ = seen(label, quaternion, deformation)
        assert p.volume_nm3 == pytest.approx(factor * VOLUMES[label], rel=0.005)


def test_a_shallow_dent_takes_its_gaussian_out():
    depth, width = 1.0, 2.5
    p, x, y = seen("cube", deformation=Deformation(dents=((1.0, -2.0, -10.5, depth, width),)))
    assert VOLUMES["cube"] - p.volume_nm3 == pytest.approx(2 * math.pi * width**2 * depth, rel=0.07)
    deepest = np.unravel_index(np.argmin(np.where(np.hypot(x, y) < 8, p.thickness_nm, 99)), x.shape)
    assert np.hypot(x[deepest] - 1, y[deepest] + 2) < PX
    assert p.thickness_nm[deepest] == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("label", BODIES)
def test_every_deformation_that_is_drawn_can_be_seen(label):
    counts = dict.fromkeys(DEFORMATIONS, 0)
    still = project(Solid(label, DIMENSIONS[label], quaternion=turned(9)), 0, 0, PX)
    s, gauge = shapes.sizes(label, DIMENSIONS[label]), shapes.gauge_nm(label, DIMENSIONS[label])
    for seed in range(30):
        d = draw_deformation(label, s, 20.0, gauge, STRONG, np.random.default_rng(seed))
        amplitudes = (d.twist_deg, d.bend_deg, d.taper, d.shear, d.dent_nm)
        assert d.deformed
        for name, amplitude in zip(DEFORMATIONS, amplitudes, strict=True):
            counts[name] += amplitude != 0
        for dent in d.dents:
            assert abs(distance(BODIES.index(label), s, np.zeros(6), np.zeros((0, 5)), *dent[:3])) < 0.05
        if seed < 4:
            p = project(Solid(label, DIMENSIONS[label], d, turned(9)), 0, 0, PX)
            heights = [np.sort(v.thickness_nm[v.thickness_nm > 0]) for v in (still, p)]
            even = [np.interp(np.linspace(0, 1, 200), np.linspace(0, 1, h.size), h) for h in heights]
            # a dent in the face of a shell leaves its outline as it is
            assert heights[0].size != heights[1].size or (label == "shell" and not any(amplitudes[:4]))
            assert np.abs(even[0] - even[1]).max() > 0.5 * PX
    unseen = {name for name, count in counts.items() if count == 0}
    turns = {name: {"twist"} for name in ("cylinder", "cone", "helix", "tube", "capsule")}
    expected = turns | {"sphere": {"twist", "shear"}, "shell": {"twist", "shear"}, "ellipsoid": {"shear"}}
    assert unseen == expected.get(label, set())


def test_dents_leave_something_of_a_body():
    s, gauge = (
        shapes.sizes("octahedron", DIMENSIONS["octahedron"]),
        shapes.gauge_nm("octahedron", DIMENSIONS["octahedron"]),
    )
    everything = DeformationRanges(share=1.0, dent_depth=(0.25, 0.3), dent_width=(0.3, 0.3), n_dents=(3, 3))
    counts = []
    for seed in range(40):
        d = draw_deformation("octahedron", s, 17.0, gauge, everything, np.random.default_rng(seed))
        counts.append(len(d.dents))
        p = project(Solid("octahedron", DIMENSIONS["octahedron"], d, turned(seed)), 0, 0, PX)
        assert p.volume_nm3 > 0
    assert 0 < min(c for c in counts if c) < 3, "some had to be left out"


def test_dents_that_would_take_more_than_allowed_are_left_out():
    label, least = "octahedron", 0.7
    s, gauge = shapes.sizes(label, DIMENSIONS[label]), shapes.gauge_nm(label, DIMENSIONS[label])
    mild = DeformationRanges(share=1.0, dent_depth=(0.1, 0.2), dent_width=(0.1, 0.2), n_dents=(2, 4))
    strict = dataclasses.replace(mild, kept_share=least)

    def left(dents: tuple) -> float:
        return project(Solid(label, DIMENSIONS[label], Deformation(dents=dents)), 0, 0, PX).volume_nm3 / VOLUMES[label]

    dented = cut = 0
    for seed in range(60):
        before, after = (
            draw_deformation(label, s, 17.0, gauge, ranges, np.random.default_rng(seed)) for ranges in (mild, strict)
        )
        n = len(after.dents)
        assert after == dataclasses.replace(before, dents=before.dents[:n]), "nothing else changes"
        # volumes are counted on a coarse lattice when dents are drawn
        assert left(after.dents) > least - 0.05
        if n < len(before.dents):
            cut += 1
            assert left(before.dents[: n + 1]) < least + 0.05
        dented += n > 0
    assert dented > 5
    assert cut > 5


@pytest.mark.parametrize("label", BODIES)
def test_drawn_dimensions_fill_the_sphere_and_keep_the_classes_apart(label):
    rng = np.random.default_rng(10)
    for _ in range(100):
        d = shapes.draw_dimensions(label, 33.0, rng)
        assert shapes.radius_nm(label, d) == pytest.approx(33)
        if label in ("ellipsoid", "cuboid"):
            assert d["length_nm"] >= 1.25 * max(d["width_nm"], d["height_nm"]) - 1e-9
        if label == "torus":
            assert d["diameter_nm"] > 1.5 * d["wire_diameter_nm"]
        if label == "helix":
            assert d["pitch_nm"] > 1.5 * d["wire_diameter_nm"]
        if label == "capsule":
            assert d["length_nm"] > 1.5 * d["diameter_nm"]
        if label == "tube":
            assert d["diameter_nm"] - 2 * d["wall_nm"] >= 0.5 * d["diameter_nm"] - 1e-9
    farthest = np.linalg.norm(project(Solid(label, d), 0, 0, 1.0).coverage.shape)
    assert farthest <= 2 * 33 * math.sqrt(2) + 12


def test_contrast_goes_with_the_atomic_number_and_saturates():
    gold, iron = (mean_free_path_nm(z, 1.65, 80.0) for z in (79, 26))
    assert gold == 80
    assert iron / gold == pytest.approx((79 / 26) ** 1.65)
    thin = np.array([0.0, 1e-4, 0.5, 4.0])
    np.testing.assert_allclose(adf_signal(thin, True), 1 - np.exp(-thin), atol=1e-12)
    np.testing.assert_array_equal(adf_signal(thin, False), thin)


@pytest.mark.parametrize(
    ("label", "dimensions", "message"),
    [
        ("blob", {"diameter_nm": 3.0}, "no class of solids 'blob'"),
        ("sphere", {"edge_nm": 3.0}, "A sphere is given by diameter_nm, not edge_nm"),
        ("cube", {"edge_nm": 0.0}, "have to be positive"),
        ("torus", {"diameter_nm": 5.0, "wire_diameter_nm": 6.0}, "it is closed"),
        ("helix", DIMENSIONS["helix"] | {"turns": 0.5}, "at least one turn"),
        ("shell", {"diameter_nm": 5.0, "wall_nm": 2.6}, "it is closed"),
        ("capsule", {"diameter_nm": 5.0, "length_nm": 4.0}, "longer than wide"),
        ("cross", {"length_nm": 5.0, "width_nm": 5.0}, "longer than wide"),
    ],
)
def test_impossible_bodies_are_refused(label, dimensions, message):
    with pytest.raises(SettingsError, match=message):
        shapes.sizes(label, dimensions)


def test_a_body_is_not_bent_into_itself():
    with pytest.raises(SettingsError, match="A cube cannot be deformed as much"):
        _ = Solid("cube", DIMENSIONS["cube"], Deformation(bend_deg=150)).hull_nm
