"""Objects of a field as views for the recognisers: cut out, brought to the views' scale, their neighbours removed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from defectpipe.recognition.views import VIEW_PX

# Longest side of an object's box over the view's side, as most views of the training have it.
_SHARE = 0.7


@dataclass(frozen=True, eq=False)
class View:
    """One object, cut out.

    Parameters
    ----------
    pixels : ndarray of float32, shape (VIEW_PX, VIEW_PX)
    px_per_px : float
        Pixels of the field for one of the view: the view's pixel size is the field's, times this.
    """

    pixels: np.ndarray
    px_per_px: float


def cut_view(pixels: np.ndarray, instances: np.ndarray, number: int, side_px: float | None = None) -> View:
    """Cut one object out of its field.

    Other objects in the square around it take the grey value of the support; beyond the field's border it is mirrored.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Grey values in any unit.
    instances : ndarray of int, shape (height, width)
        From `separation.separate`.
    number : int
        Of the object.
    side_px : float, optional
        Side of the square in px of the field; by default the object fills the view as those of the training do. Several
        views of one object should have one scale: give all of them the largest.

    Returns
    -------
    View
    """
    box = _box(instances, number)
    side = side_px if side_px is not None else side_of(instances, number)
    centre = np.array([0.5 * (box[axis].start + box[axis].stop - 1) for axis in (1, 0)])
    scale = side / VIEW_PX
    sigma = 0.4 * np.sqrt(scale**2 - 1) if scale > 1 else 0.0
    # only what the view can depend on: fields are large, and objects many
    reach = 0.5 * side + 4 * sigma + 2
    left, top = np.maximum(np.floor(centre - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(centre + reach) + 1, instances.shape[::-1]).astype(int)
    part = np.s_[top:bottom, left:right]
    centre = centre - (left, top)
    field, around = np.array(pixels[part], np.float32), instances[part]
    others = (around > 0) & (around != number)
    if others.any():
        support = field[around == 0]
        # as noisy as the support itself, with its own values
        if support.size:
            field[others] = support[np.arange(int(others.sum())) * 7919 % support.size]
    if sigma:  # what is left out by sampling would come back as noise
        field = cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    middle = (VIEW_PX - 1) / 2
    matrix = np.array([[scale, 0, centre[0] - scale * middle], [0, scale, centre[1] - scale * middle]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(field, matrix, (VIEW_PX, VIEW_PX), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return View(view, scale)


def side_of(instances: np.ndarray, number: int) -> float:
    """Side of the square that an object fills as those of the training do, in px of the field."""
    return max(one.stop - one.start for one in _box(instances, number)) / _SHARE


def _box(instances: np.ndarray, number: int) -> tuple[slice, slice]:
    """Rows and columns that an object lies in."""
    rows, columns = (np.flatnonzero((instances == number).any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
