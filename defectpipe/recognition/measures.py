"""Area, volume and dimensions of objects, from the maps of their field."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from defectpipe.boxes import touches_border
from defectpipe.recognition.pixelwise import OUTLINE, THICKNESS

_PX_COLUMNS = (
    "x_px",
    "y_px",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
    "area_px2",
    "equivalent_diameter_px",
    "length_px",
    "width_px",
    "angle_deg",
    "max_thickness_px",
    "volume_px3",
)
_NM_COLUMNS = (
    "area_nm2",
    "equivalent_diameter_nm",
    "length_nm",
    "width_nm",
    "max_thickness_nm",
    "mean_thickness_nm",
    "volume_nm3",
)
COLUMNS = ("object_id", *_PX_COLUMNS, *_NM_COLUMNS, "on_edge", "outline_probability")


def measure(maps: np.ndarray, instances: np.ndarray, pixel_size_nm: float | None) -> pd.DataFrame:
    """A row for each object.

    Centre and box are those of the outline, pixel centres at integers. Length and width are the sides of the smallest
    rectangle around it, the angle is that of the length from +x, counter-clockwise as seen, 0 to 180. Volume is the
    integral of the thickness, the largest thickness its 99th percentile, which one bad pixel does not move. Without a
    pixel size the columns in nm are NaN.

    Parameters
    ----------
    maps : ndarray, shape (height, width, 3)
        From `pixelwise.maps_of`.
    instances : ndarray of int, shape (height, width)
        From `separation.separate`.
    pixel_size_nm : float, optional
        None: unknown.

    Returns
    -------
    DataFrame
        With `COLUMNS`, also without objects.
    """
    rows = []
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is not None:
            corner = (box[0].start, box[1].start)
            row = _row(maps[box], instances[box] == number, corner, number, pixel_size_nm)
            bounds = np.array([[row[name] for name in ("x0_px", "y0_px", "x1_px", "y1_px")]])
            rows.append(row | {"on_edge": bool(touches_border(bounds, instances.shape)[0])})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(COLUMNS, "float64") | {"object_id": "int64", "on_edge": "bool"})


def _row(
    maps: np.ndarray, here: np.ndarray, corner: tuple[int, int], number: int, pixel_size_nm: float | None
) -> dict[str, Any]:
    """Of one object, from the part of the field with `corner` (y, x) that holds it."""
    y, x = np.nonzero(here)
    y, x = y + corner[0], x + corner[1]
    thickness = maps[here, THICKNESS].astype(float)
    area, volume = float(here.sum()), float(thickness.sum())
    # corners of the pixels, not their centres: a row of 3 px is 3 px long
    corners = np.concatenate([np.stack([x + dx, y + dy], 1) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5)])
    _, (side_a, side_b), turn = cv2.minAreaRect(corners.astype(np.float32))
    length, width = max(side_a, side_b), min(side_a, side_b)
    # OpenCV's angle is clockwise as seen, of the first side
    angle = (-turn if side_a >= side_b else -turn - 90.0) % 180.0
    box = [x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5]
    thickest = float(np.percentile(thickness, 99))
    diameter = float(np.sqrt(4 * area / np.pi))
    row = dict(
        zip(
            _PX_COLUMNS,
            (x.mean(), y.mean(), *box, area, diameter, length, width, angle, thickest, volume),
            strict=True,
        )
    )
    size = np.nan if pixel_size_nm is None else pixel_size_nm
    lengths = (diameter, length, width, thickest, volume / area)
    in_nm = (area * size**2, *(v * size for v in lengths), volume * size**3)
    return {
        "object_id": number,
        **{name: float(value) for name, value in row.items()},
        **dict(zip(_NM_COLUMNS, in_nm, strict=True)),
        "outline_probability": float(maps[here, OUTLINE].mean()),
    }
