"""Simulated data sets: truth against pixels, files, and the same bytes for the same seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from defectpipe.boxes import ellipse_bounds, touches_border
from defectpipe.errors import SettingsError
from defectpipe.io.labels import read_label_folder
from defectpipe.io.tables import LABEL_COLUMNS, read_csv
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.kinds import find_preset
from defectpipe.simulation.loops.fields import TRUTH_COLUMNS, simulate_field
from defectpipe.simulation.loops.loop import HALF_WIDTH
from defectpipe.simulation.loops.presets import PRESETS, Condition, LoopPreset

SMALL = dataclasses.replace(
    PRESETS["demo"],
    name="small",
    shape=(160, 230),
    conditions=(Condition("low", (5, 7), 11.0), Condition("high", (7, 9), 13.0, bits=16)),
)
CLEAR = dataclasses.replace(
    SMALL,
    dose_per_px=(1e6, 1e6),
    unevenness=(0.0, 0.0),
    overlap=0.0,
    lobes=(0.0, 0.0),
    rim_share=(0.07, 0.07),
    interior=(0.0, 0.1),
    halo=(0.0, 0.0),
    probe_sigma_px=(0.3, 0.3),
    lines_per_megapixel=(0.0, 0.0),
    pale_rings_per_megapixel=(0.0, 0.0),
    black_dots_per_megapixel=(0.0, 0.0),
    acquisition=dataclasses.replace(SMALL.acquisition, detector_rms=0.0, line_rms=0.0, scan_distortion=0.02),
)


def folder_hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("set")
    simulate_dataset("loops", 4, 5, SMALL, place)
    return place


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    simulate_dataset("loops", 4, 5, SMALL, tmp_path / "again")
    simulate_dataset("loops", 4, 6, SMALL, tmp_path / "other")
    assert folder_hashes(tmp_path / "again") == folder_hashes(folder)
    images = {h for name, h in folder_hashes(folder).items() if name.endswith(".tif")}
    assert len(images) == 4
    assert not images & set(folder_hashes(tmp_path / "other").values())


def test_several_processes_write_the_same_bytes(folder, tmp_path):
    seen = []
    simulate_dataset("loops", 4, 5, SMALL, tmp_path, lambda done, total: seen.append((done, total)), n_jobs=2)
    assert folder_hashes(tmp_path) == folder_hashes(folder)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_larger_set_begins_with_a_smaller_one(folder, tmp_path):
    simulate_dataset("loops", 2, 5, SMALL, tmp_path)
    images = {n: h for n, h in folder_hashes(tmp_path).items() if n.startswith("images/")}
    assert len(images) == 2
    assert images.items() <= folder_hashes(folder).items()


def test_images_are_calibrated_imagej_tiffs(folder):
    names = sorted(p.name for p in (folder / "images").iterdir())
    assert names == ["high_field-001.tif", "high_field-002.tif", "low_field-001.tif", "low_field-002.tif"]
    for name in names:
        with tifffile.TiffFile(folder / "images" / name) as tiff:
            assert tiff.pages[0].shape == (160, 230)
            assert tiff.pages[0].dtype == (np.uint16 if name.startswith("high") else np.uint8)
            assert tiff.imagej_metadata["unit"] == "nm"
            for tag in ("XResolution", "YResolution"):
                count, per = tiff.pages[0].tags[tag].value
                assert per / count == pytest.approx(0.4, rel=1e-6)


def test_truth_coco_and_manifest_agree(folder):
    truth, coco = read_csv(folder / "truth.csv"), json.loads((folder / "labels.coco.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(truth.columns) == TRUTH_COLUMNS
    assert set(truth["class"]) <= {"open", "closed", "edge_on", "black_dot"}
    assert [c["name"] for c in coco["categories"]] == ["open"]
    np.testing.assert_allclose(truth["diameter_nm"], 0.4 * truth["diameter_px"], rtol=1e-3)
    for image, entry in zip(coco["images"], manifest["images"], strict=True):
        assert image["file_name"] == entry["image"]
        assert (image["width"], image["height"]) == (230, 160)
        data = (folder / "images" / entry["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        rows = truth[(truth["image"] == entry["image"]) & (truth["class"] == "open") & truth["visible"]]
        labels = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert len(labels) == len(rows) == entry["n_labels"] > 0
        for label, row in zip(labels, rows.itertuples(), strict=True):
            x, y, w, h = label["bbox"]
            assert min(x, y) >= 0
            assert x + w <= 230.01
            assert y + h <= 160.01
            if not row.on_edge:  # half a px from the corner of a pixel to its centre
                expected = [row.x0_px, row.y0_px, row.x1_px, row.y1_px]
                np.testing.assert_allclose([x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5], expected, atol=0.02)
                assert label["area"] == pytest.approx(np.pi / 4 * row.diameter_px * row.minor_px, rel=0.01)
    assert manifest["settings_sha256"] == SMALL.sha256()
    assert (manifest["n"], manifest["seed"], manifest["preset"]) == (4, 5, "small")


def test_truth_is_where_the_pixels_are_dark():
    errors = []
    for index in range(5):
        field = simulate_field(CLEAR, 8, index)
        pixels = field.micrograph.pixels.astype(float)
        paper = np.median(pixels)
        for row in field.truth[(field.truth["class"] == "open") & ~field.truth["on_edge"]].itertuples():
            box = np.array([row.x0_px, row.y0_px, row.x1_px, row.y1_px])
            if touches_border(box[None], pixels.shape, margin_px=8)[0]:
                continue  # the outer half of its rim may be cut
            left, top = np.maximum(np.floor(box[:2]).astype(int) - 6, 0)
            part = pixels[top : round(box[3]) + 7, left : round(box[2]) + 7]
            # half of the rim's attenuation is the geometric mean of its grey value and the background's
            dark = part < np.sqrt(np.percentile(part, 3) * paper)
            rim = ndimage.binary_fill_holes(ndimage.binary_closing(dark, iterations=3))  # uneven rims have gaps
            largest = ndimage.label(rim)[0]
            largest = largest == np.bincount(largest[largest > 0]).argmax()
            rows, columns = np.nonzero(largest)
            # the last px inside lies half a px within the contour on average
            seen = np.array([columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5])
            seen += [left, top, left, top]
            # that contour lies half the rim's width at half maximum outside the ridge, which the truth bounds
            half = HALF_WIDTH * min(0.07 * row.diameter_px, 0.12 * row.minor_px, 3.5)
            errors.append(seen - box - np.array([-half, -half, half, half]))
            assert pixels[round(row.y_px), round(row.x_px)] > 0.9 * paper
    assert len(errors) >= 10
    # uneven rims and whole px make single edges uncertain; together they must not be off
    assert np.abs(errors).max() <= 2.0
    np.testing.assert_allclose(np.mean(errors, 0), 0, atol=0.3)


def test_boxes_bound_the_ellipses_and_mark_the_border():
    truth = simulate_field(SMALL, 3, 1).truth
    boxes = truth[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy()
    rounds = truth["class"] != "edge_on"  # of thin rods the torn lines of the scan move the box more than the moments
    ellipses = ellipse_bounds(*(truth[n].to_numpy() for n in ("x_px", "y_px", "diameter_px", "minor_px", "angle_deg")))
    np.testing.assert_allclose(boxes[rounds], ellipses[rounds], atol=0.8)
    np.testing.assert_array_equal(truth["on_edge"], touches_border(boxes, (160, 230)))
    assert truth["on_edge"].any()


def test_labels_are_the_visible_loops_of_the_labelled_class():
    field = simulate_field(SMALL, 3, 1)
    labels = field.labels
    assert list(labels.columns) == LABEL_COLUMNS
    assert len(labels) == field.labelled.sum() > 0
    assert set(labels["label"]) == {"open"}
    assert (labels[["x0_px", "y0_px"]] >= -0.5).all(axis=None)
    assert labels["x1_px"].max() <= 229.5
    assert labels["y1_px"].max() <= 159.5


def test_the_coco_file_reads_back_as_the_truth(folder):
    shape = (160, 230)
    fields = [simulate_field(SMALL, 5, index) for index in range(4)]
    names = [field.micrograph.image for field in fields]
    read = read_label_folder(folder / "labels.coco.json", [(name, shape) for name in names])
    assert not read.errors
    assert not read.unlabelled_images
    columns = ["x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "diameter_px", "minor_px"]
    for field in fields:
        labels = read.experts["labels"][field.micrograph.image]
        whole = ~touches_border(labels[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(), shape)
        assert whole.any()
        np.testing.assert_allclose(labels[columns][whole], field.labels[columns][whole], atol=0.05)
        assert (labels["label"] == "open").all()


def test_what_the_noise_hides_is_not_labelled():
    noisy = dataclasses.replace(SMALL, dose_per_px=(3.0, 3.0), attenuation=(0.05, 0.1))
    field = simulate_field(noisy, 3, 1)
    assert (field.truth["class"] == "open").sum() >= 5
    assert field.labels.empty
    assert list(field.labels.columns) == LABEL_COLUMNS
    clearer = simulate_field(SMALL, 3, 1).truth["cnr"].median()
    assert field.truth["cnr"].median() < 0.2 * clearer


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_make_what_they_say(name):
    preset = PRESETS[name]
    field = simulate_field(preset, 0, 0)
    assert field.micrograph.shape == preset.shape
    assert field.micrograph.pixel_size_nm in preset.pixel_size_nm
    assert len(field.labels) >= 0.5 * preset.conditions[0].n_labelled[0]
    limits = preset.diameter_limits_px
    assert field.labels["diameter_px"].between(0.9 * limits[0], 1.1 * limits[1]).all()


def test_progress_counts_up(tmp_path):
    seen = []
    tiny = dataclasses.replace(SMALL, shape=(64, 96), conditions=(Condition("one", (1, 2), 9.0),))
    manifest = simulate_dataset(
        "loops", 3, 0, tiny, tmp_path / "new" / "place", lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert manifest == tmp_path / "new" / "place" / "manifest.json"


def test_a_set_that_was_cut_short_has_no_manifest(folder, tmp_path):
    simulate_dataset("loops", 2, 5, SMALL, tmp_path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_dataset("loops", 4, 5, SMALL, tmp_path, stop)
    assert not (tmp_path / "manifest.json").exists()
    simulate_dataset("loops", 4, 5, SMALL, tmp_path)
    assert folder_hashes(tmp_path) == folder_hashes(folder)


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="no preset 'demoo' of simulated loops; known: demo, fecral, 316l"):
        simulate_dataset("loops", 2, 0, "demoo", tmp_path)
    with pytest.raises(SettingsError, match="n=0"):
        simulate_dataset("loops", 0, 0, "demo", tmp_path)
    with pytest.raises(SettingsError, match="seed=-1"):
        simulate_dataset("loops", 1, -1, "demo", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_changed_setting_changes_the_hash():
    assert find_preset("loops", "demo") is PRESETS["demo"]
    changed: LoopPreset = dataclasses.replace(PRESETS["demo"], halo=(0.0, 0.2))
    assert find_preset("loops", changed).sha256() != PRESETS["demo"].sha256()
    assert len({p.sha256() for p in PRESETS.values()}) == len(PRESETS)
