"""Loops measured one by one: flood, contour, ellipse, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pandas as pd

from defectpipe.measurement.contour import contour_polar
from defectpipe.measurement.ellipse import BoxPrior, Fit, axes_of, fit_ellipse, onto_ellipse
from defectpipe.measurement.flood import flood_polar
from defectpipe.measurement.polar import CONTRAST_REACH, Border, Landscape, PolarGrid, curve, sample_polar
from defectpipe.measurement.uncertainty import UncertaintySettings, diameter_uncertainty

MEASUREMENT_COLUMNS = [
    "x_px",
    "y_px",
    "diameter_px",
    "minor_px",
    "angle_deg",
    "area_px2",
    "feret_px",
    "equivalent_diameter_px",
    "fit_quality",
    "diameter_uncertainty_px",
    "measured",
    "reason",
]
POLARITIES = ("dark", "bright", "auto")
# Neighbouring directions see the same pixels and the same noise: this many count as one measurement.
CORRELATED_DIRECTIONS = 4
STEADINESS_LIMITS = (0.3, 8.0)


@dataclass(frozen=True)
class FloodSettings:
    """Constants of the measurement, chosen on folds 0 to 2 of the development set.

    Attributes
    ----------
    grid : PolarGrid
        Radii and directions of flood and contours: each about the ellipse before, the flood's about the box's inscribed
        one.
    blur, min_blur_px : float
        Sigma of the smoothing beforehand: this fraction of the box's mean side, at least `min_blur_px`.
    landscape : Landscape
    second_pull : float
        Factor of the landscape's pull for the contours, whose expected radius is that of an ellipse fitted before.
    stiffness : float
        Of the contour: see `contour_polar`.
    prior : BoxPrior
    strength, cutoff : float
        Trust in the contour, and the residual at which a point is doubted: see `fit_ellipse`.
    full_contrast, least_weight : float
        Contrast of the rim (in standard deviations) from which a direction counts in full, and the weight of none.
    steady_contrast : float
        Mean of the rim's contrast over its spread along the rim at which `strength` holds; in proportion elsewhere.
    min_side_px : float
        Boxes with a shorter side are not measured.
    max_leak : float
        Share of the directions in which flood or contour may reach the end of the grid before the loop counts as
        leaked.
    min_axis_ratio : float
        Narrower ellipses are refused.
    best_contrast, best_significance : float
        Of the rim, in standard deviations and in standard errors, for the best mark in the fit quality.
    min_significance : float
        Mean contrast of the rim along the ellipse, over its standard error, below which no rim is seen.
    max_departure : float
        Largest logarithm of an ellipse's side over the box's.
    max_disagreement : float
        Largest logarithm of the contour's major axis over the flood's.
    max_residual : float
        Largest root mean square of the contour's elliptic radius about the ellipse.
    uncertainty : UncertaintySettings
    """

    grid: PolarGrid = field(default_factory=PolarGrid)
    blur: float = 0.04
    min_blur_px: float = 0.8
    landscape: Landscape = field(default_factory=Landscape)
    second_pull: float = 2.0
    stiffness: float = 0.15
    prior: BoxPrior = field(default_factory=BoxPrior)
    strength: float = 300.0
    cutoff: float = 0.2
    full_contrast: float = 0.5
    least_weight: float = 0.2
    steady_contrast: float = 2.5
    min_side_px: float = 4.0
    max_leak: float = 0.5
    min_axis_ratio: float = 0.15
    best_contrast: float = 1.5
    best_significance: float = 8.0
    min_significance: float = 1.0
    max_departure: float = 0.5
    max_disagreement: float = 0.25
    max_residual: float = 0.3
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)


DEFAULTS = FloodSettings()


def measure(
    grey8: np.ndarray, boxes: np.ndarray, *, polarity: str = "auto", settings: FloodSettings = DEFAULTS
) -> pd.DataFrame:
    """Ellipse of the loop in each box.

    A watershed floods each box from a seed inside the loop and one outside it; they meet on the crest of the rim (its
    darkest line; the brightest for a bright rim). The crest is the contour measured, not the rim's outer edge: on the
    development set the experts' tight boxes bound the crest (within 1 % on average), the outer edge lies near 1.3 times
    that. The ellipse is the most probable one given that border and the box, whose typical error `settings.prior`
    holds: where boxes are much better than that, the image adds nothing. About the flood's ellipse a closed contour is
    sought then, which noise and crossing lines lead astray less, and once more about the ellipse through that contour.
    The flood is the cross-check: where it differs much from the contour in the end, the measurement has failed.

    Parameters
    ----------
    grey8 : ndarray of uint8, shape (h, w)
        The whole image.
    boxes : ndarray, shape (n, 4)
        Tight boxes `x0, y0, x1, y1` in px; they may reach beyond the image.
    polarity : {"auto", "dark", "bright"}
        Rim against background; "auto" lets all boxes of the image vote.
    settings : FloodSettings

    Returns
    -------
    DataFrame
        One row a box, in order, of `MEASUREMENT_COLUMNS`. `diameter_px` and `minor_px` are full axes, `angle_deg` is
        from +x, counter-clockwise as seen, 0 <= angle < 180; `area_px2`, `feret_px` (largest) and
        `equivalent_diameter_px` (of the circle of that area) belong to the region that the contour encloses, not to the
        ellipse. `fit_quality` is 0 to 1; `diameter_uncertainty_px` the standard uncertainty of `diameter_px`. Where
        the measurement failed the row holds the box's inscribed ellipse, with `measured` False, `fit_quality` 0, no
        uncertainty (NaN), and the `reason` ("" otherwise).

    Raises
    ------
    ValueError
        `grey8` is not a 2-D picture, a box is not finite or is inverted, or `polarity` is unknown.
    """
    image = np.ascontiguousarray(grey8, np.float32)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"measure needs a picture of rows and columns, not an array of shape {np.shape(grey8)}.")
    if polarity not in POLARITIES:
        raise ValueError(f"polarity is one of {', '.join(POLARITIES)}, not {polarity!r}.")
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
        raise ValueError("every box needs four finite numbers x0, y0, x1, y1 with x0 <= x1 and y0 <= y1.")
    bright = rim_is_bright(image, boxes) if polarity == "auto" else polarity == "bright"
    rows = [_measure_box(image, box, bright, settings) for box in boxes]
    numbers = dict.fromkeys(MEASUREMENT_COLUMNS[:-2], float)
    return pd.DataFrame(rows, columns=MEASUREMENT_COLUMNS).astype({**numbers, "measured": bool, "reason": str})


def rim_is_bright(image: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether the rims in boxes are brighter than the surroundings: the sum of their contrasts in units of noise.

    No boxes, or no contrast: False (bright-field is the rule).
    """
    return rim_votes(image, boxes) > 0


