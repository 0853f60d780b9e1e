"""The chain for one micrograph: candidates, screened loops, measured loops. Pure functions of pixels and tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from defectpipe.boxes import convert, touches_border
from defectpipe.detection.scan import find_candidates
from defectpipe.io.tables import LOOP_COLUMNS
from defectpipe.measurement import FloodSettings, measure
from defectpipe.measurement.ellipse import BoxPrior
from defectpipe.micrograph import Micrograph
from defectpipe.model import LoopModel
from defectpipe.resolution import binning, from_working, reduce, to_working
from defectpipe.screening.screener import screen
from defectpipe.settings import Settings

# Raised when a stage's figures change, so that results of an older version are computed again.
ANALYSIS_VERSION = {"candidates": 1, "screening": 1, "measurement": 1}

BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]


def working_image(m: Micrograph, model: LoopModel) -> tuple[np.ndarray, int]:
    """The 8-bit image that the model sees, and the factor by which it was reduced."""
    factor = binning(m.shape, m.pixel_size_nm, model.working_pixel_size_nm)
    return reduce(m.grey8(), factor), factor


def detect_candidates(m: Micrograph, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Candidates of the cascade, best first.

    Returns
    -------
    DataFrame
        Columns `BOX_COLUMNS` and ``detection_score``; square boxes in px of the micrograph.
    """
    grey, factor = working_image(m, model)
    per_megapixel = settings.detection.max_candidates_per_megapixel or model.max_candidates
    limit = max(20, math.ceil(per_megapixel * grey.size / 1e6))
    boxes, scores = find_candidates(grey, model.cascade, model.scan, limit)
    return pd.DataFrame(from_working(boxes, factor), columns=BOX_COLUMNS).assign(detection_score=scores)


def screen_candidates(m: Micrograph, candidates: pd.DataFrame, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Candidates that the screener takes for loops with any likelihood, with corrected boxes, best first.

    Returns
    -------
    DataFrame
        Columns `BOX_COLUMNS` (in the model's box convention), ``detection_score``, ``screening_score`` and ``kept``:
        whether the score reaches the threshold. Of each loop only the best candidate is listed.
    """
    grey, factor = working_image(m, model)
    working = to_working(candidates[BOX_COLUMNS].to_numpy(float), factor)
    found = screen(grey, working, model.network, model.seen, model.screening)
    threshold = model.threshold if settings.screening.threshold is None else settings.screening.threshold
    boxes = clip(from_working(found.boxes, factor), m.shape)
    return pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
        detection_score=candidates["detection_score"].to_numpy(float)[found.candidates],
        screening_score=found.scores,
        kept=found.scores >= threshold,
    )


def measure_loops(m: Micrograph, screened: pd.DataFrame, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Loops that were kept, measured: the rows of ``loops.csv``, numbered from the top left in reading order.

    Returns
    -------
    DataFrame
        Columns `LOOP_COLUMNS`; the columns in nm are empty where the pixel size is unknown.
    """
    kept = screened[screened["kept"]]
    boxes = kept[BOX_COLUMNS].to_numpy(float)
    tight = clip(convert(boxes, model.box_convention, "tight"), m.shape)
    flood = FloodSettings(prior=BoxPrior(log_side=model.box_spread))
    ellipses = measure(m.grey8(), tight, polarity=model.polarity, settings=flood)
    size = math.nan if m.pixel_size_nm is None else m.pixel_size_nm
    table = pd.DataFrame(
        {
            "x_px": ellipses["x_px"],
            "y_px": ellipses["y_px"],
            **{column: boxes[:, i] for i, column in enumerate(BOX_COLUMNS)},
            **{c: ellipses[c] for c in ("diameter_px", "minor_px", "angle_deg", "area_px2", "feret_px")},
            "equivalent_diameter_px": ellipses["equivalent_diameter_px"],
            "diameter_nm": ellipses["diameter_px"] * size,
            "minor_nm": ellipses["minor_px"] * size,
            "area_nm2": ellipses["area_px2"] * size**2,
            "on_edge": touches_border(boxes, m.shape, settings.measurement.border_margin_px),
            "detection_score": kept["detection_score"].to_numpy(float),
            "screening_score": kept["screening_score"].to_numpy(float),
            "fit_quality": ellipses["fit_quality"],
        }
    )
    table = table.sort_values(["y_px", "x_px"], kind="stable", ignore_index=True)
    table = table.assign(image=m.image, frame=m.frame, loop_id=np.arange(1, len(table) + 1))
    return table[list(LOOP_COLUMNS)]


def clip(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Boxes cut to an image of `shape` (height, width); its border runs half a pixel beyond the outer pixel centres."""
    limits = np.array([shape[1], shape[0], shape[1], shape[0]]) - 0.5
    return np.clip(boxes, -0.5, limits)
