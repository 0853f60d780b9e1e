"""Pages of a TIFF that stay in the file: any part of one is read without the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from defectpipe.errors import MicrographError

# Decoded tiles and strips that are kept, since the parts that are asked for overlap.
_CACHE_BYTES = 192 * 2**20
# A strip or tile of more pixels would be most of what is to be avoided.
_MAX_SEGMENT_PX = 2**24


class PagedImage:
    """One grey page of a TIFF as a `PixelSource`.

    Parameters
    ----------
    path : Path
    page : tifffile.TiffPage or tifffile.TiffFrame
        Of an open file, which may be closed afterwards.
    as_seen : callable
        What becomes of the samples: inverted grey scales are turned round.
    """

    def __init__(self, path: Path, page: Any, as_seen: Callable[[np.ndarray], np.ndarray]) -> None:
        key = page.keyframe
        self._path, self._as_seen = path, as_seen
        self._offsets, self._counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        self._decode, self._nothing = key.decode, key.nodata
        self._options = {"jpegtables": key.jpegtables} if key.jpegtables is not None else {}
        self.shape: tuple[int, int] = (key.imagelength, key.imagewidth)
        self.dtype: np.dtype = key.dtype.newbyteorder("=")
        self._stored = key.dtype.newbyteorder(key.parent.byteorder)
        self._segment = _segment_shape(key)
        self._n_columns = -(-self.shape[1] // self._segment[1])
        self._in_one_piece = _is_in_one_piece(page)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def region(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """See `PixelSource.region`.

        Raises
        ------
        MicrographError
            The file was cut short in the meantime.
        """
        read = self._plain_region if self._in_one_piece else self._decoded_region
        with open(self._path, "rb") as stream:
            return self._as_seen(read(stream, y0, y1, x0, x1))

    def _plain_region(self, stream: BinaryIO, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        result = np.empty((y1 - y0, x1 - x0), self._stored)
        size = self._stored.itemsize
        for row in range(y0, y1):
            stream.seek(self._offsets[0] + (row * self.shape[1] + x0) * size)
            part = stream.read((x1 - x0) * size)
            if len(part) != (x1 - x0) * size:
                raise MicrographError("the TIFF was cut short while it was read.")
            result[row - y0] = np.frombuffer(part, self._stored)
        return result.astype(self.dtype, copy=False)

    def _decoded_region(self, stream: BinaryIO, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        height, width = self._segment
        result = np.empty((y1 - y0, x1 - x0), self.dtype)
        for i in range(y0 // height, -(-y1 // height)):
            for j in range(x0 // width, -(-x1 // width)):
                segment = self._segment_at(stream, i * self._n_columns + j)
                top, left = i * height, j * width
                a, b = max(y0, top), min(y1, top + height)
                c, d = max(x0, left), min(x1, left + width)
                result[a - y0 : b - y0, c - x0 : d - x0] = segment[a - top : b - top, c - left : d - left]
        return result

    def _segment_at(self, stream: BinaryIO, index: int) -> np.ndarray:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        decoded = None
        if self._counts[index]:
            stream.seek(self._offsets[index])
            decoded = self._decode(stream.read(self._counts[index]), index, **self._options)[0]
        if decoded is None:
            segment = np.full(self._segment, self._nothing, self.dtype)
        else:
            segment = np.ascontiguousarray(decoded.reshape(decoded.shape[-3:-1]), self.dtype)
        self._cache[index] = segment
        self._cached_bytes += segment.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return segment


def can_stay_in_file(page: Any) -> bool:
    """Whether parts of a page can be read alone: grey, and in tiles, strips or plain rows of a bounded size."""
    key = page.keyframe
    if key.samplesperpixel != 1 or key.dtype is None or key.dtype.kind not in "uif" or key.dtype == np.float16:
        return False
    if key.photometric == tifffile.PHOTOMETRIC.PALETTE or key.imagedepth != 1 or not page.dataoffsets:
        return False
    height, width = _segment_shape(key)
    return _is_in_one_piece(page) or height * width <= _MAX_SEGMENT_PX


def _segment_shape(key: Any) -> tuple[int, int]:
    if key.is_tiled:
        return key.tilelength, key.tilewidth
    return min(key.rowsperstrip, key.imagelength), key.imagewidth


def _is_in_one_piece(page: Any) -> bool:
    """Whether the rows follow each other in the file as they are."""
    key = page.keyframe
    if key.is_tiled or key.compression != 1 or key.predictor != 1 or key.fillorder != 1:
        return False
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    row_bytes = key.imagewidth * key.dtype.itemsize
    whole = ends[-1] - page.dataoffsets[0] >= key.imagelength * row_bytes
    return key.bitspersample == key.dtype.itemsize * 8 and whole and ends[:-1] == list(page.dataoffsets[1:])
