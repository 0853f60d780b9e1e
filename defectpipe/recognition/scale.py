"""The scale at which a field is looked at: its objects brought to the sizes that the networks know, and back again.

Real particles are 8 px across or 1,500; the networks learned from fields in which they are `KNOWN_PX` across. The size
is first taken from Otsu's threshold ("A threshold selection method from gray-level histograms", 1979), then from the
networks' own outlines, and of the scales that were tried the one counts in which outlines are surest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu

from defectpipe.recognition.pixelwise import OUTLINE
from defectpipe.recognition.separation import separate

# Longest side of an object's box, in px of the working scale: what most objects of the training have, and the middle.
KNOWN_PX = (30.0, 110.0)
_WANTED_PX = 60.0
# Larger than that: a support, a film's edge.
LARGEST_PX = 2.5 * KNOWN_PX[1]
# More cannot be got out of a px by interpolation.
_FINEST = 0.25
# Beyond it a field takes minutes.
_MOST_WORKING_PX = 2048**2
_SMALLEST_WORKING_PX = 48
_PREVIEW_PX = 2048
_SMOOTHING_PX = 1.5
_MOST_TRIES = 3
_LENGTHS = ("equivalent_diameter_px", "length_px", "width_px", "max_thickness_px")
_PLACES = ("x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px")


@dataclass(frozen=True, eq=False)
class ScaledField:
    """A field at its working scale.

    Parameters
    ----------
    factor : float
        Pixels of the field for one of the working picture.
    pixels : ndarray of float32, shape (height, width)
        The working picture.
    maps : ndarray of float32, shape (height, width, 3)
        Of it; see `pixelwise.maps_of`.
    instances : ndarray of int32, shape (height, width)
        Its objects; see `separation.separate`.
    sureness : float
        0 to 1; of several scales the one of the highest is the one to use.
    """

    factor: float
    pixels: np.ndarray
    maps: np.ndarray
    instances: np.ndarray
    sureness: float


def rescale(pixels: np.ndarray, factor: float) -> np.ndarray:
    """A field sampled every `factor` px, after a blur that keeps what is lost from coming back as noise.

    The first pixels' centres keep their distance from the border in pixels: x of the field is
    (x of the working picture + 0.5) × factor − 0.5.
    """
    field = np.asarray(pixels, np.float32)
    if factor > 1:
        field = cv2.GaussianBlur(field, (0, 0), 0.4 * np.sqrt(factor**2 - 1), borderType=cv2.BORDER_REFLECT)
    height, width = (max(1, round(side / factor)) for side in field.shape)
    shift = 0.5 * factor - 0.5
    matrix = np.array([[factor, 0, shift], [0, factor, shift]])
    flags = (cv2.INTER_CUBIC if factor < 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(field, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def instances_at(instances: np.ndarray, factor: float, shape: tuple[int, int]) -> np.ndarray:
    """Objects of the working picture in the field's own pixels, with smooth outlines.

    Parameters
    ----------
    instances : ndarray of int32, shape (height, width)
    factor : float
        Pixels of the field for one of `instances`.
    shape : (int, int)
        Of the field.

    Returns
    -------
    ndarray of int32, shape `shape`
    """
    made = np.zeros(shape, np.int32)
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        (top, bottom), (left, right) = ((one.start - 1, one.stop + 1) for one in box)
        mask = np.pad((instances[box] == number).astype(np.float32), 1)
        # an object at the working picture's border goes on to the field's
        for axis, (low, high) in enumerate(((top, bottom), (left, right))):
            lines = mask if axis == 0 else mask.T  # a view
            if low < 0:
                lines[0] = lines[1]
            if high > instances.shape[axis]:
                lines[-1] = lines[-2]
        y0, x0 = max(0, int(np.floor(top * factor))), max(0, int(np.floor(left * factor)))
        y1 = min(shape[0], int(np.ceil((bottom + 1) * factor)))
        x1 = min(shape[1], int(np.ceil((right + 1) * factor)))
        step = 1 / factor
        matrix = np.array(
            [
                [step, 0, (x0 + 0.5) * step - 0.5 - left],
                [0, step, (y0 + 0.5) * step - 0.5 - top],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        drawn = cv2.warpAffine(mask, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        part = made[y0:y1, x0:x1]
        part[(drawn >= 0.5) & (part == 0)] = number
    return made


def table_at(table: pd.DataFrame, factor: float) -> pd.DataFrame:
    """Measures of the working picture (`measures.measure`) in the field's own pixels; those in nm stay."""
    made = table.copy()
    made[list(_PLACES)] = (made[list(_PLACES)] + 0.5) * factor - 0.5
    made[list(_LENGTHS)] *= factor
    made["area_px2"] *= factor**2
    made["volume_px3"] *= factor**3
    return made


