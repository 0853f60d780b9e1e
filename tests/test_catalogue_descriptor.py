"""What the catalogue's descriptor does not see, and what it does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from defectpipe.catalogue.descriptor import DESCRIPTOR, SIZE, raw_numbers
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.kinds import KINDS, find_preset

SAME = 0.999
rng = np.random.default_rng(3)
# Stripes of some px, slanted, with noise: it has directions, and its corners differ.
_y, _x = np.mgrid[:300, :420]
STRIPES = (110 + 50 * np.sin((_x + 0.3 * _y) / 5) + rng.normal(0, 12, _x.shape)).clip(1, 254).astype(np.uint8)


def micrograph(pixels: np.ndarray, pixel_size_nm: float | None = 0.5, **more) -> Micrograph:
    calibration = None if pixel_size_nm is None else Calibration(pixel_size_nm, "test")
    return Micrograph(pixels, "a.tif", calibration=calibration, **more)


def likeness(a: Micrograph, b: Micrograph) -> float:
    return float(DESCRIPTOR.embed(a) @ DESCRIPTOR.embed(b))


@pytest.mark.parametrize("shape", [(24, 31), (72, 104), (300, 420), (1100, 700)])
@pytest.mark.parametrize("pixel_size_nm", [None, 0.01, 0.5, 400.0, 5e6])
def test_an_embedding_is_64_numbers_of_length_one(shape, pixel_size_nm):
    pixels = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    found = DESCRIPTOR.embed(micrograph(pixels, pixel_size_nm))
    assert found.shape == (SIZE,)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_value_has_an_embedding_too(value):
    assert np.isfinite(DESCRIPTOR.embed(micrograph(np.full((60, 90), value, np.uint8)))).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turns_and_mirrors_are_not_seen(turns, mirrored):
    turned = np.rot90(STRIPES[:, ::-1] if mirrored else STRIPES, turns)
    assert likeness(micrograph(STRIPES), micrograph(np.ascontiguousarray(turned))) > SAME


def test_large_pictures_are_the_same_turned():
    large = np.random.default_rng(4).integers(0, 255, (600, 1300)).astype(np.uint8)
    large[:200, :300] //= 4
    assert likeness(micrograph(large), micrograph(np.ascontiguousarray(np.rot90(large)))) > SAME


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (1, 40), (0.6, 90)])
def test_brightness_and_contrast_are_not_seen(gain, offset):
    other = np.rint(STRIPES * gain + offset).astype(np.uint8)
    assert likeness(micrograph(STRIPES), micrograph(other)) > 0.99


def test_depth_is_not_seen():
    deep = STRIPES.astype(np.uint16) * 200
    assert likeness(micrograph(STRIPES), micrograph(deep)) > 0.98


def test_texture_is_seen():
    noise = np.random.default_rng(5).integers(0, 255, STRIPES.shape).astype(np.uint8)
    coarser = np.kron(STRIPES[::3, ::3], np.ones((3, 3), np.uint8))
    assert likeness(micrograph(STRIPES), micrograph(noise)) < 0.8
    assert likeness(micrograph(STRIPES), micrograph(coarser)) < 0.95


def test_directions_are_seen():
    """Stripes along one axis against the same power spread over all directions."""
    spectrum = np.fft.fft2(np.random.default_rng(6).normal(size=(256, 384)))
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.fftfreq(384)[None]
    frequency = np.hypot(fy, fx)
    every = spectrum * np.exp(-(((frequency - 0.1) / 0.03) ** 2))
    one = every * (np.abs(np.sin(2 * np.arctan2(fy, fx))) < 0.3)
    pictures = [np.real(np.fft.ifft2(s)).astype(np.float32) for s in (every, one)]
    own = [raw_numbers(micrograph(p)) for p in pictures]
    # Numbers 16 to 23: lopsidedness, coarse octaves last; a wave of ten px is in octave 2.
    assert own[1][18] > own[0][18] + 0.3


def test_the_physical_scale_counts_only_where_it_is_known():
    near, far = micrograph(STRIPES, 0.5), micrograph(STRIPES, 300.0)
    assert likeness(near, micrograph(STRIPES, 0.51)) > likeness(near, far) + 0.02
    unknown = DESCRIPTOR.embed(micrograph(STRIPES, None))
    assert (unknown[-12:] == 0).all()
    assert (DESCRIPTOR.embed(near)[-12:] != 0).any()


def test_a_data_bar_is_not_looked_at():
    barred = np.vstack([STRIPES, np.tile(np.array([0, 255] * 210, np.uint8), (60, 1))])
    assert likeness(micrograph(STRIPES), micrograph(barred, rows=(0, 300))) == pytest.approx(1, abs=1e-4)
    assert likeness(micrograph(STRIPES), micrograph(barred)) < SAME


def test_simulated_images_find_their_kind():
    """A few of each kind, of a seed that the descriptor was not made with; a shuffled answer would be right by 0.3."""
    vectors, kinds = [], []
    for kind, preset, n in (("loops", "316l", 6), ("loops", "demo", 3), ("solids", "solids", 9), ("sem", "focus", 9)):
        for index in range(n):
            vectors.append(DESCRIPTOR.embed(KINDS[kind].simulate(find_preset(kind, preset), 21, index).micrograph))
            kinds.append(kind)
    near = np.array(vectors) @ np.array(vectors).T
    np.fill_diagonal(near, -2)
    nearest = np.argsort(-near, axis=1)[:, :3]
    right = np.array([[kinds[j] == kind for j in row] for kind, row in zip(kinds, nearest, strict=True)])
    assert Counter(kinds) == {"loops": 9, "solids": 9, "sem": 9}
    assert right.mean() > 0.85
