"""The models that ship: whole, matching their cards, and the same in Keras and in ONNX."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectpipe.focus.backbones import find_backbone, prepare
from defectpipe.focus.model import WEIGHTS as FOCUS_WEIGHTS
from defectpipe.focus.model import FocusModel
from defectpipe.model import WEIGHTS, LoopModel

MODELS = Path(__file__).resolve().parents[1] / "models"
# The card of a loop model states no kind.
KINDS = {
    card.parent.name: json.loads(card.read_text(encoding="utf-8")).get("kind") for card in MODELS.glob("*/card.json")
}
LOOPS, FOCUS = (sorted(name for name, kind in KINDS.items() if kind == of) for of in (None, "focus"))


def test_the_default_model_ships() -> None:
    assert "fecral-loops" in LOOPS
    assert len(LOOPS) + len(FOCUS) == len(KINDS)
    total = sum(file.stat().st_size for name in KINDS for file in (MODELS / name).rglob("*") if file.is_file())
    assert total < 20 * 2**20


@pytest.mark.parametrize("name", LOOPS)
def test_a_shipped_model_is_whole_and_tells_its_source(name: str) -> None:
    model = LoopModel.load(MODELS / name)
    assert model.name == name
    assert len(model.cascade.stages) > 1
    for key in ("source", "licence"):
        assert model.card["data"][key] not in ("", "not stated")
    chosen = model.card["held_out"]["threshold_by_fold"].values()
    assert min(chosen) <= model.threshold <= max(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_the_shipped_weights_say_what_the_shipped_onnx_says(name: str) -> None:
    from defectpipe.screening.network import build_network

    model = LoopModel.load(MODELS / name)
    crops = np.random.default_rng(0).normal(0, 0.6, (70, model.seen.crop_px, model.seen.crop_px, 1)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = build_network(model.seen)
        network.load_weights(model.path / WEIGHTS)
        keras_says = network.predict_on_batch(crops)
    np.testing.assert_allclose(model.network(crops), keras_says, atol=2e-5)


@pytest.mark.parametrize("name", FOCUS)
def test_a_shipped_focus_model_is_whole_and_tells_its_source(name: str) -> None:
    model = FocusModel.load(MODELS / name)
    assert model.name == name
    for key in ("source", "licence"):
        assert model.card["data"][key] not in ("", "not stated")
    assert model.error_std > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FOCUS)
def test_the_shipped_focus_weights_say_what_the_shipped_onnx_says(name: str) -> None:
    model = FocusModel.load(MODELS / name)
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 20, (12, *model.patch_px)).astype(np.float32)
    patches = np.array([cv2.GaussianBlur(patch, (0, 0), 0.5 + 0.4 * i) for i, patch in enumerate(noise)])
    told = 5000.0 if model.uses_magnification else None
    inputs = prepare(model.card["backbone"], patches, None if told is None else np.full(len(patches), told))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = find_backbone(model.card["backbone"]).build(model.patch_px, model.uses_magnification)
        network.load_weights(model.path / FOCUS_WEIGHTS)
        values = list(inputs.values())
        keras_says = network.predict_on_batch(values if len(values) > 1 else values[0])[:, 0]
    scores = model.scores(patches, told)
    np.testing.assert_allclose(scores, np.clip(keras_says, 0, 10), atol=1e-3)
    assert np.ptp(scores) > 1


def test_the_readme_quotes_the_card() -> None:
    held_out = json.loads((MODELS / "fecral-loops" / "card.json").read_text(encoding="utf-8"))["held_out"]
    readme = (MODELS.parent / "README.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in readme.splitlines() if line.startswith("| ")}
    chain = held_out["chain"]
    for start, value in (
        ("whole chain, recall", chain["li2018"]["recall"]),
        ("whole chain, precision", chain["li2018"]["precision"]),
        ("F1, one-to-one", chain["iou_0.4"]["f1"]),
        ("cascade alone, recall at 140", held_out["cascade"][0]["recall_20px"]),
    ):
        [cell] = [cell for name, cell in rows.items() if name.startswith(start)]
        assert float(cell.split()[0]) == pytest.approx(value, abs=5.1e-4)
