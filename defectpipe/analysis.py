"""The chain for one micrograph: candidates, screened loops, measured loops. Pure functions of pixels and tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from defectpipe.boxes import shrink, tighten, touches_border
from defectpipe.classes import CONTOURS, EDGE, RIM
from defectpipe.detection.scan import find_candidates, most_candidates
from defectpipe.detection.tiles import find_candidates_by_tiles
from defectpipe.io.tables import AUTOMATIC, LOOP_COLUMNS
from defectpipe.measurement import FloodSettings, UncertaintySettings, measure
from defectpipe.measurement.edges import edge_reader, edge_strength
from defectpipe.measurement.ellipse import BoxPrior
from defectpipe.measurement.tiles import measure_by_tiles
from defectpipe.micrograph import Micrograph
from defectpipe.model import LoopModel
from defectpipe.resolution import Read, binning, from_working, reader_of_reduced, reduce, to_working
from defectpipe.screening.screener import screen
from defectpipe.screening.tiles import TiledCropSource
from defectpipe.settings import Settings

# Raised when a stage's figures change, so that results of an older version are computed again.
ANALYSIS_VERSION = {"candidates": 1, "screening": 2, "measurement": 2}

BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]
# A loop whose box has more than this part in what is left out of the picture is not seen whole.
_MOST_HIDDEN = 0.1


def is_tiled(m: Micrograph, settings: Settings) -> bool:
    """Whether an image is analysed tile by tile: it is too large to be held at once."""
    height, width = m.analysed_shape
    return height * width > settings.tiling.above_megapixels * 1e6


def working_image(m: Micrograph, model: LoopModel) -> tuple[np.ndarray, int]:
    """The 8-bit image that the model sees (what is analysed of it), and the factor by which it was reduced."""
    factor = _factor(m, model)
    return reduce(_grey8(m), factor), factor


def detect_candidates(m: Micrograph, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Candidates of the cascade, best first.

    Returns
    -------
    DataFrame
        Columns `BOX_COLUMNS` and ``detection_score``; square boxes in px of the micrograph.
    """
    factor = _factor(m, model)
    height, width = (n // factor for n in m.analysed_shape)
    per_megapixel = settings.detection.max_candidates_per_megapixel or model.max_candidates
    limit = most_candidates((height, width), per_megapixel)
    if is_tiled(m, settings):
        read, tiling = _working_reader(m, factor), settings.tiling
        boxes, scores = find_candidates_by_tiles(
            read, (height, width), model.cascade, model.scan, limit, tiling.tile_px, tiling.offset_px
        )
    else:
        boxes, scores = find_candidates(working_image(m, model)[0], model.cascade, model.scan, limit)
    found = pd.DataFrame(_of_picture(from_working(boxes, factor), m), columns=BOX_COLUMNS)
    return _visible(found.assign(detection_score=scores), m)


def screen_candidates(m: Micrograph, candidates: pd.DataFrame, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Candidates that the screener takes for loops with any likelihood, with corrected boxes, best first.

    Returns
    -------
    DataFrame
        Columns `BOX_COLUMNS` (in the model's box convention), ``detection_score``, ``screening_score`` and ``kept``:
        whether the score reaches the threshold; ``class`` where the model tells classes apart. Of each loop only the
        best candidate is listed.
    """
    factor = _factor(m, model)
    working = to_working(_of_analysed(candidates[BOX_COLUMNS].to_numpy(float), m), factor)
    if is_tiled(m, settings):
        height, width = (n // factor for n in m.analysed_shape)
        tiling = settings.tiling
        crops = TiledCropSource(_working_reader(m, factor), (height, width), tiling.tile_px, tiling.offset_px)
        found = screen(crops, working, model.network, model.seen, model.screening)
    else:
        found = screen(working_image(m, model)[0], working, model.network, model.seen, model.screening)
    threshold = model.threshold if settings.screening.threshold is None else settings.screening.threshold
    scaled = shrink(from_working(found.boxes, factor), 1 / model.box_scale)
    boxes = _of_picture(clip(scaled, m.analysed_shape), m)
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
        detection_score=candidates["detection_score"].to_numpy(float)[found.candidates],
        screening_score=found.scores,
        kept=found.scores >= threshold,
    )
    if model.classes.several:
        table["class"] = pd.Series([model.classes.names[number] for number in found.classes], dtype="str")
    return _visible(table, m)


def measure_loops(m: Micrograph, screened: pd.DataFrame, model: LoopModel, settings: Settings) -> pd.DataFrame:
    """Loops that were kept, measured: the rows of ``loops.csv``, numbered from the top left in reading order.

    Parameters
    ----------
    m : Micrograph
    screened : DataFrame
        As of `screen_candidates`. A column ``drawn``, where there is one, says of which boxes a person drew the loop
        and padded it by the rule of the convention: there the rule is undone, elsewhere the model's own padding. Where
        no column ``class`` says the class of a loop, it is of the model's first.
    model : LoopModel
    settings : Settings

    Returns
    -------
    DataFrame
        Columns `LOOP_COLUMNS`; the columns in nm are empty where the pixel size is unknown.
    """
    kept = screened[screened["kept"]]
    boxes = kept[BOX_COLUMNS].to_numpy(float)
    local = _of_analysed(boxes, m)
    drawn = kept["drawn"].to_numpy(bool) if "drawn" in kept else np.zeros(len(kept), bool)
    tight = clip(tight_boxes(local, model, drawn), m.analysed_shape)
    names = kept["class"].to_numpy() if "class" in kept else np.full(len(kept), model.classes.names[0], object)
    ellipses = _ellipses(m, tight, names, model, settings)
    size = math.nan if m.pixel_size_nm is None else m.pixel_size_nm
    table = pd.DataFrame(
        {
            "x_px": ellipses["x_px"],
            "y_px": ellipses["y_px"] + m.analysed_rows[0],
            **{column: boxes[:, i] for i, column in enumerate(BOX_COLUMNS)},
            **{c: ellipses[c] for c in ("diameter_px", "minor_px", "angle_deg", "area_px2", "feret_px")},
            "equivalent_diameter_px": ellipses["equivalent_diameter_px"],
            "diameter_nm": ellipses["diameter_px"] * size,
            "minor_nm": ellipses["minor_px"] * size,
            "area_nm2": ellipses["area_px2"] * size**2,
            "on_edge": touches_border(local, m.analysed_shape, settings.measurement.border_margin_px),
            "detection_score": kept["detection_score"].to_numpy(float),
            "screening_score": kept["screening_score"].to_numpy(float),
            "fit_quality": ellipses["fit_quality"],
            "diameter_uncertainty_px": ellipses["diameter_uncertainty_px"],
            "diameter_uncertainty_nm": ellipses["diameter_uncertainty_px"] * size,
            "class": pd.Series(names, dtype="str"),
        }
    )
    table = table.sort_values(["y_px", "x_px"], kind="stable", ignore_index=True)
    table = table.assign(image=m.image, frame=m.frame, loop_id=np.arange(1, len(table) + 1), origin=AUTOMATIC)
    return table[list(LOOP_COLUMNS)]


def analyse(m: Micrograph, model: LoopModel, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The whole chain for one micrograph.

    Returns
    -------
    candidates : DataFrame
        See `detect_candidates`.
    loops : DataFrame
        See `measure_loops`.
    """
    candidates = detect_candidates(m, model, settings)
    return candidates, measure_loops(m, screen_candidates(m, candidates, model, settings), model, settings)


def tight_boxes(boxes: np.ndarray, model: LoopModel, drawn: np.ndarray | None = None) -> np.ndarray:
    """Tight boxes of loops from the boxes of ``loops.csv``; of those `drawn` by a person, by the convention's rule."""
    learned = tighten(boxes, model.box_convention, model.tight_scale)
    if drawn is None:
        return learned
    return np.where(drawn[:, None], tighten(boxes, model.box_convention, None), learned)


def clip(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Boxes cut to an image of `shape` (height, width); its border runs half a pixel beyond the outer pixel centres."""
    limits = np.array([shape[1], shape[0], shape[1], shape[0]]) - 0.5
    return np.clip(boxes, -0.5, limits)


def _ellipses(
    m: Micrograph, tight: np.ndarray, names: np.ndarray, model: LoopModel, settings: Settings
) -> pd.DataFrame:
    """What `measure` gives of each box, along the contour that counts for its class."""
    contour_of = {one.name: one.contour for one in model.classes.each}
    contours = np.array([contour_of.get(name, RIM) for name in names], object)
    wanted = [contour for contour in CONTOURS if (contours == contour).any()] or [RIM]
    places = [np.flatnonzero(contours == contour) for contour in wanted]
    parts = [_measured(m, tight[rows], contour, model, settings) for contour, rows in zip(wanted, places, strict=True)]
    table = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return table.iloc[np.argsort(np.concatenate(places))].reset_index(drop=True)


def _measured(m: Micrograph, tight: np.ndarray, contour: str, model: LoopModel, settings: Settings) -> pd.DataFrame:
    expert = {"expert": settings.measurement.expert_scatter, "expert_px": settings.measurement.expert_scatter_px}
    flood = FloodSettings(prior=BoxPrior(log_side=model.box_spread), uncertainty=UncertaintySettings(**expert))
    by_edge = contour == EDGE
    polarity = "bright" if by_edge else model.polarity
    if not is_tiled(m, settings):
        grey = _grey8(m)
        return measure(edge_strength(grey) if by_edge else grey, tight, polarity=polarity, settings=flood)
    read = _reader(m)
    return measure_by_tiles(
        edge_reader(read, m.analysed_shape) if by_edge else read,
        m.analysed_shape,
        tight,
        polarity=polarity,
        settings=flood,
        tile_px=2 * settings.tiling.tile_px,
        offset_px=settings.tiling.offset_px,
    )


def _factor(m: Micrograph, model: LoopModel) -> int:
    return binning(m.shape, m.pixel_size_nm, model.working_pixel_size_nm)


def _grey8(m: Micrograph) -> np.ndarray:
    return m.grey8_region(*m.analysed_rows, 0, m.shape[1])


def _reader(m: Micrograph) -> Read:
    """Any part of what is analysed of a micrograph."""
    top = m.analysed_rows[0]
    return lambda y0, y1, x0, x1: m.grey8_region(top + y0, top + y1, x0, x1)


def _working_reader(m: Micrograph, factor: int) -> Read:
    """Any part of what `working_image` would be."""
    return reader_of_reduced(_reader(m), factor)


def _of_picture(boxes: np.ndarray, m: Micrograph) -> np.ndarray:
    """Coordinates of what is analysed as coordinates of the whole picture."""
    return boxes + np.array([0.0, m.analysed_rows[0], 0.0, m.analysed_rows[0]])


def _of_analysed(boxes: np.ndarray, m: Micrograph) -> np.ndarray:
    """The inverse of `_of_picture`."""
    return boxes - np.array([0.0, m.analysed_rows[0], 0.0, m.analysed_rows[0]])


def _visible(table: pd.DataFrame, m: Micrograph) -> pd.DataFrame:
    """Without the boxes that what is left out of the picture hides in part."""
    boxes = table[BOX_COLUMNS].to_numpy(float)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-9)
    seen = np.ones(len(table), bool)
    for y0, y1, x0, x1 in m.left_out:
        wide = np.minimum(boxes[:, 2], x1 - 0.5) - np.maximum(boxes[:, 0], x0 - 0.5)
        high = np.minimum(boxes[:, 3], y1 - 0.5) - np.maximum(boxes[:, 1], y0 - 0.5)
        seen &= np.clip(wide, 0, None) * np.clip(high, 0, None) <= _MOST_HIDDEN * area
    return table if seen.all() else table[seen].reset_index(drop=True)
