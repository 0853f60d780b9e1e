"""Measures calibrated to the focus score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectpipe.errors import SettingsError
from defectpipe.focus.calibration import by_magnification, calibrate_bands, calibrate_measure


@given(st.integers(2, 200), st.integers(0, 2**20))
@settings(max_examples=50, deadline=None)
def test_a_calibration_never_falls_and_stays_within_the_scores(n, seed):
    rng = np.random.default_rng(seed)
    value, score = rng.integers(0, 30, n) / 3, rng.uniform(0, 10, n)
    curve = calibrate_measure(value, score)
    seen = curve(np.linspace(-5, 15, 400))
    assert (np.diff(seen) >= -1e-9).all()
    assert seen.min() >= score.min() - 1e-9
    assert seen.max() <= score.max() + 1e-9


def test_a_known_curve_is_found():
    rng = np.random.default_rng(0)
    value = rng.uniform(0, 10, 4000)
    curve = calibrate_measure(np.exp(value), value + rng.normal(0, 0.5, 4000))
    np.testing.assert_allclose(curve(np.exp([2.0, 5, 8])), [2, 5, 8], atol=0.3)


def test_the_fit_is_pooled_where_the_data_fall():
    curve = calibrate_measure(np.array([0.0, 1, 2, 3]), np.array([1.0, 5, 3, 9]))
    np.testing.assert_allclose(curve([0, 1, 2, 3, 7]), [1, 4, 4, 9, 9])
    with pytest.raises(SettingsError):
        calibrate_measure(np.array([1.0, np.nan]), np.array([1.0, 2]))


def test_bands_take_out_contrast_and_find_a_slope():
    rng = np.random.default_rng(0)
    score = rng.uniform(0, 10, 500)
    spectra = -np.outer(10 - score, [0.5, 0.3, 0.2, 0.1, 0.05, 0]) + rng.normal(0, 0.05, (500, 6))
    curve = calibrate_bands(spectra, score)
    found = curve(spectra + 3.0)
    np.testing.assert_allclose(found, curve(spectra), atol=1e-9)
    assert np.sqrt(np.mean((found - score) ** 2)) < 0.3


def test_each_magnification_has_its_own():
    low = calibrate_measure(np.array([0.0, 1]), np.array([0.0, 10]))
    high = calibrate_measure(np.array([0.0, 2]), np.array([0.0, 10]))
    scores = by_magnification({500.0: low, 1000.0: high}, np.array([1.0, 1, 1]), np.array([500, 1000, 2000]))
    np.testing.assert_allclose(scores, [10, 5, np.nan])
