"""What corrections gained: two models on the same images, beside the same labels, and what the card says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.boxes import pad
from defectpipe.io.tables import write_parquet
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.figures import HeldOut
from defectpipe.training.gain import compare, gain_from_corrections, gain_sentence
from defectpipe.training.image_list import IMAGE_LIST, pixel_sha256
from defectpipe.training.model_before import ModelBefore, seen_before
from defectpipe.training.workspace import StoredImage

N_LABELS = 10
SHAPE = (300, 900)


def boxes_of(n: int, y: float = 100.0) -> np.ndarray:
    x = 60.0 + 80 * np.arange(n)
    return np.stack([x - 15, np.full(n, y - 15), x + 15, np.full(n, y + 15)], 1)


def loops_of(image: str, n_true: int, n_false: int, score: float = 0.9) -> pd.DataFrame:
    """Some of an image's ten labels, exactly, and false loops below them."""
    boxes = np.concatenate([boxes_of(N_LABELS)[:n_true], boxes_of(n_false, 200.0)])
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(image=image, frame=0, screening_score=score)
    centres = {"x_px": (boxes[:, 0] + boxes[:, 2]) / 2, "y_px": (boxes[:, 1] + boxes[:, 3]) / 2}
    return table.assign(**centres, diameter_px=30.0, on_edge=False)


def held_out(n_true: list[int], n_false: list[int]) -> HeldOut:
    names = [f"{i}.tif" for i in range(len(n_true))]
    labels = pd.DataFrame(boxes_of(N_LABELS), columns=BOX_COLUMNS).assign(
        x_px=60.0 + 80 * np.arange(N_LABELS), y_px=100.0, diameter_px=30.0, minor_px=30.0, angle_deg=0.0, label=""
    )
    loops = [loops_of(name, t, f) for name, t, f in zip(names, n_true, n_false, strict=True)]
    return HeldOut(
        dict.fromkeys(names, SHAPE),
        dict.fromkeys(names, labels),
        {name: name for name in names},
        {name: i % 2 for i, name in enumerate(names)},
        pd.concat(loops, ignore_index=True),
        pd.DataFrame(),
        "tight",
    )


def test_two_models_stand_beside_the_same_labels() -> None:
    h = held_out([9, 9, 8, 8], [1, 1, 2, 2])
    before = pd.concat([loops_of(f"{i}.tif", 6, 4) for i in range(4)], ignore_index=True)
    found = compare(["0.tif", "1.tif", "2.tif"], h, before, h.loops, {"1.tif", "3.tif"})
    assert (found["n_images"], found["n_labels"], found["n_groups"]) == (3, 30, 3)
    assert (found["before"]["recall"], found["before"]["precision"], found["before"]["f1"]) == (0.6, 0.6, 0.6)
    assert found["after"]["f1"] == pytest.approx(26 / 30, abs=1e-4)
    assert found["f1_gain"] == pytest.approx(26 / 30 - 0.6, abs=1e-4)
    # Every image gained, so the paired interval lies above 0, while those of the two figures say nothing of it.
    assert 0 < found["f1_gain_ci_low"] < found["f1_gain"] < found["f1_gain_ci_high"]
    assert found["interval"] == "Student's t over 3 images"
    assert found["before"]["mean_diameter_relative_error"] == 0
    assert found["seen_by_model_before"]["n_images"] == 1
    assert "1 of these images" in found["seen_by_model_before"]["said"]
    assert compare(["0.tif"], h, before, h.loops, None)["seen_by_model_before"]["n_images"] is None
    assert "excluded" in compare(["0.tif"], h, before, h.loops, None)["seen_by_model_before"]["said"]
    assert "none" in compare(["0.tif"], h, before, h.loops, set())["seen_by_model_before"]["said"]


def test_an_image_in_which_a_model_finds_nothing_counts() -> None:
    h = held_out([10, 10], [0, 0])
    found = compare(["0.tif", "1.tif"], h, loops_of("0.tif", 10, 0), h.loops, set())
    assert (found["before"]["recall"], found["before"]["precision"], found["after"]["f1"]) == (0.5, 1.0, 1.0)


