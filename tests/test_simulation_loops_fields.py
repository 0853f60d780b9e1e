"""What beside loops a field shows, switched on and off; contrast modes, cavities, the data bar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from defectpipe.errors import SettingsError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.micrographs.bars import find_bars
from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.loop import Loop, attenuation_map, rim_contrast
from defectpipe.simulation.loops.population import wavelength_nm
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.simulation.loops.settings import Condition, LoopPreset

OFF = (0.0, 0.0)
# 16 bit on a fixed scale, next to no noise and no blur: the logarithm of the image is the attenuation
BARE = LoopPreset(
    name="bare",
    shape=(240, 310),
    pixel_size_nm=(0.4,),
    conditions=(Condition("one", (5, 5), 12.0, bits=16),),
    acquisition=Acquisition(scan_distortion=0.003, detector_rms=0, black_level=0.0),
    probe_sigma_px=OFF,
    dose_per_px=(1e9, 1e9),
    noise_length_x_px=OFF,
    noise_length_y_px=OFF,
    unevenness=(0.5, 0.5),
    gain=(0.5, 0.5),
    closed_per_megapixel=(30.0, 30.0),
    edge_on_per_megapixel=(20.0, 20.0),
    black_dots_per_megapixel=OFF,
    lines_per_megapixel=OFF,
    pale_rings_per_megapixel=OFF,
)
DISTRACTORS = {
    "lines": {"lines_per_megapixel": (80.0, 80.0)},
    "pale rings": {"pale_rings_per_megapixel": (60.0, 60.0)},
    "precipitates": {"precipitates_per_megapixel": (60.0, 60.0)},
    "bend contours": {"bend_contours": (1, 1)},
    "wedge": {"wedge": (0.3, 0.3)},
    "thickness fringes": {"thickness_fringes": (0.3, 0.3)},
    "grain boundary": {"grain_boundaries": (1, 1)},
}
SHAPES = {  # settings that nothing draws while their number is 0
    "lines": {"line_width_px": (20.0, 30.0)},
    "pale rings": {},
    "precipitates": {"precipitate_diameter_nm": (50.0, 60.0)},
    "bend contours": {"bend_contour": (0.8, 0.9)},
    "wedge": {},
    "thickness fringes": {"thickness_fringe_px": (10.0, 11.0)},
    "grain boundary": {"grain_step": (0.9, 1.0)},
}


def attenuation(preset: LoopPreset, index: int = 0) -> np.ndarray:
    pixels = simulate_field(preset, 3, index).micrograph.pixels
    return -np.log(np.maximum(pixels, 1) / (0.5 * 65535))


@pytest.fixture(scope="module")
def bare() -> np.ndarray:
    return attenuation(BARE)


@pytest.mark.parametrize("name", list(DISTRACTORS))
def test_a_distractor_changes_the_image_and_nothing_else(bare, name):
    on = replace(BARE, **DISTRACTORS[name])
    pd.testing.assert_frame_equal(simulate_field(on, 3).truth, simulate_field(BARE, 3).truth)
    change = attenuation(on) - bare
    assert np.abs(change).max() > 0.03
    # what it adds is the same among all others: each draws from a stream of its own
    rest = {k: v for other, setting in DISTRACTORS.items() if other != name for k, v in setting.items()}
    among = attenuation(replace(on, **rest)) - attenuation(replace(BARE, **rest))
    np.testing.assert_allclose(among, change, atol=2e-3)
    np.testing.assert_array_equal(attenuation(replace(BARE, **SHAPES[name])), bare)


def test_a_wedge_darkens_towards_one_side():
    flat = replace(BARE, wedge=(0.4, 0.4), conditions=(Condition("none", (0, 0), 12.0, bits=16),), unevenness=OFF)
    alone = attenuation(replace(flat, closed_per_megapixel=OFF, edge_on_per_megapixel=OFF))
    corners = alone[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert 0.25 < np.ptp(corners) < 0.45
    steps = np.diff(alone, axis=1)
    assert np.median(np.abs(steps)) == pytest.approx(np.abs(np.median(steps)), rel=0.05)


def test_the_two_sides_of_a_grain_boundary_differ():
    alone = replace(BARE, grain_boundaries=(1, 1), grain_step=(0.3, 0.3), grain_boundary=(0.2, 0.2))
    step = attenuation(alone) - attenuation(BARE)
    low, high = np.percentile(step, [2, 98])
    sides = [np.mean(np.abs(step - level) < 0.01) for level in (0.0, 0.3 * np.sign(low + high))]
    assert min(sides) > 0.05
    assert sum(sides) > 0.7
    # fringes between them: several crests along the line across
    assert np.mean(np.abs(step) > 0.02) < 1


@pytest.mark.parametrize("distractors", [{}, {"lines_per_megapixel": (50.0, 50.0), "wedge": (0.3, 0.3)}])
def test_adf_is_the_reverse_of_bf(distractors):
    bf = simulate_field(replace(BARE, **distractors), 3)
    adf = simulate_field(replace(BARE, contrast="adf", foil_attenuation=0.3, **distractors), 3)
    one, other = (field.micrograph.pixels / (0.5 * 65535) for field in (bf, adf))
    np.testing.assert_allclose(other, 1 - np.exp(-0.3) * one, atol=1e-3)
    assert (bf.truth["polarity"] == "dark").all()
    assert (adf.truth["polarity"] == "bright").all()
    geometry = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg", "class", "on_edge"]
    pd.testing.assert_frame_equal(bf.truth[geometry], adf.truth[geometry])


@pytest.mark.parametrize(
    ("contrast", "defocus_nm", "sign"), [("bf", -1000.0, -1), ("bf", 1000.0, 1), ("adf", -1000.0, -1)]
)
def test_cavities_have_a_fresnel_fringe_that_turns_with_the_focus(contrast, defocus_nm, sign):
    preset = replace(
        BARE,
        contrast=contrast,
        foil_attenuation=0.0,
        conditions=(Condition("none", (0, 0), 12.0, bits=16),),
        unevenness=OFF,
        closed_per_megapixel=OFF,
        edge_on_per_megapixel=OFF,
        cavities_per_megapixel=(60.0, 60.0),
        cavity_diameter_nm=(8.0, 10.0),
        cavity_attenuation=(0.2, 0.2),
        cavity_defocus_nm=(defocus_nm, defocus_nm),
    )
    if contrast == "adf":
        preset = replace(preset, foil_attenuation=0.5)
    field = simulate_field(preset, 1)
    signal = field.micrograph.pixels / (0.5 * 65535)
    plain = np.median(signal)
    cavities = field.truth[~field.truth["on_edge"]]
    assert len(cavities) >= 2
    assert (cavities["class"] == "cavity").all()
    brighter = (sign < 0) == (contrast == "bf")
    assert (cavities["polarity"] == ("bright" if brighter else "dark")).all()
    fringe_px = np.sqrt(wavelength_nm(200) * 1000) / 0.4
    for row in cavities.itertuples():
        y, x = np.ogrid[: signal.shape[0], : signal.shape[1]]
        radius = np.hypot(x - row.x_px, y - row.y_px)
        centre = signal[radius < 4].mean() - plain
        fringe = np.median(signal[np.abs(radius - 0.25 * (row.diameter_px + row.minor_px) - 0.75 * fringe_px) < 0.7])
        assert (centre > 0) == brighter
        assert abs(centre) > 0.05
        if contrast == "bf":
            assert (fringe - plain) * centre < 0
            assert 0.3 < abs(fringe - plain) / abs(centre) < 1.1
        else:
            assert abs(fringe - plain) < 0.2 * abs(centre)


def test_wavelengths_of_the_tables():
    assert wavelength_nm(200) == pytest.approx(2.508e-3, rel=1e-3)
    assert wavelength_nm(300) == pytest.approx(1.969e-3, rel=1e-3)


def test_a_double_line_has_two_rims_about_its_ridge():
    loop = Loop("open", 60, 40, 50, 50, 0, 1.0, 0.4, contrast="double_line", gap_px=5.0, inner=0.7)
    radius = np.linspace(15, 35, 2001)
    profile = attenuation_map(loop, 60 + radius, np.full_like(radius, 40.0))
    crests = radius[1:-1][(np.diff(profile)[:-1] > 0) & (np.diff(profile)[1:] < 0)]
    np.testing.assert_allclose(crests, [22.5, 27.5], atol=0.02)
    heights = np.interp([22.5, 25.0, 27.5], radius, profile)
    np.testing.assert_allclose(heights, [0.28, 0.4 * np.exp(-0.5 * 2.5**2), 0.4], rtol=1e-3)
    assert rim_contrast(loop) == pytest.approx(1 - np.exp(-0.4), rel=1e-3)


def test_dots_and_cavities_can_be_labelled(tmp_path):
    preset = replace(
        BARE,
        labelled_classes=("black_dot", "cavity"),
        black_dots_per_megapixel=(150.0, 150.0),
        cavities_per_megapixel=(80.0, 80.0),
        dose_per_px=(3e3, 3e3),
    )
    assert preset.categories == ("black_dot", "cavity")
    field = simulate_field(preset, 3)
    assert set(field.labels["label"]) == {"black_dot", "cavity"}
    assert len(field.annotations) == len(field.labels) == field.labelled.sum()
    assert [a.label for a in field.annotations] == field.labels["label"].tolist()
    # neither moves the loops
    loops = simulate_field(BARE, 3).truth
    where = [column for column in loops.columns if column not in ("cnr", "visible")]  # the dose differs
    pd.testing.assert_frame_equal(field.truth[where][: len(loops)], loops[where])
    pixels = field.micrograph.pixels.astype(float)
    dots = (field.truth["class"] == "black_dot") & field.truth["visible"] & ~field.truth["on_edge"]
    for row in field.truth[dots].itertuples():
        y, x = round(row.y_px), round(row.x_px)
        assert pixels[y - 1 : y + 2, x - 1 : x + 2].mean() < np.median(pixels[y - 9 : y + 10, x - 9 : x + 10])
    simulate_dataset("loops", 1, 3, preset, tmp_path)
    text = (tmp_path / "labels.coco.json").read_text()
    assert '"black_dot"' in text
    assert '"cavity"' in text


@pytest.mark.parametrize("bits", [8, 16])
def test_the_reader_finds_the_data_bar_and_truth_ends_above_it(tmp_path, bits):
    preset = replace(
        PRESETS["demo"], shape=(420, 560), conditions=(Condition("one", (30, 30), 11.0, bits=bits),), data_bar=0.12
    )
    for index in range(5):
        field = simulate_field(preset, 9, index)
        assert field.micrograph.analysed_rows == (0, 370)
        assert find_bars(field.micrograph.pixels).rows == (0, 370)
        truth, plain = field.truth, simulate_field(replace(preset, data_bar=0.0), 9, index)
        np.testing.assert_array_equal(field.micrograph.pixels[:370], plain.micrograph.pixels[:370])
        below = truth["y_px"] > 369.5
        assert below.any()
        assert not truth["visible"][below].any()
        assert truth["on_edge"][truth["y1_px"] > 369.5].all()
        pd.testing.assert_series_equal(truth["visible"][~below], plain.truth["visible"][~below])
        assert all(annotation.outline[:, 1].max() <= 369.5 for annotation in field.annotations)
        assert field.labels["y1_px"].max() <= 369.5
    simulate_dataset("loops", 1, 9, preset, tmp_path)
    (read,) = read_micrographs(next((tmp_path / "images").iterdir()))
    assert read.analysed_rows == (0, 370)


def test_the_scale_bar_is_as_long_as_its_text_says():
    field = simulate_field(replace(PRESETS["fcc"], shape=(512, 600)), 1)
    first, last = field.micrograph.analysed_rows[1], 512
    strip = field.micrograph.pixels[first:last]
    row = strip[int(0.78 * len(strip))]
    values, counts = np.unique(row, return_counts=True)
    ink = row != values[counts.argmax()]
    columns = np.flatnonzero(ink)
    assert np.ptp(columns) + 1 == ink.sum() == round(20 / 0.3)  # 20 nm: the longest round length below 0.22 of 180 nm


@pytest.mark.parametrize("name", ["fcc", "bcc-adf", "mixed"])
def test_new_presets_give_the_same_bytes(name):
    small = replace(PRESETS[name], shape=(200, 260))
    one, again, other = (simulate_field(small, seed, 1) for seed in (5, 5, 6))
    assert one.micrograph.pixels.tobytes() == again.micrograph.pixels.tobytes()
    pd.testing.assert_frame_equal(one.truth, again.truth)
    assert one.micrograph.pixels.tobytes() != other.micrograph.pixels.tobytes()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(SettingsError, match="'bf' or 'adf', not 'haadf'"):
        replace(BARE, contrast="haadf")
    with pytest.raises(SettingsError, match="'open' or 'closed', not 'ring'"):
        replace(BARE, loop_class="ring")
    with pytest.raises(SettingsError, match="no class 'void' in simulated fields"):
        replace(BARE, labelled_classes=("open", "void"))
