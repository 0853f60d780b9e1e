"""The table of truth of an image of solids, and what is seen of each body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import find_contours

from defectpipe.boxes import touches_border
from defectpipe.simulation.acquisition import Acquisition, noise_std, stands_out
from defectpipe.simulation.solids.contrast import adf_signal
from defectpipe.simulation.solids.shapes import DIMENSIONS
from defectpipe.simulation.solids.solid import Projection, Solid

_WHOLE = ("object_id", "atomic_number", "n_dents")
_YES_NO = ("deformed", "on_edge", "visible")
TRUTH_COLUMNS = [
    "image",
    "object_id",
    "class",
    *DIMENSIONS,
    "volume_nm3",
    "projected_area_nm2",
    "max_thickness_nm",
    "qw",
    "qx",
    "qy",
    "qz",
    "deformed",
    "twist_deg",
    "bend_deg",
    "taper",
    "shear",
    "dent_nm",
    "n_dents",
    "atomic_number",
    "gamma",
    "mean_free_path_nm",
    "x_px",
    "y_px",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
    "shift_x_px",
    "shift_y_px",
    "turn_deg",
    "on_edge",
    "cnr",
    "visible",
    "pixel_size_nm",
    "dose_per_px",
    "defocus_sigma_px",
]


@dataclass(frozen=True, eq=False)
class PlacedSolid:
    """A body in the specimen, at half time of the scan.

    Parameters
    ----------
    number : int
        From 1, as drawn; one that found no room leaves a gap.
    x_px, y_px : float
        Of its origin.
    atomic_number : int
    mean_free_path_nm : float
    shift_px : tuple of float
        Movement along x and y from the first line to the last.
    turn_deg : float
        Turn meanwhile, counter-clockwise as seen.
    """

    number: int
    solid: Solid
    x_px: float
    y_px: float
    atomic_number: int
    mean_free_path_nm: float
    shift_px: tuple[float, float] = (0.0, 0.0)
    turn_deg: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether it moves against the specimen during the scan."""
        return self.shift_px != (0.0, 0.0) or self.turn_deg != 0


def silhouette(projection: Projection) -> np.ndarray:
    """Outer contour of a body's largest part as seen along the beam.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        x, y in px of the specimen, not closed; about one point a px.
    """
    coverage = projection.coverage
    contours = find_contours(coverage, 0.5 * min(1.0, float(coverage.max())))
    largest = max(contours, key=lambda points: abs(_area(points)))
    return largest[:-1, ::-1] + np.array([projection.column, projection.row])


def truth_table(
    image: str,
    bodies: Sequence[PlacedSolid],
    projections: Sequence[Projection],
    outlines: Sequence[np.ndarray],
    thicknesses: np.ndarray,
    film: np.ndarray,
    gamma: float,
    saturating: bool,
    acquisition: Acquisition,
    pixel_size_nm: float,
) -> pd.DataFrame:
    """One row a body; without bodies one row with the image's name and object_id 0.

    A dimension that a class does not have is NaN. `volume_nm3` is the closed formula's, of a deformed body the integral
    of its thickness. The area is that of the still silhouette, without holes. Centre (of the outlined area) and box are
    as the scan shows them. `cnr`: mean contrast over the silhouette over the noise of one px. `visible`: the centre is
    inside the image, and the contrast to noise over the whole silhouette reaches 10, twice Rose's limit.

    Parameters
    ----------
    outlines : sequence of ndarray, each of shape (n, 2)
        In px of the image.
    thicknesses : ndarray, shape (bodies, height, width)
        In nm, as the scan shows them.
    film : ndarray, shape (height, width)
        Attenuation of the support.
    """
    shape = film.shape
    paths = np.array([body.mean_free_path_nm for body in bodies])[:, None, None]
    total = film + (thicknesses / paths).sum(0) if bodies else film
    signal = adf_signal(total, saturating)
    per_image = {
        "image": image,
        "gamma": gamma,
        "pixel_size_nm": pixel_size_nm,
        "dose_per_px": acquisition.dose_per_px,
        "defocus_sigma_px": acquisition.defocus_sigma_px,
    }
    rows = []
    for body, seen, outline, thickness in zip(bodies, projections, outlines, thicknesses, strict=True):
        solid, deformation = body.solid, body.solid.deformation
        x, y = centroid(outline)
        box = [*outline.min(0), *outline.max(0)]
        contrast = signal - adf_signal(total - thickness / body.mean_free_path_nm, saturating)
        under = thickness > 0
        cnr, plain = 0.0, False
        if under.any():
            cnr = float(contrast[under].mean()) / noise_std(float(signal[under].mean()), acquisition)
            plain = stands_out(cnr, float(under.sum()), acquisition)
        inside = -0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5
        exact = solid.volume_nm3
        rows.append(
            per_image
            | dict(solid.dimensions)
            | dict(zip(("qw", "qx", "qy", "qz"), solid.quaternion, strict=True))
            | dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), box, strict=True))
            | {
                "object_id": body.number,
                "class": solid.label,
                "volume_nm3": seen.volume_nm3 if exact is None else exact,
                "projected_area_nm2": seen.area_nm2,
                "max_thickness_nm": float(seen.thickness_nm.max()),
                "deformed": deformation.deformed,
                "twist_deg": deformation.twist_deg,
                "bend_deg": deformation.bend_deg,
                "taper": deformation.taper,
                "shear": deformation.shear,
                "dent_nm": deformation.dent_nm,
                "n_dents": len(deformation.dents),
                "atomic_number": body.atomic_number,
                "mean_free_path_nm": body.mean_free_path_nm,
                "x_px": x,
                "y_px": y,
                "shift_x_px": body.shift_px[0],
                "shift_y_px": body.shift_px[1],
                "turn_deg": body.turn_deg,
                "on_edge": bool(touches_border(np.array([box]), shape)[0]),
                "cnr": cnr,
                "visible": bool(inside and plain),
            }
        )
    if not rows:
        empty = dict.fromkeys(_WHOLE, 0) | dict.fromkeys(_YES_NO, False) | {"class": ""}
        rows.append(per_image | empty)
    return pd.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in TRUTH_COLUMNS})


def _column(name: str, values: list[Any]) -> Any:
    # column by column: `astype` of the whole table takes as long as the rays
    if name in ("image", "class"):
        return pd.array(values, dtype="str")
    if name in _WHOLE:
        return np.array(values, np.int64)
    return np.array(values, bool) if name in _YES_NO else np.array(values, float)  # None becomes NaN


def centroid(points: np.ndarray) -> tuple[float, float]:
    """x, y of the centre of the area in a closed polygon of shape (n, 2)."""
    origin = points.mean(0)
    p, q = points - origin, np.roll(points - origin, -1, 0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    x, y = origin + ((p + q) * cross[:, None]).sum(0) / (3 * cross.sum())
    return float(x), float(y)


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
