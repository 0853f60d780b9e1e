"""The ellipse of every loop, as all exports draw it."""

from __future__ import annotations

import numpy as np
import pandas as pd

ELLIPSE_COLUMNS = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]
# ImageJ, COCO and VIA count from the corner of the top left pixel, half a pixel from its centre.
CORNER_PX = 0.5


def drawable(loops: pd.DataFrame) -> pd.DataFrame:
    """The loops that have an ellipse with a size: all but those of a broken table.

    Parameters
    ----------
    loops : DataFrame
        Rows of ``loops.csv``.
    """
    values = loops[ELLIPSE_COLUMNS].to_numpy(float)
    good = np.isfinite(values).all(1) & (values[:, 2:4] > 0).all(1)
    return loops if good.all() else loops[good]
