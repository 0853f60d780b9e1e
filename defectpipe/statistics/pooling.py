"""Scored images put together: recall, precision, F1, and count and diameters beside the labels', with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectpipe.settings import StatisticsSettings
from defectpipe.statistics.distributions import (
    Statistic,
    grouped_interval,
    interval_name,
    mean_and_std,
    ratio,
    std_of_sums,
    sum_by_group,
)
from defectpipe.statistics.scoring import COUNTS, RULES, SCORES, Objects, matched_pairs, score


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """One image with what was marked in it by two sides, and the counts of their agreement (see `scoring.score`)."""

    image: str
    group: str
    labels: Objects
    loops: Objects
    counts: dict[str, np.ndarray]

    @classmethod
    def of(cls, image: str, group: str, labels: Objects, loops: Objects, settings: StatisticsSettings) -> ScoredImage:
        """Score `loops` against `labels`."""
        return cls(image, group, labels, loops, score(labels, loops, settings))


def rule_name(rule: str, settings: StatisticsSettings) -> str:
    """Key of a rule of `RULES` in ``evaluation.json``: ``iou_0.4`` names the overlap that was asked for."""
    return f"iou_{settings.match_iou:g}" if rule == "one_to_one" else rule


def pooled_agreement(scored: Sequence[ScoredImage], settings: StatisticsSettings) -> dict[str, Any]:
    """Scores under both rules and the comparison of sizes, pooled over images.

    Parameters
    ----------
    scored : sequence of ScoredImage
    settings : StatisticsSettings

    Returns
    -------
    dict
        ``n_images``, ``n_groups``, ``interval`` (how the intervals were made), ``iou_0.4`` and ``li2018`` (see
        `pooled_scores`), ``sizes`` (see `pooled_sizes`), ``matched`` (see `matched_diameters`).
    """
    n_groups = len({s.group for s in scored})
    unit = "group" if any(s.group != s.image for s in scored) else "image"
    out: dict[str, Any] = {
        "n_images": len(scored),
        "n_groups": n_groups,
        "interval": interval_name(n_groups, unit),
    }
    for rule in RULES:
        out[rule_name(rule, settings)] = pooled_scores(scored, rule, settings)
    out["sizes"] = pooled_sizes(scored, settings)
    out["matched"] = matched_diameters(scored, settings)
    return out


def pooled_scores(scored: Sequence[ScoredImage], rule: str, settings: StatisticsSettings) -> dict[str, Any]:
    """Recall, precision and F1 under one rule, without the border and (suffix ``_with_border``) with it.

    Returns
    -------
    dict
        ``n_labels``, ``n_found``, ``n_loops``, ``n_true``; pooled (from the sums over all images) ``recall``,
        ``precision``, ``f1``, each with ``…_ci_low`` and ``…_ci_high``; under ``mean_of_images`` the means of the
        images' own. None where undefined.
    """
    groups = [s.group for s in scored]
    out: dict[str, Any] = {}
    means: dict[str, Any] = {}
    for suffix in ("", "_with_border"):
        counts = np.array([s.counts[rule + suffix] for s in scored], float).reshape(-1, len(COUNTS))
        out |= {name + suffix: int(total) for name, total in zip(COUNTS, counts.sum(0), strict=True)}
        by_group = sum_by_group(counts, groups)
        for name, statistic in SCORES.items():
            out |= with_interval(name + suffix, by_group, statistic, settings, (0, 1))
            values = statistic(counts)
            defined = np.isfinite(values)
            terms = sum_by_group(np.stack([np.where(defined, values, 0), defined], 1), groups)
            means |= with_interval(name + suffix, terms, ratio, settings, (0, 1))
    return out | {"mean_of_images": means}


def pooled_sizes(scored: Sequence[ScoredImage], settings: StatisticsSettings) -> dict[str, Any]:
    """Count, mean and standard deviation of the diameters beside the labels', objects on the border left out.

    Returns
    -------
    dict
        ``n_labels``, ``n_loops``, ``count_relative_error``; ``labels_mean_diameter_px``, ``mean_diameter_px``,
        ``mean_diameter_relative_error``; the same of ``std``; both again of ``long_side``, of the tight bounding box:
        a label that is a box has no major axis, so this compares like with like. A relative error is loops/labels − 1,
        with ``…_ci_low`` and ``…_ci_high``; None where undefined.
    """
    terms = _terms(scored, Objects.whole)
    total = terms.sum(0)
    return (
        {"n_labels": int(total[0]), "n_loops": int(total[5])}
        | with_interval("count_relative_error", terms, _relative(lambda side: side[..., 0]), settings, (-1, np.inf))
        | _beside_labels("diameter", terms, settings)
        | _beside_labels("long_side", _terms(scored, Objects.whole_long_sides), settings)
    )


def _terms(scored: Sequence[ScoredImage], sizes: Callable[[Objects], np.ndarray]) -> np.ndarray:
    """Sums over the labels' sizes and the loops', by group; shape (n_groups, 10)."""
    each = [(s, sizes(s.labels), sizes(s.loops)) for s in scored]
    everything = np.concatenate([np.zeros(0), *(part for _, *parts in each for part in parts)])
    centre = float(everything.mean()) if len(everything) else 0.0
    terms = [
        _size_sums(s.labels, of_labels, centre) + _size_sums(s.loops, of_loops, centre)
        for s, of_labels, of_loops in each
    ]
    return sum_by_group(np.array(terms, float).reshape(-1, 10), [s.group for s in scored])


def _beside_labels(name: str, terms: np.ndarray, settings: StatisticsSettings) -> dict[str, Any]:
    labels, loops = np.split(terms.sum(0), 2)
    out: dict[str, Any] = {}
    for figure, statistic in (("mean", _mean), ("std", _std)):
        out |= {
            f"labels_{figure}_{name}_px": _number(statistic(labels)),
            f"{figure}_{name}_px": _number(statistic(loops)),
        }
        out |= with_interval(f"{figure}_{name}_relative_error", terms, _relative(statistic), settings, (-1, np.inf))
    return out


def matched_diameters(scored: Sequence[ScoredImage], settings: StatisticsSettings) -> dict[str, Any]:
    """How far the diameters of matched pairs (one-to-one) lie apart.

    Returns
    -------
    dict
        ``n_pairs``, ``median_relative_error`` (signed, loop/label − 1) and ``median_absolute_relative_error``.
    """
    errors = np.concatenate([np.zeros(0)] + [_pair_errors(s, settings) for s in scored])
    return {
        "n_pairs": len(errors),
        "median_relative_error": float(np.median(errors)) if len(errors) else None,
        "median_absolute_relative_error": float(np.median(np.abs(errors))) if len(errors) else None,
    }


def image_rows(scored: Sequence[ScoredImage], settings: StatisticsSettings) -> list[dict[str, Any]]:
    """Scores, and count, mean, std beside the labels', image by image; sorted by image.

    Counts and diameters leave out what the border cuts.
    """
    rows: list[dict[str, Any]] = []
    for s in sorted(scored, key=lambda s: s.image):
        row: dict[str, Any] = {"image": s.image, "group": s.group} | size_figures(s.labels, "labels_")
        row |= size_figures(s.loops)
        for name in ("count", "mean_diameter_px", "std_diameter_px"):
            row[name.removesuffix("_px") + "_relative_error"] = relative_error(row[name], row["labels_" + name])
        for rule in RULES:
            counts = s.counts[rule]
            row[rule_name(rule, settings)] = {
                name: _number(statistic(counts.astype(float))) for name, statistic in SCORES.items()
            } | {name: int(value) for name, value in zip(COUNTS, counts, strict=True)}
        rows.append(row)
    return rows


def size_figures(objects: Objects, prefix: str = "") -> dict[str, Any]:
    """Count, mean and standard deviation (ddof 1) of the diameters of uncut objects."""
    mean, std = mean_and_std(objects.whole())
    return {
        prefix + "count": int(np.count_nonzero(~objects.on_edge)),
        prefix + "mean_diameter_px": mean,
        prefix + "std_diameter_px": std,
    }


def with_interval(
    name: str, sums: np.ndarray, statistic: Statistic, settings: StatisticsSettings, bounds: tuple[float, float]
) -> dict[str, float | None]:
    """A statistic of sums over groups under its name, with ``…_ci_low`` and ``…_ci_high``: see `grouped_interval`."""
    low, high = grouped_interval(sums, statistic, settings, bounds)
    value = _number(statistic(sums.sum(0))) if len(sums) else None
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def relative_error(value: float | None, reference: float | None) -> float | None:
    """value/reference − 1; None where either lacks or the reference is 0."""
    return None if value is None or not reference else value / reference - 1


def _size_sums(objects: Objects, sizes: np.ndarray, centre: float) -> list[float]:
    # Squares about a common centre: without it, a small spread drowns in the rounding of large squares.
    d = sizes - centre
    return [np.count_nonzero(~objects.on_edge), sizes.sum(), d.sum(), (d**2).sum(), len(d)]


def _mean(side: np.ndarray) -> np.ndarray:
    return ratio(side[..., [1, 4]])


def _std(side: np.ndarray) -> np.ndarray:
    return std_of_sums(side[..., [2, 3, 4]])


def _relative(figure: Callable[[np.ndarray], np.ndarray]) -> Statistic:
    def error(sums: np.ndarray) -> np.ndarray:
        return ratio(np.stack([figure(sums[..., 5:]), figure(sums[..., :5])], -1)) - 1

    return error


def _pair_errors(s: ScoredImage, settings: StatisticsSettings) -> np.ndarray:
    pairs = matched_pairs(s.labels, s.loops, settings.match_iou)
    of_label, of_loop = s.labels.diameters_px[pairs[:, 0]], s.loops.diameters_px[pairs[:, 1]]
    errors = np.divide(of_loop, of_label, out=np.full(len(pairs), np.nan), where=of_label > 0) - 1
    return errors[np.isfinite(errors)]


def _number(value: np.ndarray | float) -> float | None:
    return float(value) if np.isfinite(value) else None
