"""The scale a field is looked at: the same object has the same size in nm, whatever its size in px."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.recognition.measures import measure
from defectpipe.recognition.pixelwise import DEPTH, OUTLINE, THICKNESS
from defectpipe.recognition.scale import (
    KNOWN_PX,
    at_scale,
    first_size,
    instances_at,
    rescale,
    sizes_of,
    sureness,
    table_at,
    weighted_median,
    whole_objects,
    working_field,
)

AXES_NM = np.array([48.0, 30.0, 36.0])  # half axes of an ellipsoid along x, y and the beam


def ellipsoid(shape: tuple[int, int], pixel_size_nm: float) -> np.ndarray:
    """Thickness (nm) of the ellipsoid in a field, a little off its centre."""
    height, width = shape
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = (x - 0.52 * width) * pixel_size_nm / AXES_NM[0], (y - 0.47 * height) * pixel_size_nm / AXES_NM[1]
    return 2 * AXES_NM[2] * np.sqrt(np.maximum(1 - x**2 - y**2, 0))


def as_maps(thickness_px: np.ndarray) -> np.ndarray:
    maps = np.zeros((*thickness_px.shape, 3), np.float32)
    maps[..., OUTLINE] = thickness_px > 0
    maps[..., THICKNESS] = thickness_px
    maps[..., DEPTH] = thickness_px / max(thickness_px.max(), 1)
    return maps


def true_maps(shape: tuple[int, int], pixel_size_nm: float):
    """The maps that a perfect network would give of the ellipsoid, at whatever scale it sees it."""

    def maps_of(picture):
        size = pixel_size_nm * np.sqrt(shape[0] * shape[1] / picture.size)
        return as_maps(ellipsoid(picture.shape, size) / size)

    return maps_of


def grey_maps(picture):
    """Maps of pictures whose grey values are thicknesses in their own px."""
    return as_maps(np.where(picture > 4, picture, 0))


@pytest.mark.parametrize("long_side_px", [14, 60, 240, 700])
def test_one_object_at_four_magnifications_has_the_same_size_in_nm(long_side_px):
    size = 2 * AXES_NM[0] / long_side_px
    thickness = ellipsoid((round(2.6 * long_side_px), round(3.3 * long_side_px)), size)
    field = working_field(thickness, true_maps(thickness.shape, size))
    table = measure(field.maps, field.instances, size * field.factor)
    assert len(table) == 1
    assert KNOWN_PX[0] <= sizes_of(field.instances)[0] <= KNOWN_PX[1]
    row = table.iloc[0]
    assert row["length_nm"] == pytest.approx(2 * AXES_NM[0], rel=0.05)
    assert row["width_nm"] == pytest.approx(2 * AXES_NM[1], rel=0.05)
    assert row["max_thickness_nm"] == pytest.approx(2 * AXES_NM[2], rel=0.05)
    assert row["area_nm2"] == pytest.approx(np.pi * AXES_NM[0] * AXES_NM[1], rel=0.05)
    assert row["volume_nm3"] == pytest.approx(4 / 3 * np.pi * AXES_NM.prod(), rel=0.05)
    # and in the field's own px it lies where it lies there
    own = table_at(table, field.factor).iloc[0]
    y, x = np.nonzero(thickness > 0)
    assert own["x_px"] == pytest.approx(x.mean(), abs=0.02 * long_side_px)
    assert own["y_px"] == pytest.approx(y.mean(), abs=0.02 * long_side_px)
    assert own["length_px"] * size == pytest.approx(row["length_nm"])
    assert own["volume_px3"] * size**3 == pytest.approx(row["volume_nm3"])
    drawn = instances_at(field.instances, field.factor, thickness.shape)
    assert drawn.shape == thickness.shape
    both, either = ((drawn > 0) & (thickness > 0)).sum(), ((drawn > 0) | (thickness > 0)).sum()
    assert both / either > 0.95


def test_the_scale_of_a_field_is_that_of_most_of_its_whole_objects():
    field = np.zeros((900, 1300))
    y, x = np.mgrid[:900, :1300]
    for i in range(4):
        for k in range(6):
            field += np.sqrt(np.maximum(45**2 - (x - 120 - 200 * k) ** 2 - (y - 110 - 210 * i) ** 2, 0))
    field[:, -40:] = 60  # a long one that the border cuts
    assert first_size(field) == pytest.approx(85, abs=8)
    found = working_field(field, grey_maps)
    assert 1.2 < found.factor < 1.8
    assert found.instances.max() == 25
    assert first_size(np.full((80, 90), 7.0)) is None
    assert working_field(np.zeros((80, 90)), grey_maps).instances.max() == 0


def test_outlines_come_back_to_where_they_were():
    instances = np.zeros((20, 31), np.int32)
    instances[4:12, 5:17] = 1
    instances[14:, 20:] = 2
    np.testing.assert_array_equal(instances_at(instances, 1.0, (20, 31)), instances)
    large = instances_at(instances, 2.5, (50, 78))
    assert set(np.unique(large)) == {0, 1, 2}
    assert (large == 1).sum() == pytest.approx(6.25 * (instances == 1).sum(), rel=0.05)
    assert (large[-1] == 2).any()
    assert (large[:, -1] == 2).any()
    small = instances_at(instances, 0.5, (10, 16))
    assert (small == 1).sum() == pytest.approx((instances == 1).sum() / 4, rel=0.2)
    assert list(whole_objects(instances)) == [True, False]
    assert list(whole_objects(np.minimum(instances, 2) // 2)) == [True], "where the border cuts all, all count"


def test_rescaling_keeps_places_and_grey_values():
    y, x = np.mgrid[:90, :140].astype(float)
    for factor in (0.4, 1.0, 3.0):
        picture = rescale(2 * x + 3 * y, factor)
        assert picture.shape == (round(90 / factor), round(140 / factor))
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        expected = 2 * ((columns + 0.5) * factor - 0.5) + 3 * ((rows + 0.5) * factor - 0.5)
        inner = np.s_[6:-6, 6:-6]
        np.testing.assert_allclose(picture[inner], expected[inner], atol=0.5)


def test_sureness_counts_objects_of_known_size_with_clear_outlines():
    def seen(side, probability):
        instances = np.zeros((200, 260), np.int32)
        instances[30 : 30 + side, 40 : 40 + side] = 1
        maps = np.zeros((200, 260, 3))
        maps[..., OUTLINE] = np.where(instances > 0, probability, 1 - probability)
        return sureness(maps, instances)

    assert seen(60, 1.0) == pytest.approx(1)
    assert 0 < seen(60, 0.7) < seen(60, 0.9) < 1
    assert seen(20, 1.0) == seen(140, 1.0) == 0
    assert sureness(np.zeros((20, 30, 3)), np.zeros((20, 30), np.int32)) == 0
    assert weighted_median(np.array([5.0, 1.0, 3.0]), np.array([1.0, 1.0, 5.0])) == 3
    coarse = at_scale(np.zeros((100, 150)), 2.0, grey_maps)
    assert (coarse.pixels.shape, coarse.factor, coarse.sureness) == ((50, 75), 2.0, 0)
