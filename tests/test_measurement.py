"""Measurement against analytic rings: the truth is the ellipse on which the rim is darkest."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.boxes import ellipse_bounds
from defectpipe.measurement import MEASUREMENT_COLUMNS, measure


def ring(shape, x, y, major, minor, angle_deg, rim_px=3.0, depth=60.0, background=150.0):
    """A dark ring with a Gaussian profile across an ellipse; float, to be summed and noised."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(float)
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    along, across = (cols - x) * c - (rows - y) * s, (cols - x) * s + (rows - y) * c
    a, b = major / 2, minor / 2
    radius = np.hypot(along / a, across / b)
    slope = np.hypot(along / a**2, across / b**2) / np.maximum(radius, 1e-9)
    distance = (radius - 1) / np.maximum(slope, 1e-9)
    return background - depth * np.exp(-0.5 * (distance / rim_px) ** 2)


def grey(picture, noise=0.0, seed=0):
    noisy = picture + np.random.default_rng(seed).normal(0, noise, picture.shape) if noise else picture
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def turn(a, b):
    """Smallest angle between two axes, degrees."""
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("angle", [0.0, 25.0, 60.0, 90.0, 120.0, 155.0])
@pytest.mark.parametrize(("major", "minor"), [(60.0, 36.0), (120.0, 90.0), (30.0, 20.0)])
def test_a_clean_ring_is_measured_within_two_percent(angle, major, minor):
    picture = grey(ring((200, 260), 131.3, 96.6, major, minor, angle, rim_px=0.06 * major))
    row = measure(picture, ellipse_bounds(131.3, 96.6, major, minor, angle), polarity="dark").iloc[0]
    assert row.measured
    assert row.reason == ""
    assert row.diameter_px == pytest.approx(major, rel=0.02)
    assert row.minor_px == pytest.approx(minor, rel=0.02)
    assert turn(row.angle_deg, angle) < 3
    assert np.hypot(row.x_px - 131.3, row.y_px - 96.6) < 0.01 * major
    assert row.area_px2 == pytest.approx(np.pi / 4 * major * minor, rel=0.05)
    assert list(row.index) == MEASUREMENT_COLUMNS
