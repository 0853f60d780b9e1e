"""Diameters of single loops: the measurement beside its rivals, where its errors come from, its stated uncertainty."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import cv2
import numpy as np
import pandas as pd
from diameter_rivals import BOX, RIVALS
from diameter_sets import Images, labelled_twice, real, rings, simulated
from fecral_data import RESULTS, training_images
from fecral_figures import held_out as read_held_out
from provenance import provenance
from scipy.optimize import minimize

from defectpipe.boxes import ellipse_bounds
from defectpipe.io.tables import write_json
from defectpipe.measurement import FloodSettings, UncertaintySettings, measure
from defectpipe.measurement.ellipse import BoxPrior
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.box_scale import box_scales
from defectpipe.training.figures import choose_thresholds, long_sides

RULE_BOX, BEFORE = "the box alone, padding undone by the rule", "flood, then flood, in that box (before)"
# Uncertainty of the measurement alone: an analytic or simulated truth has no expert.
ALONE = UncertaintySettings(expert=0.0, expert_px=0.0)
SETTINGS = FloodSettings(prior=BoxPrior(log_side=0.25), uncertainty=ALONE)
CHOSEN_ON = (0, 1, 2)
# Degrees of freedom of Student's t in the fit of the uncertainty: a matched loop may be another one in part.
FREEDOM = 6.0
LEAST_LOOPS = 5


def estimated(table: pd.DataFrame, images: Images, name: str, prefix: str = "") -> np.ndarray:
    """Ellipses (n, 5) by one of the rivals."""
    boxes = table[[prefix + column for column in BOX_COLUMNS]].to_numpy(float)
    rows = [RIVALS[name](images[i], box, SETTINGS) for i, box in zip(table["image"], boxes, strict=True)]
    return np.array(rows, float).reshape(-1, 5)


def errors(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float | int]:
    """Relative errors of diameters."""
    e = estimate / truth - 1
    absolute = np.abs(e)
    return {
        "n": len(e),
        "median_absolute": _rounded(np.median(absolute)),
        "percentile_80_absolute": _rounded(np.percentile(absolute, 80)),
        "bias_median": _rounded(np.median(e)),
        "bias_mean": _rounded(e.mean()),
    }


def coverage(error: np.ndarray, uncertainty: np.ndarray) -> dict[str, float | int]:
    """Share of errors (px) within one and two standard uncertainties (px); 0.68 and 0.95 of Gaussian ones."""
    z = np.abs(error) / uncertainty
    share = {"n": len(z), "within_1": _rounded((z <= 1).mean()), "within_2": _rounded((z <= 2).mean())}
    return share | {"median_uncertainty_px": _rounded(np.median(uncertainty))}


def by_bins(values: np.ndarray, edges: np.ndarray, describe: Any) -> dict[str, Any]:
    """What `describe` says of the rows in each bin of some values."""
    return {
        f"{low:.3g} to {high:.3g}": describe((values >= low) & (values <= high if high == edges[-1] else values < high))
        for low, high in itertools.pairwise(edges)
    }


def measured(table: pd.DataFrame, images: Images) -> pd.DataFrame:
    """What the library's `measure` gives, image by image, in the order of the table."""
    found = [
        measure(images[str(image)], part[BOX_COLUMNS].to_numpy(float), polarity="dark", settings=SETTINGS).set_index(
            part.index
        )
        for image, part in table.groupby("image")
    ]
    return pd.concat(found).loc[table.index]


