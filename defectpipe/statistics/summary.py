"""The folder's pooled figures: the statistics part of ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics.densities import poisson_interval
from defectpipe.statistics.distributions import (
    Interval,
    grouped_interval,
    interval_name,
    mean_interval,
    ratio,
    std_of_sums,
    sum_by_group,
)
from defectpipe.statistics.images import NM_PER_M


def pooled_summary(
    images: pd.DataFrame, loops: pd.DataFrame, settings: Settings, groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Counts, diameters and density over all images and frames that did not fail and are not too blurred.

    Loops on the edge enter the counts only. The mean is that of all loops; the density is that of the analysed area
    taken together. Intervals are over images (a stack's frames belong together) or over `groups`: neighbouring loops
    are not independent. A single image has its own intervals instead: over loops, and exact Poisson.

    Parameters
    ----------
    images : DataFrame
        ``images.csv``: ``image``, ``frame``, ``status``, ``focus_gate``, ``analysed_area_px2``, ``pixel_size_nm``,
        ``n_loops``, ``n_on_edge``, ``areal_density_per_m2`` are used.
    loops : DataFrame
        ``loops.csv``.
    settings : Settings
    groups : mapping of str to str, optional
        Image to group.

    Returns
    -------
    dict
        ``n_images``, ``n_review``, ``n_failed``, ``n_rejected`` (out of focus: they count in none of what follows),
        ``n_without_pixel_size`` (rows of ``images.csv``), ``n_loops``,
        ``n_on_edge``, ``analysed_area_m2``; ``mean_diameter_px``, ``std_diameter_px``, the same in nm over the images
        with a pixel size, ``areal_density_per_m2``, each with ``_ci_low`` and ``_ci_high``; ``confidence``,
        ``interval``. None where undefined.
    """
    status = images["status"].astype(str)
    rejected = pd.Series(False, index=images.index)
    if "focus_gate" in images:
        rejected = (status != "failed") & (images["focus_gate"].astype(str) == "reject")
    good = images[(status != "failed") & ~rejected].sort_values(["image", "frame"], kind="stable")
    names = good["image"].astype(str).to_numpy()
    group_of = {name: name if groups is None else groups.get(name, name) for name in names}
    scaled = good[good["pixel_size_nm"].notna()]
    area_m2 = _area_m2(scaled)
    counted = pd.MultiIndex.from_frame(good[["image", "frame"]])
    known = pd.MultiIndex.from_frame(loops[["image", "frame"]]).isin(counted)
    whole = loops[~loops["on_edge"].to_numpy(bool) & known]
    whole = whole.sort_values(["image", "frame"], kind="stable")
    n_groups = len(set(group_of.values()))
    unit = "image" if groups is None else "group"
    out: dict[str, Any] = {
        "n_images": len(images),
        "n_review": int((status == "review").sum()),
        "n_failed": int((status == "failed").sum()),
        "n_rejected": int(rejected.sum()),
        "n_without_pixel_size": len(good) - len(scaled),
        "n_loops": int(good["n_loops"].sum()),
        "n_on_edge": int(good["n_on_edge"].sum()),
        "analysed_area_m2": float(area_m2.sum()),
        "confidence": settings.statistics.confidence,
        "interval": interval_name(n_groups, unit)
        if n_groups != 1
        else f"over the loops of one {unit}, and exact Poisson",
    }
    for unit in ("px", "nm"):
        out |= _diameters(whole, f"diameter_{unit}", group_of, settings.statistics)
    return out | _density(scaled, area_m2, group_of, settings.statistics)


def _diameters(
    whole: pd.DataFrame, column: str, group_of: Mapping[str, str], settings: StatisticsSettings
) -> dict[str, float | None]:
    part = whole[whole[column].notna()]
    values = part[column].to_numpy(float)
    if not len(values):
        return _named(f"mean_{column}", np.nan, (None, None)) | _named(f"std_{column}", np.nan, (None, None))
    # About their mean: squares of large values would drown a small spread.
    d = values - values.mean()
    groups = [group_of[name] for name in part["image"].astype(str)]
    sums = sum_by_group(np.stack([values, d, d * d, np.ones_like(d)], 1), groups)
    if len(sums) > 1:
        mean_ci = grouped_interval(sums[:, [0, 3]], ratio, settings, (0, np.inf))
        std_ci = grouped_interval(sums[:, 1:], std_of_sums, settings, (0, np.inf))
    else:
        mean_ci = mean_interval(values, settings, (0, np.inf))
        std_ci = grouped_interval(np.stack([d, d * d, np.ones_like(d)], 1), std_of_sums, settings, (0, np.inf))
    return _named(f"mean_{column}", float(values.mean()), mean_ci) | _named(
        f"std_{column}", float(std_of_sums(sums[:, 1:].sum(0))), std_ci
    )


def _density(
    scaled: pd.DataFrame, area_m2: np.ndarray, group_of: Mapping[str, str], settings: StatisticsSettings
) -> dict[str, float | None]:
    name = "areal_density_per_m2"
    if not area_m2.sum() > 0:
        return _named(name, np.nan, (None, None))
    each = scaled[name].fillna(0.0).to_numpy(float)
    uncut = int((scaled["n_loops"] - scaled["n_on_edge"]).sum())
    sums = sum_by_group(np.stack([each * area_m2, area_m2], 1), [group_of[i] for i in scaled["image"].astype(str)])
    density = float(ratio(sums.sum(0)))
    # No loop anywhere, or a single field: fields tell nothing of the spread, counting does.
    if uncut == 0 or len(sums) < 2:
        low, high = poisson_interval(uncut, settings.confidence)
        scale = density / uncut if uncut else 1 / float(area_m2.sum())
        return _named(name, density, (low * scale, high * scale))
    return _named(name, density, grouped_interval(sums, ratio, settings, (0, np.inf)))


def _area_m2(scaled: pd.DataFrame) -> np.ndarray:
    return scaled["analysed_area_px2"].to_numpy(float) * (scaled["pixel_size_nm"].to_numpy(float) / NM_PER_M) ** 2


def _named(name: str, value: float, interval: Interval) -> dict[str, float | None]:
    return {
        name: value if np.isfinite(value) else None,
        f"{name}_ci_low": interval[0],
        f"{name}_ci_high": interval[1],
    }
