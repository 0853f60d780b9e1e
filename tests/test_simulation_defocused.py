"""Micrographs defocused after the fact keep their noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from defectpipe.simulation.acquisition import Acquisition, blur
from defectpipe.simulation.defocused import defocus, noise_spectrum


def test_white_noise_has_its_variance_at_every_frequency():
    grey = np.random.default_rng(1).normal(128, 9, (512, 640))
    frequencies, power = noise_spectrum(grey)
    assert frequencies[0] == 0
    assert frequencies[-1] > 0.6
    # the outermost bands hold a few frequencies only
    np.testing.assert_allclose(power[:-2], 81, rtol=0.15)


@pytest.mark.parametrize("kind", ["disc", "gaussian"])
@pytest.mark.parametrize("length_px", [0.0, 0.7])
def test_the_noise_is_as_before_and_the_structure_is_blurred(kind, length_px):
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:384, :512]
    structure = 20 * np.sin(2 * np.pi * x / 12) + 20 * np.sin(2 * np.pi * y / 200)
    noise = gaussian_filter(rng.normal(0, 1, structure.shape), length_px)
    noise *= 8 / noise.std()
    grey = np.clip(128 + structure + noise, 0, 255).astype(np.uint8)
    seen = defocus(grey, 4.0, rng, kind).astype(float)
    settings = Acquisition(probe_sigma_px=0.0, defocus_sigma_px=4.0) if kind == "disc" else Acquisition(4.0)
    left = (seen - blur(128 + structure, settings))[30:-30, 30:-30]
    # noise of the same strength, and as correlated as it was
    assert left.std() == pytest.approx(8, rel=0.15)
    assert np.corrcoef(left[:, 1:].ravel(), left[:, :-1].ravel())[0, 1] == pytest.approx(
        np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1], abs=0.1
    )
    fine = np.abs(np.fft.rfft(seen[40:-40, 16:-16].mean(0)))[40]
    assert fine < 0.2 * np.abs(np.fft.rfft(grey[40:-40, 16:-16].mean(0)))[40]


def test_no_blur_changes_nothing_and_a_seed_repeats():
    grey = np.random.default_rng(3).integers(0, 255, (160, 200), dtype=np.uint8)
    np.testing.assert_array_equal(defocus(grey, 0.0, np.random.default_rng(0)), grey)
    first, again = (defocus(grey, 2.0, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
