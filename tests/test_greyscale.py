"""Normalisation to 8 bit: counted out in parts, it is the one that sorting the whole image gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from defectpipe import greyscale
from defectpipe.greyscale import ArrayPixels, is_constant, scale_of_array, summarise
from defectpipe.micrograph import Micrograph

DTYPES = ["uint8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"]


def values_of(dtype: str, seed: int, shape: tuple[int, int] = (47, 83)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 40, shape) * (1 if dtype == "uint8" else 77)
    if np.dtype(dtype).kind != "f":
        values = np.clip(values, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_counting_gives_what_sorting_gives(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greyscale, "_BLOCK_PX", 500)
    pixels = values_of(dtype, 1)
    found = summarise(ArrayPixels(pixels), (0, 47))
    assert found.scale == scale_of_array(pixels)
    assert (found.lowest, found.highest, found.n_missing) == (pixels.min(), pixels.max(), 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_without_data_and_what_is_left_out_do_not_count(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greyscale, "_BLOCK_PX", 300)
    pixels = values_of(dtype, 2)
    pixels[3, 4:20], pixels[40, 1], pixels[41, 1] = np.nan, np.inf, -np.inf
    pixels[10:15, 30:50] = 1e9
    left_out = np.zeros(pixels.shape, bool)
    left_out[10:15, 30:50] = True
    found = summarise(ArrayPixels(pixels), (0, 47), ((10, 15, 30, 50),))
    assert found.n_missing == 18 + 100
    assert found.highest < 1e5
    assert found.scale == scale_of_array(pixels, left_out)
    assert found.scale.missing == np.median(pixels[np.isfinite(pixels) & ~left_out])
    rows = summarise(ArrayPixels(pixels), (16, 40))
    assert rows.scale == scale_of_array(pixels[16:40])


NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False) | st.just(float("nan"))


@given(arrays(np.float32, (5, 7), elements=NUMBERS))
def test_any_numbers_are_normalised_alike(pixels: np.ndarray) -> None:
    whole, counted = scale_of_array(pixels), summarise(ArrayPixels(pixels), (0, 5)).scale
    np.testing.assert_array_equal(whole.apply(pixels), counted.apply(pixels))


def test_a_micrograph_is_normalised_alike_in_parts_and_as_a_source() -> None:
    pixels = values_of("float32", 3)
    pixels[5, 6] = np.nan
    whole = Micrograph(pixels, "a")
    source = Micrograph(ArrayPixels(pixels), "a")
    expected = whole.grey8()
    np.testing.assert_array_equal(source.grey8(), expected)
    np.testing.assert_array_equal(source.grey8_region(3, 20, 5, 60), expected[3:20, 5:60])
    assert expected[5, 6] == pytest.approx(np.median(expected), abs=1)
    assert whole.analysed_area_px2 == source.analysed_area_px2 == 47 * 83 - 1


def test_what_is_left_out_takes_the_median_and_leaves_the_rest() -> None:
    pixels = values_of("uint8", 4)
    pixels[20:24, 10:50] = 255
    m = Micrograph(pixels, "a", left_out=((20, 24, 10, 50),))
    grey = m.grey8()
    rest = np.delete(pixels.ravel(), np.ravel_multi_index(np.mgrid[20:24, 10:50].reshape(2, -1), pixels.shape))
    assert np.unique(grey[20:24, 10:50]).tolist() == [round(float(np.median(rest)))]
    np.testing.assert_array_equal(grey[:20], pixels[:20])
    np.testing.assert_array_equal(m.grey8_region(18, 30, 40, 83), grey[18:30, 40:])
    assert pixels[20, 10] == 255
    assert m.analysed_area_px2 == 47 * 83 - 160


def test_equal_pixels_become_black_and_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greyscale, "_BLOCK_PX", 100)
    pixels = np.full((30, 40), 1234, np.uint16)
    assert is_constant(ArrayPixels(pixels))
    assert not Micrograph(pixels, "a").grey8().any()
    pixels[29, 39] += 1
    assert not is_constant(ArrayPixels(pixels))
