"""What an image looks like, as 64 numbers: for finding images like it.

Four kinds of numbers describe the texture, none of which knows brightness, contrast or the way up: how the power of
the picture is spread over spatial frequencies, how it is spread over directions, local binary patterns, and the shape
of the grey-value histogram. A fifth block holds the power over physical frequencies, in nm, so that pictures of one
structure at two magnifications have something in common; without a pixel size it is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import cv2
import numpy as np

from defectpipe.catalogue.descriptor_scale import MEAN, STD
from defectpipe.micrograph import Micrograph

SIZE = 64
"""Numbers of an embedding, whoever makes it: the catalogue holds no other length."""

# The side of the parts of a picture that are looked at: memory and time stay the same, however large it is.
_PART_PX = 512
_BANDS = 16
_OCTAVES = 8
# Half-octave bands begin at half a cycle a px; physical ones at a wavelength of 1/16 nm and end at 1 mm.
_SHORTEST_NM = 2.0**-4
_PHYSICAL_BANDS, _OCTAVES_EACH = 12, 2
_PATTERN_RADII_PX = (1, 4)
_PATTERNS = 10
_PERCENTS = (1, 10, 25, 75, 90, 99)
# Spectrum, directions, patterns, greys, physical spectrum; each counts alike, however many numbers it has.
_BLOCKS = (_BANDS, _OCTAVES, len(_PATTERN_RADII_PX) * _PATTERNS, len(_PERCENTS) + 2, _PHYSICAL_BANDS)
# Standard scores beyond this say no more.
_FARTHEST = 4.0


class Embedder(Protocol):
    """What makes an embedding of an image: the descriptor of this module, or a network in its place."""

    @property
    def name(self) -> str:
        """Name and version; embeddings of different names are never compared."""
        ...

    def embed(self, micrograph: Micrograph) -> np.ndarray:
        """Embedding of one frame: float32, shape (`SIZE`,), length 1; likeness is the scalar product of two."""
        ...


@dataclass(frozen=True)
class TextureDescriptor:
    """The 64 numbers of this module, standardised by what simulated images have, and of length 1."""

    name: str = "texture-1"

    def embed(self, micrograph: Micrograph) -> np.ndarray:
        """Descriptor of one frame.

        Parameters
        ----------
        micrograph : Micrograph
            At least 24 px a side; strips and scale bars that are not analysed do not count.

        Returns
        -------
        ndarray of float32, shape (64,)
            The same, to rounding, for a turn by 90°, a mirror image, and another brightness or contrast.
        """
        scores = np.clip((raw_numbers(micrograph) - MEAN) / STD, -_FARTHEST, _FARTHEST)
        if micrograph.pixel_size_nm is None:
            scores[-_PHYSICAL_BANDS:] = 0.0
        blocks = np.split(scores, np.cumsum(_BLOCKS)[:-1])
        joined = np.concatenate([_tamed(block / np.sqrt(len(block))) for block in blocks])
        length = float(np.linalg.norm(joined))
        return (joined / length if length > 0 else joined).astype(np.float32)


DESCRIPTOR = TextureDescriptor()


def raw_numbers(micrograph: Micrograph) -> np.ndarray:
    """The numbers before they are standardised; what `MEAN` and `STD` are the mean and deviation of.

    Returns
    -------
    ndarray of float64, shape (64,)
        The last block is 0 without a pixel size, and 0 for bands that the picture does not hold.
    """
    parts = [standardised(part) for part in _parts(micrograph)]
    spectra = np.mean([np.concatenate(_spectrum(part)) for part in parts], axis=0)
    bands, directions = spectra[:_BANDS], spectra[_BANDS:]
    return np.concatenate(
        [
            bands,
            directions,
            np.mean([_patterns(part) for part in parts], axis=0),
            np.mean([_greys(part) for part in parts], axis=0),
            _physical(bands, micrograph.pixel_size_nm),
        ]
    )


def _tamed(block: np.ndarray) -> np.ndarray:
    """A block cut to a length below 1, so that one in which a picture is extreme does not drown the others."""
    return block / (1 + np.linalg.norm(block))


def standardised(grey: np.ndarray) -> np.ndarray:
    """Grey values with mean 0 and deviation 1, float32; all 0 for a picture of one value."""
    grey = np.asarray(grey, np.float32)
    deviation = float(grey.std())
    return (grey - grey.mean()) / deviation if deviation > 0 else np.zeros_like(grey)


def _parts(micrograph: Micrograph) -> list[np.ndarray]:
    """The corners of what is analysed, or the middle of a small picture: the same parts after a turn."""
    first, end = micrograph.analysed_rows
    height, width = micrograph.analysed_shape
    side_y, side_x = min(_PART_PX, height), min(_PART_PX, width)
    corners = {(y, x) for y in (0, height - side_y) for x in (0, width - side_x)}
    middle = ((height - side_y) // 2, (width - side_x) // 2)
    # Where the corners would mostly show the same, one part will do.
    starts = corners if max(height, width) >= 2 * _PART_PX else {middle}
    read: Callable[[int, int, int, int], np.ndarray] = micrograph.grey8_region
    return [read(first + y, min(end, first + y + side_y), x, x + side_x) for y, x in sorted(starts)]


def _spectrum(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log power in half-octave bands (cycles per px), and its lopsidedness over directions in octaves.

    The latter is |Σ P exp(4iθ)| / Σ P and does not change with a quarter turn or a mirror.
    """
    height, width = part.shape
    window = np.outer(_hann(height), _hann(width))
    band, octave, turned, times = _frequencies(height, width)
    power = (np.abs(np.fft.rfft2(part * window)) ** 2).ravel() * times / (window**2).sum()
    total = np.bincount(band, power, _BANDS + 1)[:_BANDS]
    count = np.bincount(band, times, _BANDS + 1)[:_BANDS]
    logs = np.log(total / np.maximum(count, 1) + 1e-4)
    known = np.flatnonzero(count)
    # A small picture has no slow waves: the slowest that it has stand for them.
    logs = np.interp(np.arange(_BANDS), known, logs[known])
    strength = np.bincount(octave, power, _OCTAVES + 1)[:_OCTAVES] + 1e-9
    parts = [np.bincount(octave, power * t, _OCTAVES + 1)[:_OCTAVES] for t in (turned.real, turned.imag)]
    return logs - logs.mean(), np.hypot(*parts) / strength


