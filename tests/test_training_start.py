"""Trainings that start from a model: what is taken over, what is not, and which images can still be judged."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from defectpipe.errors import LabelError, ModelError, SettingsError
from defectpipe.io.tables import read_parquet
from defectpipe.micrograph import Micrograph
from defectpipe.model import CASCADE, WEIGHTS, LoopModel, find_model
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe, build_network
from defectpipe.screening.start import StartWeights
from defectpipe.settings import Settings
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.training import TrainingImage, TrainingRecipe, train_loop_model
from defectpipe.training.image_list import IMAGE_LIST, NO_FOLD, pixel_sha256, pixels_known_to, write_image_list
from defectpipe.training.model_before import ModelBefore
from defectpipe.training.part import scan_recipe, working_copy
from defectpipe.training.start import StartModel, folds_without_known, recipe_from, started_from, whole_recipe
from defectpipe.training.workspace import PartJob, fingerprint, store_images

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn.t accept:DeprecationWarning")
SHAPE = (30, 40)
SMALL = ScreenerRecipe(crop_px=24, widths=(8, 12, 16), hidden=16, dropout=0.1)


def image(grey: int, name: str = "a.tif") -> Micrograph:
    return Micrograph(np.full(SHAPE, grey, np.uint8), name)


def copied(place: Path, name: str = "316l-loops", **changes: object) -> StartModel:
    """A shipped model in another folder, with other entries of its card."""
    folder = place / name
    shutil.copytree(find_model(name), folder)
    card = json.loads((folder / "card.json").read_text()) | changes
    (folder / "card.json").write_text(json.dumps(card))
    return StartModel.find(str(folder))


def answers(network, crops: np.ndarray) -> np.ndarray:
    return np.asarray(network(crops, training=False))


def with_weights(place: Path, n_classes: int = 0) -> tuple[object, bytes]:
    """A network whose every weight is its own, and the file of them."""
    network = build_network(SMALL, n_classes)
    rng = np.random.default_rng(3)
    network.set_weights([np.abs(rng.normal(0, 0.3, w.shape)).astype(np.float32) for w in network.get_weights()])
    path = place / f"{n_classes}.weights.h5"
    network.save_weights(path)
    return network, path.read_bytes()


def test_a_screener_begins_with_all_weights_of_another(tmp_path: Path) -> None:
    before, content = with_weights(tmp_path, 3)
    crops = np.random.default_rng(0).normal(size=(4, 24, 24, 1)).astype(np.float32)
    network = build_network(SMALL, 3)
    StartWeights(content, "here", 3).give(network, SMALL)
    # Moving averages of the normalisation as well.
    np.testing.assert_array_equal(answers(network, crops), answers(before, crops))


@pytest.mark.parametrize(("n_before", "n_after"), [(3, 3), (3, 2), (0, 2), (3, 0)])
def test_other_classes_start_anew_and_loop_and_box_do_not(tmp_path: Path, n_before: int, n_after: int) -> None:
    before, content = with_weights(tmp_path, n_before)
    crops = np.random.default_rng(0).normal(size=(4, 24, 24, 1)).astype(np.float32)
    network = build_network(SMALL, n_after)
    fresh = network.layers[-1].get_weights()[0][:, LOGIT_AND_BOX:]
    StartWeights(content, "here", n_before, same_classes=False).give(network, SMALL)
    of_loops = slice(0, LOGIT_AND_BOX)
    np.testing.assert_allclose(answers(network, crops)[:, of_loops], answers(before, crops)[:, of_loops], rtol=1e-5)
    np.testing.assert_array_equal(network.layers[-1].get_weights()[0][:, LOGIT_AND_BOX:], fresh)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    _, content = with_weights(tmp_path)
    wide = dataclasses.replace(SMALL, widths=(8, 12, 24))
    with pytest.raises(ModelError, match="here: no weights of a screener"):
        StartWeights(content, "here").give(build_network(wide), wide)
    with pytest.raises(ModelError, match="here: no weights of a screener"):
        StartWeights(b"no HDF5", "here").give(build_network(SMALL), SMALL)


def test_weights_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    _, content = with_weights(tmp_path)
    path = tmp_path / "linked.h5"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        name = next(iter(file))
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "0.weights.h5"), name)
    with pytest.raises(ModelError, match="points to another file"):
        StartWeights(path.read_bytes(), "here").give(build_network(SMALL), SMALL)


def test_the_default_recipe_is_that_of_the_start(tmp_path: Path) -> None:
    model = LoopModel.load(find_model("fecral-loops"))
    recipe = recipe_from(model)
    assert (recipe.box_convention, recipe.polarity, recipe.max_candidates_per_megapixel) == ("padded", "dark", 400)
    assert (recipe.screener, recipe.screening, recipe.train_cascade) == (model.seen, model.screening, False)
    scratch = TrainingRecipe().screener_training
    assert recipe.screener_training.n_steps < scratch.n_steps
    assert recipe.screener_training.peak_learning_rate < scratch.peak_learning_rate
    path = tmp_path / "recipe.json"
    path.write_text('{"n_folds": 3, "screener_training": {"n_steps": 7}}')
    changed = whole_recipe(path, model)
    assert (changed.n_folds, changed.screener_training.n_steps, changed.box_convention) == (3, 7, "padded")
    for text, said in (
        ('{"screener": {"hidden": 20}}', "the screener is that of 'fecral-loops'"),
        ('{"box_convention": "tight"}', "train_cascade"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=said):
            whole_recipe(path, model)
    path.write_text('{"box_convention": "tight", "train_cascade": true}')
    assert whole_recipe(path, model).box_convention == "tight"
    path.write_text('{"train_cascade": false}')
    with pytest.raises(SettingsError, match="starts from a model"):
        whole_recipe(path, None)


def test_images_that_the_start_knows_and_their_groups_are_in_no_fold(tmp_path: Path) -> None:
    start = copied(tmp_path)
    write_image_list(start.path, [("old.tif", "x", image(7))], [0])
    pixels = [pixel_sha256(image(grey).grey8()) for grey in (7, 8, 9, 10, 11)]
    groups = ["a", "a", "b", "c", "d"]
    folds, known = folds_without_known(groups, [5] * 5, [None] * 5, 3, pixels, start)
    assert known == 1
    assert folds[:2] == [NO_FOLD, NO_FOLD]
    assert sorted(folds[2:]) == [0, 1, 2]
    said = started_from(start, recipe_from(start.load()), known, folds.count(NO_FOLD))
    assert (said["known_images"], said["images_in_no_figure"], said["cascade"]) == (1, 2, "kept")
    assert (said["licence"], said["sha256"]) == ("MIT", start.sha256)
    assert "in no figure" in said["said"]
    assert "cascade" not in said["said"]
    for own, recall, warned in ((False, 0.36, True), (True, 0.36, False), (False, 0.97, False)):
        recipe = dataclasses.replace(recipe_from(start.load()), train_cascade=own)
        assert ("only 36% of the labelled loops" in started_from(start, recipe, 0, 0, recall)["said"]) == warned
    # Given folds stay.
    assert folds_without_known(groups, [5] * 5, [0, 0, 4, 4, 9], 3, pixels, start)[0] == [-1, -1, 0, 0, 1]
    with pytest.raises(LabelError, match="trained on 1 of these 3 images; groups without any of them: 1"):
        folds_without_known(groups[:3], [5] * 3, [None] * 3, 3, pixels[:3], start)
    assert folds_without_known(groups, [5] * 5, [None] * 5, 2)[1] is None


def test_a_start_without_a_list_may_have_seen_anything(tmp_path: Path) -> None:
    start = copied(tmp_path)
    (start.path / IMAGE_LIST).unlink()
    pixels = [pixel_sha256(image(grey).grey8()) for grey in (7, 8)]
    folds, known = folds_without_known(["a", "b"], [5, 5], [None, None], 5, pixels, start)
    assert (sorted(folds), known) == ([0, 1], None)
    assert "if some of these are among them" in started_from(start, TrainingRecipe(), known, 0)["said"]


def test_the_list_of_a_model_holds_the_images_of_its_start(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_image_list(old, [("a.tif", "x", image(7)), ("b.tif", "y", image(8))], [0, 1])
    write_image_list(new, [("c.tif", "z", image(9)), ("d.tif", "y", image(8))], [1, NO_FOLD], old)
    table = read_parquet(new / IMAGE_LIST)
    assert table["image"].tolist() == ["c.tif", "d.tif", "a.tif"]
    assert table["fold"].tolist() == [1, NO_FOLD, NO_FOLD]
    assert pixels_known_to(new) == {pixel_sha256(image(grey).grey8()) for grey in (7, 8, 9)}


def test_a_start_that_was_changed_meanwhile_is_not_used(tmp_path: Path) -> None:
    start = copied(tmp_path)
    card = json.loads((start.path / "card.json").read_text())
    (start.path / "card.json").write_text(json.dumps(card | {"description": "another"}))
    with pytest.raises(ModelError, match="no longer the model"):
        start.load()


def test_another_start_is_another_training() -> None:
    images = [(image(7), np.array([[1.0, 1, 9, 9]]), 0)]
    prints = {fingerprint(images, TrainingRecipe(), 0, (), sha256) for sha256 in ("", "1" * 64, "2" * 64)}
    assert len(prints) == 3


def test_a_kept_cascade_keeps_its_way_of_scanning(tmp_path: Path) -> None:
    own = json.loads((find_model("316l-loops") / "card.json").read_text())["scan"]
    start = copied(tmp_path, scan=own | {"context": 1.6, "max_overlap": 0.5})
    stored = store_images(tmp_path / "work", [(image(7), np.array([[2.0, 2, 22, 22]]), 0)])
    kept, trained = (
        PartJob(
            tmp_path, stored, None, None, dataclasses.replace(recipe_from(start.load()), train_cascade=own), 0, start
        )
        for own in (False, True)
    )
    copies = [working_copy(i, kept) for i in stored]
    assert (scan_recipe(copies, kept).context, scan_recipe(copies, trained).context) == (1.6, 1.3)
    assert scan_recipe(copies, kept).min_side_px == round(20 * 1.6)


def test_corrections_start_from_the_model_of_the_run_or_what_that_was_made_from(tmp_path: Path) -> None:
    oldest = copied(tmp_path / "1", "fecral-loops")
    line = {"name": "fecral-loops", "sha256": oldest.sha256, "source": "s", "licence": "MIT"}
    newest = copied(tmp_path / "2", started_from=line | {"started_from": []})
    fields, groups = [image(7), image(8)], ["a", "b"]
    before = ModelBefore(newest.name, newest.sha256, newest.path, Settings())
    places = [tmp_path / "1"]

    start, said = StartModel.for_corrections(before, fields, groups, None, places)
    assert start == newest
    assert "starts from '316l-loops'" in said
    write_image_list(newest.path, [("old.tif", "x", fields[0])], [0])
    start, said = StartModel.for_corrections(before, fields, groups, None, places)
    assert start == dataclasses.replace(oldest, path=oldest.path.resolve())
    write_image_list(oldest.path, [("old.tif", "x", fields[0])], [0])
    start, said = StartModel.for_corrections(before, fields, groups, None, places)
    assert start is None
    assert "'fecral-loops' has learned from these images" in said
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"screener": {"hidden": 20}}')
    (newest.path / IMAGE_LIST).unlink()
    start, said = StartModel.for_corrections(before, fields, groups, recipe, places)
    assert start is None
    assert "leave 'screener' out" in said
    start, said = StartModel.for_corrections(
        dataclasses.replace(before, path=None, missing="it is gone"), fields, groups
    )
    assert (start, said) == (None, "the training begins from scratch: it is gone")


def field(index: int) -> TrainingImage:
    made = simulate_field(dataclasses.replace(PRESETS["demo"], shape=(300, 420)), 3, index)
    return TrainingImage(dataclasses.replace(made.micrograph, image=f"field-{index}.tif"), made.labels, f"s-{index}")


@pytest.mark.slow
def test_a_model_is_trained_from_another(tmp_path: Path) -> None:
    """Four new images and one that the start knows: that one is learned from, and in no figure."""
    start = copied(tmp_path)
    images = [field(i) for i in range(5)]
    write_image_list(start.path, [("old.tif", "x", images[0].micrograph)], [0])
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"n_folds": 2, "focus_model": "none", "screener_training": {"n_steps": 30, "batch_size": 32}}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = train_loop_model(images, "warm", tmp_path / "models", recipe=recipe, seed=1, start=start)
    model = LoopModel.load(made)
    assert (made / CASCADE).read_bytes() == (start.path / CASCADE).read_bytes()
    assert (made / WEIGHTS).read_bytes() != (start.path / WEIGHTS).read_bytes()
    card = model.card
    assert {n: card["started_from"][n] for n in ("name", "known_images", "images_in_no_figure", "cascade")} == {
        "name": "316l-loops", "known_images": 1, "images_in_no_figure": 1, "cascade": "kept",
    }  # fmt: skip
    assert card["data"]["n_images"] == 5
    assert sum(card["folds"].values()) == card["held_out"]["chain"]["n_images"] == 4
    for table in ("loops", "candidates"):
        assert set(read_parquet(made / "held-out" / f"{table}.parquet")["image"]) == {
            f"field-{i}.tif" for i in range(1, 5)
        }
    assert read_parquet(made / IMAGE_LIST).set_index("image")["fold"]["field-0.tif"] == NO_FOLD
    assert pixels_known_to(made) == {pixel_sha256(i.micrograph.grey8()) for i in images}
    # Thirty steps from weights that know dark blobs, and none of the cascade: it already finds some loops.
    assert card["held_out"]["chain"]["iou_0.4"]["recall"] > 0.2