def rim_votes(image: np.ndarray, boxes: np.ndarray) -> float:
    """Sum over the boxes of the rim's contrast in units of noise, positive for bright rims."""
    angles = PolarGrid().angles
    votes = 0.0
    for x0, y0, x1, y1 in boxes:
        shape = curve((x1 - x0) / 2, (y1 - y0) / 2, 0.0, angles)
        values, inside = sample_polar(image, (x0 + x1) / 2, (y0 + y1) / 2, shape, np.array([0.85, 1.0, 1.15, 1.5, 1.7]))
        if not (inside[:3].any() and inside[3:].any()):
            continue
        rim, around = values[:3][inside[:3]], values[3:][inside[3:]]
        votes += float((rim.mean() - around.mean()) / (around.std() + rim.std() + 1.0))
    return votes


def _measure_box(image: np.ndarray, box: np.ndarray, bright: bool, s: FloodSettings) -> tuple:
    half = (box[2:] - box[:2]) / 2
    centre = (box[:2] + box[2:]) / 2
    if 2 * half.min() < s.min_side_px:
        return _unmeasured(centre, half, f"the box is narrower than {s.min_side_px:g} px")
    crop, origin = blurred_crop(image, box, s)
    if crop.size == 0:
        return _unmeasured(centre, half, "the box lies outside the image")
    signed = crop if bright else -crop
    at = centre - origin
    flood, first, _ = seek_border(signed, at, half, np.zeros(5), s, is_flood=True, is_second=False)
    p = first.parameters
    for _ in range(2):  # the contour's grid is about the ellipse before, the second time about a contour's
        contour, fit, outline = seek_border(signed, at, half, p, s, is_flood=False, is_second=True)
        p = fit.parameters
    rim = _rim_contrast(signed, at, half, p, s)
    major, minor, angle = _axes(p, half)
    disagreement = float(np.log(major / _axes(first.parameters, half)[0]))
    reason = _failure(max(flood.leaked, contour.leaked), disagreement, contour, fit, rim, s)
    if reason:
        return _unmeasured(centre, half, reason)
    uncertainty = diameter_uncertainty(
        major,
        _significance(rim),
        departure=float(np.log((half * np.exp(p[2:4])).max() / half.max())),
        settings=s.uncertainty,
    )
    x, y = centre + half * p[:2]
    region = np.where(contour.inside, outline, onto_ellipse(p, outline))
    area, feret = _area_and_feret(region * half[:, None])
    shape = (x, y, major, minor, angle, area, feret, _circle(area))
    return (*shape, _quality(contour, fit, rim, s), uncertainty, True, "")