@cache
def _hann(n: int) -> np.ndarray:
    return np.hanning(n + 2)[1:-1].astype(np.float32)


@cache
def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every place of a half spectrum, flat: band, octave, exp(4iθ), and how often it is in the whole spectrum."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(y, x)
    # 0: from half a cycle down by √2; what is beyond half a cycle, or slower than the last band, is left out
    step = -2 * np.log2(np.maximum(2 * frequency, 1e-12))
    band = np.where((step > -1e-9) & (step < _BANDS), np.maximum(step, 0), _BANDS).astype(np.int64)
    octave = np.minimum(band // 2, _OCTAVES)
    times = np.where((x == 0) | (x == 0.5), 1.0, 2.0) * np.ones_like(y)
    return band.ravel(), octave.ravel(), np.exp(4j * np.arctan2(y, x)).ravel(), times.ravel()


def _patterns(part: np.ndarray) -> np.ndarray:
    """Square roots of the shares of rotation-invariant uniform local binary patterns, at each radius.

    Source: Ojala, Pietikäinen & Mäenpää 2002, IEEE TPAMI 24:971-987; eight neighbours in a square.
    """
    found = []
    for radius in _PATTERN_RADII_PX:
        grey = part if radius == 1 else cv2.boxFilter(part, cv2.CV_32F, (radius | 1, radius | 1))
        found.append(np.sqrt(_pattern_shares(grey, radius)))
    return np.concatenate(found)


def _pattern_shares(grey: np.ndarray, radius: int) -> np.ndarray:
    r = radius
    height, width = grey.shape
    centre = grey[r : height - r, r : width - r]
    ring = ((-r, -r), (-r, 0), (-r, r), (0, r), (r, r), (r, 0), (r, -r), (0, -r))
    bits = [grey[r + dy : height - r + dy, r + dx : width - r + dx] > centre for dy, dx in ring]
    ones = sum(bit.astype(np.uint8) for bit in bits)
    changes = sum((a != b).astype(np.uint8) for a, b in zip(bits, [*bits[1:], bits[0]], strict=True))
    kinds = np.where(changes <= 2, ones, _PATTERNS - 1)
    return np.bincount(kinds.ravel(), minlength=_PATTERNS) / kinds.size


def _greys(part: np.ndarray) -> np.ndarray:
    """Percentiles of the standardised values, blurred a little, with their skewness and kurtosis, tamed."""
    values = standardised(cv2.GaussianBlur(part, (0, 0), 1.5)).ravel()
    squares = values * values
    moments = [np.arcsinh(float((squares * values).mean())), np.arcsinh(float((squares * squares).mean()) - 3)]
    return np.concatenate([np.percentile(values, _PERCENTS), moments])


def _physical(bands: np.ndarray, pixel_size_nm: float | None) -> np.ndarray:
    """Log power over wavelengths in nm, in bands of two octaves; 0 where the picture holds none."""
    if pixel_size_nm is None:
        return np.zeros(_PHYSICAL_BANDS)
    # Wavelength in the middle of each half-octave band.
    wavelength_nm = pixel_size_nm * 2.0 ** (1.25 + 0.5 * np.arange(_BANDS))
    place = np.log2(wavelength_nm / _SHORTEST_NM) / _OCTAVES_EACH - 0.5
    place = np.clip(place, 0, _PHYSICAL_BANDS - 1)
    low = np.minimum(place.astype(int), _PHYSICAL_BANDS - 2)
    share = place - low
    # Positive, so that a band without anything is not a band of middling power.
    level = bands - bands.min() + 1
    total = np.bincount(low, level * (1 - share), _PHYSICAL_BANDS) + np.bincount(
        low + 1, level * share, _PHYSICAL_BANDS
    )
    count = np.bincount(low, 1 - share, _PHYSICAL_BANDS) + np.bincount(low + 1, share, _PHYSICAL_BANDS)
    return total / np.maximum(count, 1) * np.minimum(count, 1)
