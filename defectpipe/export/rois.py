"""Loops as ImageJ ROIs: true ellipses in a zip, as the ROI manager of ImageJ and Fiji saves and opens them.

The ROI of a loop is an `EllipseRoi`: the end points of its major axis and the ratio of its axes (ImageJ's RoiDecoder:
type 7, subtype 3, the points as floats at byte 18, the ratio as a float at byte 52).
"""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pandas as pd
from roifile import ROI_SUBTYPE, ImagejRoi

from defectpipe.boxes import ellipse_points
from defectpipe.export.shapes import CORNER_PX, ELLIPSE_COLUMNS, drawable
from defectpipe.io.labels.rois import roi_name

_ASPECT_RATIO_OFFSET = 52
# ImageJ draws the ellipse anew from its axis; other readers take these corners.
_N_CORNERS = 36
# A zip holds times: one that never changes, the earliest it can say.
_NO_DAY = (1980, 1, 1, 0, 0, 0)


def rois_zip(loops: pd.DataFrame, *, is_stack: bool = False) -> bytes:
    """A zip of ROIs, one a loop, the same bytes for the same loops; without loops, an empty zip.

    Parameters
    ----------
    loops : DataFrame
        Rows of ``loops.csv`` of one image, all frames.
    is_stack : bool
        Whether the image has several frames: each ROI then has the position of its slice.
    """
    content = io.BytesIO()
    shown = drawable(loops)
    with zipfile.ZipFile(content, "w") as archive:
        for ellipse, frame, loop_id in zip(
            shown[ELLIPSE_COLUMNS].to_numpy(float), shown["frame"], shown["loop_id"], strict=True
        ):
            slice_of = int(frame) if is_stack else None
            name = roi_name(int(loop_id), slice_of)
            entry = zipfile.ZipInfo(f"{name}.roi", _NO_DAY)
            archive.writestr(entry, ellipse_roi(ellipse, name, slice_of), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def ellipse_roi(ellipse: np.ndarray, name: str, frame: int | None = None) -> bytes:
    """One ellipse in ImageJ's ROI format.

    Parameters
    ----------
    ellipse : ndarray, shape (5,)
        Centre, full axes (px, pixel centres at integers), angle in degrees.
    name : str
    frame : int, optional
        Of a stack, from 0.
    """
    corners = ellipse_points(ellipse, _N_CORNERS) + CORNER_PX
    roi = ImagejRoi.frompoints(corners, name=name, position=frame)
    roi.subtype = ROI_SUBTYPE.ELLIPSE
    (roi.x1, roi.y1), (roi.x2, roi.y2) = (map(float, corners[k]) for k in (_N_CORNERS // 2, 0))
    data = bytearray(roi.tobytes())
    struct.pack_into(">f", data, _ASPECT_RATIO_OFFSET, ellipse[3] / ellipse[2])
    return bytes(data)
