"""From grey values of any depth to 8 bit: one normalisation for a whole image, whether it is held at once or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

LOW_PERCENT, HIGH_PERCENT = 0.1, 99.9
# Pixels that are converted, or counted, at once.
_BLOCK_PX = 2**20
_DIGIT_BITS = 16

# First row, end row, first column, end column.
Rectangle = tuple[int, int, int, int]


class PixelSource(Protocol):
    """Pixels that stay in their file until they are asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels, native byte order."""
        ...

    def region(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The pixels of rows `y0` to `y1` and columns `x0` to `x1` (ends excluded), shape (y1 − y0, x1 − x0)."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """An array as a `PixelSource`."""

    pixels: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """See `PixelSource`."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """See `PixelSource`."""
        return self.pixels.dtype

    def region(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """See `PixelSource`."""
        return self.pixels[y0:y1, x0:x1]


@dataclass(frozen=True)
class GreyScale:
    """A linear stretch to 8 bit.

    Parameters
    ----------
    low, high : float
        Grey values that become 0 and 255. Where `high` is not above `low`, every pixel becomes 0.
    missing : float
        Grey value that pixels without data take.
    """

    low: float
    high: float
    missing: float

    def apply(self, values: np.ndarray) -> np.ndarray:
        """8-bit pixels; those of 8-bit images are taken as they are, with the scale's limits at 0 and 255.

        Parameters
        ----------
        values : ndarray, shape (height, width)
            NaN and infinite values mark pixels without data.
        """
        if self.high <= self.low:
            return np.zeros(values.shape, np.uint8)
        result = np.empty(values.shape, np.uint8)
        n_rows = max(1, _BLOCK_PX // max(1, values.shape[1]))
        for start in range(0, len(values), n_rows):
            # A damaged float can be a signalling NaN, of which NumPy warns in a cast.
            with np.errstate(invalid="ignore"):
                block = values[start : start + n_rows].astype(np.float64)
            block[~np.isfinite(block)] = self.missing
            stretched = np.rint((block - self.low) * (255.0 / (self.high - self.low)))
            result[start : start + n_rows] = np.clip(stretched, 0, 255)
        return result


def scale_of_array(pixels: np.ndarray, left_out: np.ndarray | None = None) -> GreyScale:
    """Stretch from the 0.1 to the 99.9 percentile of the finite pixels; of 8-bit images, 0 to 255.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
    left_out : ndarray of bool, shape (height, width), optional
        Pixels that do not count.

    Returns
    -------
    GreyScale
        `low` equals `high` where no pixel counts, or all are equal; `missing` is the median.
    """
    counts = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    if left_out is not None:
        counts &= ~left_out
    every = bool(counts.all())
    is_8_bit = pixels.dtype == np.uint8
    with np.errstate(invalid="ignore"):
        values: np.ndarray = (pixels if every else pixels[counts]).astype(np.uint8 if is_8_bit else np.float64)
    if values.size == 0:
        return GreyScale(0.0, 0.0, 0.0)
    # Of complete images nothing is missing.
    missing = 0.0 if every else float(np.median(values))
    if is_8_bit:
        return GreyScale(0.0, 255.0, missing)
    low, high = np.percentile(values, [LOW_PERCENT, HIGH_PERCENT])
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return GreyScale(float(low), float(high), missing)


@dataclass(frozen=True)
class ValueSummary:
    """What one pass over an image's values shows."""

    n_missing: int
    lowest: float
    highest: float
    scale: GreyScale


