"""Which diameters the figure shows: those of loops that the border does not cut, in one unit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from defectpipe.boxes import convert, touches_border
from defectpipe.export.figure import Diameters

_BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]


def diameters_found(loops: pd.DataFrame, images: pd.DataFrame, unit: str) -> Diameters:
    """Of the loops of a run.

    Parameters
    ----------
    loops, images : DataFrame
        As in ``loops.csv`` and ``images.csv``.
    unit : str
        ``nm`` (images without a pixel size are left out) or ``px``.
    """
    used = _sizes(images, unit)
    values = loops[f"diameter_{unit}"].to_numpy(float)[~loops["on_edge"].to_numpy(bool)]
    return Diameters("found", values[np.isfinite(values)], len(used))


def diameters_of_labels(
    labels: Mapping[str, pd.DataFrame], images: pd.DataFrame, unit: str, box_convention: str, margin_px: float
) -> Diameters:
    """Of labels (boxes tight), by image; what the border cuts is judged as for loops, in `box_convention`."""
    used = _sizes(images[images["frame"] == 0], unit)
    parts = [np.zeros(0)]
    n_images = 0
    for (image, _frame), (size, shape) in used.items():
        if image in labels:
            table = labels[image]
            boxes = convert(table[_BOX_COLUMNS].to_numpy(float), "tight", box_convention)
            whole = ~touches_border(boxes, shape, margin_px)
            parts.append(table["diameter_px"].to_numpy(float)[whole] * size)
            n_images += 1
    values = np.concatenate(parts)
    return Diameters("labels", values[np.isfinite(values)], n_images)


def _sizes(images: pd.DataFrame, unit: str) -> dict[tuple[str, int], tuple[float, tuple[int, int]]]:
    """Image and frame to the length of a pixel in the unit and the picture's height and width, of those that count."""
    good = images[(images["status"] != "failed") & images["height_px"].notna()]
    sizes = good["pixel_size_nm"].to_numpy(float) if unit == "nm" else np.ones(len(good))
    columns = (good["image"], good["frame"], sizes, good["height_px"], good["width_px"])
    return {
        (str(image), int(frame)): (float(size), (int(height), int(width)))
        for image, frame, size, height, width in zip(*columns, strict=True)
        if np.isfinite(size)
    }
