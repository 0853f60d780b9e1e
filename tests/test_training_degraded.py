"""Held-out images defocused on purpose, and what a model finds in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defectpipe.focus.model import FocusModel
from defectpipe.micrograph import Micrograph
from defectpipe.model import LoopModel
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics.scoring import Objects
from defectpipe.training.degraded import choose_images, degraded_rows
from defectpipe.training.focus_stem import FocusField, defocused_patches
from defectpipe.training.workspace import StoredImage

MODELS = Path(__file__).resolve().parents[1] / "models"


def _stored(name: str, n_labels: int = 3) -> StoredImage:
    return StoredImage(Path(name), name, None, 0, np.zeros((n_labels, 4)))


def test_groups_take_turns_and_images_without_labels_are_not_chosen():
    images = [_stored(f"a{i}") for i in range(9)] + [_stored("b0"), _stored("c0"), _stored("d0", 0)]
    groups = {image.image: image.image[0] for image in images}
    chosen = [image.image for image in choose_images(images, groups, 4, 3)]
    assert {name[0] for name in chosen} == {"a", "b", "c"}
    assert len(chosen) == 4
    assert chosen == [image.image for image in choose_images(images, groups, 4, 3)]
    assert "d0" not in [image.image for image in choose_images(images, groups, 99, 3)]


@pytest.mark.slow
def test_blur_lowers_the_focus_score_and_what_is_found():
    field = simulate_field(PRESETS["demo"], 3)
    model, focus = LoopModel.load(MODELS / "fecral-loops"), FocusModel.load(MODELS / "focus-stem")
    marked = Objects.from_labels(field.labels, field.micrograph.shape, model.box_convention, 2.0)
    rows = pd.DataFrame(degraded_rows(field.micrograph, marked, model, focus, np.random.default_rng(0), (0.0, 9.0)))
    sharp, blurred = rows.iloc[0], rows.iloc[1]
    assert sharp["focus_score"] > 7 > 5 > blurred["focus_score"]
    assert sharp["f1"] > 0.8
    assert blurred["f1"] < sharp["f1"] - 0.2
    assert sharp["n_labels"] == blurred["n_labels"] == (~marked.on_edge).sum()
    assert sharp["n_true"] <= sharp["n_loops"]
    assert len(sharp["screening_scores"]) >= sharp["n_loops"]
    assert sharp["score_p10"] <= sharp["score_p50"] <= sharp["score_p90"]


def test_what_is_not_known_is_no_number_and_no_object():
    """A flat field without a pixel size: no score, no loop, no pair."""
    m = Micrograph(np.full((160, 220), 120, np.uint8), "flat.tif")
    model, focus = LoopModel.load(MODELS / "fecral-loops"), FocusModel.load(MODELS / "focus-stem")
    nothing = Objects(np.zeros((0, 4)), np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool))
    rows = pd.DataFrame(degraded_rows(m, nothing, model, focus, np.random.default_rng(0), (0.0, 3.0)))
    unknown = ["matched_diameter_relative_error", "diameter_relative_error", "f1", "pixel_size_nm"]
    assert rows[unknown].isna().all(axis=None)
    numbers = rows.drop(columns=["focus_state", "screening_scores"])
    assert [name for name, kind in numbers.dtypes.items() if kind.kind not in "fi"] == []


def test_patches_have_the_scores_that_were_asked_for_and_repeat_with_a_seed():
    rng = np.random.default_rng(1)
    fields = [FocusField(rng.integers(0, 255, (300, 280), dtype=np.uint8), "g", 0)]
    found = defocused_patches(fields, 3, 5, scores=(10.0, 5.0, 1.0))
    assert found.pixels.shape == (3, 256, 256)
    np.testing.assert_allclose(found.scores, [10, 5, 1], atol=1e-9)
    np.testing.assert_array_equal(found.pixels, defocused_patches(fields, 3, 5, scores=(10.0, 5.0, 1.0)).pixels)
    drawn = defocused_patches(fields, 40, 5)
    assert drawn.scores.min() >= 1
    assert drawn.scores.max() <= 10
    assert drawn.scores.std() > 2
