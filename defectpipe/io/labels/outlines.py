"""One labelled loop, whatever format it came in, and the table that a list of them makes.

Positions are in px with pixel centres at integers. Formats that count from the corner of the top left pixel (COCO,
YOLO, VIA, ImageJ) lie half a pixel off that, which their readers take away (`CORNER_PX`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from defectpipe.boxes import ellipse_bounds, unpad
from defectpipe.errors import LabelError
from defectpipe.io.tables import labels_table

CORNER_PX = 0.5
_TOLERANCE_PX = 0.01


@dataclass(frozen=True)
class Outline:
    """A labelled loop.

    Parameters
    ----------
    where : str
        File and row, for error messages.
    box : tuple of float
        x0, y0, x1, y1 in px, as the file has it.
    ellipse : tuple of float or None
        Centre x, y, full axes major and minor in px, angle in degrees; None where the file has only a box.
    label : str
        Name of its class.
    drawn : bool
        Whether the box follows from a fitted ellipse, which may reach over the border of the image.
    frame : int
        Of a stack, from 0.
    loop_id : int or None
        The loop's number in the run that the label was exported from, where the file still says it.
    """

    where: str
    box: tuple[float, float, float, float]
    ellipse: tuple[float, float, float, float, float] | None = None
    label: str = ""
    drawn: bool = False
    frame: int = 0
    loop_id: int | None = None


def ellipse_outline(
    where: str, x: float, y: float, major: float, minor: float, angle_deg: float, label: str = ""
) -> Outline:
    """Outline of an ellipse given by centre, full axes in px, and angle (from +x, counter-clockwise as seen)."""
    if minor > major:
        major, minor, angle_deg = minor, major, angle_deg + 90
    if not all(map(math.isfinite, (x, y, major, minor, angle_deg))):
        raise LabelError(f"{where}: the ellipse ({x}, {y}, {major}, {minor}, {angle_deg}) is not finite.")
    if minor <= 0:
        raise LabelError(f"{where}: the ellipse of {major:g} by {minor:g} px has no size.")
    x0, y0, x1, y1 = ellipse_bounds(*(np.array([v]) for v in (x, y, major, minor, angle_deg)))[0].tolist()
    return Outline(where, (x0, y0, x1, y1), (x, y, major, minor, _half_turn(angle_deg)), label, drawn=True)


def polygon_outline(where: str, parts: Sequence[np.ndarray], label: str = "") -> Outline:
    """Outline of a polygon, or of several that make one loop: their extent, and the ellipse of the same moments.

    Parameters
    ----------
    where : str
    parts : sequence of ndarray, shape (n, 2)
        Corners x, y in px, in order; closed or not, either way round.

    Raises
    ------
    LabelError
        Fewer than three corners, no area, or so crossed that no ellipse has its moments.
    """
    if not parts or any(len(part) < 3 for part in parts):
        raise LabelError(f"{where}: a polygon needs three corners.")
    corners = np.concatenate([np.asarray(part, float) for part in parts])
    if not np.isfinite(corners).all():
        raise LabelError(f"{where}: a corner of the polygon is not a finite number.")
    origin = corners.mean(0)
    sums = np.sum([_polygon_sums(np.asarray(part, float) - origin) for part in parts], axis=0)
    low, high = corners.min(0), corners.max(0)
    area = float(sums[0])
    if not area > 1e-9 * float(np.prod(high - low)) or area <= 0:
        raise LabelError(f"{where}: the polygon encloses no area.")
    mean = sums[1:3] / area
    xx, yy, xy = sums[3:] / area - [mean[0] ** 2, mean[1] ** 2, mean[0] * mean[1]]
    x, y = (mean + origin).tolist()
    ellipse = moment_ellipse(where, x, y, float(xx), float(yy), float(xy))
    return Outline(where, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), ellipse, label)


def moment_ellipse(
    where: str, x: float, y: float, xx: float, yy: float, xy: float
) -> tuple[float, float, float, float, float]:
    """The ellipse whose uniform filling has the given centre and variances (y downwards).

    Returns
    -------
    tuple of float
        x, y, major, minor, angle_deg, as in `Outline`.
    """
    spread = math.hypot(xx - yy, 2 * xy)
    if xx + yy - spread <= 0:
        raise LabelError(f"{where}: the outline crosses itself, or is a line; no ellipse fits it.")
    major, minor = (4 * math.sqrt((xx + yy + sign * spread) / 2) for sign in (1, -1))
    return x, y, major, minor, _half_turn(-math.degrees(0.5 * math.atan2(2 * xy, xx - yy)))


def outlines_table(
    outlines: Sequence[Outline], shape: tuple[int, int], *, padded: bool, clip: bool
) -> tuple[pd.DataFrame, int]:
    """Check outlines against their image and put them into a table.

    Parameters
    ----------
    outlines : sequence of Outline
    shape : tuple of int
        Height and width of the image, in px.
    padded : bool
        Whether the padding of bare boxes is undone; an ellipse or polygon knows its size and is never changed.
    clip : bool
        Whether boxes that reach over the border are cut there, instead of refused.

    Returns
    -------
    table : DataFrame
        `LABEL_COLUMNS`, tight boxes, in the order given.
    n_clipped : int

    Raises
    ------
    LabelError
        A box is not finite, inverted, empty, or (partly) outside the image; an ellipse's centre is outside.
    """
    rows, n_clipped = [], 0
    for outline in outlines:
        box, clipped = _fitted(outline, shape, clip)
        n_clipped += clipped
        if outline.ellipse is None:
            x0, y0, x1, y1 = unpad(np.array([box]))[0].tolist() if padded else box
            width, height = x1 - x0, y1 - y0
            box = (x0, y0, x1, y1)
            ellipse = ((x0 + x1) / 2, (y0 + y1) / 2, max(width, height), min(width, height), math.nan)
        else:
            ellipse = outline.ellipse
        rows.append((*ellipse[:2], *box, *ellipse[2:], outline.label))
    columns = ["x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px", "diameter_px", "minor_px", "angle_deg", "label"]
    return labels_table(pd.DataFrame(rows, columns=columns)), n_clipped


def _fitted(outline: Outline, shape: tuple[int, int], clip: bool) -> tuple[tuple[float, float, float, float], bool]:
    where, box, (height, width) = outline.where, outline.box, shape
    if not all(map(math.isfinite, box)):
        raise LabelError(f"{where}: the box ({_shown(box)}) is not finite.")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise LabelError(f"{where}: the box ({_shown(box)}) is empty or inverted.")
    low, right, bottom = -0.5 - _TOLERANCE_PX, width - 0.5 + _TOLERANCE_PX, height - 0.5 + _TOLERANCE_PX
    inside = x0 >= low and y0 >= low and x1 <= right and y1 <= bottom
    if outline.drawn and outline.ellipse is not None:
        # A fitted ellipse may be larger than what the image shows of its loop.
        x, y = outline.ellipse[:2]
        inside = low <= x <= right and low <= y <= bottom
    if inside:
        return box, False
    cut = (max(x0, -0.5), max(y0, -0.5), min(x1, width - 0.5), min(y1, height - 0.5))
    if clip and cut[2] > cut[0] and cut[3] > cut[1]:
        return cut, True
    raise LabelError(f"{where}: the box ({_shown(box)}) lies outside the image of {width} x {height} px.")


def _polygon_sums(corners: np.ndarray) -> np.ndarray:
    # Green's theorem: area, first and second moments of a polygon, the sign of its direction taken out.
    x, y = corners.T
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    cross = x * y2 - x2 * y
    sums = np.array(
        [
            cross.sum() / 2,
            ((x + x2) * cross).sum() / 6,
            ((y + y2) * cross).sum() / 6,
            ((x * x + x * x2 + x2 * x2) * cross).sum() / 12,
            ((y * y + y * y2 + y2 * y2) * cross).sum() / 12,
            ((x * y2 + 2 * x * y + 2 * x2 * y2 + x2 * y) * cross).sum() / 24,
        ]
    )
    return sums if sums[0] >= 0 else -sums


def _half_turn(angle_deg: float) -> float:
    angle = angle_deg % 180.0
    return 0.0 if angle == 180.0 else angle


def _shown(box: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in box)
