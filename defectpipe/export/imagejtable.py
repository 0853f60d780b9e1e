"""Loops as an ImageJ results table: what ImageJ's Measure says of the ROIs, in its column names and its units."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from defectpipe.boxes import ellipse_bounds
from defectpipe.export.shapes import CORNER_PX, ELLIPSE_COLUMNS, drawable
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import neutral_text

RESULT_COLUMNS = [
    *(" ", "Label", "Area", "X", "Y", "BX", "BY", "Width", "Height", "Major", "Minor", "Angle", "Feret"),
    *("Slice", "Loop", "Unit", "PixelSize"),
]
# Rows that are held as text at once.
_BLOCK = 10_000


def imagej_results(loops: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The results table of a folder.

    Parameters
    ----------
    loops, images : DataFrame
        As in ``loops.csv`` and ``images.csv``.

    Returns
    -------
    DataFrame
        `RESULT_COLUMNS`: the row's number from 1; image; area, centre, bounding box, axes, angle and Feret diameter of
        the ellipse, from the corner of the top left pixel; slice from 1; loop; ``Unit`` and the side of a pixel in it:
        nm, or ``pixel`` (and 1) where the pixel size is not known.
    """
    shown = drawable(loops)
    ellipses = shown[ELLIPSE_COLUMNS].to_numpy(float)
    boxes = ellipse_bounds(*ellipses.T).reshape(-1, 4)
    known = images[["image", "frame", "pixel_size_nm"]]
    size_nm = shown[["image", "frame"]].merge(known, on=["image", "frame"], how="left")["pixel_size_nm"].to_numpy(float)
    size = np.where(np.isfinite(size_nm), size_nm, 1.0)
    return pd.DataFrame(
        {
            " ": np.arange(1, len(shown) + 1),
            "Label": shown["image"].to_numpy(),
            "Area": np.pi / 4 * ellipses[:, 2] * ellipses[:, 3] * size**2,
            "X": (ellipses[:, 0] + CORNER_PX) * size,
            "Y": (ellipses[:, 1] + CORNER_PX) * size,
            "BX": (boxes[:, 0] + CORNER_PX) * size,
            "BY": (boxes[:, 1] + CORNER_PX) * size,
            "Width": (boxes[:, 2] - boxes[:, 0]) * size,
            "Height": (boxes[:, 3] - boxes[:, 1]) * size,
            "Major": ellipses[:, 2] * size,
            "Minor": ellipses[:, 3] * size,
            "Angle": ellipses[:, 4],
            "Feret": ellipses[:, 2] * size,
            "Slice": shown["frame"].to_numpy(np.int64) + 1,
            "Loop": shown["loop_id"].to_numpy(np.int64),
            "Unit": np.where(np.isfinite(size_nm), "nm", "pixel"),
            "PixelSize": size,
        },
        columns=RESULT_COLUMNS,
    )


def write_imagej_results(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV. Nine digits: a place in nm is still good to 0.01 px at the far side of a large image."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            for first in range(0, len(table), _BLOCK):
                for row in table.iloc[first : first + _BLOCK].itertuples(index=False, name=None):
                    writer.writerow([_cell(value) for value in row])

    write_atomic(path, write)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return neutral_text(value)
    return f"{value:.9g}" if isinstance(value, float) else str(value)
