"""Training: folds by group, the threshold, figures from held-out images, the whole way to a model that finds loops."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.analysis import BOX_COLUMNS, detect_candidates, measure_loops, screen_candidates
from defectpipe.boxes import touches_border
from defectpipe.detection.training import CascadeRecipe
from defectpipe.errors import LabelError, ModelError, SettingsError
from defectpipe.io.tables import LOOP_COLUMNS
from defectpipe.micrograph import Micrograph
from defectpipe.model import CASCADE, LoopModel, find_model
from defectpipe.resolution import binning, from_working, reduce, to_working
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.training import ScreenerTraining
from defectpipe.settings import ScreeningSettings, Settings
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.training import TrainingImage, TrainingRecipe, train_loop_model
from defectpipe.training.box_scale import BoxScales, box_scales, choose_box_scales
from defectpipe.training.figures import HeldOut, cascade_recall, held_out_figures, with_candidate_boxes
from defectpipe.training.folds import assign_folds

QUICK = TrainingRecipe(
    n_folds=2,
    polarity="dark",
    max_candidates_per_megapixel=300,
    data_source="simulated",
    data_licence="BSD-3-Clause",
    cascade=CascadeRecipe(
        n_stages=5,
        n_positives=400,
        n_negatives=600,
        copies=4,
        feature_share=0.1,
        max_stumps=20,
        negatives_per_image=150,
    ),
    screener=ScreenerRecipe(crop_px=24, widths=(8, 12, 16), hidden=16, dropout=0.1),
    screener_training=ScreenerTraining(n_steps=300, batch_size=48, peak_learning_rate=3e-3),
)


def field(index: int) -> TrainingImage:
    preset = dataclasses.replace(PRESETS["demo"], shape=(300, 420))
    made = simulate_field(preset, 3, index)
    micrograph = dataclasses.replace(made.micrograph, image=f"field-{index}.tif")
    return TrainingImage(micrograph, made.labels, f"specimen-{index % 3}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[TrainingImage]]]:
    images = [field(i) for i in range(9)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield train_loop_model(images, "tiny", tmp_path_factory.mktemp("models"), recipe=QUICK, seed=1), images


@pytest.mark.slow
def test_the_card_tells_what_the_model_is(trained: tuple[Path, list[TrainingImage]]) -> None:
    card = json.loads((trained[0] / "card.json").read_text())
    assert card["name"] == "tiny"
    assert card["data"]["source"] == "simulated"
    assert card["data"]["n_groups"] == 3
    assert card["data"]["n_labels"] == sum(len(image.labels) for image in trained[1])
    assert set(card["held_out"]["threshold_by_fold"]) == {"0", "1"}
    assert 0.2 <= card["threshold"] <= 0.95
    gate = card["focus_gate"]
    assert gate["focus_model"]["name"] == "focus-stem"
    # measured, or the card says why not
    assert ("skipped" in gate) != ("ok_from" in gate)
    assert "in 2 folds" in card["predicted_f1"]["skipped"]
    assert card["held_out"]["chain"]["iou_0.4"]["f1"] > 0.3
    assert [
        row["candidates_per_image"] <= limit for row, limit in zip(card["held_out"]["cascade"], (140, 450), strict=True)
    ]
    assert not list(trained[0].parent.glob(".defectpipe/*-training-*"))


@pytest.mark.slow
def test_the_model_finds_loops_in_an_image_that_it_never_saw(trained: tuple[Path, list[TrainingImage]]) -> None:
    model, image = LoopModel.load(trained[0]), field(40)
    m, settings = image.micrograph, Settings()
    candidates = detect_candidates(m, model, settings)
    screened = screen_candidates(m, candidates, model, settings)
    loops = measure_loops(m, screened, model, settings)
    assert list(loops.columns) == list(LOOP_COLUMNS)
    assert len(loops) == screened["kept"].sum() > 0
    assert loops["loop_id"].tolist() == list(range(1, len(loops) + 1))
    np.testing.assert_allclose(loops["diameter_nm"], loops["diameter_px"] * m.pixel_size_nm)
    none = screen_candidates(m, candidates, model, Settings(screening=ScreeningSettings(1.0)))
    assert not none["kept"].any()
    assert list(measure_loops(m, none, model, settings).columns) == list(LOOP_COLUMNS)


@pytest.mark.slow
def test_without_a_pixel_size_there_are_no_nanometres(trained: tuple[Path, list[TrainingImage]]) -> None:
    model = LoopModel.load(trained[0])
    m = dataclasses.replace(field(41).micrograph, calibration=None)
    loops = measure_loops(
        m, screen_candidates(m, detect_candidates(m, model, Settings()), model, Settings()), model, Settings()
    )
    assert len(loops)
    assert loops[["diameter_nm", "minor_nm", "area_nm2"]].isna().all(axis=None)
    assert loops["diameter_px"].notna().all()


@pytest.mark.slow
def test_a_model_that_was_tampered_with_is_refused(trained: tuple[Path, list[TrainingImage]], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in trained[0].iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    assert LoopModel.load(copy).sha256 == LoopModel.load(trained[0]).sha256
    (copy / CASCADE).write_bytes((copy / CASCADE).read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"cascade\.xml is not the file"):
        LoopModel.load(copy)
    (copy / CASCADE).unlink()
    with pytest.raises(ModelError, match=r"cascade\.xml is missing"):
        LoopModel.load(copy)
    assert find_model("tiny", [trained[0].parent]) == trained[0].resolve()
    with pytest.raises(ModelError, match=r"no model 'tinny'; known here:.*tiny"):
        find_model("tinny", [trained[0].parent])


def test_folds_keep_groups_together_and_balance_the_loops() -> None:
    groups = [f"g{i % 7}" for i in range(70)]
    folds = assign_folds(groups, [1 + i % 7 for i in range(70)], [None] * 70, 3)
    assert set(folds) == {0, 1, 2}
    for group in set(groups):
        assert len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1
    assert assign_folds(["a", "b", "c"], [1, 1, 1], [7, 3, 7], 5) == [1, 0, 1]


@pytest.mark.parametrize(
    ("groups", "given", "message"),
    [
        (["a", "a"], [None, None], "one group"),
        (["a", "b"], [0, None], "some have none"),
        (["a", "a"], [0, 1], "more than one fold"),
        (["a", "b"], [2, 2], "one fold"),
    ],
)
def test_folds_that_cannot_be_are_refused(groups: list[str], given: list[int | None], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        assign_folds(groups, [1] * len(groups), given, 5)


def held_out(found_share: float, n_false: int) -> HeldOut:
    """Four images of 10 loops: a share of them found with score 0.8, and false ones with scores from 0.2 to 0.6."""
    labels, loops, candidates = {}, [], []
    for i in range(4):
        name = f"{i}.tif"
        x = 60.0 + 80 * np.arange(10)
        box = np.stack([x - 15, np.full(10, 85.0), x + 15, np.full(10, 115.0)], 1)
        labels[name] = pd.DataFrame(box, columns=BOX_COLUMNS).assign(
            x_px=x, y_px=100.0, diameter_px=30.0, minor_px=30.0, angle_deg=0.0, label=""
        )
        n_found = round(10 * found_share)
        wrong = box[:n_false] + np.array([0.0, 150, 0, 150])
        boxes = np.concatenate([box[:n_found], wrong])
        score = np.concatenate([np.full(n_found, 0.8), np.linspace(0.2, 0.6, n_false)])
        table = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
            image=name, frame=0, screening_score=score, detection_score=np.linspace(0.9, 0.1, len(boxes)), on_edge=False
        )
        table["x_px"], table["y_px"] = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        loops.append(table.assign(diameter_px=31.5, minor_px=30.0, angle_deg=0.0))
        shifted = table[["image", *BOX_COLUMNS, "detection_score"]].astype(
            dict.fromkeys([*BOX_COLUMNS, "detection_score"], "float32")
        )
        candidates.append(shifted.assign(x0_px=shifted["x0_px"] + 5, x1_px=shifted["x1_px"] + 5))
    names = list(labels)
    return HeldOut(
        dict.fromkeys(names, (400, 900)),
        labels,
        {name: name for name in names},
        {name: i % 2 for i, name in enumerate(names)},
        pd.concat(loops, ignore_index=True),
        pd.concat(candidates, ignore_index=True),
        "tight",
    )


def test_the_threshold_finds_as_many_loops_as_are_labelled() -> None:
    figures = held_out_figures(held_out(0.8, 5))
    # 8 true and 5 false ones of scores 0.2, 0.3, 0.4, 0.5, 0.6: two false ones make 10
    assert 0.4 < figures["threshold"] <= 0.5
    chain = figures["chain"]["iou_0.4"]
    assert chain["recall"] == pytest.approx(0.8)
    assert chain["precision"] == pytest.approx(0.8)
    assert figures["long_side"]["measured_median_relative_error"] == pytest.approx(0.05)
    assert figures["long_side"]["box_alone_median_absolute_relative_error"] == pytest.approx(0.0)
    assert figures["groups"]["0.tif"] == {
        "n_images": 1, "n_labels": 10, "n_loops": 10, "recall": 0.8, "precision": 0.8, "f1": 0.8,
    }  # fmt: skip


def test_cascade_recall_keeps_to_its_budget() -> None:
    h = held_out(1.0, 10)
    everything = cascade_recall(h, 20)
    assert everything["candidates_per_image"] == 20
    assert everything["recall_20px"] == 1.0
    half = cascade_recall(h, 5)
    assert half["candidates_per_image"] <= 5
    assert half["recall_20px"] <= 0.5
    # all four images hold their loops at the same places, so that chance finds them too
    assert everything["recall_20px_of_shuffled_candidates"] == 1.0


def test_boxes_that_come_out_small_are_scaled_by_what_other_folds_say() -> None:
    h = held_out(1.0, 10)  # 40 labels of side 30 in each fold
    half = np.where(h.loops["image"].map(h.folds) == 0, 13.5, 12.0)
    small = h.loops.assign(
        **{f"{axis}{end}_px": h.loops[f"{axis}_px"] + sign * half for axis in "xy" for end, sign in ((0, -1), (1, 1))}
    )
    twice = pd.concat([small.assign(image=small["image"] + tail) for tail in ("", "-2")], ignore_index=True)
    names = [f"{i}.tif{tail}" for i in range(4) for tail in ("", "-2", "-3")]
    wide = dataclasses.replace(
        h,
        shapes=dict.fromkeys(names, (400, 900)),
        labels={name: h.labels[name[:5]] for name in names},
        folds={name: int(name[0]) % 2 for name in names},
        loops=pd.concat([twice, small.assign(image=small["image"] + "-3")], ignore_index=True),
    )
    assert choose_box_scales(wide)[1] == {0: BoxScales(1.25, 1.0), 1: BoxScales(round(30 / 27, 3), 1.0)}
    assert box_scales(h, [0]) == BoxScales(), "20 labels say too little"


@pytest.mark.slow
def test_the_boxes_of_a_model_are_scaled_as_its_card_says(trained: tuple[Path, list[TrainingImage]]) -> None:
    model, m = LoopModel.load(trained[0]), field(40).micrograph
    assert model.box_scale == model.card["held_out"]["box_scale"]
    wider = dataclasses.replace(model, card=model.card | {"box_scale": 1.3 * model.box_scale})
    candidates = detect_candidates(m, model, Settings())
    plain, scaled = (screen_candidates(m, candidates, which, Settings()) for which in (model, wider))
    boxes, others = plain[BOX_COLUMNS].to_numpy(), scaled[BOX_COLUMNS].to_numpy()
    whole = ~touches_border(others, m.shape)
    assert whole.any()
    np.testing.assert_allclose((others[:, 2:] - others[:, :2])[whole], 1.3 * (boxes[:, 2:] - boxes[:, :2])[whole])
    np.testing.assert_allclose((others[:, 2:] + others[:, :2])[whole], (boxes[:, 2:] + boxes[:, :2])[whole])


def test_loops_get_back_the_boxes_of_their_candidates() -> None:
    h = held_out(0.5, 2)
    plain = with_candidate_boxes(h.loops, h.candidates)
    np.testing.assert_allclose(plain["x0_px"], h.loops["x0_px"] + 5)
    np.testing.assert_allclose(plain["y0_px"], h.loops["y0_px"])


def test_a_recipe_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"n_folds": 3, "screener": {"widths": [8, 8, 8]}, "cascade": {"n_stages": 4}}')
    recipe = TrainingRecipe.read(path)
    assert (recipe.n_folds, recipe.screener.widths, recipe.cascade.n_stages) == (3, (8, 8, 8), 4)
    assert recipe.cascade.hit_rate == CascadeRecipe().hit_rate
    for text, message in (
        ('{"fold": 3}', "unknown name 'fold'"),
        ('{"cascade": 3}', "names and values"),
        ('{"box_convention": "loose"}', "loose"),
        ('{"n_folds": 1}', "at least 2"),
        ("{", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            TrainingRecipe.read(path)


def test_working_resolution_follows_the_pixel_size() -> None:
    assert binning((2048, 2048), 0.14, 0.28) == 2
    assert binning((1024, 1300), 0.28, 0.28) == 1
    assert binning((1024, 1300), 0.9, 0.28) == 1
    assert binning((1024, 1300), None, 0.28) == 1
    assert binning((2048, 1300), None, 0.28) == 2
    assert binning((2048, 2048), 0.14, None) == 1
    assert binning((100, 2048), 0.01, 0.28) == 1


def test_reducing_is_the_mean_of_blocks_and_keeps_places() -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 47), dtype=np.uint8)
    small = reduce(image, 3)
    assert small.shape == (10, 15)
    assert abs(int(small[4, 6]) - image[12:15, 18:21].mean()) <= 0.51
    box = np.array([[18.0, 12, 20, 14]])
    np.testing.assert_allclose(to_working(box, 3), [[17 / 3, 11 / 3, 19 / 3, 13 / 3]], atol=0.51)
    np.testing.assert_allclose(from_working(to_working(box, 3), 3), box)


def test_grey8_is_the_one_normalisation() -> None:
    eight = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    np.testing.assert_array_equal(Micrograph(eight, "a").grey8(), eight)
    sixteen = Micrograph((eight.astype(np.uint16) * 200 + 1000), "b").grey8()
    floating = Micrograph(eight * 0.37 - 5, "c").grey8()
    np.testing.assert_allclose(sixteen.astype(int), floating.astype(int), atol=1)
    holed = eight.astype(np.float32)
    holed[3, 4] = np.nan
    holed[5, 6] = np.inf
    assert Micrograph(holed, "d").grey8().dtype == np.uint8
    assert not Micrograph(np.full((9, 12), 7.0), "e").grey8().any()
    assert not Micrograph(np.full((9, 12), np.nan), "f").grey8().any()
