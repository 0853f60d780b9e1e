"""Watershed flood of one loop: from a seed inside and a seed outside, to the crest of the rim between them.

The image is resampled about an ellipse first: rows are elliptic radii, columns are directions. There the rim is a band
across the picture, the seeds are its first and its last row, and the flooded region ends at one radius a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

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


@dataclass(frozen=True)
class Landscape:
    """What the flood rises over: the sum of three pictures, the first two standardised.

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
class Flood:
    """Border of a flooded region.

    Attributes
    ----------
    radii : ndarray, shape (n,)
        Elliptic radius in each direction.
    inside : ndarray of bool, shape (n,)
        Whether the border lies in the image there.
    contrast : ndarray, shape (n,)
        Height of the rim over its two sides in each direction, in standard deviations of the picture.
    leaked : float
        Share of the directions in which the flood went all the way to a seed.
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


def flood_polar(values: np.ndarray, inside: np.ndarray, grid: PolarGrid, landscape: Landscape) -> Flood:
    """Flood a polar picture from its first and last row.

    Parameters
    ----------
    values : ndarray, shape (grid.n_radii, grid.n_angles)
        High on the rim.
    inside : ndarray of bool, same shape
        See `sample_polar`.
    grid : PolarGrid
    landscape : Landscape

    Returns
    -------
    Flood
    """
    step = (grid.outer - grid.inner) / (grid.n_radii - 1)
    smooth = ndimage.gaussian_filter1d(values, landscape.along, axis=1, mode="wrap")
    relief = smooth - ndimage.gaussian_filter1d(smooth, landscape.relief_width / step, axis=0, mode="nearest")
    height = landscape.crest * _standardised(smooth) + landscape.relief * _standardised(relief)
    height = height - landscape.pull * (grid.radii[:, None] - 1).astype(np.float32) ** 2
    m, n = height.shape
    wrap = n // 4
    wide = np.concatenate([height[:, -wrap:], height, height[:, :wrap]], 1)
    seeds = np.zeros(wide.shape, np.int32)
    seeds[0], seeds[-1] = 1, 2
    region = watershed(wide, seeds)[:, wrap : wrap + n] == 1
    # islands and bays in a direction do not count: the length inside does
    rows = region.sum(0)
    columns = np.arange(n)
    reach = max(round(CONTRAST_REACH / step), 1)
    crest = smooth[rows, columns]
    below = smooth[np.maximum(rows - reach, 0), columns]
    above = smooth[np.minimum(rows + reach, m - 1), columns]
    return Flood(
        radii=grid.inner + (rows - 0.5) * step,
        inside=inside[rows, columns],
        contrast=(crest - (below + above) / 2) / (float(values.std()) + 1e-6),
        leaked=float(((rows <= 2) | (rows >= m - 2)).mean()),
    )


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-6)
