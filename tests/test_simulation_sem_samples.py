"""Surfaces of SEM samples, the margin of the blur, defocused textures, and what a TIFF says about its magnification."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile

from defectpipe.errors import SettingsError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.simulation.acquisition import Acquisition, blur
from defectpipe.simulation.sem.frames import charge
from defectpipe.simulation.sem.samples import SAMPLES, _draw_balls
from defectpipe.simulation.sem.scale import FocusLimits, focus_limits
from defectpipe.simulation.sem.surface import Light, add_balls, roughness, shade, shadow
from defectpipe.simulation.sem.textures import defocus_texture

EVEN = Light(tilt_power=0.8, side=0.0, side_deg=0, shadow=0.5)
QUIET = Acquisition(scan_distortion=0, detector_rms=0, dose_per_px=1e7, black_level=0.1, gain=0.3)


@pytest.mark.parametrize("slope", [0.0, 0.5, 2.0])
def test_a_tilted_plane_yields_by_its_cosine_and_its_side(slope):
    # it rises to the right: it faces left
    ramp = np.tile(slope * np.arange(30, dtype=np.float32), (20, 1))
    level = np.full(ramp.shape, 0.7, np.float32)
    cosine = 1 / np.sqrt(1 + slope**2)
    even = shade(ramp, level, EVEN.yields, EVEN.towards)[5:-5, 5:-5]
    np.testing.assert_allclose(even, 0.7 * cosine**-0.8, rtol=0.015)
    for side_deg, facing in ((180, 1), (0, -1), (90, 0)):
        light = dataclasses.replace(EVEN, side=0.3, side_deg=side_deg)
        sided = shade(ramp, level, light.yields, light.towards)[5:-5, 5:-5]
        np.testing.assert_allclose(sided / even, 1 + 0.3 * facing * slope * cosine, rtol=1e-3)


def ball(light: Light, radius: float = 25.0, soft: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    signal, height_px = np.full((81, 101), 0.3, np.float32), np.zeros((81, 101), np.float32)
    balls = np.array([[50, 40, radius, 1.0, soft, 0]], np.float32)
    add_balls(signal, height_px, balls, light.yields, light.towards)
    return signal, height_px


def test_a_ball_is_bright_at_its_rim_and_round():
    signal, height_px = ball(EVEN)
    assert signal[40, 50] == pytest.approx(1.0, rel=0.01)
    for share in (0.5, 0.8):
        up = np.sqrt(1 - share**2)
        expected = (1.2 / (up + 0.2)) ** 0.8
        assert signal[40, 50 + int(25 * share)] == pytest.approx(expected, rel=0.06)
    # a px on the limb is covered in part: the area is good to a fraction of the circumference
    assert (height_px > 0).sum() == pytest.approx(np.pi * 25**2, rel=0.01)
    assert height_px[40, 50] == pytest.approx(1.7 * 25)
    np.testing.assert_allclose(signal, signal[::-1, ::-1], atol=1e-5)
    assert signal[2, 2] == np.float32(0.3)


@pytest.mark.parametrize(("side_deg", "bright", "dark"), [(0, (40, 68), (40, 32)), (90, (22, 50), (58, 50))])
def test_the_side_towards_the_detector_is_brighter(side_deg, bright, dark):
    # 90 degrees is up, where y is small
    signal, _ = ball(dataclasses.replace(EVEN, side=0.4, side_deg=side_deg))
    assert signal[bright] > 1.4 * signal[dark]


def test_a_ball_on_a_ball_rolls_off_unless_it_stays():
    for stays, expected in ((0, 1.7 * 25), (1, 1.7 * 25 + 1.7 * 6)):
        signal, height_px = np.ones((81, 101), np.float32), np.zeros((81, 101), np.float32)
        balls = np.array([[50, 40, 25, 1, 0.2, 0], [50, 40, 6, 1, 0.2, stays]], np.float32)
        add_balls(signal, height_px, balls, EVEN.yields, EVEN.towards)
        assert height_px[40, 50] == pytest.approx(expected)


def test_depths_are_in_shadow_and_heights_are_not():
    height_px = np.zeros((120, 160), np.float32)
    height_px[40:80, 70:80] = -30
    height_px[20:30, 20:30] = 30
    share = shadow(height_px, 20, 0.6)
    assert share[60, 75] < 0.6
    assert share[25, 25] == 1
    assert share[100, 140] == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(shadow(height_px, 20, 0.0), 1)


def test_roughness_has_its_spread_and_is_rougher_at_every_length_for_a_growth_of_1():
    smooth, rough = (roughness((256, 320), np.random.default_rng(1), growth) for growth in (2.0, 1.0))
    for texture in (smooth, rough):
        assert texture.shape == (256, 320)
        assert 0.4 < texture.std() < 1.3
    steps = [np.diff(texture).std() / texture.std() for texture in (smooth, rough)]
    assert steps[1] > 3 * steps[0]
    coarse = roughness((256, 320), np.random.default_rng(1), 1.0, n_octaves=3, finest=3)
    assert np.diff(coarse).std() / coarse.std() < 0.5 * steps[1]


def test_the_number_of_balls_falls_as_a_power_of_their_size():
    drawn = [_draw_balls((400, 500), (2.0, 200.0), 1.4, 0.8, np.random.default_rng(seed)) for seed in range(20)]
    radii = np.concatenate([balls[:, 2] for balls in drawn])
    assert radii.min() >= 2
    for radius in (2.5, 5.0):
        ratio = (radii > 2 * radius).sum() / (radii > radius).sum()
        assert ratio == pytest.approx(2**-1.4, rel=0.12)
    few, many = (_draw_balls((400, 500), (2.0, 20.0), 1.4, cover, np.random.default_rng(0)) for cover in (0.2, 0.8))
    sections = [np.pi * (balls[:, 2] ** 2).sum() / 2e5 for balls in (few, many)]
    np.testing.assert_allclose(sections, [0.2, 0.8], atol=0.02)


@pytest.mark.parametrize("sample", sorted(SAMPLES))
@pytest.mark.parametrize("magnification", [500.0, 3333.3, 10000.0])
def test_every_magnification_shows_structure_fine_and_coarse(sample, magnification):
    limits = focus_limits(magnification)
    signal = SAMPLES[sample]((200, 260), magnification, limits, np.random.default_rng(5))
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()
    assert signal.min() > 0
    lost = blur(signal, Acquisition(probe_sigma_px=0, defocus_sigma_px=limits.lost_px))[40:-40, 40:-40]
    assert lost.std() / lost.mean() > 0.01
    assert np.diff(signal).std() / signal.mean() > 0.03


def test_a_margin_saves_mirroring_and_changes_nothing_inside():
    specimen = np.random.default_rng(0).random((150, 190), np.float32)
    settings = Acquisition(probe_sigma_px=1, defocus_sigma_px=6, astigmatism=1.4, astigmatism_deg=25)
    mirrored, bare = blur(specimen, settings), blur(specimen, settings, 24)
    np.testing.assert_allclose(bare[24:-24, 24:-24], mirrored[24:-24, 24:-24], atol=2e-4)
    assert bare.shape == specimen.shape
    assert np.abs(bare - mirrored).max() > 0.01, "the margin itself is not mirrored"


def test_a_charged_bar_leaves_a_trail_that_fades():
    line = np.ones((3, 120), np.float32)
    line[1, 20:40] = 3
    charged = charge(line, 0.5, 15.0)
    np.testing.assert_array_equal(charged[[0, 2]], 1)
    np.testing.assert_array_equal(charged[1, :21], line[1, :21])
    # after 20 px of 2 above the mean
    first = 1 - 0.5 * 2 * (1 - np.exp(-20 / 15))
    assert charged[1, 40] == pytest.approx(first, rel=1e-3)
    assert charged[1, 55] == pytest.approx(1 - (1 - first) / np.e, rel=1e-3)


def step_texture(blur_px: float = 0.8) -> np.ndarray:
    texture = np.full((300, 420), 60.0, np.float32)
    texture[:, 210:] = 180
    return blur(texture, Acquisition(probe_sigma_px=blur_px))


@pytest.mark.parametrize("score", [10.0, 7.0, 3.0, 1.0])
def test_a_texture_gets_the_blur_that_it_lacks(score):
    limits = FocusLimits(0.8, 8.0)
    made = defocus_texture(step_texture(0.8), 1000, score, QUIET, np.random.default_rng(2), (120, 400), limits)
    assert made.pixels.shape == made.clean.shape == (120, 400)
    assert made.focus_score == score
    assert made.blur_sigma_px == pytest.approx(0.8 * 10 ** ((10 - score) / 9))
    middle = 209.5 - made.x_px
    place = np.arange(400) - middle
    profile = made.clean.astype(float).mean(0)
    near = np.abs(place) < 3.5 * made.blur_sigma_px + 2
    # away from the edge the texture is as it was
    np.testing.assert_allclose(profile[~near], np.where(place[~near] < 0, 0.5, 1.5), rtol=5e-3)
    spread, between = np.diff(profile[near]), (place[near][1:] + place[near][:-1]) / 2
    assert (spread * between).sum() / spread.sum() == pytest.approx(0, abs=0.05)
    assert np.sqrt((spread * between**2).sum() / spread.sum()) == pytest.approx(made.blur_sigma_px, rel=0.03)
    # blur first, then noise, then grey values
    grey = 255 * (0.1 + 0.3 * made.clean)
    np.testing.assert_allclose(made.pixels, grey, atol=1.5)


def test_texture_noise_is_not_blurred_and_the_same_seed_gives_the_same_part():
    flat = np.full((260, 340), 120, np.uint8)
    noisy = dataclasses.replace(QUIET, dose_per_px=50)
    one, two = (defocus_texture(flat, 2000, 2.0, noisy, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    noise = one.pixels - one.pixels.mean()
    assert noise.std() == pytest.approx(255 * 0.3 / np.sqrt(50), rel=0.05)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()) < 0.02
    other = defocus_texture(flat, 2000, 2.0, noisy, np.random.default_rng(5))
    assert (one.x_px, one.y_px) != (other.x_px, other.y_px)


def test_textures_that_cannot_serve_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(SettingsError, match="no part of 240 × 320 px"):
        defocus_texture(np.ones((100, 400)), 1000, 5.0, QUIET, rng)
    with pytest.raises(SettingsError, match="from 1 to 10, not 0"):
        defocus_texture(step_texture(), 1000, 0.0, QUIET, rng)
    with pytest.raises(SettingsError, match="without signal"):
        defocus_texture(np.zeros((300, 400)), 1000, 5.0, QUIET, rng)


@pytest.mark.real
def test_real_textures_lose_detail_with_the_score(data_dir):
    paths = sorted((data_dir / "sem-textures").glob("*.tif"))
    assert len(paths) == 6
    for path in paths:
        (texture,) = read_micrographs(path)
        pixels = np.asarray(texture.pixels)[:880]  # the text is burnt in below
        power = []
        for score in (10, 7, 4, 1):
            made = defocus_texture(pixels, 1000, score, QUIET, np.random.default_rng(3))
            power.append(float(np.diff(made.clean).var()))
        assert (np.diff(power) < 0).all(), path.name
        assert power[0] > 10 * power[-1]


@pytest.mark.parametrize(
    ("info", "magnification", "modality"),
    [
        ("Modality: SEM\nMagnification: 2000\n", 2000.0, "SEM"),
        ("Operator: A\nMagnification = 25.00 K X\nModality=TEM", 25000.0, "TEM"),
        ("Modality: something else\nMagnification: unknown\n", None, None),
        ("Objective Magnification: 20\nMagnification: 0\n", None, None),
        ("Magnification:\nModality:\n", None, None),
    ],
)
def test_imagej_notes_state_the_magnification(tmp_path: Path, info, magnification, modality):
    path = tmp_path / "a.tif"
    grey = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    tifffile.imwrite(
        path, grey, imagej=True, resolution=(0.5, 0.5), metadata={"unit": "nm", "axes": "YX", "Info": info}
    )
    (read,) = read_micrographs(path)
    assert read.magnification == magnification
    assert read.modality == modality
    assert read.pixel_size_nm == pytest.approx(2.0)
    assert not read.notes
