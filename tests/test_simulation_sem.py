"""Simulated SEM images: focus score, blur, exposure, empty frames and files against what their truth says."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from defectpipe.errors import SettingsError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.tables import read_csv
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.kinds import find_preset
from defectpipe.simulation.sem import frames
from defectpipe.simulation.sem.frames import EMPTY_FRAMES, TRUTH_COLUMNS, SimulatedSem, simulate_sem
from defectpipe.simulation.sem.presets import PRESETS, SemPreset
from defectpipe.simulation.sem.samples import SAMPLES
from defectpipe.simulation.sem.scale import (
    FocusLimits,
    FocusScale,
    blur_of_score,
    focus_limits,
    pixel_size_nm,
    score_of_blur,
)

FOCUS = PRESETS["focus"]
SMALL = dataclasses.replace(FOCUS, name="small", shape=(42, 60))
ONLY_SAMPLES = dataclasses.replace(FOCUS, zero_share=0.0)
STILL = dataclasses.replace(ONLY_SAMPLES, distorted_share=0.0, charging_share=0.0)


def at_score(preset: SemPreset, score: float, **changes: object) -> SemPreset:
    return dataclasses.replace(preset, focus_score=(score, score), **changes)


def high_frequency_power(image: np.ndarray, above: float = 0.15) -> float:
    image = image - image.mean()
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    power = np.abs(np.fft.rfft2(image * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    return float(power[frequency > above].sum())


@pytest.mark.parametrize("magnification", [500, 1234.5, 10000])
def test_the_score_counts_lost_octaves_between_its_ends(magnification):
    limits = focus_limits(magnification)
    assert score_of_blur(limits.perfect_px, limits) == pytest.approx(10)
    assert score_of_blur(limits.lost_px, limits) == pytest.approx(1)
    # in the middle of the octaves, not of the widths
    assert score_of_blur(np.sqrt(limits.perfect_px * limits.lost_px), limits) == pytest.approx(5.5)
    assert score_of_blur(0.1 * limits.perfect_px, limits) == 10
    assert score_of_blur(9 * limits.lost_px, limits) == pytest.approx(1)
    for score in (1.0, 2.7, 5.5, 9.9, 10.0):
        assert score_of_blur(blur_of_score(score, limits), limits) == pytest.approx(score)
    octave = score_of_blur(1.0, limits) - score_of_blur(2.0, limits)
    assert octave == pytest.approx(9 * np.log(2) / np.log(limits.lost_px / limits.perfect_px))


def test_perfect_focus_is_the_probe_and_the_pixel():
    scale = FocusScale(probe_sigma_nm=20.0, least_sigma_px=0.6, lost_sigma_px=7.0, lost_growth=0.5)
    limits = focus_limits(2000, scale)
    assert limits.perfect_px == pytest.approx(np.hypot(0.6, 20 / pixel_size_nm(2000)))
    assert limits.lost_px == pytest.approx(14.0)


def test_pixel_size_follows_from_the_magnification():
    # 127 mm at 1,000 times: 127 µm across 640 px
    assert 640 * pixel_size_nm(1000) == pytest.approx(127_000)
    for index, magnification in enumerate((500.0, 777.7, 10000.0)):
        preset = dataclasses.replace(SMALL, magnifications=(magnification,))
        image = simulate_sem(preset, 4, index)
        assert image.micrograph.magnification == magnification == image.truth["magnification"].item()
        assert image.micrograph.pixel_size_nm == pytest.approx(127e6 / 640 / magnification)
        assert image.truth["pixel_size_nm"].item() == image.micrograph.pixel_size_nm
        assert image.micrograph.modality == "SEM"


def edge_width(clean: np.ndarray, axis: int) -> float:
    """RMS width along an axis of the spread of the one edge across it."""
    spread = np.diff(clean.astype(float).mean(1 - axis))
    place = np.arange(spread.size) - (spread * np.arange(spread.size)).sum() / spread.sum()
    return float(np.sqrt((spread * place**2).sum() / spread.sum()))


@pytest.mark.parametrize("score", [10.0, 8.0, 5.0, 1.0])
@pytest.mark.parametrize(("astigmatism", "axis"), [(1.0, 1), (1.5, 1), (1.5, 0)])
def test_the_blur_of_an_edge_is_that_of_the_truth(monkeypatch, score, astigmatism, axis):
    def step(shape, magnification, limits, rng):
        signal = np.full(shape, 0.5, np.float32)
        signal[(slice(None),) * axis + (slice(shape[axis] // 2, None),)] = 1.5
        return signal

    limits = FocusLimits(0.9, 9.0)
    draw = frames._draw_focus
    monkeypatch.setitem(SAMPLES, "step", step)
    monkeypatch.setattr(frames, "focus_limits", lambda magnification: limits)
    # the long axis along x
    monkeypatch.setattr(frames, "_draw_focus", lambda *given: dataclasses.replace(draw(*given), astigmatism_deg=0.0))
    image = simulate_sem(at_score(STILL, score, samples=("step",), astigmatism=(astigmatism,) * 2), 1, 0)
    truth = image.truth.iloc[0]
    assert truth["blur_sigma_px"] == pytest.approx(blur_of_score(score, limits))
    assert np.hypot(truth["defocus_sigma_px"], 0.9) == pytest.approx(truth["blur_sigma_px"])
    short = truth["defocus_sigma_px"] * np.sqrt(2 / (1 + astigmatism**2))
    expected = np.hypot(0.9, short * (astigmatism if axis == 1 else 1.0))
    assert edge_width(image.clean, axis) == pytest.approx(expected, rel=0.02)
    if astigmatism == 1:
        assert edge_width(image.clean, axis) == pytest.approx(truth["blur_sigma_px"], rel=0.02)


@pytest.mark.parametrize("sample", sorted(SAMPLES))
@pytest.mark.parametrize("magnification", [500, 2000, 10000])
def test_a_better_score_is_sharper_on_the_same_sample(sample, magnification):
    preset = dataclasses.replace(STILL, samples=(sample,), magnifications=(magnification,))
    images = [simulate_sem(at_score(preset, score), 6, 3) for score in (10, 8, 6, 4, 2, 1)]
    power = [high_frequency_power(image.clean) for image in images]
    assert (np.diff(power) < 0).all()
    assert power[0] > 20 * power[3]
    # nothing else has changed
    others = ["sample", "magnification", "astigmatism", "astigmatism_deg", "dose_per_px", "contrast", "brightness"]
    assert all(image.truth[others].equals(images[0].truth[others]) for image in images)
    blurred = [image.clean[40:-40, 40:-40].mean() for image in images]
    np.testing.assert_allclose(blurred, blurred[0], rtol=0.1)


@pytest.fixture(scope="module")
def series() -> list[SimulatedSem]:
    return [simulate_sem(SMALL, 11, index) for index in range(250)]


def test_magnifications_and_samples_take_turns(series):
    truth = pd.concat([image.truth for image in series], ignore_index=True)
    assert list(truth.columns) == TRUTH_COLUMNS
    assert (truth["magnification"].value_counts() == 50).all()
    assert sorted(truth["magnification"].unique()) == [500, 1000, 2000, 5000, 10000]
    assert truth["image"].is_unique
    every = [simulate_sem(dataclasses.replace(SMALL, zero_share=0.0), 0, index).condition for index in range(20)]
    assert every[:10] == [
        *("tinball-500x", "grid-1000x", "tinball-2000x", "grid-5000x", "tinball-10000x"),
        *("grid-500x", "tinball-1000x", "grid-2000x", "tinball-5000x", "grid-10000x"),
    ]
    assert all(every.count(name) == 2 for name in every)


def test_as_many_magnifications_as_samples_do_not_go_together():
    preset = dataclasses.replace(SMALL, zero_share=0.0, magnifications=(500, 2000))
    assert len({simulate_sem(preset, 0, index).condition for index in range(4)}) == 4


def test_shares_of_frames_and_noises_are_as_stated(series):
    truth = pd.concat([image.truth for image in series], ignore_index=True)
    empty = truth["sample"].isin(EMPTY_FRAMES)
    assert 0.05 < empty.mean() < 0.155
    assert set(truth.loc[empty, "sample"]) == set(EMPTY_FRAMES)
    assert truth.loc[empty, "sample"].value_counts().max() < 0.5 * empty.sum()
    assert (truth.loc[empty, "focus_score"] == 0).all()
    assert (
        truth.loc[empty, ["blur_sigma_px", "defocus_sigma_px", "astigmatism", "astigmatism_deg"]].isna().all(axis=None)
    )
    samples = truth[~empty]
    # uniform from 1 to 10
    assert samples["focus_score"].between(1, 10).all()
    counts, _ = np.histogram(samples["focus_score"], bins=9, range=(1, 10))
    assert counts.min() > 9
    assert counts.max() < 45
    shares = samples["noise"].value_counts(normalize=True)
    assert shares["correlated"] == pytest.approx(0.25, abs=0.08)
    assert shares["lines"] == pytest.approx(0.15, abs=0.06)
    assert samples["charging"].mean() == pytest.approx(0.15, abs=0.06)
    assert (samples["scan_distortion"] > 0).mean() == pytest.approx(0.1, abs=0.05)
    limits = samples["magnification"].map(focus_limits)
    again = [score_of_blur(s, f) for s, f in zip(samples["blur_sigma_px"], limits, strict=True)]
    np.testing.assert_allclose(again, samples["focus_score"], atol=1e-9)


def unevenness(pixels: np.ndarray, block: int = 20) -> float:
    """Spread of the means of blocks, over that of white noise."""
    height, width = (n // block * block for n in pixels.shape)
    values = pixels[:height, :width].astype(float)
    means = values.reshape(height // block, block, width // block, block).mean((1, 3))
    return float(means.std() * block / max(values.std(), 1e-9))


def test_frames_of_score_0_hold_nothing_and_frames_of_score_1_something():
    nothing = dataclasses.replace(FOCUS, zero_share=1.0)
    seen = set()
    for index in range(24):
        image = simulate_sem(nothing, 2, index)
        kind, pixels, scan = image.truth["sample"].item(), image.micrograph.pixels, image.acquisition
        seen.add(kind)
        assert image.condition == f"{kind}-{image.micrograph.magnification:g}x"
        lengths = (max(4 * scan.noise_length_x_px, 1), max(4 * scan.noise_length_y_px, 1))
        assert unevenness(pixels) < 1.3 * np.sqrt(np.prod(lengths))
        if kind == "white-frame":
            assert np.median(pixels) >= 250
        elif kind == "black-frame":
            assert np.median(pixels) <= 5
        else:
            assert pixels.std() > 5
            assert (kind == "correlated-noise") == (scan.noise_length_x_px > 0)
    assert seen == set(EMPTY_FRAMES)
    worst = [simulate_sem(at_score(STILL, 1.0, correlated_share=0.0, lines_share=0.0), 3, i) for i in range(10)]
    assert min(unevenness(image.micrograph.pixels) for image in worst) > 2.5


@pytest.mark.parametrize("index", [0, 1, 2])
def test_brightness_and_contrast_are_as_stated(index):
    preset = at_score(STILL, 9.0, contrast=(0.04, 0.04), contrast_to_noise=(60.0, 80.0), detector_rms=(0.0, 0.0))
    preset = dataclasses.replace(preset, brightness=(0.4, 0.4))
    image = simulate_sem(preset, 8, index)
    truth, pixels = image.truth.iloc[0], image.micrograph.pixels.astype(float)
    inside = (pixels > 0) & (pixels < 255)
    slope, offset = np.polyfit(image.clean[inside], pixels[inside], 1)
    assert slope == pytest.approx(255 * truth["contrast"], rel=0.02)
    assert slope + offset == pytest.approx(255 * truth["brightness"], abs=1)
    assert truth["brightness"] == pytest.approx(0.4)
    # in focus: at score 9 the finest contrast is gone already
    assert 0.6 * 0.04 < pixels.std() / 255 < 1.05 * 0.04
    # the whole sample has mean 1, its part in the image nearly
    assert image.clean.mean() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("cnr", [1.2, 5.0])
def test_the_noise_is_that_of_the_dose(cnr):
    preset = at_score(
        STILL, 6.0, contrast=(0.05, 0.05), contrast_to_noise=(cnr, cnr), detector_rms=(0.0, 0.0), correlated_share=0.0
    )
    image = simulate_sem(dataclasses.replace(preset, lines_share=0.0), 5, 0)
    truth = image.truth.iloc[0]
    noise = image.micrograph.pixels - 255 * (truth["brightness"] + truth["contrast"] * (image.clean - 1))
    expected = 255 * truth["contrast"] / np.sqrt(truth["dose_per_px"])
    assert noise.std() == pytest.approx(np.hypot(expected, 12**-0.5), rel=0.05)
    assert 255 * 0.05 / expected == pytest.approx(cnr, rel=1e-6)


def test_charging_leaves_its_trail_in_the_line():
    plain = at_score(STILL, 9.0)
    image = simulate_sem(plain, 2, 1)
    charged = simulate_sem(dataclasses.replace(plain, charging_share=1.0), 2, 1)
    assert charged.truth["charging"].item()
    assert not image.truth["charging"].item()
    change = charged.clean - image.clean
    # darker behind what is bright: the mean over the 10 px before
    before = np.cumsum(image.clean, 1)
    before = (before[:, 10:-1] - before[:, :-11]) / 10
    assert np.corrcoef(before.ravel(), change[:, 11:].ravel())[0, 1] < -0.6
    np.testing.assert_array_equal(change[:, 0], 0)


def test_a_folder_of_sem_images_reads_back(tmp_path):
    manifest = json.loads(simulate_dataset("sem", 6, 7, SMALL, tmp_path / "a").read_text())
    truth = read_csv(tmp_path / "a" / "truth.csv")
    assert list(truth.columns) == TRUTH_COLUMNS
    assert manifest["labels"] is None
    assert not (tmp_path / "a" / "labels.coco.json").exists()
    for row, entry in zip(truth.itertuples(), manifest["images"], strict=True):
        path = tmp_path / "a" / "images" / row.image
        (read,) = read_micrographs(path)
        assert read.magnification == row.magnification
        assert read.modality == "SEM"
        assert read.pixel_size_nm == pytest.approx(pixel_size_nm(row.magnification), rel=1e-6)
        assert read.shape == (42, 60)
        assert row.image.startswith(f"{entry['condition']}_field-")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    again = json.loads(simulate_dataset("sem", 8, 7, SMALL, tmp_path / "b").read_text())
    other = json.loads(simulate_dataset("sem", 6, 8, SMALL, tmp_path / "c").read_text())
    assert again["images"][:6] == manifest["images"]
    assert not {e["sha256"] for e in other["images"]} & {e["sha256"] for e in manifest["images"]}


def test_switching_one_thing_off_does_not_shift_the_others():
    plain, charged = (simulate_sem(dataclasses.replace(ONLY_SAMPLES, charging_share=v), 9, 2) for v in (0.0, 1.0))
    untouched = [name for name in TRUTH_COLUMNS if name != "charging"]
    assert plain.truth[untouched].equals(charged.truth[untouched])
    straight, torn = (simulate_sem(dataclasses.replace(STILL, distorted_share=v), 9, 2) for v in (0.0, 1.0))
    assert torn.truth["scan_distortion"].item() > 0
    assert np.corrcoef(straight.clean.ravel(), torn.clean.ravel())[0, 1] > 0.5


def test_presets_out_of_range_are_refused():
    assert find_preset("sem") is FOCUS
    with pytest.raises(SettingsError, match="from 500 to 10000"):
        dataclasses.replace(FOCUS, magnifications=(500, 20000))
    with pytest.raises(SettingsError, match="tinball, grid"):
        dataclasses.replace(FOCUS, samples=("gold",))
    with pytest.raises(SettingsError, match="1 to 10"):
        dataclasses.replace(FOCUS, focus_score=(0.0, 10.0))
