"""The models that ship: whole, matching their cards, and the same in Keras and in ONNX."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectpipe.focus.backbones import find_backbone, prepare
from defectpipe.focus.model import WEIGHTS as FOCUS_WEIGHTS
from defectpipe.focus.model import FocusModel
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.tables import read_parquet
from defectpipe.model import WEIGHTS, LoopModel
from defectpipe.recognition.backbones import features_of, load_backbone
from defectpipe.recognition.model import TRUNK, SolidModel
from defectpipe.recognition.views import VIEW_PX, turned
from defectpipe.simulation.solids.fields import simulate_views
from defectpipe.training.image_list import IMAGE_LIST
from defectpipe.training.loop_model import HELD_OUT_FOLDER
from defectpipe.training.model_before import seen_before
from defectpipe.training.recognition_sets import VIEWS
from defectpipe.training.workspace import store_images

MODELS = Path(__file__).resolve().parents[1] / "models"
# The card of a loop model states no kind.
KINDS = {
    card.parent.name: json.loads(card.read_text(encoding="utf-8")).get("kind") for card in MODELS.glob("*/card.json")
}
LOOPS, FOCUS, SOLIDS = (sorted(name for name, kind in KINDS.items() if kind == of) for of in (None, "focus", "solids"))


def test_the_default_model_ships() -> None:
    assert "fecral-loops" in LOOPS
    assert len(LOOPS) + len(FOCUS) + len(SOLIDS) == len(KINDS)
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
        network = build_network(model.seen, model.classes.n_logits)
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


@pytest.mark.parametrize("name", SOLIDS)
def test_a_shipped_model_of_solids_is_whole_and_knows_a_sphere(name: str) -> None:
    model = SolidModel.load(MODELS / name)
    assert model.name == name
    assert sum(file.stat().st_size for file in model.path.iterdir()) < 10e6
    for key in ("source", "licence"):
        assert model.card["data"][key] not in ("", "not stated")
    views = simulate_views(VIEWS, 70_707, VIEWS.classes.index("sphere"), 3)
    verdict = model.judge(model.answers(np.stack([view.micrograph.grey8() for view in views])))
    assert verdict.label == views[0].truth["class"][0] == "sphere"


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLIDS)
def test_the_shipped_trunk_says_what_the_shipped_recogniser_says(name: str) -> None:
    model = SolidModel.load(MODELS / name)
    views = np.random.default_rng(0).integers(0, 255, (6, VIEW_PX, VIEW_PX)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk = load_backbone("ours", "builtin", builtin=(model.path / TRUNK).read_bytes())
        features = np.mean([features_of(trunk, "ours", turned(views, way)) for way in range(8)], 0)
    np.testing.assert_allclose(model.answers(views)[:, model.layout.slices["features"]], features, atol=1e-3)


def test_the_default_model_lists_the_images_that_it_was_trained_on() -> None:
    folder = MODELS / "fecral-loops"
    listed, card = read_parquet(folder / IMAGE_LIST), json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert list(listed.columns) == ["image", "group", "fold", "pixels_sha256"]
    assert len(listed) == listed["image"].nunique() == card["data"]["n_images"]
    assert {str(fold): n for fold, n in listed["fold"].value_counts().items()} == card["folds"]
    assert listed["group"].nunique() == card["data"]["n_groups"]
    assert listed["pixels_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    found = read_parquet(folder / HELD_OUT_FOLDER / "loops.parquet")[["image", "fold"]].drop_duplicates()
    assert found.merge(listed, on=["image", "fold"]).shape[0] == len(found) > 200


@pytest.mark.real
def test_the_default_model_knows_its_images_again(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "fecral-loops" / "images"
    listed = read_parquet(MODELS / "fecral-loops" / IMAGE_LIST)
    chosen = listed["image"].iloc[::80].tolist()
    frames = [read_micrographs(file, image=file.image)[0] for file in list_images(folder) if file.image in chosen]
    assert len(frames) == len(chosen) > 2
    stored = store_images(tmp_path, [(m, np.zeros((0, 4)), 0) for m in frames])
    renamed = [dataclasses.replace(image, image=f"other-{k}.png") for k, image in enumerate(stored)]
    np.save(renamed[0].pixels, 255 - np.load(renamed[0].pixels))
    assert seen_before(MODELS / "fecral-loops", renamed) == {image.image for image in renamed[1:]}


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


def test_the_readme_quotes_the_card_of_solids() -> None:
    views = json.loads((MODELS / "solids" / "card.json").read_text(encoding="utf-8"))["figures"]["views"]
    readme = (MODELS.parent / "README.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in readme.splitlines() if line.startswith("| ")}
    for title, figures in (
        ("class among twelve, random orientations", views["random orientations"]["learned fusion"]["classes"]),
        ("among twelve, dose of 30 electrons a px", views["dose 30"]["learned fusion"]["classes"]),
        ("among twelve, tilt series within ±70°", views["tilt series"]["learned fusion"]["classes"]),
    ):
        for cell, n in zip(rows[title], ("1", "3", "8"), strict=True):
            assert float(cell) == pytest.approx(100 * figures[n]["accuracy"], abs=0.051)
