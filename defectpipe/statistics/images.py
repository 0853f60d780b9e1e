"""The statistics of one image: the columns of ``images.csv`` up to the density's interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.io.tables import CORRECTION_COUNTS, FOCUS_COLUMNS
from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics.densities import areal_density_per_px2, density_interval
from defectpipe.statistics.distributions import mean_and_std, mean_interval
from defectpipe.statistics.predicted_f1 import Prediction

NM_PER_M = 1e9


_SEEN = {
    "expected_f1": "how its loops score",
    "anchor_logit": "how its best loops score",
    "mean_logit": "how its loops score",
    "spread_of_logits": "how widely its loops' scores spread",
    "log_loops": "the number of its loops",
    "log_listed": "the number of things that look like loops",
    "log_pixel_size": "its pixel size",
}


def image_row(
    facts: Mapping[str, Any],
    loops: pd.DataFrame,
    settings: Settings,
    doubt: str = "",
    predicted: Prediction | None = None,
) -> dict[str, Any]:
    """A row of ``images.csv`` for one frame that could be analysed, without ``image``, ``sha256`` and agreement.

    Parameters
    ----------
    facts : mapping
        What is known of the frame without its pixels: ``frame``, ``height_px``, ``width_px``, ``analysed_shape_px``
        (height, width), ``analysed_area_px2``, ``pixel_size_nm``, ``pixel_size_source``, ``magnification``,
        ``constant`` (every pixel has the same value), ``notes`` (of the reader); where it was corrected ``n_moved``,
        ``n_added``, ``n_deleted``; where its focus was assessed the columns of it, and ``focus_doubt``.
    loops : DataFrame
        Rows of ``loops.csv`` of this image and frame.
    settings : Settings
    doubt : str
        Why its corrections could not be read.
    predicted : Prediction, optional
        Of its F1; None: there is none.
    """
    height, width = facts["analysed_shape_px"]
    doubts = [f"not corrected: {doubt}"] if doubt else []
    if facts["constant"]:
        doubts.append("every pixel has the same value")
    if facts.get("focus_doubt"):
        doubts.append(facts["focus_doubt"])
    poor = int((loops["fit_quality"] < settings.measurement.min_fit_quality).sum())
    if poor:
        doubts.append(f"{poor} of {len(loops)} loops could not be measured well")
    if predicted is not None:
        doubts += _prediction_doubts(predicted, settings.statistics.min_predicted_f1)
    return {
        "frame": facts["frame"],
        "status": "review" if doubts else "ok",
        "reason": "; ".join([*doubts, *facts["notes"]]),
        "height_px": facts["height_px"],
        "width_px": facts["width_px"],
        "analysed_area_px2": facts["analysed_area_px2"],
        "pixel_size_nm": facts["pixel_size_nm"],
        "pixel_size_source": facts["pixel_size_source"],
        "magnification": facts["magnification"],
        **{name: facts.get(name) for name in (*CORRECTION_COUNTS, *FOCUS_COLUMNS)},
        "predicted_f1": None if predicted is None else predicted.f1,
        "predicted_f1_low": None if predicted is None else predicted.low,
        "predicted_f1_high": None if predicted is None else predicted.high,
    } | image_statistics(
        loops,
        (height, width),
        facts["pixel_size_nm"],
        settings.statistics,
        analysed_area_px2=facts["analysed_area_px2"],
        border_margin_px=settings.measurement.border_margin_px,
    )


def image_statistics(
    loops: pd.DataFrame,
    shape: tuple[int, int],
    pixel_size_nm: float | None,
    settings: StatisticsSettings,
    analysed_area_px2: float | None = None,
    border_margin_px: float = 0.0,
) -> dict[str, int | float | None]:
    """Count, diameters and areal density of the loops of one image.

    Loops on the edge are counted in ``n_loops`` and ``n_on_edge`` and enter nothing else: they are truncated.

    Parameters
    ----------
    loops : DataFrame
        Rows of ``loops.csv`` of this image and frame: ``diameter_px``, ``on_edge``, ``x0_px`` … ``y1_px``.
    shape : (int, int)
        Height and width, in px.
    pixel_size_nm : float or None
        None: every figure in nm or m is None.
    settings : StatisticsSettings
    analysed_area_px2 : float, optional
        Default: the whole image.
    border_margin_px : float
        See `areal_density_per_px2`.

    Returns
    -------
    dict
        Keys ``n_loops``, ``n_on_edge``, ``mean_diameter_px``, ``std_diameter_px``, ``mean_diameter_nm``,
        ``std_diameter_nm``, ``mean_diameter_nm_ci_low``, ``mean_diameter_nm_ci_high``, ``areal_density_per_m2``,
        ``areal_density_per_m2_ci_low``, ``areal_density_per_m2_ci_high``; None where undefined (a mean without loops,
        a standard deviation or an interval of a mean with fewer than two).
    """
    on_edge = loops["on_edge"].to_numpy(bool)
    uncut = loops[~on_edge]
    diameters = uncut["diameter_px"].to_numpy(float)
    mean, std = mean_and_std(diameters)
    low, high = mean_interval(diameters, settings, (0, np.inf))

    boxes = uncut[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(float)
    area_px2 = float(shape[0] * shape[1]) if analysed_area_px2 is None else float(analysed_area_px2)
    density: float | None = None
    density_low: float | None = None
    density_high: float | None = None
    if pixel_size_nm is not None and area_px2 > 0:
        px2_per_m2 = (NM_PER_M / pixel_size_nm) ** 2
        per_px2 = areal_density_per_px2(boxes[:, 2:] - boxes[:, :2], shape, area_px2, border_margin_px)
        bounds = density_interval(per_px2, len(uncut), area_px2, settings.confidence)
        density, density_low, density_high = (v * px2_per_m2 for v in (per_px2, *bounds))
    return {
        "n_loops": len(loops),
        "n_on_edge": int(np.count_nonzero(on_edge)),
        "mean_diameter_px": mean,
        "std_diameter_px": std,
        "mean_diameter_nm": _scaled(mean, pixel_size_nm),
        "std_diameter_nm": _scaled(std, pixel_size_nm),
        "mean_diameter_nm_ci_low": _scaled(low, pixel_size_nm),
        "mean_diameter_nm_ci_high": _scaled(high, pixel_size_nm),
        "areal_density_per_m2": density,
        "areal_density_per_m2_ci_low": density_low,
        "areal_density_per_m2_ci_high": density_high,
    }


def _prediction_doubts(predicted: Prediction, least: float) -> list[str]:
    doubts = []
    if predicted.f1 < least:
        doubts.append(f"predicted F1 {predicted.f1:.2f}, below {least:g}: compare it with labels before you trust it")
    if predicted.strange:
        seen = ", ".join(dict.fromkeys(_SEEN[name] for name in predicted.strange))
        doubts.append(f"unlike the images that the model was judged on in {seen}")
    return doubts


def _scaled(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor
