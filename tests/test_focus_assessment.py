"""The focus of one micrograph, with the model that ships for loop images."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from defectpipe.errors import ModelError
from defectpipe.focus.assessment import assess_focus
from defectpipe.focus.model import FocusModel
from defectpipe.focus.structure import has_structure
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.defocused import defocus
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS

FOLDER = Path(__file__).resolve().parents[1] / "models" / "focus-stem"


@pytest.fixture(scope="module")
def model() -> FocusModel:
    return FocusModel.load(FOLDER)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return simulate_field(PRESETS["fecral"], 77).micrograph.grey8()[:768, :640]


def micrograph(pixels: np.ndarray, **known) -> Micrograph:
    # at the model's working size: nothing is reduced
    return Micrograph(pixels, "a.tif", **{"calibration": Calibration(0.2832, "test"), **known})


def test_scores_fall_with_blur_and_say_how_large_it_is(model, grey):
    added = (0.0, 2.0, 4.0, 8.0)
    rng = np.random.default_rng(0)
    found = [assess_focus(micrograph(defocus(grey, sigma, rng)), model) for sigma in added]
    scores = [f.score for f in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 8
    for sigma, one in zip(added[1:], found[1:], strict=True):
        assert one.state == "scored"
        assert one.blur_px == pytest.approx(np.hypot(sigma, 1.0), rel=0.45)
        assert one.blur_nm == pytest.approx(one.blur_px * 0.2832)
        assert 0 < one.score_std < 1.5
    assert found[0].tiles.shape == (3, 2)
    assert found[0].tile_boxes[-1].tolist() == [384, 512, 640, 768]


def test_brightness_contrast_and_depth_do_not_count(model, grey):
    plain = assess_focus(micrograph(grey), model).score
    for pixels in (grey // 2, grey // 3 + 120, grey.astype(np.uint16) * 40 + 900, grey.astype(np.float32) * 1e-3 - 5):
        assert assess_focus(micrograph(pixels), model).score == pytest.approx(plain, abs=0.4)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_constant_image_scores_0(model, level):
    found = assess_focus(micrograph(np.full((300, 400), level, np.uint8)), model)
    assert (found.score, found.state) == (0.0, "cannot_be_judged")
    assert "same value" in found.reason


@pytest.mark.parametrize("smooth_px", [0.0, 1.0])
def test_noise_alone_cannot_be_judged(model, smooth_px):
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(4).normal(0, 1, (520, 640))
    noise = gaussian_filter(noise, smooth_px) if smooth_px else noise
    # with a gradient of the illumination over it
    pixels = 128 + 15 * noise / noise.std() + np.linspace(-20, 20, 640)
    found = assess_focus(micrograph(np.clip(pixels, 0, 255).astype(np.uint8)), model)
    assert (found.score, found.state) == (None, "cannot_be_judged")
    assert np.isnan(found.tiles).all()


def test_periodic_structure_and_sparse_dots_are_structure():
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 4, (256, 256))
    x = np.arange(256)
    assert has_structure(128 + 12 * np.sin(2 * np.pi * x / 9)[None] + noise)
    dots = np.zeros((256, 256))
    dots[rng.integers(8, 248, 12), rng.integers(8, 248, 12)] = 1
    from scipy.ndimage import gaussian_filter

    assert has_structure(128 + 90 * gaussian_filter(dots, 2.0) * 25 + noise)
    assert not has_structure(128 + noise)


def test_another_modality_is_not_calibrated_and_an_unknown_one_is_said(model, grey):
    found = assess_focus(micrograph(grey, modality="SEM"), model)
    assert (found.score, found.state) == (None, "not_calibrated")
    assert "SEM" in found.reason
    assert "does not say" in assess_focus(micrograph(grey), model).reason
    assert assess_focus(micrograph(grey, modality="STEM"), model).reason == ""


def test_what_is_left_out_or_without_data_is_not_looked_at(model, grey):
    holed = grey.astype(np.float32)
    holed[:, :300] = np.nan
    found = assess_focus(micrograph(holed), model)
    assert np.isnan(found.tiles[:, 0]).all()
    assert np.isfinite(found.tiles[:, 1]).all()
    barred = assess_focus(micrograph(grey, left_out=((0, 768, 0, 300),)), model)
    assert np.isnan(barred.tiles[:, 0]).all()
    below = assess_focus(micrograph(grey, rows=(100, 768)), model)
    assert below.tile_boxes[:, 1].min() == 100


def test_pixel_size_reduces_what_is_looked_at_and_its_absence_leaves_px(model, grey):
    twice = np.repeat(np.repeat(grey, 2, 0), 2, 1)
    found = assess_focus(micrograph(twice, calibration=Calibration(0.1416, "test")), model)
    plain = assess_focus(micrograph(grey), model)
    assert found.score == pytest.approx(plain.score, abs=0.05)
    assert found.blur_px == pytest.approx(2 * plain.blur_px, rel=0.05)
    assert found.blur_nm == pytest.approx(plain.blur_nm, rel=0.05)
    assert assess_focus(micrograph(grey, calibration=None), model).blur_nm is None


def test_small_images_cannot_be_judged_and_large_ones_have_a_bounded_number_of_tiles(model, grey):
    small = assess_focus(micrograph(grey[:200, :300]), model)
    assert small.state == "cannot_be_judged"
    assert "smaller than 256 × 256 px" in small.reason
    large = assess_focus(micrograph(np.tile(grey, (4, 5))), model)
    assert large.tiles.size <= 64


def test_a_model_goes_to_another_process_by_its_folder(model, grey):
    sent = pickle.loads(pickle.dumps(model))
    assert assess_focus(micrograph(grey), sent).score == assess_focus(micrograph(grey), model).score


def _copied(tmp_path: Path, **changes) -> Path:
    folder = tmp_path / "focus"
    shutil.copytree(FOLDER, folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "loops"}, "no card of a focus model"),
        ({"backbone": "vgg"}, "backbone"),
        ({"backbone": "resnet-mini"}, "do not belong together"),
        ({"uses_magnification": True}, "do not belong together"),
        ({"patch_shape_px": [256, 1e9]}, "patch_shape_px"),
        ({"score_scale": {"perfect_px": 3.0, "lost_px": 2.0}}, "not below"),
        ({"score_scale": {"sigma": 3.0}}, "score_scale"),
        ({"error_std": float("nan")}, "error_std"),
        ({"modality": ["STEM"]}, "modality"),
    ],
)
def test_cards_that_a_run_cannot_use_are_refused(tmp_path, changes, said):
    with pytest.raises(ModelError, match=said):
        FocusModel.load(_copied(tmp_path, **changes))


def test_a_changed_network_is_refused(tmp_path):
    folder = _copied(tmp_path)
    data = bytearray((folder / "network.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "network.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="not the file that"):
        FocusModel.load(folder)


def test_the_scale_of_sem_models_takes_pixel_size_before_magnification(model):
    from dataclasses import asdict, replace

    from defectpipe.focus_scale import FocusScale, focus_limits, pixel_size_nm

    sem = replace(model, card=model.card | {"uses_magnification": True, "score_scale": asdict(FocusScale())})
    assert sem.magnification_of(2000.0, pixel_size_nm(5000.0)) == (pytest.approx(5000.0), "")
    assert sem.magnification_of(2000.0, None) == (2000.0, "")
    assert "neither" in sem.magnification_of(None, None)[1]
    assert "beyond" in sem.magnification_of(None, 0.3)[1]
    assert sem.limits(2000.0) == focus_limits(2000.0)
    assert sem.blur_px(10.0, 2000.0) == pytest.approx(focus_limits(2000.0).perfect_px)
    assert sem.blur_px(0.2, 2000.0) is None
