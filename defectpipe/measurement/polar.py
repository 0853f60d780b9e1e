"""The surroundings of a loop in polar coordinates about an ellipse: rows are elliptic radii, columns are directions.

There the rim is a band across the picture, and a closed border is one radius a column. The flood and the contour both
work on such pictures, and on the same landscape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage

# The rim's contrast is taken against its two sides this far away, in elliptic radii.
CONTRAST_REACH = 0.3


@dataclass(frozen=True)
class PolarGrid:
    """Elliptic radii and directions at which the surroundings of a loop are sampled."""

    n_angles: int = 40
    n_radii: int = 27
    inner: float = 0.4
    outer: float = 1.6

    @cached_property
    def radii(self) -> np.ndarray:
        """Elliptic radii of the rows."""
        return np.linspace(self.inner, self.outer, self.n_radii)

    @cached_property
    def angles(self) -> np.ndarray:
        """Eccentric angles of the columns, rad."""
        return np.arange(self.n_angles) * (2 * np.pi / self.n_angles)

    @property
    def step(self) -> float:
        """Elliptic radius from row to row."""
        return (self.outer - self.inner) / (self.n_radii - 1)


@dataclass(frozen=True)
class Landscape:
    """What a border is sought on: the sum of three pictures, the first two standardised.

    Attributes
    ----------
    crest : float
        Part of the rim's brightness (darkness, for a dark rim).
    relief : float
        Part of the same less its mean along the radius (Gaussian, sigma `relief_width` in elliptic radii): a rim on a
        sloping background, or in a loop that is dark all over.
    relief_width : float
    pull : float
        Fall per squared distance from the expected radius 1.
    along : float
        Smoothing along the rim beforehand: sigma in columns.
    """

    crest: float = 1.0
    relief: float = 1.0
    relief_width: float = 0.32
    pull: float = 10.0
    along: float = 1.5


@dataclass(frozen=True)
class Border:
    """A closed border: one radius a direction.

    Attributes
    ----------
    radii : ndarray, shape (n,)
        Elliptic radius in each direction.
    inside : ndarray of bool, shape (n,)
        Whether the border lies in the image there.
    contrast : ndarray, shape (n,)
        Height of the rim over its two sides in each direction, in standard deviations of the picture.
    leaked : float
        Share of the directions in which the border lies at the first or last rows: no rim held it.
    """

    radii: np.ndarray
    inside: np.ndarray
    contrast: np.ndarray
    leaked: float


def curve(half_width: float, half_height: float, correlation: float, angles: np.ndarray) -> np.ndarray:
    """Points of an ellipse about the origin, shape (2, n): x and y (down)."""
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([half_width * c, half_height * (correlation * c + np.sqrt(1 - correlation**2) * s)])


def sample_polar(
    image: np.ndarray, x: float, y: float, shape: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image values on scaled copies of a closed curve about a point.

    Parameters
    ----------
    image : ndarray, shape (h, w), float32
    x, y : float
        Centre, px.
    shape : ndarray, shape (2, n)
        The curve about the centre, px.
    radii : ndarray, shape (m,)
        Factors of the curve.

    Returns
    -------
    values : ndarray, shape (m, n), float32
        Bilinear; the border's values continue outside the image.
    inside : ndarray of bool, shape (m, n)
        Where the point lies in the image.
    """
    px = (x + radii[:, None] * shape[0]).astype(np.float32)
    py = (y + radii[:, None] * shape[1]).astype(np.float32)
    values = cv2.remap(image, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    h, w = image.shape
    return values, (px > -0.5) & (py > -0.5) & (px < w - 0.5) & (py < h - 0.5)


def smoothed_along(values: np.ndarray, sigma: float) -> np.ndarray:
    """A polar picture smoothed along the rim, sigma in columns."""
    return ndimage.gaussian_filter1d(values, sigma, axis=1, mode="wrap") if sigma > 0 else values


def heights(smooth: np.ndarray, grid: PolarGrid, landscape: Landscape) -> np.ndarray:
    """The landscape of a polar picture that was smoothed along the rim; same shape, no unit."""
    relief = smooth - ndimage.gaussian_filter1d(smooth, landscape.relief_width / grid.step, axis=0, mode="nearest")
    height = landscape.crest * _standardised(smooth) + landscape.relief * _standardised(relief)
    return height - landscape.pull * (grid.radii[:, None] - 1).astype(np.float32) ** 2


def contrast_of(smooth: np.ndarray, rows: np.ndarray, grid: PolarGrid) -> np.ndarray:
    """How far a picture rises at one row a column over the rows `CONTRAST_REACH` to both sides; shape (n,)."""
    reach = max(round(CONTRAST_REACH / grid.step), 1)
    columns = np.arange(smooth.shape[1])
    below = smooth[np.maximum(rows - reach, 0), columns]
    above = smooth[np.minimum(rows + reach, len(smooth) - 1), columns]
    return smooth[rows, columns] - (below + above) / 2


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-6)
