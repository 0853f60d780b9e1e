"""Between micrographs and the recogniser: their analysed rows as plain numbers, and results back in whole frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from defectpipe.micrograph import Micrograph


def field_of(micrograph: Micrograph) -> np.ndarray:
    """What is analysed of a micrograph, as finite numbers.

    Strips at the top and bottom are cut off; a scale bar, and pixels without data, take the median of the rest.

    Returns
    -------
    ndarray of float32, shape `micrograph.analysed_shape`
    """
    first, end = micrograph.analysed_rows
    source = micrograph.pixels
    values = source[first:end] if isinstance(source, np.ndarray) else source.region(first, end, 0, micrograph.shape[1])
    field = np.array(values, np.float32)
    missing = ~np.isfinite(field)
    for y0, y1, x0, x1 in micrograph.left_out:
        missing[max(0, y0 - first) : max(0, y1 - first), x0:x1] = True
    if missing.any():
        field[missing] = np.median(field[~missing]) if not missing.all() else 0
    return field


def instances_in_frame(micrograph: Micrograph, instances: np.ndarray) -> np.ndarray:
    """Objects of the analysed rows in the whole frame."""
    first, end = micrograph.analysed_rows
    return np.pad(instances, ((first, micrograph.shape[0] - end), (0, 0)))


def table_in_frame(micrograph: Micrograph, table: pd.DataFrame) -> pd.DataFrame:
    """The table of the analysed rows in coordinates of the whole frame."""
    rows = {name: table[name] + micrograph.analysed_rows[0] for name in ("y_px", "y0_px", "y1_px")}
    return table.assign(**rows)
