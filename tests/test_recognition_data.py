"""The simulated sets of recognition: shards, maps of truth, answers, held-out classes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage

from defectpipe.errors import SettingsError
from defectpipe.recognition.views import VIEW_PX
from defectpipe.simulation.solids.fields import simulate_solids, simulate_views
from defectpipe.simulation.solids.rays import BODIES, CLASSES
from defectpipe.training import recognition_data, recognition_sets
from defectpipe.training.recognition_data import COLUMNS, instance_map, read_images, simulate_images, write_images
from defectpipe.training.recognition_sets import SETS, UNSEEN, VIEWS, SetPlan
from defectpipe.training.recognition_targets import BALL, DEFORMED, layout_of, targets_of

FEW = SetPlan(dataclasses.replace(VIEWS, shape=(40, 48), classes=("torus", "cuboid", "cube")), 7, 2, 5)
FIELDS = SetPlan(
    dataclasses.replace(VIEWS, shape=(96, 112), n_objects=(0, 4), whole=False, size_share=(0.2, 0.4)), 8, 1, 5
)


@pytest.fixture(scope="module")
def few():
    return simulate_images(FEW, 0, FEW.n_scenes)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(recognition_data.SETS, "few", FEW)
    monkeypatch.setattr(recognition_data, "_IMAGES_A_SHARD", 3)  # of 64 px: 6 of ours, 3 scenes


def test_no_body_is_in_two_sets_and_unseen_classes_are_in_none_of_the_others():
    assert len({plan.seed for plan in SETS.values()}) == len(SETS)
    assert len(UNSEEN) == 5
    assert not set(UNSEEN) & set(CLASSES)
    for name, plan in SETS.items():
        assert set(plan.preset.classes) == set(UNSEEN if name.startswith("unseen") else CLASSES)
        low, high = plan.preset.dose_per_px
        assert low == 30
        assert high == (30 if name == "views-test-dose-30" else 30_000)
        if plan.one_body and plan.n_views > 1:
            assert plan.preset.shape == (VIEW_PX, VIEW_PX)
        assert plan.n_scenes % len(plan.preset.classes) == 0 or not plan.one_body
    assert recognition_sets.VIEW_PX == VIEW_PX


def test_views_are_those_of_the_simulator_with_their_truth(few):
    assert few.pixels.shape == few.instances.shape == few.thickness_nm.shape == (14, 40, 48)
    assert few.classes == ("cube", "cuboid", "torus")
    for i in range(14):
        view = simulate_views(FEW.preset, FEW.seed, i // 2, 2)[i % 2]
        np.testing.assert_array_equal(few.pixels[i], view.micrograph.pixels)
        np.testing.assert_allclose(few.thickness_nm[i], view.maps["thickness_nm"], rtol=1e-3, atol=0.05)
        assert few.classes[few.class_index[i]] == BODIES[few.label[i]] == view.truth["class"][0]
        for name in ("volume_nm3", "dose_per_px", "x_px", "deformed"):
            assert few.column(name)[i] == view.truth[name][0]
        for name in ("gain", "scan_distortion", "drift_x_px"):
            assert few.column(name)[i] == getattr(view.acquisition, name)
    np.testing.assert_array_equal(few.image_index, np.arange(14))


def test_the_instance_map_has_the_silhouettes_area_and_the_holes():
    for index in range(12):
        image = simulate_solids(dataclasses.replace(VIEWS, shape=(120, 132), scan_distortion=(0, 0)), 3, index)
        inside = instance_map(image) == 1
        row = image.truth.iloc[0]
        if not row.deformed and not row.on_edge:
            area = inside.sum() * row.pixel_size_nm**2
            assert area == pytest.approx(row.projected_area_nm2, rel=0.06), row["class"]
        assert (image.maps["thickness_nm"][inside] > 0).all()
    open_ones = 0
    for index in range(4):  # some are seen edge on
        torus = simulate_solids(dataclasses.replace(VIEWS, classes=("torus",), shape=(80, 90)), 1, index)
        background = instance_map(torus) == 0
        parts = ndimage.label(background)[0]
        open_ones += np.unique(parts[background]).size >= 2
    assert open_ones >= 2


def test_fields_number_their_bodies_and_may_be_empty():
    images = simulate_images(FIELDS, 0, 8)
    counts = np.bincount(images.image_index, minlength=8)
    assert counts.min() == 0
    assert counts.max() >= 2
    for i in range(8):
        assert images.instances[i].max() <= counts[i]
        rows = np.flatnonzero(images.image_index == i)
        for number, row in enumerate(rows, 1):
            y, x = np.nonzero(images.instances[i] == number)
            if len(x) > 30 and not images.column("on_edge")[row]:
                where = (images.column("x_px")[row], images.column("y_px")[row])
                assert np.hypot(x.mean() - where[0], y.mean() - where[1]) < 6


def test_shards_are_kept_read_in_part_and_made_again_where_damaged(few, small, tmp_path):
    manifest = json.loads(write_images("few", tmp_path).read_text())
    shards = sorted((tmp_path / "few").glob("*.npz"))
    assert len(shards) == 3
    assert manifest["plan_sha256"] == FEW.sha256()
    assert manifest["columns"] == list(COLUMNS)
    for images, n in ((read_images("few", tmp_path), 14), (read_images("few", tmp_path, 4), 8)):
        np.testing.assert_array_equal(images.pixels, few.pixels[:n])
        np.testing.assert_array_equal(images.truth, few.truth[:n])
        np.testing.assert_array_equal(images.image_index, few.image_index[:n])
        np.testing.assert_array_equal(images.instances, few.instances[:n])
    assert read_images("few", tmp_path, maps=False).instances.size == 0
    before = shards[0].stat().st_mtime_ns
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    shards[2].unlink()
    with pytest.raises(SettingsError, match="holds"):
        read_images("few", tmp_path / "nowhere")
    said = []
    again = json.loads(write_images("few", tmp_path, progress=lambda *a: said.append(a)).read_text())
    assert again == manifest
    assert said == [(1, 3), (2, 3), (3, 3)]
    assert shards[0].stat().st_mtime_ns == before
    part = json.loads(write_images("few", tmp_path / "part", 2).read_text())
    assert part["n_scenes"] == 3
    assert part["shards"] == {"0000.npz": manifest["shards"]["0000.npz"]}


def test_shards_of_other_settings_are_refused_by_the_reader(small, monkeypatch, tmp_path):
    write_images("few", tmp_path)
    monkeypatch.setitem(recognition_data.SETS, "few", dataclasses.replace(FEW, seed=6))
    with pytest.raises(SettingsError, match="other settings"):
        read_images("few", tmp_path)
    with pytest.raises(SettingsError, match="no set 'many'"):
        read_images("many", tmp_path)


def test_answers_are_logarithms_in_px_and_leave_out_what_a_class_has_not(few):
    layout = layout_of(few.classes)
    assert layout.deformations == DEFORMED
    assert "helix.hand" not in layout_of(CLASSES).dimensions
    targets = targets_of(few, layout)
    place = {name: i for i, name in enumerate(layout.dimensions)}
    for i in range(14):
        label = few.classes[targets["label"][i]]
        size = few.column("pixel_size_nm")[i]
        values = np.exp(targets["dimensions"][i]) * size
        assert values[place[BALL]] ** 3 * np.pi / 6 == pytest.approx(few.column("volume_nm3")[i], rel=1e-4)
        known = {name for name, value in zip(layout.dimensions, values, strict=True) if np.isfinite(value)}
        assert known == {BALL} | {name for name in layout.dimensions if name.startswith(f"{label}.")}
        if label == "cuboid":
            sides = values[[place[f"cuboid.{name}_nm"] for name in ("length", "width", "height")]]
            assert (np.diff(sides) <= 0).all()
            truth = [few.column(f"{name}_nm")[i] for name in ("length", "width", "height")]
            np.testing.assert_allclose(sorted(sides), sorted(truth), rtol=1e-5)
        assert targets["deformations"][i, 0] == few.column("deformed")[i]
        assert targets["deformations"][i, 0] == targets["deformations"][i, 1:].max()
