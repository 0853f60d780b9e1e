"""ImageJ ROIs: a ``.roi`` file, or the ``.zip`` of ImageJ's ROI manager; ovals, ellipses, polygons, rectangles."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import CORNER_PX, Outline, ellipse_outline, polygon_outline
from defectpipe.io.labels.sources import LabelFile

_MAX_ROI_BYTES = 2**24
_MAX_ZIP_BYTES = 2**28
_MAX_ROIS = 100_000
_ASPECT_RATIO_OFFSET = 52
_NAME = re.compile(r"(?:\d+-)?loop-(\d{1,9})")
_AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)


def roi_name(loop_id: int, frame: int | None = None) -> str:
    """Name of a loop's ROI: ``loop-0012``; in a stack with its slice, from 1, before: ``0003-loop-0012``.

    Not a bare number: ImageJ names what is drawn by hand after its place, such as ``0012-0345``.
    """
    return f"loop-{loop_id:04d}" if frame is None else f"{frame + 1:04d}-loop-{loop_id:04d}"


def loop_id_of(name: str) -> int | None:
    """The loop that a ROI's name says (`roi_name`), None for any other name."""
    match = _NAME.fullmatch(name.strip())
    return int(match[1]) if match else None


def read(file: LabelFile, *, frames: bool = False) -> list[Outline]:
    """ROIs as outlines; the label is empty, ImageJ's names being numbers.

    Parameters
    ----------
    file : LabelFile
    frames : bool
        Whether the ROIs may be of several slices.

    Raises
    ------
    LabelError
        The file is broken, an entry's name leaves its folder, or a ROI encloses nothing (line, point, text).
    """
    outlines, slices = [], set()
    for name, data in _entries(file):
        where = f"{file.name}, ROI '{name}'"
        try:
            roi = ImagejRoi.frombytes(data)
            outline = _outline(where, roi, data)
        except (ValueError, TypeError, IndexError, RuntimeError, struct.error) as error:
            raise LabelError(f"{where}: cannot be read ({error}).") from error
        slices |= {p for p in (roi.position, roi.z_position, roi.t_position) if p > 0}
        frame = max(roi.position, roi.z_position, roi.t_position, 1) - 1
        outlines.append(replace(outline, frame=frame, loop_id=loop_id_of(PurePosixPath(name).stem)))
    if len(slices) > 1 and not frames:
        raise LabelError(f"{file.name}: the ROIs are of several slices; save one zip per image.")
    return outlines


def _entries(file: LabelFile) -> list[tuple[str, bytes]]:
    if file.suffix == ".roi":
        return [(file.path.name, file.data)]
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
            sizes = [info.file_size for info in infos]
            # Reading ends where an entry's stated size does, so that nothing can be larger than it says.
            if len(infos) > _MAX_ROIS or max(sizes, default=0) > _MAX_ROI_BYTES or sum(sizes) > _MAX_ZIP_BYTES:
                raise LabelError(f"{file.name}: too large for a zip of ROIs.")
            for info in infos:
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise LabelError(f"{file.name}: it is packed in a way that ImageJ does not use; save it again.")
                path = PurePosixPath(info.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts:
                    raise LabelError(f"{file.name}: the entry '{info.filename[:80]}' leaves the zip; refused.")
                if path.suffix.lower() != ".roi":
                    raise LabelError(f"{file.name}: the entry '{info.filename[:80]}' is no ImageJ ROI.")
            return [(info.filename, archive.read(info)) for info in infos]
    except LabelError:
        raise
    except Exception as error:  # a damaged zip makes zipfile and zlib raise what they like
        raise LabelError(f"{file.name}: cannot be read as a zip ({error}).") from error


def _outline(where: str, roi: ImagejRoi, data: bytes) -> Outline:
    if roi.roitype == ROI_TYPE.FREEHAND and roi.subtype == ROI_SUBTYPE.ELLIPSE:
        # Ends of the major axis, and the ratio of the axes as a float where roifile looks for other fields.
        ratio = struct.unpack_from(">f", data, _ASPECT_RATIO_OFFSET)[0]
        x, y = (roi.x1 + roi.x2) / 2 - CORNER_PX, (roi.y1 + roi.y2) / 2 - CORNER_PX
        dx, dy = roi.x2 - roi.x1, roi.y2 - roi.y1
        major = math.hypot(dx, dy)
        return ellipse_outline(where, x, y, major, major * ratio, math.degrees(math.atan2(-dy, dx)))
    if roi.roitype in (ROI_TYPE.OVAL, ROI_TYPE.RECT) and not roi.composite:
        x0, y0, width, height = (
            (roi.xd, roi.yd, roi.widthd, roi.heightd)
            if roi.subpixelrect
            else (roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top)
        )
        x0, y0 = x0 - CORNER_PX, y0 - CORNER_PX
        if roi.roitype == ROI_TYPE.RECT:
            return Outline(where, (x0, y0, x0 + width, y0 + height))
        return ellipse_outline(where, x0 + width / 2, y0 + height / 2, width, height, 0.0)
    if roi.roitype in _AREAS or roi.composite:
        parts = [np.asarray(part, float) - CORNER_PX for part in roi.coordinates(multi=True)]
        return polygon_outline(where, [part for part in parts if not any(_inside(part, other) for other in parts)])
    raise LabelError(f"{where}: a {roi.roitype.name.lower()} encloses no loop; use ovals, ellipses or polygons.")


def _inside(part: np.ndarray, other: np.ndarray) -> bool:
    # The hole of a ring-shaped ROI: its loop is what the outer outline encloses.
    return bool((part.min(0) > other.min(0)).all() and (part.max(0) < other.max(0)).all())