def first_size(pixels: np.ndarray) -> float | None:
    """Longest side (px) of the parts that Otsu's threshold finds bright: their median, weighted by it; None: no part.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
    """
    factor = max(1.0, max(pixels.shape) / _PREVIEW_PX)
    small = cv2.GaussianBlur(rescale(pixels, factor), (0, 0), _SMOOTHING_PX)
    if float(np.ptp(small)) <= 0:
        return None
    parts, _ = ndimage.label(small > threshold_otsu(small))
    areas, sides, whole = np.bincount(parts.ravel())[1:], sizes_of(parts), whole_objects(parts)
    # dust and noise
    kept = whole & (areas >= max(9, 0.01 * areas[whole].max(initial=0)))
    if not kept.any():
        return None
    return factor * weighted_median(sides[kept], sides[kept])


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The smallest value with at least half of all weight up to it."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def sizes_of(instances: np.ndarray) -> np.ndarray:
    """Longest side of the box of each object, in px; of a number that does not occur 0."""
    boxes = ndimage.find_objects(instances)
    return np.array([0 if box is None else max(one.stop - one.start for one in box) for box in boxes], float)


def whole_objects(instances: np.ndarray) -> np.ndarray:
    """Which objects the border does not cut, bool (objects,): of the others no size is known. All, if it cuts all."""
    height, width = instances.shape
    whole = np.zeros(int(instances.max(initial=0)), bool)
    for i, box in enumerate(ndimage.find_objects(instances)):
        if box is not None:
            whole[i] = box[0].start > 0 and box[1].start > 0 and box[0].stop < height and box[1].stop < width
    return whole if whole.any() else np.ones(len(whole), bool)


def sureness(maps: np.ndarray, instances: np.ndarray) -> float:
    """How sure the outlines are and how many of the objects have a known size, 0 to 1; 0 without objects.

    The mean of |2p − 1| over each object and the pixels around it, of those within `KNOWN_PX`, weighted by area;
    objects that the border cuts do not count unless it cuts all.
    """
    sizes = sizes_of(instances)
    if not sizes.size:
        return 0.0
    areas = np.bincount(instances.ravel(), minlength=len(sizes) + 1)[1:] * whole_objects(instances)
    around = ndimage.grey_dilation(instances, size=(7, 7))
    certain = abs(2 * maps[..., OUTLINE] - 1)
    each = ndimage.mean(certain, around, np.arange(1, len(sizes) + 1))
    known = (sizes >= KNOWN_PX[0]) & (sizes <= KNOWN_PX[1])
    return float((np.nan_to_num(each) * areas * known).sum() / areas.sum())


def working_field(pixels: np.ndarray, maps_of: Callable[[np.ndarray], np.ndarray]) -> ScaledField:
    """A field at the scale in which the networks are surest of it.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
    maps_of : callable
        From a picture to its maps, such as `SolidModel.maps`.

    Returns
    -------
    ScaledField
        With no objects where none was found at any scale that was tried.
    """
    size = first_size(pixels)
    factor = _allowed((_WANTED_PX if size is None else size) / _WANTED_PX, pixels.shape)
    tried: list[ScaledField] = []
    while len(tried) < _MOST_TRIES and all(abs(np.log(factor / one.factor)) > 0.2 for one in tried):
        tried.append(at_scale(pixels, factor, maps_of))
        sizes = sizes_of(tried[-1].instances)[whole_objects(tried[-1].instances)]
        if sizes.size:
            middle = weighted_median(sizes, sizes)
            if KNOWN_PX[0] <= middle <= KNOWN_PX[1]:
                break
            step = middle / _WANTED_PX
        else:  # what is too large for the networks they take for the support
            step = 4.0
        factor = _allowed(tried[-1].factor * step, pixels.shape)
    return max(tried, key=lambda one: one.sureness)


def at_scale(pixels: np.ndarray, factor: float, maps_of: Callable[[np.ndarray], np.ndarray]) -> ScaledField:
    """A field at a given scale; parameters as in `working_field`."""
    picture = rescale(pixels, factor)
    maps = maps_of(picture)
    instances = separate(maps)
    return ScaledField(factor, picture, maps, instances, sureness(maps, instances))


def _allowed(factor: float, shape: tuple[int, ...]) -> float:
    coarsest = max(min(shape) / _SMALLEST_WORKING_PX, _FINEST)
    finest = max(_FINEST, np.sqrt(shape[0] * shape[1] / _MOST_WORKING_PX))
    # 1 to 10 % beside the field's own pixels interpolation only costs
    wanted = 1.0 if 0.9 < factor < 1.1 else factor
    return float(np.clip(wanted, finest, max(coarsest, finest)))
