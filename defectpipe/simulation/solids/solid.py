"""One body in its orientation, and its thickness along the beam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from defectpipe.simulation.solids import shapes
from defectpipe.simulation.solids.deformation import Deformation, deform, dent_array, warp
from defectpipe.simulation.solids.rays import BODIES, chords, largest_gradient, refine

Quaternion = tuple[float, float, float, float]

# Of a pixel: shortest step along a ray, and the second difference above which a pixel is averaged over finer rays.
_SHORTEST, _JUMP = 0.5, 3.0
_RAYS_A_SIDE = 3
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Solid:
    """A body.

    Parameters
    ----------
    label : str
        Its class, one of `rays.BODIES`.
    dimensions : mapping of str to float
        Named as in `shapes.DIMENSIONS_OF`, in nm.
    deformation : Deformation
    quaternion : tuple of float
        w, x, y, z of the rotation from the body's frame to the image's (x to the right, y down, z along the beam).
    """

    label: str
    dimensions: Mapping[str, float]
    deformation: Deformation = field(default_factory=Deformation)
    quaternion: Quaternion = (1.0, 0.0, 0.0, 0.0)

    @cached_property
    def rotation(self) -> np.ndarray:
        """The quaternion as a matrix, shape (3, 3)."""
        return np.ascontiguousarray(Rotation.from_quat(self.quaternion, scalar_first=True).as_matrix())

    @cached_property
    def hull_nm(self) -> np.ndarray:
        """Points around the body in its own frame, shape (n, 3): it lies within their convex hull."""
        box = shapes.half_box(self.label, self.dimensions)
        ticks = np.linspace(-1, 1, 9)
        grid = np.stack(np.meshgrid(ticks, ticks, ticks), -1).reshape(-1, 3)
        points = grid[np.abs(grid).max(1) == 1] * box
        # between the points the hull of what the sphere cuts off lies a little lower
        limit = 1.03 * shapes.radius_nm(self.label, self.dimensions)
        points *= np.minimum(1, limit / np.linalg.norm(points, axis=1))[:, None]
        return deform(points, self._warp)

    @cached_property
    def seen_hull_nm(self) -> np.ndarray:
        """The same points in the image's frame, from the body's origin, shape (n, 3)."""
        return self.hull_nm @ self.rotation.T

    @property
    def volume_nm3(self) -> float | None:
        """Volume by the closed formula, None of a deformed body."""
        return None if self.deformation.deformed else shapes.volume_nm3(self.label, self.dimensions)

    @cached_property
    def _warp(self) -> np.ndarray:
        return warp(self.label, shapes.half_box(self.label, self.dimensions), self.deformation)

    @cached_property
    def _per_gradient(self) -> float:
        kind, s = BODIES.index(self.label), shapes.sizes(self.label, self.dimensions)
        dents = dent_array(self.deformation)
        band = 0.25 * float(shapes.half_box(self.label, self.dimensions).min())
        steepest = largest_gradient(kind, s, self._warp, dents, np.abs(self.hull_nm).max(0), band)
        return 1 / min(1.05 * steepest, 4.0)


@dataclass(frozen=True, eq=False)
class Projection:
    """A body as seen along the beam, whole, whether or not it lies inside the image.

    Parameters
    ----------
    thickness_nm : ndarray of float64, shape (height, width)
        Mean over each pixel.
    coverage : ndarray of float64, shape (height, width)
        Share of each pixel that lies inside the silhouette.
    row, column : int
        Of the image, where pixel (0, 0) of these lies; may be negative.
    pixel_size_nm : float
    """

    thickness_nm: np.ndarray
    coverage: np.ndarray
    row: int
    column: int
    pixel_size_nm: float

    @property
    def volume_nm3(self) -> float:
        """Integral of the thickness."""
        return float(self.thickness_nm.sum()) * self.pixel_size_nm**2

    @property
    def area_nm2(self) -> float:
        """Of the silhouette, without holes."""
        return float(self.coverage.sum()) * self.pixel_size_nm**2


def project(solid: Solid, x_px: float, y_px: float, pixel_size_nm: float) -> Projection:
    """Thickness of a body along the beam: lengths of rays through pixel centres, at edges of 9 rays a pixel.

    Of a sphere 60 to 100 px across, thickness is off by 0.01 px RMS, at most 0.12 px; its volume by less than 0.03 %.

    Parameters
    ----------
    x_px, y_px : float
        Where the body's origin lies in the image.
    """
    hull = solid.seen_hull_nm
    low, high = hull[:, :2].min(0) / pixel_size_nm, hull[:, :2].max(0) / pixel_size_nm
    column, row = int(np.floor(x_px + low[0])) - 2, int(np.floor(y_px + low[1])) - 2
    width, height = int(np.ceil(x_px + high[0])) + 3 - column, int(np.ceil(y_px + high[1])) + 3 - row
    x = (np.arange(width) + column - x_px) * pixel_size_nm
    y = (np.arange(height) + row - y_px) * pixel_size_nm
    reach = 1.01 * float(np.linalg.norm(hull, axis=1).max())
    # where the distance function has branches, a bound on the step keeps a ray from leaping over a part
    longest = 0.25 * reach if solid.deformation.deformed or solid.label == "helix" else 2 * reach
    march = (reach, _SHORTEST * pixel_size_nm, longest, solid._per_gradient, _TOLERANCE * pixel_size_nm)
    dents = dent_array(solid.deformation)
    kind, s = BODIES.index(solid.label), shapes.sizes(solid.label, solid.dimensions)
    thickness = chords(kind, s, solid._warp, dents, solid.rotation, x, y, march)
    jump = _JUMP * pixel_size_nm
    args = (kind, s, solid._warp, dents, solid.rotation, x, y, march, thickness, _RAYS_A_SIDE, jump)
    return Projection(thickness, refine(*args), row, column, pixel_size_nm)
