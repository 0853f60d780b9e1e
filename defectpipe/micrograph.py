"""The one image type of the project: pixels with what is known about how they were acquired."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from defectpipe.errors import MicrographError


@dataclass(frozen=True)
class Calibration:
    """Pixel size of a micrograph, and where it is known from.

    Parameters
    ----------
    pixel_size_nm : float
        Side of a square pixel, in nm; positive and finite.
    source : str
        Where the value comes from, as written to ``images.csv``: ``"argument"``, ``"pixel_sizes.csv"``,
        ``"metadata: ImageJ"``, and so on.
    """

    pixel_size_nm: float
    source: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
            raise MicrographError(f"The pixel size {self.pixel_size_nm} nm ({self.source}) is not a positive number.")


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One frame of one image file.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Grey values at their full depth, any real dtype. NaN and infinite values mark pixels without data.
    image : str
        Path relative to the input folder, with ``/``, extension kept: the image's name in every table.
    frame : int
        Index in the file, from 0.
    calibration : Calibration or None
        None means unknown: no figure in nm is then given.
    sha256 : str
        Hash of the file's bytes.
    modality : str or None
        For example ``"STEM"``, ``"TEM"``, ``"SEM"``, where the file says so.
    magnification : float or None
        As the file states it.
    notes : tuple of str
        What the reader did that a user should know (alpha channel dropped, contrast inverted ...).
    """

    pixels: np.ndarray
    image: str
    frame: int = 0
    calibration: Calibration | None = None
    sha256: str = ""
    modality: str | None = None
    magnification: float | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2:
            raise MicrographError(f"{self.image}: a frame has two axes, this one has shape {self.pixels.shape}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in px."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def pixel_size_nm(self) -> float | None:
        """Pixel size in nm, None when unknown."""
        return None if self.calibration is None else self.calibration.pixel_size_nm

    def grey8(self) -> np.ndarray:
        """Grey values as 8 bit: the one normalisation that every stage starts from.

        8-bit images are taken as they are. Others are stretched linearly from their 0.1 to their 99.9 percentile of
        finite pixels; pixels without data take the median. A constant image becomes 0 everywhere.

        Returns
        -------
        ndarray of uint8, shape (height, width)
        """
        if self.pixels.dtype == np.uint8:
            return self.pixels
        # A damaged float can be a signalling NaN, of which NumPy warns in a cast.
        with np.errstate(invalid="ignore"):
            values = self.pixels.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            return np.zeros(self.shape, np.uint8)
        low, high = np.percentile(values[finite], [0.1, 99.9])
        if high <= low:
            low, high = float(values[finite].min()), float(values[finite].max())
        if high <= low:
            return np.zeros(self.shape, np.uint8)
        values[~finite] = np.median(values[finite])
        return np.clip(np.rint((values - low) * (255.0 / (high - low))), 0, 255).astype(np.uint8)