def synthetic(table: pd.DataFrame, images: Images, split: str, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """Rivals on loops of exact truth, all and by a column; coverage of the uncertainty without an expert's part.

    What is `kept` of an earlier run spares the rivals.
    """
    truth = table["true_px"].to_numpy(float)
    values = table[split].to_numpy(float)
    distinct = np.unique(values)
    out: dict[str, Any] = dict(kept or {})
    for name in () if kept else RIVALS:
        estimate = estimated(table, images, name)[:, 2]
        if len(distinct) <= 8:
            parts = {f"{v:g}": errors(estimate[values == v], truth[values == v]) for v in distinct}
        else:
            edges = np.quantile(values, [0, 1 / 3, 2 / 3, 1])
            parts = by_bins(values, edges, lambda which, e=estimate: errors(e[which], truth[which]))
        out[name] = {"all": errors(estimate, truth), f"by_{split}": parts}
    rows = measured(table, images)
    ok, d, u = (rows[c].to_numpy() for c in ("measured", "diameter_px", "diameter_uncertainty_px"))
    sizes = np.quantile(truth[ok], [0, 1 / 3, 2 / 3, 1])
    out["uncertainty_without_expert"] = {
        "share_measured": _rounded(ok.mean()),
        "all": coverage((d - truth)[ok], u[ok]),
        "by_size": by_bins(truth[ok], sizes, lambda which: coverage((d - truth)[ok][which], u[ok][which])),
    }
    return out


def on_real(
    table: pd.DataFrame, images: Images, kept: dict[str, Any] | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Rivals on held-out loops beside the long sides of their labels; and the library's rows with `long_side_px`."""
    whole = table[~table["on_edge"] & table["true_px"].notna()]
    truth, fold = whole["true_px"].to_numpy(float), whole["fold"].to_numpy()
    tries = {RULE_BOX: (BOX, "rule_"), BEFORE: ("flood, then flood", "rule_")} | {name: (name, "") for name in RIVALS}
    edges = np.array([0, 20, 30, 45, 70, 300.0])
    out: dict[str, Any] = dict(kept or {})
    for title, (name, prefix) in () if kept else tries.items():
        start = time.process_time()
        ellipses = estimated(whole, images, name, prefix)
        seconds = time.process_time() - start
        sides = long_sides(ellipse_bounds(*ellipses.T))
        parts = {"folds 0 to 2": np.isin(fold, CHOSEN_ON), "folds 3 and 4": ~np.isin(fold, CHOSEN_ON)}
        parts |= {f"fold {k}": fold == k for k in range(5)}
        out[title] = {
            "all": errors(sides, truth),
            **{part: errors(sides[which], truth[which]) for part, which in parts.items()},
            "by_size_of_the_label": by_bins(truth, edges, lambda which, s=sides: errors(s[which], truth[which])),
            "by_image": image_errors(whole["image"].to_numpy(), sides, truth),
            "cpu_ms_a_loop": round(1000 * seconds / len(whole), 2),
        }
    rows = measured(table, images)
    ellipses = rows[["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]].to_numpy(float)
    rows = rows.assign(long_side_px=long_sides(ellipse_bounds(*ellipses.T)))
    return out, rows


def image_errors(image: np.ndarray, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float | int]:
    """Median absolute relative error of an image's mean and standard deviation, of at least `LEAST_LOOPS` loops."""
    of_mean, of_std = [], []
    for name in np.unique(image):
        here = image == name
        if here.sum() >= LEAST_LOOPS:
            of_mean.append(estimate[here].mean() / truth[here].mean() - 1)
            of_std.append(estimate[here].std(ddof=1) / truth[here].std(ddof=1) - 1)
    return {
        "n_images": len(of_mean),
        "mean_median_absolute": _rounded(np.median(np.abs(of_mean))),
        "std_median_absolute": _rounded(np.median(np.abs(of_std))),
    }


def label_scatter(pairs: pd.DataFrame) -> dict[str, Any]:
    """How labels of one loop scatter: of each, its standard deviation as a share of the side and in px."""
    a, b = pairs["first_px"].to_numpy(float), pairs["second_px"].to_numpy(float)
    log_ratio, side = np.log(a / b), np.sqrt(a * b)

    def cost(w: np.ndarray, which: np.ndarray | slice = slice(None)) -> float:
        return _student(log_ratio[which], 2 * (w[0] ** 2 + (w[1] / side[which]) ** 2))

    rng = np.random.default_rng(0)
    again = [
        np.abs(minimize(cost, [0.1, 2.0], args=(rng.integers(0, len(a), len(a)),), method="Nelder-Mead").x)
        for _ in range(50)
    ]
    share, px = np.abs(minimize(cost, [0.1, 2.0], method="Nelder-Mead").x)
    robust = 1.4826 * np.median(np.abs(log_ratio)) / np.sqrt(2)
    return {
        "n_loops": len(pairs),
        "n_pairs_of_fields": int(pairs["fields"].nunique()),
        "median_absolute_difference": _rounded(np.median(np.abs(log_ratio))),
        "standard_deviation_of_one_label": _rounded(robust),
        "median_error_of_a_perfect_measurement": _rounded(0.6745 * robust),
        "expert": _rounded(share),
        "expert_px": _rounded(px),
        "bootstrap_std": [_rounded(v) for v in np.std(again, 0)],
    }


def uncertainty(table: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """The fit of the uncertainty's parts on folds 0 to 2, and the coverage of what the library states."""
    use = (~table["on_edge"] & table["true_px"].notna() & rows["measured"]).to_numpy(bool)
    truth, fold = table["true_px"].to_numpy(float)[use], table["fold"].to_numpy()[use]
    d, side = (rows[c].to_numpy(float)[use] for c in ("diameter_px", "long_side_px"))
    alone = rows["diameter_uncertainty_px"].to_numpy(float)[use] / d
    stated = UncertaintySettings()
    departure = np.log(side / long_sides(table[BOX_COLUMNS].to_numpy(float)[use]))
    rim = np.sqrt(np.maximum(alone**2 - (stated.departure * departure) ** 2, 1e-12)) / stated.rim
    expert = stated.expert**2 + (stated.expert_px / d) ** 2
    chosen, log_error = np.isin(fold, CHOSEN_ON), np.log(side / truth)

    def cost(w: np.ndarray) -> float:
        variance = expert + (w[0] * rim) ** 2 + (w[1] * departure) ** 2
        return _student(log_error[chosen], variance[chosen])

    fitted = np.abs(minimize(cost, [0.3, 0.5], method="Nelder-Mead").x)
    u = np.hypot(alone, np.sqrt(expert)) * side
    edges = np.quantile(truth, [0, 0.25, 0.5, 0.75, 1])
    out: dict[str, Any] = {
        "fitted_on_folds_0_to_2": {"rim": _rounded(fitted[0]), "departure": _rounded(fitted[1])},
        "median_share_of_the_diameter": _rounded(np.median(u / side)),
        "median_share_without_expert": _rounded(np.median(alone)),
    }
    for name, part in (("folds 0 to 2", chosen), ("folds 3 and 4", ~chosen)):
        out[name] = {
            "long_side_beside_the_label": coverage((side - truth)[part], u[part]),
            "major_axis_beside_the_label": coverage((d - truth)[part], (u / side * d)[part]),
            "by_size_of_the_label": by_bins(
                truth, edges, lambda which, p=part: coverage((side - truth)[p & which], u[p & which])
            ),
        }
    return out


def decomposition(table: pd.DataFrame, rows: pd.DataFrame, all_labels_px: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation of the diameters, from the labels' to the loops', one cause after the other."""
    whole, is_found = ~table["on_edge"].to_numpy(bool), table["true_px"].notna().to_numpy()
    truth = table["true_px"].to_numpy(float)
    side, d, u = (rows[c].to_numpy(float) for c in ("long_side_px", "diameter_px", "diameter_uncertainty_px"))
    found = whole & is_found
    steps = {
        "all labels, long side": all_labels_px,
        "labels found, long side": truth[found],
        "their loops, long side": side[found],
        "their loops, major axis": d[found],
        "with the false loops, long side": side[whole],
        "with the false loops, major axis": d[whole],
    }
    first = [all_labels_px.mean(), all_labels_px.std(ddof=1)]
    out: dict[str, Any] = {
        name: {
            "n": len(v),
            "mean_px": round(float(v.mean()), 2),
            "std_px": round(float(v.std(ddof=1)), 2),
            "mean_over_the_labels": _rounded(v.mean() / first[0] - 1),
            "std_over_the_labels": _rounded(v.std(ddof=1) / first[1] - 1),
        }
        for name, v in steps.items()
    }
    slope = np.polyfit(truth[found], side[found], 1)[0]
    error = side[found] - truth[found]
    out["slope_of_long_side_on_label"] = _rounded(slope)
    out["std_of_the_errors_px"] = round(float(error.std(ddof=1)), 2)
    spread = d[whole].std(ddof=1)
    out["std_without_the_measurements_own_errors"] = _rounded(
        np.sqrt(max(spread**2 - np.nanmean(u[whole] ** 2), 0)) / first[1] - 1
    )
    return out


def _student(error: np.ndarray, variance: np.ndarray) -> float:
    """Minus the log-likelihood of Student's t of that variance, a constant left out."""
    return float(np.sum(0.5 * np.log(variance) + (FREEDOM + 1) / 2 * np.log1p(error**2 / variance / (FREEDOM - 2))))


def _rounded(value: float) -> float:
    return round(float(value), 4)


def main() -> None:
    """Everything, to ``results/diameters.json``; rings and simulations alone with ``--synthetic``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthetic", action="store_true", help="only what needs no data; nothing is written")
    parser.add_argument("--keep-rivals", action="store_true", help="rivals as in the file of the last run")
    arguments = parser.parse_args()
    place = RESULTS / "diameters.json"
    kept = json.loads(place.read_text(encoding="utf-8")) if arguments.keep_rivals else {}
    cv2.setNumThreads(1)
    out: dict[str, Any] = {}
    table, images = rings(40)
    for split, which in (
        ("size_px", (table["noise"] == 10) & (table["defocus_px"] == 0)),
        ("noise", (table["size_px"] == 40) & (table["defocus_px"] == 0)),
        ("defocus_px", (table["size_px"] == 40) & (table["noise"] == 10)),
    ):
        out[f"rings by {split}"] = synthetic(
            table[which].reset_index(drop=True), images, split, kept.get(f"rings by {split}")
        )
        _print(f"rings by {split}", out[f"rings by {split}"])
    for preset, n_fields in (("demo", 12), ("fecral", 24)):
        for defocus in (0.0, 2.0, 4.0):
            name = f"simulated {preset}, defocus {defocus:g} px"
            table, images = simulated(preset, n_fields, defocus)
            out[name] = synthetic(table, images, "true_px" if defocus else "noise", kept.get(name))
            _print(name, out[name])
    if arguments.synthetic:
        return
    held = read_held_out()
    images = {i.micrograph.image: i.micrograph.grey8() for i in training_images()}
    out["labels given twice"] = label_scatter(labelled_twice(held, images))
    print("labels given twice:", out["labels given twice"])
    _, thresholds = choose_thresholds(held)
    # By fold, as the other folds choose; the boxes of the tables are scaled to their convention already.
    scales = {k: box_scales(held, [f for f in range(5) if f != k]) for k in range(5)}
    tight = {k: s.box * (s.tight or 1.0) for k, s in scales.items()}
    out["tight_scale_by_fold"] = {str(k): _rounded(v) for k, v in tight.items()}
    table = real(held, held.kept(thresholds), tight)
    out["real"], rows = on_real(table, images, kept.get("real"))
    _print("real", out["real"])
    out["uncertainty"] = uncertainty(table, rows)
    print("uncertainty:", out["uncertainty"])
    labels = np.concatenate([held.marked(i).whole() for i in held.shapes])
    out["mean_and_std"] = decomposition(table, rows, labels)
    print("mean and std:", out["mean_and_std"])
    RESULTS.mkdir(exist_ok=True)
    write_json(provenance("make bench-diameters", "scikit-image") | out, place)


def _print(title: str, result: dict[str, Any]) -> None:
    print(title)
    for name, values in result.items():
        shown = values.get("all", values)
        print(f"  {name:44s}", shown, flush=True)


if __name__ == "__main__":
    main()
