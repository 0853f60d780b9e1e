"""Habits and directions of view against what crystallography says, and loops of a habit in a field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from defectpipe.errors import SettingsError
from defectpipe.simulation.loops.crystal import HABITS, project, view
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.loop import polygon_ellipses
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.simulation.loops.settings import Condition, CrystalHabit, Family

SMALL = replace(
    PRESETS["fcc"],
    shape=(260, 330),
    conditions=(Condition("one", (14, 14), 10.0, 0.2),),
    data_bar=0.0,
    overlap=0.0,
    acquisition=replace(PRESETS["fcc"].acquisition, scan_distortion=0.003, flyback_px=0.0),
)


def angle_apart(a_deg: float, b_deg: float) -> float:
    return abs((a_deg - b_deg + 90) % 180 - 90)


# inclination and direction of the major axis, with [100] to the right for [001], the other axes by hand
@pytest.mark.parametrize(
    ("zone", "normal", "inclination_deg", "angle_deg"),
    [
        ((0, 0, 1), (0, 0, 1), 0.0, None),
        ((0, 0, 1), (1, 0, 0), 90.0, 90.0),
        ((0, 0, 1), (0, 1, 0), 90.0, 0.0),
        ((0, 0, 1), (1, 1, 1), 54.7356, 135.0),
        ((0, 0, 1), (-1, 1, 1), 54.7356, 45.0),
        ((0, 0, 1), (1, 1, 0), 90.0, 135.0),
        ((0, 0, 1), (1, 0, 1), 45.0, 90.0),
        ((0, 1, 1), (1, 0, 0), 90.0, 90.0),
        ((0, 1, 1), (1, 1, 1), 35.2644, 90.0),
        ((0, 1, 1), (1, -1, 1), 90.0, None),
        ((0, 1, 1), (0, 1, 0), 45.0, None),
        ((1, 1, 1), (1, 1, 1), 0.0, None),
        ((1, 1, 1), (-1, 1, 1), 70.5288, 90.0),
        ((1, 1, 1), (0, 0, 1), 54.7356, None),
    ],
)
def test_known_projections(zone, normal, inclination_deg, angle_deg):
    seen = project(normal, view(zone), 40.0)
    assert seen.inclination_deg == pytest.approx(inclination_deg, abs=1e-3)
    assert seen.major == pytest.approx(40)
    assert seen.minor == pytest.approx(40 * np.cos(np.deg2rad(inclination_deg)), abs=1e-9 + 1e-4)
    if angle_deg is not None:
        assert angle_apart(seen.angle_deg, angle_deg) < 1e-6


def test_rotation_turns_counter_clockwise_and_a_tilt_is_right_handed():
    turned = project((1, 0, 1), view((0, 0, 1), rotation_deg=25), 1.0)
    assert angle_apart(turned.angle_deg, 90 + 25) < 1e-9
    # about +y, z goes towards x: a normal that leans to the right leans further
    for tilt in (20.0, -20.0):
        leaning = project((1, 0, 1), view((0, 0, 1), tilt_deg=tilt, tilt_axis_deg=90), 1.0)
        assert leaning.inclination_deg == pytest.approx(45 + tilt)
    flat = project((0, 0, 1), view((0, 0, 1), rotation_deg=70, tilt_deg=33, tilt_axis_deg=18), 1.0)
    assert flat.minor == pytest.approx(np.cos(np.deg2rad(33)))
    assert angle_apart(flat.angle_deg, 18) < 1e-6  # along the axis of the tilt nothing is shortened


@pytest.mark.parametrize("zone", [(0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("habit", list(HABITS))
@pytest.mark.parametrize("tilt_deg", [0.0, 17.0])
def test_projection_is_that_of_points_on_the_loop(zone, habit, tilt_deg):
    to_image = view(zone, 31, tilt_deg, 112)
    np.testing.assert_allclose(to_image @ to_image.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(to_image) == pytest.approx(1)
    for normal in HABITS[habit].normals:
        for ratio, in_plane_deg in ((1.0, 0.0), (0.8, 35.0)):
            seen = project(normal, to_image, 30.0, ratio, in_plane_deg)
            if seen.minor < 1:
                continue
            n = np.array(normal) / np.linalg.norm(normal)
            # a basis in the plane from the crystal side: where it meets the image's plane, and across
            beam = to_image[2]
            first = np.cross(beam, n)
            first = first / np.linalg.norm(first) if np.linalg.norm(first) > 1e-6 else to_image[0]
            second = np.cross(n, first)
            turn, angle = np.deg2rad(in_plane_deg), np.linspace(0, 2 * np.pi, 720, endpoint=False)[:, None]
            major = np.cos(turn) * first + np.sin(turn) * second
            minor = np.cos(turn) * second - np.sin(turn) * first
            points = 15 * (np.cos(angle) * major + ratio * np.sin(angle) * minor) @ to_image.T
            _, _, a, b, direction = polygon_ellipses(points[:, :2] * [1, -1])
            np.testing.assert_allclose([seen.major, seen.minor], [a, b], rtol=1e-4)
            if a - b > 0.5:
                assert angle_apart(seen.angle_deg, float(direction)) < 0.05
            assert seen.inclination_deg == pytest.approx(np.rad2deg(np.arccos(min(abs(n @ beam), 1))), abs=1e-4)


def test_g_dot_b_of_the_textbooks():
    def products(habit: str, g: tuple[int, int, int]) -> list[float]:
        return [HABITS[habit].g_dot_b(k, g) for k in range(len(HABITS[habit].normals))]

    np.testing.assert_allclose(products("bcc-111", (1, 1, 0)), [1, 0, 0, 1])
    np.testing.assert_allclose(products("bcc-100", (1, 1, 0)), [1, 1, 0])
    np.testing.assert_allclose(np.abs(products("fcc-frank", (2, 0, 0))), [2 / 3] * 4)
    np.testing.assert_allclose(products("fcc-frank", (0, 2, -2)), [0, 0, -4 / 3, 4 / 3])
    np.testing.assert_allclose(products("fcc-perfect", (2, 0, 0)), [1, 1, 1, 1, 0, 0])
    assert HABITS["fcc-frank"].plane(2) == "(1 -1 1)"
    assert HABITS["fcc-frank"].burgers(2) == "1/3[1 -1 1]"
    assert HABITS["bcc-100"].burgers(0) == "[1 0 0]"


@pytest.mark.parametrize(
    ("family", "zone", "tilt"),
    [("fcc-frank", (0, 0, 1), 0.0), ("fcc-perfect", (0, 0, 1), 12.0), ("bcc-111", (0, 1, 1), 5.0)],
)
def test_loops_in_a_field_have_the_shape_of_their_variant(family, zone, tilt):
    habit = CrystalHabit((Family(family),), zone, (40.0, 40.0), (tilt, tilt), (65.0, 65.0))
    truth = simulate_field(replace(SMALL, habit=habit), 4).truth
    loops = truth[truth["habit"] == family]
    assert len(loops) >= 12
    to_image = view(zone, 40, tilt, 65)
    for row in loops.itertuples():
        seen = project(HABITS[family].normals[int(row.variant)], to_image, row.true_diameter_nm)
        assert row.habit_plane == HABITS[family].plane(int(row.variant))
        assert row.burgers == HABITS[family].burgers(int(row.variant))
        assert row.inclination_deg == pytest.approx(seen.inclination_deg)
        assert row.diameter_nm == pytest.approx(row.true_diameter_nm, rel=0.03)
        if seen.minor < 0.2 * seen.major:  # a rod is as wide as its image
            continue
        assert row.minor_px / row.diameter_px == pytest.approx(seen.minor / seen.major, abs=0.03)
        if seen.minor < 0.9 * seen.major:
            assert angle_apart(row.angle_deg, seen.angle_deg) < 3
    ratio = np.abs(np.cos(np.deg2rad(loops["inclination_deg"])))
    np.testing.assert_array_equal(loops["class"] == "edge_on", ratio < 0.2)
    assert loops["variant"].nunique() >= 2


def test_loops_with_g_dot_b_of_zero_vanish():
    families = (Family("bcc-111"),)
    dark = replace(SMALL, habit=CrystalHabit(families, g=(1, 1, 0), residual=0.0), dose_per_px=(1e5, 1e5))
    field = simulate_field(dark, 2)
    loops = field.truth[field.truth["habit"] != ""]
    gone = loops["g_dot_b"] == 0
    assert 2 <= gone.sum() < len(loops)
    assert not loops["visible"][gone].any()
    assert loops["visible"][~gone & ~loops["on_edge"]].all()
    assert (loops["cnr"][gone] == 0).all()
    # the same field with all variants in contrast differs about the loops that were gone, and there alone
    seen = simulate_field(replace(dark, habit=CrystalHabit(families)), 2)
    np.testing.assert_allclose(seen.truth["x_px"], field.truth["x_px"])
    change = field.micrograph.pixels.astype(int) - seen.micrograph.pixels
    for row in loops[~loops["on_edge"]].itertuples():
        part = change[round(row.y0_px) : round(row.y1_px) + 1, round(row.x0_px) : round(row.x1_px) + 1]
        if row.g_dot_b == 0:
            assert part.max() > 20
            assert part.mean() > 5
        else:
            assert np.median(np.abs(part)) <= 6
    faint = simulate_field(replace(dark, habit=CrystalHabit(families, g=(1, 1, 0), residual=0.1)), 2).truth
    assert 0 < faint["cnr"][loops.index[gone]].max() < 0.4 * seen.truth["cnr"][loops.index[gone]].min()
    assert not faint["visible"][loops.index[gone]].any()


def test_without_a_habit_its_columns_are_empty():
    truth = simulate_field(replace(SMALL, habit=None), 0).truth
    assert (truth[["habit", "habit_plane", "burgers"]] == "").all(axis=None)
    assert truth[["variant", "inclination_deg", "g_dot_b"]].isna().all(axis=None)


def test_crystals_that_are_none_are_refused():
    with pytest.raises(SettingsError, match="no habit 'hcp'; known: fcc-frank"):
        CrystalHabit((Family("hcp"),))
    with pytest.raises(SettingsError, match="no contrast 'bright' of loops"):
        CrystalHabit((Family("bcc-111", 1, ("bright",)),))
    with pytest.raises(SettingsError, match="share above 0"):
        CrystalHabit(())
    with pytest.raises(SettingsError, match="zone axis"):
        view((0, 0, 0))