def summarise(source: PixelSource, rows: tuple[int, int], left_out: tuple[Rectangle, ...] = ()) -> ValueSummary:
    """The exact order statistics of an image that stays in its file, from counts of 16 bits at a time.

    Parameters
    ----------
    source : PixelSource
    rows : tuple of int
        First and end row of what counts.
    left_out : tuple of Rectangle
        Parts of it that do not count.

    Returns
    -------
    ValueSummary
        Its scale is that of `scale_of_array` for the same pixels.
    """
    n_all = (rows[1] - rows[0]) * source.shape[1]
    n_digits = -(-source.dtype.itemsize * 8 // _DIGIT_BITS)
    first = np.zeros(2**_DIGIT_BITS, np.int64)
    for block in _blocks(source, rows, left_out):
        first += np.bincount(_digit(_keys(block), n_digits - 1), minlength=2**_DIGIT_BITS)
    n = int(first.sum())
    if n == 0:
        return ValueSummary(n_all, 0.0, 0.0, GreyScale(0.0, 0.0, 0.0))
    wanted: dict[str, float] = {"lowest": 0, "highest": n - 1}
    wanted |= {"low": (n - 1) * (LOW_PERCENT / 100), "high": (n - 1) * (HIGH_PERCENT / 100), "median": (n - 1) / 2}
    ranks = sorted({min(int(place) + k, n - 1) for place in wanted.values() for k in (0, 1)})
    found = _select(source, rows, left_out, ranks, first, n_digits)

    def at(place: float) -> float:
        below, above = found[int(place)], found[min(int(place) + 1, n - 1)]
        share = place - int(place)
        # As NumPy interpolates.
        return above - (above - below) * (1 - share) if share >= 0.5 else below + (above - below) * share

    values = {name: at(place) for name, place in wanted.items()}
    # As np.median takes it, to the last bit.
    values["median"] = (found[(n - 1) // 2] + found[n // 2]) / 2
    missing = values["median"] if n < n_all else 0.0
    if source.dtype == np.uint8:
        scale = GreyScale(0.0, 255.0, missing)
    elif values["high"] > values["low"]:
        scale = GreyScale(values["low"], values["high"], missing)
    else:
        scale = GreyScale(values["lowest"], values["highest"], missing)
    return ValueSummary(n_all - n, values["lowest"], values["highest"], scale)


def is_constant(source: PixelSource) -> bool:
    """Whether all pixels hold the same value; looks no further than the first that differs."""
    first = source.region(0, 1, 0, 1)[0, 0]
    n_rows = max(1, _BLOCK_PX // source.shape[1])
    for y0 in range(0, source.shape[0], n_rows):
        if not (source.region(y0, min(y0 + n_rows, source.shape[0]), 0, source.shape[1]) == first).all():
            return False
    return True


def _select(
    source: PixelSource,
    rows: tuple[int, int],
    left_out: tuple[Rectangle, ...],
    ranks: list[int],
    counts: np.ndarray,
    n_digits: int,
) -> dict[int, float]:
    """The values of these ranks, digit by digit from the top; `counts` are those of the first digit."""
    # Leading digits of each rank's value, and its rank among the values that have them.
    prefixes, rests = dict.fromkeys(ranks, 0), {rank: rank for rank in ranks}
    tables = {0: counts}
    for digit in range(n_digits - 1, -1, -1):
        if digit < n_digits - 1:
            tables = {prefix: np.zeros(2**_DIGIT_BITS, np.int64) for prefix in set(prefixes.values())}
            for block in _blocks(source, rows, left_out):
                keys = _keys(block)
                leading = keys >> np.uint64((digit + 1) * _DIGIT_BITS)
                for prefix, table in tables.items():
                    table += np.bincount(_digit(keys[leading == prefix], digit), minlength=2**_DIGIT_BITS)
        for rank in ranks:
            sums = np.cumsum(tables[prefixes[rank]])
            value = int(np.searchsorted(sums, rests[rank], side="right"))
            rests[rank] -= int(sums[value - 1]) if value else 0
            prefixes[rank] = (prefixes[rank] << _DIGIT_BITS) | value
    return {rank: _value_of(key, source.dtype) for rank, key in prefixes.items()}


def _blocks(source: PixelSource, rows: tuple[int, int], left_out: tuple[Rectangle, ...]) -> Iterator[np.ndarray]:
    """All values that count, flat, in parts."""
    n_rows = max(1, _BLOCK_PX // source.shape[1])
    for y0 in range(rows[0], rows[1], n_rows):
        y1 = min(y0 + n_rows, rows[1])
        block = source.region(y0, y1, 0, source.shape[1])
        counts = np.isfinite(block) if block.dtype.kind == "f" else np.ones(block.shape, bool)
        for top, bottom, left, right in left_out:
            counts[max(0, top - y0) : max(0, bottom - y0), left:right] = False
        yield block.ravel() if counts.all() else block[counts]


def _keys(values: np.ndarray) -> np.ndarray:
    """Unsigned numbers in the order of the values."""
    bits = values.dtype.itemsize * 8
    top = 1 << (bits - 1)
    raw = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    if values.dtype.kind == "u":
        return raw
    if values.dtype.kind == "i":
        return raw ^ np.uint64(top)
    return np.where(raw & np.uint64(top), ~raw & np.uint64((1 << bits) - 1), raw | np.uint64(top))


def _value_of(key: int, dtype: np.dtype) -> float:
    """The inverse of `_keys`, for one value."""
    bits = dtype.itemsize * 8
    top = 1 << (bits - 1)
    if dtype.kind == "i":
        key ^= top
    elif dtype.kind == "f":
        key = key ^ top if key & top else ~key & ((1 << bits) - 1)
    return float(np.array([key], f"u{dtype.itemsize}").view(dtype)[0])


def _digit(keys: np.ndarray, digit: int) -> np.ndarray:
    return ((keys >> np.uint64(digit * _DIGIT_BITS)) & np.uint64(2**_DIGIT_BITS - 1)).astype(np.int64)
