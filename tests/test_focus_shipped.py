"""The focus model that ships: its files, and what it reaches on images that nothing was trained or chosen on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from defectpipe.focus.scorer import FocusScorer
from defectpipe.model import file_sha256
from defectpipe.training.focus_data import simulate_focus_samples

MODEL = Path(__file__).parents[1] / "models" / "focus"


@pytest.fixture(scope="module")
def card():
    return json.loads((MODEL / "card.json").read_text())


@pytest.fixture(scope="module")
def scorer(card):
    return FocusScorer(MODEL / "network.onnx", card["backbone"], card["uses_magnification"])


def test_the_card_describes_the_files_and_keeps_the_limits(card):
    assert card["sha256"] == {name: file_sha256(MODEL / name) for name in ("network.onnx", "network.weights.h5")}
    figures = card["figures"]
    assert figures["total"] <= 0.45
    assert max(figures["rmse"].values()) <= 0.6
    manifest = json.loads((Path(__file__).parents[1] / "benchmarks" / "focus-test.json").read_text())
    assert figures["test_set"]["pixels_sha256"] == manifest["pixels_sha256"]


def test_new_specimens_are_scored_as_well_as_the_card_says(card, scorer):
    samples = simulate_focus_samples("focus-new", 77, 100)
    error = scorer(samples.patches(), samples.magnification) - samples.score
    # 100 images tell the error to about a tenth; a few failures weigh much
    assert np.sqrt(np.mean(error**2)) < 1.5 * card["error_std"]


def test_brightness_and_contrast_do_not_move_the_score(scorer):
    samples = simulate_focus_samples("focus-new", 78, 10)
    patches = samples.patches().astype(np.float32)
    before = scorer(patches, samples.magnification)
    np.testing.assert_allclose(scorer(4 * patches + 300, samples.magnification), before, atol=0.01)
    # 16-bit images too
    np.testing.assert_allclose(scorer((patches * 200).astype(np.uint16), samples.magnification), before, atol=0.01)
