"""Measurement against analytic rings: the truth is the ellipse on which the rim is darkest."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.boxes import ellipse_bounds
from defectpipe.measurement import MEASUREMENT_COLUMNS, FloodSettings, UncertaintySettings, measure
from defectpipe.measurement.contour import contour_polar
from defectpipe.measurement.polar import Landscape, PolarGrid

# The measurement's own uncertainty: an analytic ring has no expert.
ALONE = FloodSettings(uncertainty=UncertaintySettings(expert=0.0, expert_px=0.0))


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


def errors_under_noise(noise, n=40):
    """Relative errors of the long axis and fit qualities over rings in jittered boxes (centre 5 %, side 8 %)."""
    rng = np.random.default_rng(5)
    measured, alone, quality = [], [], []
    for seed in range(n):
        angle, major, minor = rng.uniform(0, 180), rng.uniform(30, 70), rng.uniform(0.6, 0.95)
        minor *= major
        picture = grey(ring((130, 170), 83.0, 66.0, major, minor, angle, 0.05 * major), noise, seed)
        box = ellipse_bounds(83.0, 66.0, major, minor, angle)[0]
        side, centre = box[2:] - box[:2], (box[2:] + box[:2]) / 2
        drawn = side * np.exp(rng.normal(0, 0.08, 2))
        centre = centre + rng.normal(0, 0.05, 2) * side
        row = measure(picture, np.concatenate([centre - drawn / 2, centre + drawn / 2]), polarity="dark").iloc[0]
        bounds = ellipse_bounds(row.x_px, row.y_px, row.diameter_px, row.minor_px, row.angle_deg)[0]
        measured.append((bounds[2:] - bounds[:2]).max() / side.max() - 1)
        alone.append(drawn.max() / side.max() - 1)
        quality.append(row.fit_quality)
    return np.abs(measured), np.abs(alone), np.asarray(quality)


def test_the_flood_corrects_a_wrong_box_and_the_quality_falls_with_noise():
    quality = {}
    for noise, limit in ((0.0, 0.02), (10.0, 0.02), (30.0, 0.03)):
        measured, alone, marks = errors_under_noise(noise)
        assert np.median(measured) < limit
        assert np.median(measured) < np.median(alone)
        quality[noise] = np.median(marks)
    assert 1 >= quality[0.0] > quality[10.0] > quality[30.0] > 0


def test_a_bright_rim_is_measured_as_its_negative():
    picture = ring((120, 150), 70.0, 61.0, 50.0, 34.0, 35.0)
    boxes = ellipse_bounds(70.0, 61.0, 50.0, 34.0, 35.0)
    dark = measure(grey(picture, 5), boxes, polarity="dark")
    bright = measure(255 - grey(picture, 5), boxes, polarity="bright")
    numbers = MEASUREMENT_COLUMNS[:9]
    np.testing.assert_allclose(bright[numbers].to_numpy(float), dark[numbers].to_numpy(float), rtol=1e-4)
    for image, expected in ((grey(picture, 5), dark), (255 - grey(picture, 5), bright)):
        np.testing.assert_array_equal(measure(image, boxes, polarity="auto")[numbers], expected[numbers])


def test_turning_and_mirroring_the_image_turns_and_mirrors_the_ellipse():
    picture = grey(ring((121, 151), 70.0, 58.0, 50.0, 33.0, 30.0), 8)
    box = ellipse_bounds(71.0, 57.0, 52.0, 32.0, 30.0)[0]
    row = measure(picture, box, polarity="dark").iloc[0]
    mirrored = measure(picture[:, ::-1], [150 - box[2], box[1], 150 - box[0], box[3]], polarity="dark").iloc[0]
    turned = measure(np.rot90(picture), [box[1], 150 - box[2], box[3], 150 - box[0]], polarity="dark").iloc[0]
    for other, angle in ((mirrored, 180 - row.angle_deg), (turned, row.angle_deg + 90)):
        assert other.diameter_px == pytest.approx(row.diameter_px, rel=0.01)
        assert other.minor_px == pytest.approx(row.minor_px, rel=0.01)
        assert turn(other.angle_deg, angle) < 2
    assert mirrored.x_px == pytest.approx(150 - row.x_px, abs=0.3)
    assert turned.y_px == pytest.approx(150 - row.x_px, abs=0.3)


@pytest.mark.parametrize(("x", "y"), [(18.0, 60.0), (80.0, 10.0), (141.0, 60.0), (80.0, 111.0)])
def test_a_loop_cut_by_the_border_is_completed(x, y):
    picture = grey(ring((120, 160), x, y, 52.0, 38.0, 20.0))
    row = measure(picture, ellipse_bounds(x, y, 54.0, 38.0, 20.0), polarity="dark").iloc[0]
    assert row.measured
    assert row.diameter_px == pytest.approx(52.0, rel=0.05)
    assert row.minor_px == pytest.approx(38.0, rel=0.06)
    assert np.isfinite([row.area_px2, row.feret_px]).all()


def test_overlapping_neighbours_keep_their_own_ellipses():
    one, other = (60.0, 60.0, 44.0, 32.0, 10.0), (92.0, 66.0, 40.0, 30.0, 100.0)
    picture = grey(ring((130, 170), *one) + ring((130, 170), *other) - 150.0, 5)
    table = measure(picture, np.concatenate([ellipse_bounds(*one), ellipse_bounds(*other)]), polarity="dark")
    assert table.measured.all()
    np.testing.assert_allclose(table.diameter_px, [44.0, 40.0], rtol=0.04)
    np.testing.assert_allclose(table.minor_px, [32.0, 30.0], rtol=0.06)


def test_where_nothing_is_seen_the_box_is_returned_and_says_so():
    box = np.array([40.0, 30.0, 80.0, 60.0])
    flat = measure(np.full((100, 140), 128, np.uint8), box).iloc[0]
    narrow = measure(grey(ring((100, 140), 60, 45, 30, 20, 0)), [40.0, 30.0, 80.0, 33.0]).iloc[0]
    outside = measure(np.full((100, 140), 128, np.uint8), box + 1000).iloc[0]
    mostly_outside = measure(grey(ring((100, 140), 60, 45, 30, 20, 0)), box - [75, 0, 75, 0]).iloc[0]
    for row, reason in ((flat, "rim"), (narrow, "narrower"), (outside, "outside"), (mostly_outside, "half of the rim")):
        assert not row.measured
        assert row.fit_quality == 0
        assert np.isnan(row.diameter_uncertainty_px)
        assert reason in row.reason
    assert (flat.x_px, flat.y_px, flat.diameter_px, flat.minor_px, flat.angle_deg) == (60, 45, 40, 30, 0)
    assert flat.area_px2 == pytest.approx(np.pi / 4 * 40 * 30)
    assert flat.equivalent_diameter_px == pytest.approx(np.sqrt(40 * 30))
    wide_box = measure(np.full((100, 140), 128, np.uint8), [40.0, 30.0, 60.0, 80.0]).iloc[0]
    assert (wide_box.diameter_px, wide_box.minor_px, wide_box.angle_deg) == (50, 20, 90)


def test_noise_alone_is_marked_lower_than_any_clear_ring():
    rng = np.random.default_rng(2)
    noise = np.clip(rng.normal(128, 20, (200, 260)), 0, 255).astype(np.uint8)
    corner = rng.uniform(20, 120, (40, 2))
    empty = measure(noise, np.concatenate([corner, corner + np.array([40.0, 30.0])], 1), polarity="dark")
    _, _, clear = errors_under_noise(10.0, n=10)
    assert empty.measured.mean() < 0.6
    assert empty.fit_quality.max() < clear.min()


def test_no_boxes_give_an_empty_table_with_its_columns():
    table = measure(np.zeros((20, 30), np.uint8), np.zeros((0, 4)))
    assert list(table.columns) == MEASUREMENT_COLUMNS
    assert len(table) == 0
    assert table.measured.dtype == bool
    assert table.diameter_px.dtype == float


@pytest.mark.parametrize(
    ("picture", "boxes", "polarity", "message"),
    [
        (np.zeros((5, 6, 3), np.uint8), [0.0, 0, 3, 3], "dark", "rows and columns"),
        (np.zeros((5, 6), np.uint8), [3.0, 0, 0, 3], "dark", "x0 <= x1"),
        (np.zeros((5, 6), np.uint8), [0.0, 0, np.nan, 3], "dark", "finite"),
        (np.zeros((5, 6), np.uint8), [0.0, 0, 3, 3], "grey", "polarity"),
    ],
)
def test_wrong_arguments_are_refused(picture, boxes, polarity, message):
    with pytest.raises(ValueError, match=message):
        measure(picture, boxes, polarity=polarity)


def polar_picture(radius, width=0.05):
    """A bright band at elliptic radius `radius` (n,) on the default grid."""
    grid = PolarGrid()
    return grid, np.exp(-0.5 * ((grid.radii[:, None] - radius) / width) ** 2).astype(np.float32)


def test_a_contour_follows_the_crest_between_the_rows_and_closes():
    grid = PolarGrid()
    truth = 1.0 + 0.12 * np.cos(2 * grid.angles + 0.3)
    _, picture = polar_picture(truth, width=0.08)
    border = contour_polar(picture, np.ones(picture.shape, bool), grid, Landscape(pull=0.0), stiffness=0.15)
    np.testing.assert_allclose(border.radii, truth, atol=0.4 * grid.step)
    assert np.abs(np.diff(np.append(border.radii, border.radii[0]))).max() < 2 * grid.step
    assert border.leaked == 0
    assert border.contrast.min() > 1
    for turns in (1, 13, 20):
        turned = contour_polar(
            np.roll(picture, turns, 1), np.ones(picture.shape, bool), grid, Landscape(pull=0.0), stiffness=0.15
        )
        np.testing.assert_allclose(turned.radii, np.roll(border.radii, turns), atol=1e-6)


def test_a_contour_is_led_past_a_gap_where_a_stronger_band_lies_beside_it():
    grid = PolarGrid()
    _, picture = polar_picture(np.ones(grid.n_angles))
    gap = slice(10, 14)
    other = 1.5 * np.exp(-0.5 * ((grid.radii - 1.35) / 0.05) ** 2)
    picture[:, gap] = other[:, None]
    inside = np.ones(picture.shape, bool)
    stiff = contour_polar(picture, inside, grid, Landscape(pull=0.0), stiffness=3.0)
    loose = contour_polar(picture, inside, grid, Landscape(pull=0.0), stiffness=0.0)
    assert np.abs(stiff.radii - 1).max() < 0.06
    assert loose.radii[gap].max() > 1.25


def test_the_uncertainty_grows_with_noise_and_covers_the_errors():
    covered, medians = [], []
    for noise in (5.0, 30.0, 60.0):
        z, shares = [], []
        for seed in range(25):
            rng = np.random.default_rng(seed)
            major, angle = rng.uniform(35, 60), rng.uniform(0, 180)
            picture = grey(ring((130, 150), 75.0, 64.0, major, 0.8 * major, angle, 0.06 * major), noise, seed)
            box = ellipse_bounds(75.0, 64.0, major, 0.8 * major, angle)[0]
            side = (box[2:] - box[:2]) * np.exp(rng.normal(0, 0.1, 2))
            row = measure(
                picture, np.concatenate([[75, 64] - side / 2, [75, 64] + side / 2]), polarity="dark", settings=ALONE
            ).iloc[0]
            assert row.measured
            z.append(abs(row.diameter_px - major) / row.diameter_uncertainty_px)
            shares.append(row.diameter_uncertainty_px / major)
        covered.append(np.mean(np.array(z) <= 2))
        medians.append(np.median(shares))
    assert medians[0] < medians[1] < medians[2]
    assert min(covered) >= 0.9
    assert medians[0] < 0.1, "an uncertainty that covers everything says nothing"


def test_the_experts_scatter_is_one_part_of_the_uncertainty():
    picture = grey(ring((120, 150), 70.0, 61.0, 50.0, 34.0, 35.0), 10)
    boxes = ellipse_bounds(70.0, 61.0, 52.0, 34.0, 35.0)
    alone = measure(picture, boxes, polarity="dark", settings=ALONE).iloc[0]
    both = measure(picture, boxes, polarity="dark").iloc[0]
    s = UncertaintySettings()
    expected = np.hypot(np.hypot(alone.diameter_uncertainty_px, s.expert * alone.diameter_px), s.expert_px)
    assert both.diameter_uncertainty_px == pytest.approx(expected)
    assert both.diameter_px == alone.diameter_px
    wide = measure(picture, ellipse_bounds(70.0, 61.0, 65.0, 44.0, 35.0), polarity="dark", settings=ALONE).iloc[0]
    assert wide.diameter_uncertainty_px > 1.5 * alone.diameter_uncertainty_px, "box and image disagree"


def test_flood_and_contour_check_each_other():
    picture = grey(ring((120, 150), 70.0, 61.0, 50.0, 34.0, 35.0), 20)
    boxes = ellipse_bounds(70.0, 61.0, 54.0, 34.0, 35.0)
    assert measure(picture, boxes, polarity="dark").iloc[0].measured
    strict = measure(picture, boxes, polarity="dark", settings=FloodSettings(max_disagreement=0.0)).iloc[0]
    assert (strict.measured, strict.reason) == (False, "flood and contour disagree")
