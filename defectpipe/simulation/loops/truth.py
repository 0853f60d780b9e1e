"""The table of what is in a field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from defectpipe.boxes import touches_border
from defectpipe.simulation.acquisition import Acquisition, noise_std, stands_out
from defectpipe.simulation.loops.crystal import HABITS
from defectpipe.simulation.loops.loop import Loop, polygon_ellipses, rim_contrast
from defectpipe.simulation.loops.settings import LoopPreset

_TYPES = {
    "image": "str",
    "loop_id": "int64",
    "x_px": "float64",
    "y_px": "float64",
    "diameter_px": "float64",
    "minor_px": "float64",
    "angle_deg": "float64",
    "diameter_nm": "float64",
    "class": "str",
    "cnr": "float64",
    "visible": "bool",
    "on_edge": "bool",
    "x0_px": "float64",
    "y0_px": "float64",
    "x1_px": "float64",
    "y1_px": "float64",
    "contrast": "str",
    "polarity": "str",
    "true_diameter_nm": "float64",
    "habit": "str",
    "habit_plane": "str",
    "variant": "float64",
    "burgers": "str",
    "inclination_deg": "float64",
    "g_dot_b": "float64",
}
TRUTH_COLUMNS = list(_TYPES)


def truth_table(
    image: str,
    loops: list[Loop],
    outlines: np.ndarray,
    foil_levels: np.ndarray,
    acquisition: Acquisition,
    preset: LoopPreset,
    pixel_size_nm: float,
    picture: tuple[int, int],
) -> pd.DataFrame:
    """One row an object.

    Parameters
    ----------
    outlines : ndarray, shape (n, points, 2)
        As the scan moved and deformed them.
    foil_levels : ndarray, shape (n,)
        Share of the beam that the plain foil lets through at each object.
    picture : tuple of int
        Height and width without a data bar.
    """
    ellipses = polygon_ellipses(outlines)
    boxes = np.concatenate([outlines.min(1), outlines.max(1)], 1)
    cut = touches_border(boxes, picture)
    rows = []
    for number, (loop, ellipse, level) in enumerate(zip(loops, ellipses, foil_levels, strict=True)):
        x, y, diameter, *_ = ellipse
        contrast = level * rim_contrast(loop)
        cnr = abs(contrast) / noise_std(level if preset.contrast == "bf" else 1 - level, acquisition)
        inside = -0.5 <= x <= picture[1] - 0.5 and -0.5 <= y <= picture[0] - 0.5
        seen = inside and stands_out(cnr, _visible_area_px(loop), acquisition)
        seen = seen and not (loop.variant is not None and loop.variant.invisible)
        polarity = "dark" if (contrast > 0) == (preset.contrast == "bf") else "bright"
        rows.append(
            (
                *(image, number + 1, *ellipse, diameter * pixel_size_nm, loop.kind, cnr, bool(seen), bool(cut[number])),
                *(*boxes[number], loop.contrast, polarity, loop.diameter_px * pixel_size_nm, *_crystal(loop)),
            )
        )
    return pd.DataFrame(rows, columns=TRUTH_COLUMNS).astype(_TYPES)


def labelled_rows(truth: pd.DataFrame, labelled_classes: tuple[str, ...]) -> np.ndarray:
    """Which rows an expert would label: those of a labelled class that are visible."""
    return (truth["class"].isin(labelled_classes) & truth["visible"]).to_numpy(bool)


def _crystal(loop: Loop) -> tuple[Any, ...]:
    variant = loop.variant
    if variant is None:
        return "", "", np.nan, "", np.nan, np.nan
    habit = HABITS[variant.habit]
    number = variant.number
    where = (variant.habit, habit.plane(number), number, habit.burgers(number))
    return (*where, variant.inclination_deg, variant.g_dot_b)


def _visible_area_px(loop: Loop) -> float:
    if loop.kind == "open":
        return 0.5 * np.pi * (loop.diameter_px + loop.minor_px) * 2.355 * loop.rim_sigma_px
    return 0.25 * np.pi * loop.diameter_px * loop.minor_px
