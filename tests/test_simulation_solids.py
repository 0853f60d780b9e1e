"""Dark-field images of solids: truth against pixels, streams, views, files."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from defectpipe.errors import SettingsError
from defectpipe.io.tables import read_csv
from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.kinds import find_preset
from defectpipe.simulation.solids.deformation import DeformationRanges
from defectpipe.simulation.solids.fields import SimulatedSolids, simulate_solids, simulate_tilts, simulate_views
from defectpipe.simulation.solids.presets import PRESETS, SolidPreset
from defectpipe.simulation.solids.rays import CLASSES
from defectpipe.simulation.solids.shapes import DIMENSIONS, DIMENSIONS_OF
from defectpipe.simulation.solids.truth import TRUTH_COLUMNS

OFF = (0.0, 0.0)
SMALL = dataclasses.replace(PRESETS["solids"], name="small", shape=(96, 120))
# no scan, no motion, no noise: what is recorded is what is computed
EXACT = dataclasses.replace(
    SMALL,
    name="exact",
    deformations=DeformationRanges(share=0.0),
    film_roughness=OFF,
    moving_share=0.0,
    probe_sigma_px=OFF,
    defocus_share=0.0,
    dose_per_px=(1e12, 1e12),
    scan_distortion=OFF,
    flyback_px=OFF,
    drift_px=0.0,
    detector_rms=OFF,
    line_rms=OFF,
    noise_length_x_px=OFF,
    acquisition=Acquisition(bits=16),
)
SEVERAL = {"n_objects": (4, 4), "whole": False, "size_share": (0.25, 0.5), "shape": (110, 140)}


def mask_of(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def filled(thickness: np.ndarray) -> np.ndarray:
    # below that the interpolation spreads an edge over its neighbours
    seen = (thickness > 0.02 * thickness.max()).astype(np.uint8)
    contours, _ = cv2.findContours(seen, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(thickness.shape, np.uint8), contours, -1, 1, -1) > 0


def same(a: SimulatedSolids, b: SimulatedSolids) -> bool:
    pixels = np.array_equal(a.micrograph.pixels, b.micrograph.pixels)
    return pixels and a.truth.equals(b.truth) and np.array_equal(a.maps["thickness_nm"], b.maps["thickness_nm"])


def test_the_same_seed_gives_the_same_bytes_and_another_others():
    first = simulate_solids(SMALL, 3, 2)
    assert same(first, simulate_solids(SMALL, 3, 2))
    for other in (simulate_solids(SMALL, 4, 2), simulate_solids(SMALL, 3, 14)):
        assert not same(first, other)
        assert other.truth["class"][0] == first.truth["class"][0] == "cube"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_make_what_they_say(preset):
    assert find_preset("solids", preset) is PRESETS[preset]
    image = simulate_solids(PRESETS[preset], 0, 1)
    truth = image.truth
    assert image.micrograph.shape == image.maps["thickness_nm"].shape == PRESETS[preset].shape
    assert image.maps["thickness_nm"].dtype == np.float32
    assert image.micrograph.modality == "STEM"
    assert truth["pixel_size_nm"].eq(image.micrograph.pixel_size_nm).all()
    assert 50 < image.micrograph.pixel_size_nm * min(image.micrograph.shape) < 300.1
    assert list(truth.columns) == TRUTH_COLUMNS
    assert len(truth) <= PRESETS[preset].n_objects[1]
    assert PRESETS[preset].categories == CLASSES
    assert find_preset("solids").name == "solids"


def test_classes_take_turns_and_dimensions_are_those_of_the_class():
    for index, label in enumerate(CLASSES):
        image = simulate_solids(dataclasses.replace(SMALL, shape=(64, 72)), 5, index)
        row = image.truth.iloc[0]
        assert image.micrograph.image == f"{label}_field-001.tif"
        assert row["class"] == image.condition == label
        assert set(DIMENSIONS_OF[label]) == set(row[list(DIMENSIONS)].dropna().index)
        assert np.linalg.norm(row[["qw", "qx", "qy", "qz"]].to_numpy(float)) == pytest.approx(1)
        assert row["qw"] >= 0
        assert 1.5 <= row["gamma"] <= 1.8
    assert simulate_solids(dataclasses.replace(SMALL, shape=(64, 72)), 5, 12).micrograph.image == "sphere_field-002.tif"


def test_the_map_integrates_to_the_volume_of_the_truth():
    for index in range(len(CLASSES)):
        image = simulate_solids(EXACT, 6, index)
        row = image.truth.iloc[0]
        total = float(image.maps["thickness_nm"].sum()) * row.pixel_size_nm**2
        assert total == pytest.approx(row.volume_nm3, rel=0.01)
        assert image.maps["thickness_nm"].max() == pytest.approx(row.max_thickness_nm, rel=1e-4)
        area = (image.maps["thickness_nm"] > 0).sum() * row.pixel_size_nm**2
        assert row.projected_area_nm2 == pytest.approx(area, rel=0.12)  # whole px beside shares of them
        assert not row.on_edge
        assert not row.deformed


@pytest.mark.parametrize("saturating", [True, False])
def test_grey_values_follow_the_thickness_and_several_bodies_add_up(saturating):
    preset = dataclasses.replace(EXACT, overlap=True, saturating=saturating, name="adding", **SEVERAL)
    preset = dataclasses.replace(preset, size_share=(0.5, 0.6))
    image = simulate_solids(preset, 7)
    assert len(image.bodies) == 4
    np.testing.assert_allclose(image.maps["thickness_nm"], image.thicknesses_nm.sum(0))
    assert ((image.thicknesses_nm > 0).sum(0) >= 2).sum() > 200, "they overlap"
    gold = image.truth["mean_free_path_nm"] * (image.truth["atomic_number"] / 79) ** image.truth["gamma"]
    assert gold.between(60, 150).all()
    assert np.ptp(gold) < 1e-6, "one microscope"
    paths = image.truth["mean_free_path_nm"].to_numpy()[:, None, None]
    attenuation = (image.thicknesses_nm / paths).sum(0)
    off = image.thicknesses_nm.sum(0) == 0
    grey = image.micrograph.pixels / 65535
    film = (np.median(grey[off]) - image.acquisition.black_level) / image.acquisition.gain
    attenuation = attenuation + (-np.log1p(-film) if saturating else film)
    expected = 1 - np.exp(-attenuation) if saturating else attenuation
    expected = image.acquisition.black_level + image.acquisition.gain * expected
    clear = expected < 0.99
    assert clear.mean() > 0.9
    np.testing.assert_allclose(grey[clear], expected[clear], atol=2e-3)


def test_the_film_scatters_as_its_thickness_says():
    bare = simulate_solids(dataclasses.replace(EXACT, film_nm=OFF), 8)
    off = bare.maps["thickness_nm"] == 0
    black = 65535 * bare.acquisition.black_level
    assert np.abs(bare.micrograph.pixels[off] - black).max() <= 1
    grey = []
    for nm in (100.0, 200.0):
        image = simulate_solids(dataclasses.replace(EXACT, film_nm=(nm, nm), film_atomic_number=26), 8)
        signal = (image.micrograph.pixels[off] / 65535 - image.acquisition.black_level) / image.acquisition.gain
        grey.append(-np.log1p(-np.median(signal)))
    assert grey[1] / grey[0] == pytest.approx(2, rel=0.01)
    # as thick a body of iron scatters as much
    path = bare.truth["mean_free_path_nm"][0] * (bare.truth["atomic_number"][0] / 26) ** bare.truth["gamma"][0]
    assert grey[0] == pytest.approx(100 / path, rel=0.01)


@pytest.mark.parametrize(("distortion", "moving"), [(0.0, 0.0), (0.05, 0.0), (0.05, 1.0)])
def test_outlines_lie_on_the_silhouettes_also_with_distortion_and_motion(distortion, moving):
    preset = dataclasses.replace(
        SMALL,
        shape=(150, 190),
        scan_distortion=(distortion, distortion),
        moving_share=moving,
        shift_px=(24.0, 26.0),
        turn_deg=(8.0, 10.0),
        drift_px=4.0,
    )
    for index in range(len(CLASSES)):
        image = simulate_solids(preset, 9, index)
        row, outline = image.truth.iloc[0], image.outlines[0]
        a, b = mask_of(outline, (150, 190)), filled(image.thicknesses_nm[0])
        assert (a & b).sum() / (a | b).sum() > 0.9
        edge = cv2.distanceTransform(b.astype(np.uint8), cv2.DIST_L2, 5)
        beyond = cv2.distanceTransform((~b).astype(np.uint8), cv2.DIST_L2, 5)
        x, y = np.rint(outline).astype(int).T
        inside = (x >= 2) & (x < 188) & (y >= 2) & (y < 148)
        assert np.percentile(np.maximum(edge, beyond)[y[inside], x[inside]], 95) <= 3.1, row["class"]
        np.testing.assert_allclose(row[["x0_px", "y0_px"]].to_numpy(float), outline.min(0))
        np.testing.assert_allclose(row[["x1_px", "y1_px"]].to_numpy(float), outline.max(0))
        rows, columns = np.nonzero(b)
        assert np.hypot(row.x_px - columns.mean(), row.y_px - rows.mean()) < 1.5  # thin edges are below the mask
        assert (row.shift_x_px != 0) == (row.turn_deg != 0) == (moving == 1)


def test_a_body_that_moves_is_sheared_by_the_scan_and_leaves_the_rest_alone():
    moving = dataclasses.replace(EXACT, name="exact", shift_px=(16.0, 16.0), turn_deg=OFF, moving_share=1.0)
    still, moved = simulate_solids(EXACT, 10), simulate_solids(moving, 10)
    columns = [c for c in TRUTH_COLUMNS if c not in ("x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "cnr")]
    columns = [c for c in columns if not c.startswith("shift_")]
    pd.testing.assert_frame_equal(still.truth[columns], moved.truth[columns])
    shift = moved.truth[["shift_x_px", "shift_y_px"]].to_numpy()[0]
    assert np.hypot(*shift) == pytest.approx(16)
    # a row shows the body where it is by then: its middle has gone along x by that share of the shift
    weights = moved.thicknesses_nm[0].astype(float)
    rows = np.flatnonzero(weights.sum(1) > 0.5 * weights.sum(1).max())
    middles = (weights[rows] @ np.arange(120)) / weights[rows].sum(1)
    slope = np.polyfit(rows, middles, 1)[0]
    assert slope == pytest.approx(shift[0] / 96, abs=0.01)


def test_each_deformation_changes_the_image_and_switched_off_leaves_the_rest():
    drawn = dataclasses.replace(SMALL, shape=(64, 72), deformations=DeformationRanges(share=1.0))
    columns = {"twist_deg": ["twist_deg"], "bend_deg": ["bend_deg"], "taper": ["taper"], "shear": ["shear"]}
    columns["dent_depth"] = ["dent_nm", "n_dents"]
    amplitudes = [c for names in columns.values() for c in names]
    settled = [c for c in TRUTH_COLUMNS if not c.endswith("_px") and c not in ("volume_nm3", "projected_area_nm2")]
    settled = [c for c in settled if c not in ("max_thickness_nm", "cnr", "visible", "deformed", "on_edge")]
    settled = [c for c in settled if c not in amplitudes]
    found = set()
    for index in (26, 62, 98):  # cubes that have all of them between them
        whole = simulate_solids(drawn, 11, index)
        for name, own in columns.items():
            ranges = dataclasses.replace(drawn.deformations, **{name: OFF})
            without = simulate_solids(dataclasses.replace(drawn, deformations=ranges), 11, index)
            used = bool(whole.truth[own[0]][0] != 0)
            assert (without.truth[own] == 0).all(axis=None)
            others = [c for c in amplitudes if c not in own]
            pd.testing.assert_frame_equal(whole.truth[others + settled], without.truth[others + settled])
            assert np.array_equal(whole.micrograph.pixels, without.micrograph.pixels) != used
            found |= {name} if used else set()
    assert found == set(columns)


def test_undeformed_bodies_keep_all_else():
    deformed = simulate_solids(dataclasses.replace(EXACT, deformations=DeformationRanges(share=1.0)), 12, 3)
    ideal = simulate_solids(EXACT, 12, 3)
    assert deformed.truth["deformed"].all()
    assert not ideal.truth["deformed"].any()
    same_columns = [*DIMENSIONS, "qw", "qx", "qy", "qz", "atomic_number", "gamma", "pixel_size_nm", "dose_per_px"]
    pd.testing.assert_frame_equal(deformed.truth[same_columns], ideal.truth[same_columns])


def test_bodies_that_may_not_overlap_do_not():
    preset = dataclasses.replace(EXACT, name="apart", overlap=False, **SEVERAL)
    on_edge = 0
    for index in range(6):
        image = simulate_solids(preset, 13, index)
        assert len(image.bodies) >= 2
        assert (image.thicknesses_nm > 0).sum(0).max() == 1
        assert list(image.truth["object_id"]) == [body.number for body in image.bodies]
        on_edge += image.truth["on_edge"].sum()
        assert image.micrograph.image == f"apart_field-{index + 1:03d}.tif"
    assert on_edge > 0


def test_an_empty_field_is_one_row_without_a_body():
    image = simulate_solids(dataclasses.replace(SMALL, n_objects=(0, 0)), 14)
    assert len(image.truth) == 1
    row = image.truth.iloc[0]
    assert (row["image"], row["object_id"], row["class"]) == (image.micrograph.image, 0, "")
    assert not row["visible"]
    assert np.isnan(row["volume_nm3"])
    assert not image.annotations
    assert image.maps["thickness_nm"].max() == 0
    assert image.micrograph.pixels.max() < 255, "the gain is not turned up without end"


def test_what_the_noise_hides_is_not_labelled():
    light = dataclasses.replace(SMALL, atomic_numbers=(6,), field_nm=(50.0, 60.0))
    hidden = simulate_solids(dataclasses.replace(light, detector_rms=(0.3, 0.3)), 15)
    clear = simulate_solids(dataclasses.replace(light, detector_rms=OFF, dose_per_px=(1e6, 1e6)), 15)
    assert not hidden.truth["visible"][0]
    assert not hidden.annotations
    assert clear.truth["visible"][0]
    assert [a.label for a in clear.annotations] == ["sphere"]
    assert clear.truth["cnr"][0] > 20 * hidden.truth["cnr"][0] > 0


def test_cnr_is_what_the_pixels_show():
    noisy = dataclasses.replace(EXACT, dose_per_px=(400.0, 400.0), atomic_numbers=(47,), white_level=(0.5, 0.5))
    image = simulate_solids(noisy, 16, 2)
    clean = simulate_solids(dataclasses.replace(noisy, dose_per_px=(1e12, 1e12)), 16, 2)
    under = image.thicknesses_nm[0] > 0
    both = [v.micrograph.pixels.astype(float) for v in (clean, image)]
    contrast = both[0][under].mean() - np.median(both[0][~under])
    assert image.truth["cnr"][0] == pytest.approx(contrast / (both[1] - both[0])[under].std(), rel=0.1)


def test_views_show_the_same_body_from_other_sides():
    preset = dataclasses.replace(SMALL, deformations=DeformationRanges(share=1.0))
    views = simulate_views(preset, 17, 4, 3)
    truth = pd.concat([v.truth for v in views], ignore_index=True)
    body = [*DIMENSIONS, "class", "atomic_number", "gamma", "pixel_size_nm", "twist_deg", "bend_deg", "dent_nm"]
    assert len(truth[body].drop_duplicates()) == 1
    assert len(truth["qw"].unique()) == 3
    assert np.ptp(truth["volume_nm3"]) < 0.01 * truth["volume_nm3"].mean()
    assert list(truth["image"]) == [f"cylinder_field-001_view-{k}.tif" for k in (1, 2, 3)]
    np.testing.assert_array_equal(views[0].micrograph.pixels, simulate_solids(preset, 17, 4).micrograph.pixels)
    assert same(views[1], simulate_views(preset, 17, 4, 2)[1])
    assert not np.array_equal(views[0].micrograph.pixels, views[1].micrograph.pixels)
    with pytest.raises(SettingsError, match="At least one view"):
        simulate_views(preset, 17, 4, 0)


def test_a_tilt_series_turns_the_body_about_the_vertical_axis():
    preset = dataclasses.replace(EXACT, deformations=DeformationRanges(share=1.0))
    tilts = (0.0, 40.0, -70.0)
    series = simulate_tilts(preset, 17, 4, tilts)
    np.testing.assert_array_equal(series[0].micrograph.pixels, simulate_solids(preset, 17, 4).micrograph.pixels)
    assert [v.micrograph.image for v in series] == [f"cylinder_field-001_tilt-{k}.tif" for k in (1, 2, 3)]
    first = series[0].bodies[0].solid
    right = np.array([1.0, 0.0, 0.0])
    for view, tilt in zip(series, np.deg2rad(tilts), strict=True):
        turn = view.bodies[0].solid.rotation @ first.rotation.T
        np.testing.assert_allclose(turn @ right, [np.cos(tilt), 0, np.sin(tilt)], atol=1e-9)
        np.testing.assert_allclose(turn @ [0, 1, 0], [0, 1, 0], atol=1e-9)
        assert view.bodies[0].solid.dimensions == first.dimensions
        assert view.truth["qw"][0] >= 0
        # what it reaches along the axis stays, whatever the tilt
        rows = np.flatnonzero(view.thicknesses_nm[0].max(1) > 0)
        assert np.ptp(rows) == pytest.approx(np.ptp(np.flatnonzero(series[0].thicknesses_nm[0].max(1) > 0)), abs=2)
    with pytest.raises(SettingsError, match="at least one tilt"):
        simulate_tilts(preset, 17, 4, ())


def test_bodies_below_a_few_px_are_refused():
    with pytest.raises(SettingsError, match="is too small to be simulated"):
        simulate_solids(dataclasses.replace(SMALL, size_share=(0.01, 0.02)), 18)


def test_a_data_set_holds_images_labels_truth_and_thickness(tmp_path):
    preset: SolidPreset = dataclasses.replace(SMALL, shape=(64, 80))
    simulate_dataset("solids", 3, 19, preset, tmp_path)
    truth, coco = read_csv(tmp_path / "truth.csv"), json.loads((tmp_path / "labels.coco.json").read_text())
    assert list(truth.columns) == TRUTH_COLUMNS
    assert [c["name"] for c in coco["categories"]] == list(CLASSES)
    named = {c["id"]: c["name"] for c in coco["categories"]}
    visible = truth[truth["visible"]]
    assert [named[a["category_id"]] for a in coco["annotations"]] == list(visible["class"])
    for index, name in enumerate(truth["image"]):
        image = simulate_solids(preset, 19, index)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "images" / name), image.micrograph.pixels)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "thickness_nm" / name), image.maps["thickness_nm"])
