"""Classical focus measures against images whose value is known, and against simulated defocus."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from defectpipe.focus.measures import MEASURES, octave_spectrum
from defectpipe.simulation.sem.frames import simulate_sem
from defectpipe.simulation.sem.presets import PRESETS

STILL = dataclasses.replace(PRESETS["focus"], zero_share=0.0, distorted_share=0.0, charging_share=0.0)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"entropy"}))
@pytest.mark.parametrize("sample", ["tinball", "grid"])
@pytest.mark.parametrize("magnification", [500, 2000, 10000])
def test_without_noise_every_measure_falls_with_defocus(name, sample, magnification):
    preset = dataclasses.replace(STILL, samples=(sample,), magnifications=(magnification,))
    values = [
        MEASURES[name](255 * simulate_sem(dataclasses.replace(preset, focus_score=(s, s)), 5, 0).clean)
        for s in (10.0, 8.5, 7.0, 5.0, 3.0, 1.0)
    ]
    assert (np.diff(values) < 0).all(), values


def test_values_of_a_checked_image():
    halves = np.zeros((20, 30))
    halves[:, :15] = 8
    assert MEASURES["absolute_variance"](halves) == pytest.approx(4)
    assert MEASURES["variance"](halves) == pytest.approx(16)
    assert MEASURES["normalised_variance"](halves) == pytest.approx(4)
    # two columns of 28 pairs along the rows, none along the columns
    assert MEASURES["brenner"](halves) == pytest.approx(64 * 2 / 28 / 2)
    assert MEASURES["normalised_variance"](np.zeros((8, 9))) == 0
    # two greys, equally often
    assert MEASURES["entropy"](halves) == pytest.approx(1)
    assert MEASURES["entropy"](np.arange(256.0).reshape(16, 16)) == pytest.approx(8)
    # all pairs of neighbours agree, but the one across the edge of each row
    assert MEASURES["vollath_f5"](halves) == pytest.approx((16 * (29 - 2) / 29 + 16) / 2)


def test_values_of_a_ramp():
    y, x = np.mgrid[:30, :44]
    ramp = 3.0 * x + 4.0 * y
    assert MEASURES["tenengrad"](ramp) == pytest.approx(25)
    assert MEASURES["brenner"](ramp) == pytest.approx((36 + 64) / 2)
    assert MEASURES["laplacian_variance"](ramp) == pytest.approx(0, abs=1e-20)
    assert MEASURES["laplacian_variance"](np.where((x + y) % 2, 1.0, -1.0)) == pytest.approx(64)


def test_white_noise_tells_the_measures_apart():
    noise = np.random.default_rng(0).normal(0, 5, (400, 500))
    assert MEASURES["variance"](noise) == pytest.approx(25, rel=0.02)
    assert MEASURES["absolute_variance"](noise) == pytest.approx(5 * np.sqrt(2 / np.pi), rel=0.02)
    assert MEASURES["laplacian_variance"](noise) == pytest.approx(20 * 25, rel=0.02)
    assert MEASURES["brenner"](noise) == pytest.approx(2 * 25, rel=0.02)
    assert abs(MEASURES["vollath_f4"](noise)) < 0.02 * 25
    assert abs(MEASURES["vollath_f5"](noise)) < 0.02 * 25
    assert MEASURES["entropy"](noise) == pytest.approx(0.5 * np.log2(2 * np.pi * np.e * 25), abs=0.02)
    np.testing.assert_allclose(octave_spectrum(noise), np.log(25), atol=0.25)
    assert MEASURES["octave_power"](noise) == pytest.approx(np.log2(5), abs=0.1)


@pytest.mark.parametrize("octave", [0, 1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_lies_in_its_octave(octave, axis):
    frequency = 0.36 / 2**octave
    wave = 9 * np.sin(2 * np.pi * frequency * np.indices((180, 240))[axis])
    assert octave_spectrum(wave).argmax() == octave


def test_coarse_octaves_hardly_feel_the_noise_that_fills_the_finest():
    preset = dataclasses.replace(STILL, samples=("tinball",), magnifications=(2000,), focus_score=(4.0, 4.0))
    clean = 255 * simulate_sem(preset, 5, 0).clean
    noise = np.random.default_rng(1).normal(0, 25, clean.shape)
    change = octave_spectrum(clean + noise) - octave_spectrum(clean)
    assert change[0] > 4
    assert np.abs(change[4:]).max() < 0.1
    assert (np.diff(change[:4]) < 0).all()


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"normalised_variance"}))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_brightness_does_not_count_and_depth_does_not_wrap(name, dtype):
    image = np.random.default_rng(2).integers(20, 200, (50, 70)).astype(dtype)
    value = MEASURES[name](image)
    assert MEASURES[name](image.astype(float) + 1000) == pytest.approx(value, rel=1e-6, abs=1e-6)
    # seen from the other side, it is as sharp
    assert MEASURES[name](image[::-1, ::-1]) == pytest.approx(value, rel=1e-6)
    assert MEASURES[name](np.ascontiguousarray(image.T)) == pytest.approx(value, rel=0.05, abs=1)
