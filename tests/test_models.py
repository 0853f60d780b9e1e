"""The models that ship: whole, matching their cards, and the same in Keras and in ONNX."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from defectpipe.model import WEIGHTS, LoopModel

MODELS = Path(__file__).resolve().parents[1] / "models"
SHIPPED = sorted(card.parent.name for card in MODELS.glob("*/card.json"))


def test_the_default_model_ships() -> None:
    assert "fecral-loops" in SHIPPED
    total = sum(file.stat().st_size for name in SHIPPED for file in (MODELS / name).rglob("*") if file.is_file())
    assert total < 20 * 2**20


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_whole_and_tells_its_source(name: str) -> None:
    model = LoopModel.load(MODELS / name)
    assert model.name == name
    assert len(model.cascade.stages) > 1
    for key in ("source", "licence"):
        assert model.card["data"][key] not in ("", "not stated")
    chosen = model.card["held_out"]["threshold_by_fold"].values()
    assert min(chosen) <= model.threshold <= max(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
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
