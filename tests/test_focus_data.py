"""Simulated focus data sets: sizes, labels, split, and the frozen test set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from defectpipe.simulation.sem.presets import PRESETS
from defectpipe.training.focus_data import (
    DATASETS,
    EXPERT_RMSE,
    expert_scores,
    old_labels,
    score_of_old,
    simulate_focus_samples,
    split_by_specimen,
)


def test_the_sizes_are_the_published_ones_and_no_seed_is_in_both():
    new = DATASETS["new"]
    assert (new.n_train, new.n_test) == (27_235, 3_037)
    assert new.n_train % 5 == 0  # the same number at each of five magnifications
    for dataset in DATASETS.values():
        assert dataset.train_seed != dataset.test_seed
    assert PRESETS["focus-new"].zero_share > 0 == PRESETS["focus-old"].zero_share


def test_a_small_set_begins_a_large_one_and_says_what_it_shows():
    samples = simulate_focus_samples("focus-new", 7, 20)
    later = simulate_focus_samples("focus-new", 7, 5, first=15)
    np.testing.assert_array_equal(samples.pixels[15:], later.pixels)
    np.testing.assert_array_equal(samples.expert[15:], later.expert)
    assert sorted(set(samples.magnification)) == [500, 1000, 2000, 5000, 10000]
    assert samples.patches().shape == (20, 240, 320)
    np.testing.assert_array_equal(samples.patches()[:, 0, 0], samples.pixels[:, 12, 16])
    empty = ~np.isin(samples.kind, ["tinball", "grid"])
    np.testing.assert_array_equal(samples.score == 0, empty)
    np.testing.assert_array_equal(samples.expert == 0, empty)


def test_the_expert_errs_as_often_as_stated():
    rng = np.random.default_rng(0)
    truth = rng.uniform(2, 9, 50_000)
    said = expert_scores(truth, rng.normal(size=truth.size))
    assert (said == np.round(said)).all()
    assert abs(np.sqrt(np.mean((said - truth) ** 2)) - EXPERT_RMSE) < 0.005


def test_old_labels_are_whole_and_lead_back():
    truth = np.linspace(1, 10, 500)
    labels = old_labels(truth)
    assert sorted(set(labels)) == list(range(8))
    assert np.abs(score_of_old(labels) - truth).max() <= 9 / 14 + 1e-6


def test_magnifications_of_the_old_set_are_unequal():
    times = PRESETS["focus-old"].magnifications
    assert [times.count(m) for m in (500, 1000, 2000, 5000, 10000)] == [5, 4, 3, 2, 1]


def test_a_specimen_is_on_one_side_of_the_split():
    samples = simulate_focus_samples("focus-new", 7, 12)
    twice = samples.take(np.repeat(np.arange(12), 2))
    kept, held = split_by_specimen(twice, 0.25, 0)
    assert len(held) == 6
    assert not {tuple(s) for s in twice.specimen[kept]} & {tuple(s) for s in twice.specimen[held]}


def test_the_frozen_test_set_is_still_the_same():
    manifest = json.loads((Path(__file__).parents[1] / "benchmarks" / "focus-test.json").read_text())
    dataset, preset = DATASETS["new"], PRESETS[DATASETS["new"].preset]
    assert (manifest["preset"], manifest["seed"], manifest["n"]) == (
        dataset.preset,
        dataset.test_seed,
        dataset.n_test,
    )
    assert manifest["settings_sha256"] == preset.sha256()
    samples = simulate_focus_samples(dataset.preset, dataset.test_seed, len(manifest["first_images"]))
    for i, first in enumerate(manifest["first_images"]):
        assert (first["sample"], first["magnification"]) == (samples.kind[i], samples.magnification[i])
        assert abs(first["score"] - samples.score[i]) < 1e-4
        # another processor may round a grey value otherwise
        assert abs(first["mean_grey"] - samples.pixels[i].mean()) < 0.05
