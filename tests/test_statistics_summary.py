"""The pooled figures of a folder."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defectpipe.io.tables import images_table, loops_table
from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics import image_statistics, pooled_summary

SHAPE = (400, 600)
FAST = Settings(statistics=StatisticsSettings(n_resamples=400))


def folder(counts: list[int], pixel_size_nm: float | None = 0.5, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    rows, parts = [], [loops_table()]
    for k, n in enumerate(counts):
        image = f"{k}.tif"
        xy, d = rng.uniform([60, 60], [540, 340], (n, 2)), rng.normal(30, 4, n)
        loops = pd.DataFrame(
            {"image": [image] * n, "frame": 0, "loop_id": range(n), "diameter_px": d, "on_edge": False}
        )
        loops[["x_px", "y_px"]] = xy
        loops[["x0_px", "y0_px"]], loops[["x1_px", "y1_px"]] = xy - d[:, None] / 2, xy + d[:, None] / 2
        loops["diameter_nm"] = np.nan if pixel_size_nm is None else d * pixel_size_nm
        parts.append(loops_table(loops))
        row = {"image": image, "frame": 0, "status": "ok", "height_px": SHAPE[0], "width_px": SHAPE[1]}
        row |= {"analysed_area_px2": float(SHAPE[0] * SHAPE[1]), "pixel_size_nm": pixel_size_nm}
        rows.append(row | image_statistics(parts[-1], SHAPE, pixel_size_nm, FAST.statistics))
    return images_table(rows), loops_table(pd.concat(parts, ignore_index=True))


def test_pooled_figures_are_those_of_all_loops_and_of_the_whole_area():
    images, loops = folder([12, 0, 5, 9, 20, 7, 8, 3, 11])
    out = pooled_summary(images, loops, FAST)
    assert (out["n_images"], out["n_loops"], out["n_failed"]) == (9, 75, 0)
    assert out["mean_diameter_nm"] == pytest.approx(loops["diameter_nm"].mean())
    assert out["std_diameter_px"] == pytest.approx(loops["diameter_px"].std(ddof=1))
    assert out["areal_density_per_m2"] == pytest.approx(images["areal_density_per_m2"].mean())
    assert out["analysed_area_m2"] == pytest.approx(9 * 400 * 600 * (0.5e-9) ** 2)
    for name in ("mean_diameter_px", "std_diameter_px", "mean_diameter_nm", "std_diameter_nm", "areal_density_per_m2"):
        assert out[name + "_ci_low"] < out[name] < out[name + "_ci_high"]
    assert out["interval"] == "bootstrap over 9 images"
    json.dumps(out, allow_nan=False)


def test_a_larger_field_weighs_more_in_the_density():
    images, loops = folder([10, 10])
    images.loc[0, "areal_density_per_m2"] *= 3
    images.loc[0, "analysed_area_px2"] *= 3
    expected = np.average(images["areal_density_per_m2"], weights=[3, 1])
    assert pooled_summary(images, loops, FAST)["areal_density_per_m2"] == pytest.approx(expected)


def test_few_equal_fields_have_the_classical_interval_of_the_density():
    images, loops = folder([12, 5, 9, 20, 7])
    values = images["areal_density_per_m2"].to_numpy(float)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    out = pooled_summary(images, loops, FAST)
    assert out["interval"] == "Student's t over 5 images"
    assert (out["areal_density_per_m2_ci_low"], out["areal_density_per_m2_ci_high"]) == pytest.approx((low, high))


def test_failed_images_count_as_failed_only():
    images, loops = folder([12, 5, 9])
    out = pooled_summary(images, loops, FAST)
    more = pd.concat([images, images_table([{"image": "z.tif", "frame": 0, "status": "failed"}])], ignore_index=True)
    again = pooled_summary(more, loops, FAST)
    assert (again.pop("n_images"), again.pop("n_failed")) == (4, 1)
    assert again == {k: v for k, v in out.items() if k not in ("n_images", "n_failed")}


def test_images_without_a_pixel_size_enter_no_figure_in_nm():
    images, loops = folder([12, 5, 9])
    bare_images, bare_loops = folder([30], None, seed=1)
    bare_images["image"] = bare_loops["image"] = "bare.tif"
    both = pooled_summary(pd.concat([images, bare_images]), pd.concat([loops, bare_loops]), FAST)
    alone = pooled_summary(images, loops, FAST)
    assert (both["n_without_pixel_size"], both["n_loops"]) == (1, 56)
    for name in ("mean_diameter_nm", "mean_diameter_nm_ci_low", "areal_density_per_m2", "areal_density_per_m2_ci_high"):
        assert both[name] == alone[name]
    assert both["mean_diameter_px"] != alone["mean_diameter_px"]
    none = pooled_summary(bare_images, bare_loops, FAST)
    assert (none["mean_diameter_nm"], none["areal_density_per_m2"]) == (None, None)
    assert none["mean_diameter_px"] is not None


def test_a_single_image_has_the_intervals_of_its_row():
    images, loops = folder([14])
    out, row = pooled_summary(images, loops, FAST), images.iloc[0]
    for name in ("mean_diameter_nm", "areal_density_per_m2"):
        for end in ("", "_ci_low", "_ci_high"):
            assert out[name + end] == pytest.approx(row[name + end])
    assert out["std_diameter_px_ci_low"] < out["std_diameter_px"] < out["std_diameter_px_ci_high"]
    assert out["interval"].startswith("over the loops of one image")


@pytest.mark.parametrize("n_images", [1, 3, 9])
def test_a_folder_without_loops_has_an_upper_bound_of_its_whole_area(n_images):
    out = pooled_summary(*folder([0] * n_images), FAST)
    assert (out["n_loops"], out["mean_diameter_nm"], out["areal_density_per_m2"]) == (0, None, 0)
    assert out["areal_density_per_m2_ci_high"] == pytest.approx(3.6889 / (n_images * 240_000 * 0.25e-18), rel=1e-4)


def test_loops_on_the_edge_enter_the_counts_only():
    images, loops = folder([12, 5, 9])
    cut = loops.iloc[:1].assign(on_edge=True, diameter_px=500.0, diameter_nm=250.0)
    images.loc[0, ["n_loops", "n_on_edge"]] = [13, 1]
    out = pooled_summary(images, pd.concat([loops, cut], ignore_index=True), FAST)
    assert (out["n_loops"], out["n_on_edge"]) == (27, 1)
    assert out["mean_diameter_px"] == pytest.approx(loops["diameter_px"].mean())


def test_order_of_rows_does_not_matter_to_a_bit():
    images, loops = folder([12, 0, 5, 9, 20, 7, 8, 3, 11])
    shuffled = images.sample(frac=1, random_state=1)
    by_image = [loops[loops["image"] == name] for name in shuffled["image"]]
    assert pooled_summary(shuffled, pd.concat(by_image), FAST) == pooled_summary(images, loops, FAST)


def test_groups_replace_images_in_the_intervals():
    images, loops = folder([12, 5, 9, 20, 7, 8, 3, 11, 6])
    groups = {name: f"specimen {k % 4}" for k, name in enumerate(images["image"])}
    out = pooled_summary(images, loops, FAST, groups=groups)
    assert out["interval"] == "Student's t over 4 groups"
    assert out["areal_density_per_m2"] == pytest.approx(images["areal_density_per_m2"].mean())


def test_an_empty_folder():
    out = pooled_summary(images_table(), loops_table(), FAST)
    assert (out["n_images"], out["mean_diameter_px"], out["areal_density_per_m2"]) == (0, None, None)
    assert out["interval"] == "none: no image"


def test_no_interval_of_a_diameter_reaches_below_0():
    images, loops = folder([9, 9])
    apart = np.where(loops["image"] == "0.tif", 1.0, 40.0)
    loops[["diameter_px", "diameter_nm"]] = loops[["diameter_px", "diameter_nm"]].mul(apart, axis=0)
    out = pooled_summary(images, loops, FAST)
    assert out["mean_diameter_nm_ci_low"] == 0 < out["mean_diameter_nm"] < out["mean_diameter_nm_ci_high"]
    few = loops_table(loops.iloc[[0, 17]])
    row = image_statistics(few, SHAPE, 0.5, FAST.statistics)
    assert row["mean_diameter_nm_ci_low"] == 0