def seek_border(
    image: np.ndarray,
    centre: np.ndarray,
    half: np.ndarray,
    p: np.ndarray,
    s: FloodSettings,
    *,
    is_flood: bool,
    is_second: bool,
) -> tuple[Border, Fit, np.ndarray]:
    """Border of a loop about an ellipse, by flood or by contour, and the ellipse through it.

    Parameters
    ----------
    image : ndarray of float32
        Smoothed, bright on the rim.
    centre, half : ndarray, shape (2,)
        Of the box, px of `image`.
    p : ndarray, shape (5,)
        The ellipse to start from (see `Fit`); 0: the box's inscribed one.
    s : FloodSettings
    is_flood, is_second : bool
        Whether it is a flood, and whether an ellipse was fitted before.

    Returns
    -------
    border : Border
    fit : Fit
    outline : ndarray, shape (2, n)
        The border's points in the frame of the box.
    """
    half_width, half_height = half * np.exp(p[2:4])
    shape = curve(half_width, half_height, float(np.tanh(p[4])), s.grid.angles)
    x, y = centre + half * p[:2]
    values, inside = sample_polar(image, x, y, shape, s.grid.radii)
    landscape = replace(s.landscape, pull=s.landscape.pull * (s.second_pull if is_second else 1.0))
    if is_flood:
        border = flood_polar(values, inside, s.grid, landscape)
    else:
        border = contour_polar(values, inside, s.grid, landscape, s.stiffness)
    outline = p[:2, None] + border.radii * shape / half[:, None]
    weights = border.inside * np.clip(border.contrast / s.full_contrast, s.least_weight, 1.0)
    strength = s.strength * _steadiness(border, s)
    return border, fit_ellipse(outline[0], outline[1], weights, s.prior, strength, s.cutoff, p), outline


def _axes(p: np.ndarray, half: np.ndarray) -> tuple[float, float, float]:
    """Major and minor axis and angle of an ellipse in the frame of a box, in px."""
    return axes_of(half[0] * np.exp(p[2]), half[1] * np.exp(p[3]), float(np.tanh(p[4])))


def _steadiness(border: Border, s: FloodSettings) -> float:
    """Trust in a contour beside that in the typical one: a rim equally high all round is no accident."""
    contrast = border.contrast[border.inside]
    if contrast.size == 0:
        return 1.0
    steady = float(contrast.mean()) / (s.steady_contrast * float(contrast.std()) + 1e-6)
    return float(np.clip(steady, *STEADINESS_LIMITS))


