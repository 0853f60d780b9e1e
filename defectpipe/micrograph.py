"""The one image type of the project: pixels with what is known about how they were acquired."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from defectpipe.errors import MicrographError
from defectpipe.greyscale import (
    ArrayPixels,
    GreyScale,
    PixelSource,
    Rectangle,
    ValueSummary,
    is_constant,
    scale_of_array,
    summarise,
)

# Of larger images, percentiles are counted out, not sorted: the same ones, with less memory.
_SORTED_PX = 2**24


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
    pixels : ndarray or PixelSource, shape (height, width)
        Grey values at their full depth, any real dtype. NaN and infinite values mark pixels without data. Of a very
        large image they may stay in the file.
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
    rows : tuple of int or None
        First and end row of what is analysed, where strips at the top or bottom (a data bar) are left out; None: all.
    left_out : tuple of Rectangle
        Parts of the picture (y0, y1, x0, x1; ends excluded) that are not analysed: a scale bar drawn in it.
    voltage_kv : float or None
        That accelerated the beam, as the file states it.
    tilt_deg : float or None
        Of the specimen, where the file is a tilt series and states it.
    """

    pixels: np.ndarray | PixelSource
    image: str
    frame: int = 0
    calibration: Calibration | None = None
    sha256: str = ""
    modality: str | None = None
    magnification: float | None = None
    notes: tuple[str, ...] = field(default=())
    rows: tuple[int, int] | None = None
    left_out: tuple[Rectangle, ...] = ()
    voltage_kv: float | None = None
    tilt_deg: float | None = None

    def __post_init__(self) -> None:
        if len(self.pixels.shape) != 2:
            raise MicrographError(f"{self.image}: a frame has two axes, this one has shape {self.pixels.shape}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in px."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def pixel_size_nm(self) -> float | None:
        """Pixel size in nm, None when unknown."""
        return None if self.calibration is None else self.calibration.pixel_size_nm

    @property
    def analysed_rows(self) -> tuple[int, int]:
        """First and end row of what is analysed."""
        return (0, self.shape[0]) if self.rows is None else self.rows

    @property
    def analysed_shape(self) -> tuple[int, int]:
        """Height and width of what is analysed, in px: without strips at the top or bottom."""
        first, end = self.analysed_rows
        return end - first, self.shape[1]

    @property
    def analysed_area_px2(self) -> float:
        """Area of what is analysed: without strips, what is `left_out`, and pixels without data."""
        height, width = self.analysed_shape
        hidden = sum((y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in self.left_out)
        if self.pixels.dtype.kind != "f":
            return float(height * width - hidden)
        if not isinstance(self.pixels, np.ndarray):
            return float(height * width - self.values.n_missing)
        first, end = self.analysed_rows
        seen = np.isfinite(self.pixels[first:end])
        for y0, y1, x0, x1 in self.left_out:
            seen[y0 - first : y1 - first, x0:x1] = False
        return float(np.count_nonzero(seen))

    @cached_property
    def values(self) -> ValueSummary:
        """Range, pixels without data and normalisation, from passes over the pixels that need little memory."""
        return summarise(self._source, self.analysed_rows, self.left_out)

    @cached_property
    def scale(self) -> GreyScale:
        """The one normalisation to 8 bit that every stage starts from: see `grey8`."""
        if not isinstance(self.pixels, np.ndarray) or self.pixels.size > _SORTED_PX:
            return self.values.scale
        first, end = self.analysed_rows
        mask = np.zeros(self.analysed_shape, bool) if self.left_out else None
        for y0, y1, x0, x1 in self.left_out:
            mask[y0 - first : y1 - first, x0:x1] = True  # type: ignore[index]
        return scale_of_array(self.pixels[first:end], mask)

    @property
    def _source(self) -> PixelSource:
        return ArrayPixels(self.pixels) if isinstance(self.pixels, np.ndarray) else self.pixels

    @property
    def is_constant(self) -> bool:
        """Whether all pixels hold the same value."""
        return min(self.shape) > 0 and is_constant(self._source)

    def grey8(self) -> np.ndarray:
        """Grey values as 8 bit, of the whole image.

        8-bit images are taken as they are. Others are stretched linearly from their 0.1 to their 99.9 percentile of
        finite pixels that are analysed; pixels without data, or left out, take the median. A constant image becomes 0
        everywhere.

        Returns
        -------
        ndarray of uint8, shape (height, width)
        """
        return self.grey8_region(0, self.shape[0], 0, self.shape[1])

    def grey8_region(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Rows `y0` to `y1` and columns `x0` to `x1` (ends excluded) of `grey8`."""
        if isinstance(self.pixels, np.ndarray):
            values = self.pixels[y0:y1, x0:x1]
        else:
            values = self.pixels.region(y0, y1, x0, x1)
        if values.dtype == np.uint8:
            if not self.left_out:
                return values
            grey = values.copy()
        else:
            grey = self.scale.apply(values)
        for top, bottom, left, right in self.left_out:
            part = grey[max(0, top - y0) : max(0, bottom - y0), max(0, left - x0) : max(0, right - x0)]
            part[:] = self.scale.apply(np.array([[self.scale.missing]]))[0, 0]
        return grey
