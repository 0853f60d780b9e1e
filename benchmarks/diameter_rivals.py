"""Rivals of the measurement of a loop, each a few lines: what `make bench-diameters` compares the library with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from skimage.segmentation import watershed

from defectpipe.measurement import FloodSettings
from defectpipe.measurement.ellipse import axes_of
from defectpipe.measurement.loops import blurred_crop, seek_border

# x, y, major, minor (px), angle (degrees)
Ellipse = tuple[float, float, float, float, float]
Rival = Callable[[np.ndarray, np.ndarray, FloodSettings], Ellipse]

# The plain watershed works on a crop of this many px, this much larger than the box, smoothed by this sigma; its seeds
# lie inside and outside of these parts of the box's ellipse.
_CROP_PX, _CONTEXT, _SIGMA_PX, _SEEDS = 96, 1.6, 1.6, (0.28, 1.15)


def box_alone(image: np.ndarray, box: np.ndarray, settings: FloodSettings) -> Ellipse:
    """The ellipse inscribed in the box."""
    (w, h), (x, y) = box[2:] - box[:2], (box[2:] + box[:2]) / 2
    return x, y, max(w, h), min(w, h), 0.0 if w >= h else 90.0


def plain_watershed(image: np.ndarray, box: np.ndarray, settings: FloodSettings) -> Ellipse:
    """Watershed with two seeds on the dark image itself, and the ellipse of the region's second moments."""
    (x, y), side = (box[2:] + box[:2]) / 2, box[2:] - box[:2]
    scale = _CONTEXT * side.max() / _CROP_PX
    middle = (_CROP_PX - 1) / 2
    inverse = np.array([[scale, 0, x - scale * middle], [0, scale, y - scale * middle]])
    # The whole image is not smoothed for one box.
    reach = int(side.max()) + 8
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    part = image[y0 : int(y) + reach, x0 : int(x) + reach].astype(np.float32)
    if scale > 1.3:
        part = cv2.GaussianBlur(part, (0, 0), 0.5 * scale)
    inverse[:, 2] -= (x0, y0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(part, inverse, (_CROP_PX, _CROP_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    crop = cv2.GaussianBlur(crop, (0, 0), _SIGMA_PX)
    rows, columns = np.mgrid[:_CROP_PX, :_CROP_PX] - middle
    radius = np.hypot(columns * scale / (side[0] / 2), rows * scale / (side[1] / 2))
    seeds = np.where(radius < _SEEDS[0], 1, np.where(radius > _SEEDS[1], 2, 0))
    m = cv2.moments((watershed(-crop, seeds) == 1).astype(np.uint8), True)
    xx, yy, xy = (m[name] / m["m00"] for name in ("mu20", "mu02", "mu11"))
    # an ellipse's second moment is a quarter of its half axis squared
    half_w, half_h = 2 * np.sqrt(xx), 2 * np.sqrt(yy)
    major, minor, angle = axes_of(half_w, half_h, xy / np.sqrt(xx * yy))
    at_x, at_y = (m[name] / m["m00"] - middle for name in ("m10", "m01"))
    return x + scale * at_x, y + scale * at_y, scale * major, scale * minor, angle


def by_stages(stages: Sequence[str]) -> Rival:
    """The library's ellipse from borders sought one after the other, each a ``flood`` or a ``contour``."""

    def measure(image: np.ndarray, box: np.ndarray, settings: FloodSettings) -> Ellipse:
        half, centre, p = (box[2:] - box[:2]) / 2, (box[2:] + box[:2]) / 2, np.zeros(5)
        crop, origin = blurred_crop(image, box, settings)
        for number, stage in enumerate(stages):
            _, fit, _ = seek_border(
                -crop, centre - origin, half, p, settings, is_flood=stage == "flood", is_second=number > 0
            )
            p = fit.parameters
        x, y = centre + half * p[:2]
        return x, y, *axes_of(half[0] * np.exp(p[2]), half[1] * np.exp(p[3]), float(np.tanh(p[4])))

    return measure


BOX = "the box alone"
RIVALS: dict[str, Rival] = {
    BOX: box_alone,
    "plain watershed, moments": plain_watershed,
    "flood, then flood": by_stages(("flood", "flood")),
    "contour, then contour": by_stages(("contour", "contour")),
    "flood, then contour": by_stages(("flood", "contour")),
    "flood, contour, contour": by_stages(("flood", "contour", "contour")),
}
"""By name; the last one is what the library does (`measure` refuses some loops besides)."""