def _failure(leaked: float, disagreement: float, border: Border, fit: Fit, rim: np.ndarray, s: FloodSettings) -> str:
    """Why a measurement is not to be believed; "" if it is."""
    if border.inside.mean() < 0.5:
        return "less than half of the rim lies in the image"
    if leaked > s.max_leak:
        return "the flood leaks through the rim"
    if not _significance(rim) > s.min_significance:
        return "there is no rim to be seen"
    p = fit.parameters
    if np.abs(p[2:4]).max() > s.max_departure or np.abs(p[:2]).max() > s.max_departure:
        return "the contour disagrees with the box"
    if abs(disagreement) > s.max_disagreement:
        return "flood and contour disagree"
    if np.sqrt(np.mean(fit.residuals[border.inside] ** 2)) > s.max_residual:
        return "the contour is not an ellipse"
    major, minor, _ = axes_of(float(np.exp(p[2])), float(np.exp(p[3])), float(np.tanh(p[4])))
    if minor < s.min_axis_ratio * major:
        return "the ellipse is too narrow"
    return ""


def _quality(border: Border, fit: Fit, rim: np.ndarray, s: FloodSettings) -> float:
    """Geometric mean of three marks: height of the rim, its significance along the ellipse, contour against ellipse."""
    height = float(np.clip(border.contrast[border.inside].mean() / s.best_contrast, 0, 1))
    certainty = min(_significance(rim) / s.best_significance, 1.0)
    roundness = float(np.exp(-np.sqrt(np.mean(fit.residuals[border.inside] ** 2)) / s.cutoff))
    return float(np.cbrt(height * certainty * roundness))


def _rim_contrast(
    image: np.ndarray, centre: np.ndarray, half: np.ndarray, p: np.ndarray, s: FloodSettings
) -> np.ndarray:
    """How far the image rises on an ellipse over its two sides, in each direction that lies in the image."""
    half_width, half_height = half * np.exp(p[2:4])
    shape = curve(half_width, half_height, float(np.tanh(p[4])), s.grid.angles)
    x, y = centre + half * p[:2]
    values, inside = sample_polar(image, x, y, shape, np.array([1 - CONTRAST_REACH, 1.0, 1 + CONTRAST_REACH]))
    return (values[1] - (values[0] + values[2]) / 2)[inside.all(0)]


def _significance(rim: np.ndarray) -> float:
    """Mean over standard error."""
    if rim.size < CORRELATED_DIRECTIONS:
        return 0.0
    error = float(rim.std()) / np.sqrt(rim.size / CORRELATED_DIRECTIONS)
    return float(rim.mean()) / (error + 1e-6)


def _unmeasured(centre: np.ndarray, half: np.ndarray, reason: str) -> tuple:
    major, minor, angle = axes_of(half[0], half[1], 0.0)
    area = np.pi / 4 * major * minor
    return (centre[0], centre[1], major, minor, angle, area, major, _circle(area), 0.0, np.nan, False, reason)


def _area_and_feret(outline: np.ndarray) -> tuple[float, float]:
    """Area and largest diameter of the polygon with corners (2, n)."""
    x, y = outline
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    distances = np.hypot(x[:, None] - x, y[:, None] - y)
    return area, float(distances.max())


def _circle(area: float) -> float:
    return 2 * float(np.sqrt(area / np.pi))


def blurred_crop(image: np.ndarray, box: np.ndarray, s: FloodSettings) -> tuple[np.ndarray, np.ndarray]:
    """The smoothed surroundings of a box, float32, and where their first pixel lies in the image (x, y)."""
    h, w = image.shape
    side = box[2:] - box[:2]
    margin = 0.6 * side.max() + 4
    x0, y0 = np.clip(np.floor(box[:2] - margin), 0, (w, h)).astype(int)
    x1, y1 = np.clip(np.ceil(box[2:] + margin) + 1, 0, (w, h)).astype(int)
    crop = image[y0:y1, x0:x1].astype(np.float32, copy=False)
    if crop.size:
        sigma = max(s.min_blur_px, s.blur * float(side.mean()))
        crop = cv2.GaussianBlur(crop, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return crop, np.array([x0, y0])
