"""Areal density of loops, corrected for the loops that the border cut, with an exact Poisson interval."""

from __future__ import annotations

import numpy as np
from scipy import special


def poisson_interval(count: int, confidence: float) -> tuple[float, float]:
    """Exact (Garwood 1936) interval of the mean of a Poisson variable seen once.

    Parameters
    ----------
    count : int
        What was counted; 0 gives the interval from 0 to an upper bound.
    confidence : float
        For example 0.95.

    Returns
    -------
    low, high : float
    """
    tail = (1 - confidence) / 2
    low = float(special.gammaincinv(count, tail)) if count > 0 else 0.0
    return low, float(special.gammainccinv(count + 1, tail))


def areal_density_per_px2(
    sizes_px: np.ndarray,
    shape: tuple[int, int],
    analysed_area_px2: float | None = None,
    border_margin_px: float = 0.0,
) -> float:
    """Unbiased number of loop centres per px², from the loops that lie wholly inside the field.

    A loop of size w × h is seen uncut only while its centre lies in (W − w)(H − h) of the field W × H; each uncut loop
    therefore counts 1/((W − w)(H − h)) (the minus-sampling, or Horvitz-Thompson, estimator).

    Parameters
    ----------
    sizes_px : ndarray, shape (n, 2)
        Width and height of the uncut loops: of the boxes by which it was decided that they are uncut.
    shape : (int, int)
        Height and width of the image.
    analysed_area_px2 : float, optional
        What was analysed of the image, where a part was masked; scales the field's area.
    border_margin_px : float
        Where a box this close to the border already counts as cut, the field is narrower by it on each side.

    Returns
    -------
    float
        0 without loops.
    """
    height, width = (side - 2 * border_margin_px for side in shape)
    sizes = np.asarray(sizes_px, float).reshape(-1, 2)
    room = (width - sizes[:, 0]) * (height - sizes[:, 1])
    # A box as large as the field cannot be uncut; one that is said to be so gets the smallest room there is, one pixel.
    weights = 1 / np.maximum(room, 1.0)
    analysed = 1.0 if analysed_area_px2 is None else analysed_area_px2 / (shape[0] * shape[1])
    return float(weights.sum() / analysed) if analysed > 0 else 0.0


def density_interval(density: float, count: int, area: float, confidence: float) -> tuple[float, float]:
    """Exact Poisson interval of a density from the loops of one field.

    The interval of the count, scaled as the estimate is; without loops, by the whole area.

    Parameters
    ----------
    density : float
        The estimate, in 1/area.
    count : int
        Uncut loops behind it.
    area : float
        Analysed area, in the unit of area that the result shall have.
    confidence : float

    Returns
    -------
    low, high : float
    """
    low, high = poisson_interval(count, confidence)
    scale = density / count if count else 1 / area
    return low * scale, high * scale
