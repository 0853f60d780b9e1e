"""What keeps a field or an object from being judged as the networks have learned it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.recognition.frames import field_of, instances_in_frame, table_in_frame
from defectpipe.recognition.suitability import (
    NO_PIXEL_SIZE,
    is_inverted,
    is_noise,
    look_at_field,
    object_warnings,
    period_of,
    saturated,
    stand_out,
)


def discs(bright: bool = True, noise: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:160, :220]
    inside = ((x - 60) ** 2 + (y - 70) ** 2 < 22**2) | ((x - 160) ** 2 + (y - 100) ** 2 < 30**2)
    ground, what = (40, 140) if bright else (160, 50)
    return np.where(inside, what, ground) + np.random.default_rng(3).normal(0, noise, inside.shape)


@pytest.mark.parametrize("noise", [1.0, 4.0, 15.0])
def test_dark_objects_on_a_bright_ground_are_refused_and_bright_ones_are_not(noise):
    assert not is_inverted(discs(noise=noise))
    assert is_inverted(discs(bright=False, noise=noise))
    assert "bright-field" in look_at_field(discs(bright=False), 1.0).refusal
    assert look_at_field(discs(), 1.0).refusal == ""


def test_what_is_no_dark_field_picture_is_refused_and_what_is_missing_is_said():
    noise = np.random.default_rng(1).normal(100, 20, (120, 150))
    assert not is_inverted(noise)
    assert "SEM" in look_at_field(discs(), 1.0, "SEM").refusal
    assert "says TEM" in look_at_field(discs(), 1.0, "TEM").refusal
    assert look_at_field(discs(), 1.0, "STEM") == look_at_field(discs(), 1.0)
    assert "same grey value" in look_at_field(np.full((40, 50), 3.0), 1.0).refusal
    assert look_at_field(discs()).warnings == (NO_PIXEL_SIZE,)
    clipped = np.minimum(discs(), 140)
    assert saturated(clipped).sum() > 100
    assert "saturated" in look_at_field(clipped, 1.0).warnings[0]
    assert not saturated(discs()).any()


def test_noise_stripes_and_lattices_hold_no_objects():
    rng = np.random.default_rng(5)
    noise = rng.normal(100, 20, (180, 230))
    assert is_noise(noise)
    assert is_noise(noise + rng.normal(0, 60, (1, 230)) + rng.normal(0, 60, (180, 1))), "rows and columns"
    assert "noise" in look_at_field(noise, 1.0).refusal
    assert not is_noise(discs(noise=100.0)), "contrast of one standard deviation"
    assert period_of(discs()) is None
    assert period_of(noise) is None
    y, x = np.mgrid[:180, :230]
    lattice = noise + 40 * np.cos(2 * np.pi * x / 9) * np.cos(2 * np.pi * y / 12)
    assert period_of(lattice) == pytest.approx(1 / np.hypot(1 / 9, 1 / 12), rel=0.05)
    assert "lattice" in look_at_field(lattice, 0.02).refusal
    assert "lattice" in look_at_field(lattice).refusal
    coarse = noise[:, :180] + 90 * np.cos(2 * np.pi * x[:, :180] / 21) * np.cos(2 * np.pi * y[:, :180] / 20)
    assert look_at_field(coarse, 3.0).refusal == ""
    assert "regular pattern" in look_at_field(coarse, 3.0).warnings[0]


def test_what_does_not_stand_out_bright_is_told_from_what_does():
    pixels = discs(noise=8)
    y, x = np.mgrid[:160, :220]
    instances = np.zeros(pixels.shape, np.int32)
    instances[(x - 60) ** 2 + (y - 70) ** 2 < 22**2] = 1
    instances[(x - 110) ** 2 + (y - 25) ** 2 < 10**2] = 2  # nothing but noise there
    assert list(stand_out(pixels, instances)) == [True, False]
    assert list(stand_out(-pixels, instances)) == [False, False]


def test_each_object_has_its_sentences():
    good = {
        "x0_px": 10.0,
        "x1_px": 70.0,
        "y0_px": 0.0,
        "y1_px": 50.0,
        "max_thickness_nm": 60.0,
        "length_nm": 80.0,
        "on_edge": False,
        "is_known": True,
        "familiarity": 0.9,
        "class_probability": 0.95,
    }
    changes: list[tuple[dict, str]] = [
        ({}, ""),
        ({"on_edge": True}, "cut by the border"),
        ({"is_known": False, "familiarity": 1.4}, "familiarity 1.40, limit 1.10"),
        ({"x1_px": 18.0, "y1_px": 9.0}, "only 9 px long"),
        ({"x1_px": 300.0}, "290 px at the working scale"),
        ({"max_thickness_nm": 500.0}, "500 nm thick"),
        ({"length_nm": 0.3, "max_thickness_nm": 0.2}, "rather atoms"),
        ({"class_probability": 0.3}, "class uncertain"),
        ({"max_thickness_nm": np.nan, "length_nm": np.nan}, ""),
    ]
    table = pd.DataFrame([good | change for change, _ in changes])
    said = object_warnings(table, np.zeros(len(table)), 1.0, 1.1)
    for line, (_, part) in zip(said, changes, strict=True):
        assert part in line if part else line == ""
        assert "; " not in line
    assert "30 % of its pixels are saturated" in object_warnings(table[:1], np.array([0.3]), 1.0, 1.1)[0]
    assert "working scale" in object_warnings(table[:1], np.zeros(1), 4.0, 1.1)[0]


def test_strips_scale_bars_and_missing_pixels_do_not_reach_the_networks():
    pixels = discs().astype(np.float32)
    pixels[0, 5] = np.nan
    m = Micrograph(pixels, "a", calibration=Calibration(1, "x"), rows=(20, 150), left_out=((100, 110, 30, 60),))
    pixels[100:110, 30:60] = 1e6
    field = field_of(m)
    assert field.shape == m.analysed_shape == (130, 220)
    assert np.isfinite(field).all()
    assert field.max() < 200
    outline = np.zeros((130, 220), np.int32)
    outline[10:20, 40:50] = 1
    whole = instances_in_frame(m, outline)
    assert whole.shape == (160, 220)
    assert np.argwhere(whole)[0].tolist() == [30, 40]
    table = table_in_frame(m, pd.DataFrame({"x_px": [44.5], "y_px": [14.5], "y0_px": [9.5], "y1_px": [19.5]}))
    assert table.iloc[0].to_list() == [44.5, 34.5, 29.5, 39.5]
