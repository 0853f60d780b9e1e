"""Means, standard deviations and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from defectpipe.settings import StatisticsSettings
from defectpipe.statistics.distributions import (
    grouped_interval,
    interval_name,
    mean_and_std,
    mean_interval,
    ratio,
    std_of_sums,
    sum_by_group,
)

FAST = StatisticsSettings(n_resamples=600)


def test_mean_and_std_leave_out_nan_and_use_ddof_1():
    mean, std = mean_and_std(np.array([1.0, np.nan, 3.0]))
    assert mean == 2.0
    assert std == pytest.approx(np.sqrt(2))


def test_mean_and_std_are_none_where_undefined():
    assert mean_and_std(np.zeros(0)) == (None, None)
    assert mean_and_std(np.array([np.nan])) == (None, None)
    assert mean_and_std(np.array([4.0])) == (4.0, None)


@pytest.mark.parametrize("n", [2, 5, 7])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_of_few_values_is_the_classical_one(n, confidence):
    values = np.random.default_rng(n).normal(30, 7, n)
    expected = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
    assert mean_interval(values, StatisticsSettings(confidence=confidence)) == pytest.approx(expected)


def test_interval_of_one_value_is_unknown():
    assert mean_interval(np.array([3.0]), FAST) == (None, None)
    assert mean_interval(np.array([3.0, np.nan]), FAST) == (None, None)


def test_bootstrap_is_near_student_for_normal_values_and_seeded():
    values = np.random.default_rng(1).normal(30, 7, 40)
    settings = StatisticsSettings(n_resamples=20_000)
    low, high = mean_interval(values, settings)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.1)
    assert mean_interval(values, settings) == (low, high)
    assert mean_interval(values, StatisticsSettings(n_resamples=20_000, seed=1)) != (low, high)


@pytest.mark.parametrize("n", [4, 8, 20])
@pytest.mark.parametrize(("draw", "truth", "least"), [("normal", 0.0, 0.93), ("gamma", 3.0, 0.90)])
def test_interval_of_a_mean_covers_the_truth(n, draw, truth, least):
    rng = np.random.default_rng(17)
    n_trials, covered = 800, 0
    for _ in range(n_trials):
        low, high = mean_interval(rng.normal(size=n) if draw == "normal" else rng.gamma(3.0, size=n), FAST)
        covered += low <= truth <= high
    assert least <= covered / n_trials <= 0.985


@pytest.mark.parametrize("n_groups", [5, 12])
def test_interval_of_a_ratio_over_groups_covers_the_truth_where_single_loops_would_not(n_groups):
    # Recall varies from field to field: loops of a field are not independent.
    rng = np.random.default_rng(3)
    n_trials, covered, covered_by_loops = 500, 0, 0
    for _ in range(n_trials):
        labels = rng.integers(10, 40, n_groups)
        found = rng.binomial(labels, rng.beta(12, 4, n_groups))
        low, high = grouped_interval(np.stack([found, labels], 1), ratio, FAST, (0, 1))
        covered += low <= 0.75 <= high
        p = found.sum() / labels.sum()
        half = 1.96 * np.sqrt(p * (1 - p) / labels.sum())
        covered_by_loops += p - half <= 0.75 <= p + half
    assert 0.90 <= covered / n_trials <= 0.985
    assert covered_by_loops / n_trials < covered / n_trials - 0.05


@pytest.mark.parametrize("n_groups", [4, 15])
def test_interval_keeps_within_bounds_and_holds_the_estimate(n_groups):
    sums = np.stack([np.arange(n_groups) % 3 + 8.0, np.full(n_groups, 10.0)], 1)
    low, high = grouped_interval(sums, ratio, FAST, (0, 1))
    assert 0 <= low <= sums[:, 0].sum() / sums[:, 1].sum() <= high <= 1


def test_interval_is_unknown_where_the_statistic_is():
    assert grouped_interval(np.zeros((12, 2)), ratio, FAST) == (None, None)
    # All labels in one group: without it there is no recall.
    assert grouped_interval(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]), ratio, FAST) == (None, None)


def test_std_of_sums_is_numpys():
    values = np.random.default_rng(0).normal(500, 2, 30)
    sums = np.array([values.sum(), (values**2).sum(), len(values)])
    assert std_of_sums(sums) == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert np.isnan(std_of_sums(np.array([3.0, 9.0, 1.0])))
    assert np.isnan(std_of_sums(np.zeros(3)))


def test_sum_by_group_adds_and_sorts():
    out = sum_by_group(np.array([[1.0, 1], [2, 1], [4, 1]]), ["b", "a", "b"])
    assert out.tolist() == [[2, 1], [5, 2]]
    assert sum_by_group(np.zeros((0, 2)), []).shape == (0, 2)


def test_interval_name_says_how():
    assert interval_name(12, "image") == "bootstrap over 12 images"
    assert interval_name(7, "group") == "Student's t over 7 groups"
    assert interval_name(1, "image").startswith("none")