@pytest.fixture
def stored(tmp_path: Path) -> list[StoredImage]:
    images = []
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.full(SHAPE, i, np.uint8))
        images.append(StoredImage(tmp_path / f"{i}.npy", f"{i}.tif", 0.5, i % 2, boxes_of(N_LABELS)))
    return images


def test_the_card_compares_corrected_and_other_images_apart(
    stored: list[StoredImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = held_out([9, 9, 7, 7], [1, 1, 3, 3])
    before = pd.concat([loops_of(f"{i}.tif", 5, 5) for i in range(4)], ignore_index=True)
    # The model before gives padded boxes; the new one tight ones.
    padded = pad(before[BOX_COLUMNS].to_numpy(float))
    before = before.assign(**dict(zip(BOX_COLUMNS, padded.T, strict=True)))

    class Old:
        box_convention = "padded"

    monkeypatch.setattr("defectpipe.training.gain.LoopModel.load", lambda _path: Old())
    monkeypatch.setattr("defectpipe.training.gain.loops_before", lambda *_: before)
    model = ModelBefore("old", "1" * 64, tmp_path, Settings())
    # Below its fold's threshold a loop of the new model counts no more: those of fold 1 are all lost.
    gain = gain_from_corrections(model, stored, {"0.tif", "1.tif"}, h, {0: 0.5, 1: 0.95}, tmp_path, 1)
    assert gain["model_before"] == {"name": "old", "sha256": "1" * 64}
    assert gain["rule"] == "iou_0.4, one-to-one, on tight boxes"
    assert gain["corrected_images"]["before"]["f1"] == 0.5
    assert gain["corrected_images"]["after"]["recall"] == 0.45
    assert gain["corrected_images"]["after"]["precision"] == 0.9
    assert gain["other_images"]["n_images"] == 2
    assert gain["other_images"]["after"]["recall"] == 0.35
    assert gain["corrected_images"]["seen_by_model_before"]["n_images"] is None
    assert "began as the loops of the model before" in gain["note"]
    only = gain_from_corrections(model, stored, set(h.shapes), h, {0: 0.5, 1: 0.5}, tmp_path, 1)
    assert only["other_images"] is None
    assert "4 corrected images F1 is 0.800, held out; old had 0.500: +0.300 (95% interval" in gain_sentence(only)


def test_a_model_knows_its_images_by_their_pixels(stored: list[StoredImage], tmp_path: Path) -> None:
    assert seen_before(tmp_path, stored) is None
    known = [pixel_sha256(np.full(SHAPE, value, np.uint8)) for value in (3, 7)]
    write_parquet(pd.DataFrame({"image": ["other name", "x"], "pixels_sha256": known}), tmp_path / IMAGE_LIST)
    assert seen_before(tmp_path, stored) == {"3.tif"}
    assert pixel_sha256(np.zeros((2, 6), np.uint8)) != pixel_sha256(np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({}, "no summary.json of a run lies beside"),
        ({"run": {"input_dir": "x"}}, "does not say which model"),
        ({"model": {"name": "ghost", "sha256": "0"}, "settings": {}}, "there is no model 'ghost' here"),
        (
            {"model": {"name": "fecral-loops", "sha256": "0"}, "settings": {}, "run": {}},
            "the model 'fecral-loops' that is here is not the one that the run was made with",
        ),
        ({"model": {"name": "a", "sha256": "0"}, "settings": {"no": {}}}, "does not say which model"),
    ],
)
def test_where_the_model_before_is_not_at_hand_the_card_says_why(summary: dict, said: str) -> None:
    before = ModelBefore.of_run(summary)
    assert before.path is None
    assert said in before.missing
    h = held_out([9, 9], [1, 1])
    gain = gain_from_corrections(before, [], {"0.tif"}, h, {0: 0.5, 1: 0.5}, Path(), 1)
    assert gain["skipped"] == before.missing
    assert "corrected_images" not in gain
    assert said in gain_sentence(gain)
