"""Areal densities against simulated fields, and the statistics of one image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from defectpipe import boxes as bx
from defectpipe.io.tables import IMAGE_COLUMNS, loops_table
from defectpipe.settings import StatisticsSettings
from defectpipe.statistics import image_statistics
from defectpipe.statistics.densities import areal_density_per_px2, density_interval, poisson_interval

SHAPE = (300, 500)
FAST = StatisticsSettings(n_resamples=300)


def make_loops(boxes: np.ndarray, on_edge: np.ndarray | None = None) -> pd.DataFrame:
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    table = {name: boxes[:, k] for k, name in enumerate(["x0_px", "y0_px", "x1_px", "y1_px"])}
    table |= {"x_px": boxes[:, [0, 2]].mean(1), "y_px": boxes[:, [1, 3]].mean(1)}
    table |= {"diameter_px": size.max(1), "minor_px": size.min(1)}
    table["on_edge"] = np.zeros(len(boxes), bool) if on_edge is None else on_edge
    return loops_table(pd.DataFrame(table))


def draw_field(rng: np.random.Generator, per_px2: float, largest: float) -> np.ndarray:
    """Boxes of loops of a Poisson process over the image and all around it."""
    height, width = SHAPE
    n = rng.poisson(per_px2 * (width + 2 * largest) * (height + 2 * largest))
    x = rng.uniform(-0.5 - largest, width - 0.5 + largest, n)
    y = rng.uniform(-0.5 - largest, height - 0.5 + largest, n)
    w, h = rng.uniform(10, largest, n), rng.uniform(10, largest, n)
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    seen = (boxes[:, 2] > -0.5) & (boxes[:, 3] > -0.5) & (boxes[:, 0] < width - 0.5) & (boxes[:, 1] < height - 0.5)
    return boxes[seen]


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904)])
def test_poisson_interval_is_the_tabulated_one(count, low, high):
    assert poisson_interval(count, 0.95) == pytest.approx((low, high), abs=1e-4)


def test_density_of_one_loop_is_the_inverse_of_its_room():
    assert areal_density_per_px2(np.array([[40, 20]]), SHAPE) == pytest.approx(1 / ((500 - 40) * (300 - 20)))
    assert areal_density_per_px2(np.zeros((0, 2)), SHAPE) == 0


def test_density_scales_with_what_was_analysed():
    sizes = np.array([[40, 20], [30, 30]])
    half = areal_density_per_px2(sizes, SHAPE, analysed_area_px2=300 * 500 / 2)
    assert half == pytest.approx(2 * areal_density_per_px2(sizes, SHAPE))


@pytest.mark.parametrize("margin_px", [0.0, 6.0])
def test_density_is_unbiased_for_large_loops_where_plain_counts_are_not(margin_px):
    rng = np.random.default_rng(5)
    truth = 2e-4
    estimates, plain = [], []
    for _ in range(1500):
        boxes = draw_field(rng, truth, largest=120)
        uncut = boxes[~bx.touches_border(boxes, SHAPE, margin_px)]
        sizes = uncut[:, 2:] - uncut[:, :2]
        estimates.append(areal_density_per_px2(sizes, SHAPE, border_margin_px=margin_px))
        plain.append(len(uncut) / (SHAPE[0] * SHAPE[1]))
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - truth) < 3 * error
    assert error < 0.01 * truth
    assert np.mean(plain) < 0.75 * truth


@pytest.mark.parametrize(("per_px2", "largest"), [(3e-5, 40), (4e-4, 40), (2e-4, 90)])
def test_interval_of_a_density_covers_the_truth(per_px2, largest):
    rng = np.random.default_rng(11)
    n_trials, covered = 800, 0
    for _ in range(n_trials):
        boxes = draw_field(rng, per_px2, largest)
        uncut = boxes[~bx.touches_border(boxes, SHAPE, 0)]
        density = areal_density_per_px2(uncut[:, 2:] - uncut[:, :2], SHAPE)
        low, high = density_interval(density, len(uncut), SHAPE[0] * SHAPE[1], 0.95)
        assert low <= density <= high
        covered += low <= per_px2 <= high
    assert 0.93 <= covered / n_trials <= 0.985


def test_image_statistics_give_the_columns_of_the_contract_in_order():
    first = IMAGE_COLUMNS.index("n_loops")
    found = image_statistics(make_loops([[10, 10, 40, 30]]), SHAPE, 0.5, FAST)
    assert list(found) == IMAGE_COLUMNS[first : first + len(found)]
    assert list(found)[-1] == "areal_density_per_m2_ci_high"


def test_image_statistics_in_their_units():
    boxes = np.array([[10, 10, 40, 30], [100, 50, 120, 90], [0, 0, 90, 90]])
    found = image_statistics(make_loops(boxes, np.array([False, False, True])), SHAPE, 0.5, FAST)
    assert (found["n_loops"], found["n_on_edge"]) == (3, 1)
    # The loop on the edge, 90 px, enters neither.
    assert found["mean_diameter_px"] == 35
    assert found["std_diameter_nm"] == pytest.approx(np.std([15, 20], ddof=1))
    per_px2 = 1 / ((500 - 30) * (300 - 20)) + 1 / ((500 - 20) * (300 - 40))
    assert found["areal_density_per_m2"] == pytest.approx(per_px2 / (0.5e-9) ** 2)
    assert found["areal_density_per_m2_ci_low"] < found["areal_density_per_m2"] < found["areal_density_per_m2_ci_high"]
    assert found["mean_diameter_nm_ci_low"] < 17.5 < found["mean_diameter_nm_ci_high"]


def test_no_pixel_size_means_no_nanometres():
    found = image_statistics(make_loops([[10, 10, 40, 30], [100, 50, 120, 90]]), SHAPE, None, FAST)
    assert found["mean_diameter_px"] == 35
    assert all(value is None for name, value in found.items() if "nm" in name or "per_m2" in name)


@pytest.mark.parametrize("cut", [False, True])
def test_an_image_without_whole_loops_has_an_upper_bound_and_not_zero(cut):
    boxes = np.array([[-5, 10, 40, 30]]) if cut else np.zeros((0, 4))
    found = image_statistics(make_loops(boxes, np.ones(len(boxes), bool)), SHAPE, 2.0, FAST)
    assert found["n_loops"] == found["n_on_edge"] == len(boxes)
    assert found["mean_diameter_px"] is None
    assert found["std_diameter_px"] is None
    assert found["areal_density_per_m2"] == 0
    assert found["areal_density_per_m2_ci_low"] == 0
    area_m2 = 300 * 500 * (2e-9) ** 2
    assert found["areal_density_per_m2_ci_high"] == pytest.approx(3.6889 / area_m2, rel=1e-4)


def test_nothing_analysed_means_no_density():
    found = image_statistics(make_loops(np.zeros((0, 4))), SHAPE, 2.0, FAST, analysed_area_px2=0.0)
    assert found["areal_density_per_m2"] is None


def test_image_statistics_do_not_depend_on_the_order_of_loops_but_for_the_bootstrap():
    boxes = draw_field(np.random.default_rng(2), 2e-4, 40)
    loops = make_loops(boxes, bx.touches_border(boxes, SHAPE))
    one, other = (image_statistics(part, SHAPE, 0.4, FAST) for part in (loops, loops.iloc[::-1]))
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=0.05 if "_nm_ci_" in name else 1e-12)
