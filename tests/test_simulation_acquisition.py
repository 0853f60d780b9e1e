"""Probe, scan, dose and detector against what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from defectpipe.simulation.acquisition import (
    Acquisition,
    blur,
    detect,
    digitise,
    distort,
    magnification_rms,
    moving,
    noise_area_px,
    noise_std,
    scan_field,
    to_image,
)

QUIET = Acquisition(scan_distortion=0, detector_rms=0, line_rms=0)


def autocorrelation(noise: np.ndarray, lag: int, axis: int) -> float:
    first, last = np.split(noise, [noise.shape[axis] - lag], axis)[0], np.split(noise, [lag], axis)[1]
    return float((first * last).mean() / (noise**2).mean())


@pytest.mark.parametrize("length_px", [0.0, 1.2])
def test_noise_falls_as_one_over_root_dose(length_px):
    flat = np.full((300, 420), 0.6)
    measured = []
    for dose in (40.0, 160.0, 640.0):
        settings = replace(QUIET, dose_per_px=dose, noise_length_x_px=length_px, noise_length_y_px=length_px / 2)
        signal = detect(flat, settings, np.random.default_rng(1))
        assert signal.mean() == pytest.approx(0.6, rel=0.01)
        measured.append(signal.std())
    np.testing.assert_allclose(measured, np.sqrt(0.6 / np.array([40, 160, 640])), rtol=0.02)


def test_noise_std_foretells_what_detect_adds():
    settings = Acquisition(dose_per_px=150, detector_rms=0.03, line_rms=0.02)
    signal = detect(np.full((700, 300), 0.5), settings, np.random.default_rng(2))
    assert signal.std() == pytest.approx(noise_std(0.5, settings), rel=0.02)


def test_noise_is_correlated_as_stated_and_white_otherwise():
    settings = replace(QUIET, noise_length_x_px=1.5, noise_length_y_px=0.7)
    noise = detect(np.full((500, 620), 0.7), settings, np.random.default_rng(3)) - 0.7
    for lag in (1, 2, 3):
        for axis, length in ((1, 1.5), (0, 0.7)):
            q = np.exp(-1 / length)
            expected = q**lag * (1 + lag * (1 - q**2) / (1 + q**2))
            assert autocorrelation(noise, lag, axis) == pytest.approx(expected, abs=0.015)
    white = detect(np.full((500, 620), 0.7), QUIET, np.random.default_rng(3)) - 0.7
    assert abs(autocorrelation(white, 1, 1)) < 0.01


def test_correlating_the_noise_leaves_the_signal_sharp():
    step = np.where(np.arange(90) < 40, 0.9, 0.2) * np.ones((60, 1))
    settings = replace(QUIET, dose_per_px=1e9, noise_length_x_px=2, noise_length_y_px=2)
    np.testing.assert_allclose(detect(step, settings, np.random.default_rng(0)), step, atol=1e-3)


@pytest.mark.parametrize("distortion", [0.01, 0.05])
def test_scan_distortion_is_the_rms_of_the_local_magnification(distortion):
    field = scan_field((120, 200), Acquisition(scan_distortion=distortion), np.random.default_rng(4))
    assert field.shape == (2, 120, 200)
    assert magnification_rms(field) == pytest.approx(distortion, rel=0.01)
    np.testing.assert_allclose(field.mean((1, 2)), 0, atol=1e-4)


def test_magnification_of_a_known_stretch():
    y, x = np.mgrid[:40, :70].astype(float)
    assert magnification_rms(np.stack([0.1 * x, 0.2 * y])) == pytest.approx(1.1 * 1.2 - 1)
    assert magnification_rms(np.stack([0.1 * y, 0 * x])) == pytest.approx(0)  # a shear keeps areas


def test_drift_and_flyback_stand_apart_from_the_distortion():
    settings = Acquisition(scan_distortion=0, drift_x_px=6, drift_y_px=-4)
    field = scan_field((80, 130), settings, np.random.default_rng(0))
    np.testing.assert_allclose(field[0, -1] - field[0, 0], 6, atol=1e-4)
    np.testing.assert_allclose(field[1, -1] - field[1, 0], -4, atol=1e-4)
    lag = scan_field((80, 130), Acquisition(scan_distortion=0, flyback_px=3), np.random.default_rng(0))
    assert lag[0, 0, 0] - lag[0, 0, -1] == pytest.approx(3, abs=0.01)
    assert np.ptp(lag[1]) == 0


def test_points_move_with_the_image():
    shape, margin = (150, 220), 20
    settings = Acquisition(scan_distortion=0.02, drift_x_px=5, drift_y_px=-3, flyback_px=2, mains_share=0)
    field = scan_field(shape, settings, np.random.default_rng(7))
    y, x = np.mgrid[-margin : shape[0] + margin, -margin : shape[1] + margin].astype(float)
    spots = np.array([(40.0, 30.0), (170.3, 44.6), (110.0, 75.5), (55.2, 118.0), (190.0, 120.7)])
    specimen = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in spots)
    seen = distort(specimen, field, margin)
    for nominal, (a, b) in zip(spots, to_image(spots, field), strict=True):
        part = (slice(round(b) - 10, round(b) + 11), slice(round(a) - 10, round(a) + 11))
        rows, columns = np.mgrid[part]
        centroid = np.array([(seen[part] * columns).sum(), (seen[part] * rows).sum()]) / seen[part].sum()
        np.testing.assert_allclose(centroid, (a, b), atol=0.25)
        assert np.hypot(*(nominal - (a, b))) < 12


def test_to_image_inverts_the_field():
    shape = (60, 90)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    field = np.stack([2 + 0.03 * x + 0.01 * y, -1.5 + 0.02 * x - 0.04 * y]).astype(np.float32)
    places = np.array([[10.0, 12.0], [44.4, 31.7], [80.0, 5.0]])
    shift = np.stack(
        [2 + 0.03 * places[:, 0] + 0.01 * places[:, 1], -1.5 + 0.02 * places[:, 0] - 0.04 * places[:, 1]], 1
    )
    np.testing.assert_allclose(to_image(places + shift, field), places, atol=1e-3)


def test_the_probe_blurs_by_its_sigma_and_keeps_the_mean():
    spot = np.zeros((61, 81))
    spot[30, 40] = 1
    blurred = blur(spot, Acquisition(probe_sigma_px=2.5))
    assert blurred.sum() == pytest.approx(1, rel=1e-4)
    assert np.sqrt((blurred.sum(0) * (np.arange(81) - 40) ** 2).sum()) == pytest.approx(2.5, rel=0.02)
    np.testing.assert_array_equal(blur(spot, Acquisition(probe_sigma_px=0)), spot.astype(np.float32))


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_digitise_puts_the_median_at_its_grey_level_and_clips(bits, dtype):
    signal = np.linspace(0.2, 1.0, 7 * 11).reshape(7, 11)
    signal[0, 0], signal[-1, -1] = -5, 9
    grey = digitise(signal, Acquisition(bits=bits, grey_level=0.5))
    assert grey.dtype == dtype
    assert abs(float(np.median(grey)) / (2**bits - 1) - 0.5) < 1 / 2**bits
    assert grey[0, 0] == 0
    assert grey[-1, -1] == 2**bits - 1
    # of a signal of nothing there is no contrast to show
    assert np.unique(digitise(np.zeros((4, 6)), Acquisition(bits=bits))).size == 1


def test_a_black_level_fixes_the_detectors_scale():
    settings = Acquisition(black_level=0.1, gain=0.5)
    grey = digitise(np.array([[0.0, 0.5, 1.0, 3.0]]), settings)
    np.testing.assert_array_equal(grey, [[26, 89, 153, 255]])


@pytest.mark.parametrize(("ratio", "angle_deg"), [(1.0, 0), (1.0, 40), (2.0, 0), (2.0, 30), (1.6, 120)])
def test_defocus_spreads_a_point_over_an_elliptical_disc(ratio, angle_deg):
    settings = Acquisition(probe_sigma_px=1.2, defocus_sigma_px=4, astigmatism=ratio, astigmatism_deg=angle_deg)
    spot = np.zeros((101, 121))
    spot[50, 60] = 1
    spread = blur(spot, settings)
    assert spread.sum() == pytest.approx(1, rel=1e-4)
    assert spread.min() > -1e-3 * spread.max()
    y, x = np.mgrid[:101, :121] - np.array([50, 60])[:, None, None]
    angle = np.deg2rad(angle_deg)
    along, across = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    long, short = ((spread * v**2).sum() for v in (along, across))
    assert long + short == pytest.approx(2 * (4**2 + 1.2**2), rel=0.01)
    assert np.sqrt((long - 1.2**2) / (short - 1.2**2)) == pytest.approx(ratio, rel=0.02)
    assert abs((spread * along * across).sum()) < 0.01 * long


def test_blur_mirrors_at_the_border():
    flat = np.full((40, 70), 0.7)
    settings = Acquisition(probe_sigma_px=1, defocus_sigma_px=5, astigmatism=1.5, astigmatism_deg=20)
    np.testing.assert_allclose(blur(flat, settings), 0.7, atol=1e-5)
    step = np.zeros((64, 80))
    step[:, :8] = 1
    assert blur(step, settings)[:, -10:].max() < 1e-3, "nothing wraps to the other side"


def test_a_moving_object_is_sheared_and_stays_at_half_time():
    still = scan_field((201, 161), replace(QUIET, scan_distortion=0), np.random.default_rng(0))
    field = moving(still, (80, 100), (20, 0))
    points = np.array([[80.0, 100.0], [80.0, 20.0], [80.0, 180.0]])
    seen = to_image(points, field)
    np.testing.assert_allclose(seen, [[80, 100], [80 - 8, 20], [80 + 8, 180]], atol=0.1)


@pytest.mark.parametrize("turn_deg", [10.0, -10.0])
def test_a_turning_object_turns_counter_clockwise_with_time(turn_deg):
    still = scan_field((201, 161), replace(QUIET, scan_distortion=0), np.random.default_rng(0))
    # an object's point right of its centre, scanned in the last lines: it has turned by half of the whole turn
    field = moving(still, (80, 180), (0, 0), turn_deg)
    (x, y) = to_image(np.array([[120.0, 180.0]]), field)[0]
    share = 180 / 200 - 0.5
    assert np.rad2deg(np.arctan2(180 - y, x - 80)) == pytest.approx(turn_deg * share, rel=0.1)


@pytest.mark.parametrize("electrons", [3.0, 26.0, 30.0, 400.0])
def test_counts_have_the_moments_of_poisson_at_any_dose(electrons):
    settings = replace(QUIET, dose_per_px=electrons)
    counts = detect(np.ones((1000, 1200)), settings, np.random.default_rng(5)).astype(float) * electrons
    assert counts.mean() == pytest.approx(electrons, rel=0.003)
    assert counts.var() == pytest.approx(electrons, rel=0.01)
    third = np.mean((counts - counts.mean()) ** 3)
    assert third == pytest.approx(electrons, rel=0.05, abs=0.02 * electrons**1.5)


def test_the_wander_is_continuous_in_time_from_line_to_line():
    # the pause between lines is the share of time that no pixel sees
    settings = Acquisition(scan_distortion=0.02, mains_share=0.5, line_pause_us=0.0)
    field = scan_field((90, 140), settings, np.random.default_rng(6)).astype(float)
    steps = np.diff(field.reshape(2, -1), axis=1)
    at_line_end = np.abs(steps[:, 139::140]).mean()
    assert at_line_end < 1.5 * np.abs(steps).mean()
    assert np.abs(steps).mean() > 0


def test_resampled_noise_is_correlated_as_a_gaussian():
    settings = replace(QUIET, noise_sigma_px=1.3)
    noise = detect(np.full((500, 620), 0.7), settings, np.random.default_rng(3)) - 0.7
    assert noise.std() == pytest.approx(noise_std(0.7, settings), rel=0.02)
    for lag in (1, 2, 3):
        for axis in (0, 1):
            assert autocorrelation(noise, lag, axis) == pytest.approx(np.exp(-(lag**2) / (4 * 1.3**2)), abs=0.02)


@pytest.mark.parametrize("lengths", [(0.0, 0.0, 0.0), (1.2, 0.6, 0.0), (0.0, 0.0, 1.3), (0.8, 0.8, 1.0)])
def test_means_over_areas_are_as_noisy_as_the_noise_area_says(lengths):
    x, y, sigma = lengths
    settings = replace(QUIET, noise_length_x_px=x, noise_length_y_px=y, noise_sigma_px=sigma)
    noise = detect(np.full((1280, 1280), 0.6), settings, np.random.default_rng(8)) - 0.6
    means = noise.reshape(20, 64, 20, 64).mean((1, 3))
    expected = noise_std(0.6, settings) * np.sqrt(noise_area_px(settings) / 64**2)
    assert means.std() == pytest.approx(expected, rel=0.12)
