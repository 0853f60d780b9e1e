"""Rendered loops against their analytic outline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from defectpipe.simulation.loops.loop import (
    HALF_WIDTH,
    Loop,
    add_loop,
    attenuation_map,
    outline,
    polygon_ellipses,
    rim_contrast,
    tight_box,
)

RING = Loop("open", 61.3, 40.8, 52.0, 34.0, 27.0, 1.8, 0.4)


def rendered(loop: Loop, shape: tuple[int, int] = (90, 130)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return attenuation_map(loop, x, y)


@pytest.mark.parametrize("angle_deg", [0.0, 27.0, 90.0, 151.0])
def test_the_rim_is_darkest_on_the_outline(angle_deg):
    ring = replace(RING, angle_deg=angle_deg)
    points = outline(ring, 97)
    centre = np.array([ring.x_px, ring.y_px])
    np.testing.assert_allclose(attenuation_map(ring, points[:, 0], points[:, 1]), 0.4, rtol=1e-9)
    for factor in (0.98, 1.02):
        beside = centre + factor * (points - centre)
        assert (attenuation_map(ring, beside[:, 0], beside[:, 1]) < 0.4).all()


@pytest.mark.parametrize("angle_deg", [0.0, 27.0, 118.0])
def test_truth_is_the_rendered_rim(angle_deg):
    ring = replace(RING, angle_deg=angle_deg)
    filled = ndimage.binary_fill_holes(rendered(ring) >= 0.2)
    rows, columns = np.nonzero(filled)
    half = HALF_WIDTH * 1.8
    expected = tight_box(ring) + np.array([-half, -half, half, half])
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max(), rows.max()], expected, atol=1.0)
    assert filled.sum() == pytest.approx(np.pi / 4 * (52 + 2 * half) * (34 + 2 * half), rel=0.015)
    assert columns.mean() == pytest.approx(61.3, abs=0.1)
    assert rows.mean() == pytest.approx(40.8, abs=0.1)


def test_the_rim_is_as_wide_as_stated_and_the_inside_bright():
    along = np.linspace(0, 40, 40001)
    level = replace(RING, angle_deg=0.0)
    profile = attenuation_map(level, level.x_px + along, np.full_like(along, level.y_px))
    inside = along[profile >= 0.2]
    assert inside.max() == pytest.approx(26 + HALF_WIDTH * 1.8, abs=1e-3)
    assert np.ptp(inside) == pytest.approx(2 * HALF_WIDTH * 1.8, abs=2e-3)
    assert profile[0] < 0.01 * 0.4
    greyer = attenuation_map(replace(level, interior=0.3), level.x_px, level.y_px)
    assert float(greyer) == pytest.approx(0.3 * 0.4, rel=0.02)


def test_angle_counts_counter_clockwise_as_seen():
    # at 45 degrees the major axis runs from bottom left to top right: y falls as x grows
    image = rendered(replace(RING, angle_deg=45.0, minor_px=20.0))
    rows, columns = np.nonzero(image > 0.2)
    assert np.corrcoef(columns, rows)[0, 1] < -0.5


def test_lobes_weaken_the_rim_along_their_direction():
    ring = replace(RING, angle_deg=0.0, minor_px=52.0, lobes=0.6, lobes_deg=90.0)
    ridge = 26
    across = attenuation_map(ring, ring.x_px + ridge, ring.y_px)
    towards = attenuation_map(ring, ring.x_px, ring.y_px - ridge)
    assert float(across) == pytest.approx(0.4)
    assert float(towards) == pytest.approx(0.4 * 0.4)


def test_a_rod_has_its_length_and_width_at_half_maximum():
    rod = Loop("edge_on", 60, 40, 48, 6, 0, 1, 0.8)
    half = rendered(rod) >= 0.4
    assert half[40].sum() == pytest.approx(48, abs=1)
    assert half[:, 60].sum() == pytest.approx(6, abs=1)


def test_a_closed_loop_is_dark_all_over_and_a_halo_lies_outside():
    dot = Loop("closed", 60, 40, 30, 24, 0, 1.5, 0.6)
    image = rendered(dot)
    assert image[40, 60] == pytest.approx(0.6, rel=0.02)
    assert image[40, 60 + 9] > 0.4
    assert image[40, 60 + 24] < 0.002
    assert rendered(replace(dot, halo=0.2))[40, 60 + 24] > 0.01


def test_rim_contrast_is_that_of_the_ridge():
    assert rim_contrast(RING) == pytest.approx(1 - np.exp(-0.4), rel=0.01)
    assert rim_contrast(Loop("edge_on", 5, 7, 40, 6, 30, 1, 0.8)) == pytest.approx(1 - np.exp(-0.8), rel=0.02)


@pytest.mark.parametrize("x_px", [-4.0, 3.0, 58.0])
def test_a_loop_cut_by_the_border_is_a_part_of_the_whole(x_px):
    ring = replace(RING, x_px=x_px, y_px=2.0)
    whole = np.zeros((140, 160))
    add_loop(whole, ring, margin_px=50)
    cut = np.zeros((40, 60))
    add_loop(cut, ring)
    np.testing.assert_allclose(cut, whole[50:90, 50:110], atol=1e-6)
    assert cut.max() > 0.3
    np.testing.assert_allclose(whole, rendered(replace(ring, x_px=x_px + 50, y_px=52.0), (140, 160)), atol=2e-4)


def test_a_loop_outside_adds_nothing():
    canvas = np.zeros((40, 60))
    add_loop(canvas, replace(RING, x_px=-200.0))
    add_loop(canvas, replace(RING, y_px=500.0))
    assert not canvas.any()


@pytest.mark.parametrize("angle_deg", [0.0, 33.0, 90.0, 171.0])
@pytest.mark.parametrize("turn", [1, -1])
def test_polygon_moments_give_the_ellipse_back(angle_deg, turn):
    points = outline(replace(RING, angle_deg=angle_deg), 256)[::turn]
    x, y, major, minor, angle = polygon_ellipses(points)
    np.testing.assert_allclose([x, y, major, minor], [61.3, 40.8, 52, 34], rtol=1e-3)
    assert (angle - angle_deg + 90) % 180 - 90 == pytest.approx(0, abs=0.01)


def test_polygon_moments_follow_an_affine_map():
    circle = outline(replace(RING, diameter_px=20, minor_px=20), 256) - [61.3, 40.8]
    x, y, major, minor, angle = polygon_ellipses(circle * [1.0, 2.5] + [100, 7])
    np.testing.assert_allclose([x, y, major, minor, angle], [100, 7, 50, 20, 90], rtol=1e-3)
