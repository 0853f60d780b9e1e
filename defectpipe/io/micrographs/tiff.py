"""TIFF through tifffile: every page of full resolution is a frame; what is missing from the file is an error."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs.frames import Claim, Frame, check_claim
from defectpipe.io.micrographs.paged import PagedImage, can_stay_in_file
from defectpipe.io.micrographs.tiff_tags import stated_by_tags
from defectpipe.io.micrographs.voltage import voltage_of_tiff

_LARGE_TILE_PX = 2**24
# tifffile logs these and goes on with the frames that are left.
_SIGNS_OF_DAMAGE = ("page offset", "corrupted", "failed to reshape", "series raised")


def read_tiff(path: Path, max_pixels: int, in_file_above_px: int | None = None) -> list[Frame]:
    """Every frame of a TIFF: pages, planes and channels in the order of the file; reduced pages are left out.

    Parameters
    ----------
    path : Path
    max_pixels : int
        A header that claims more is refused before anything is decoded.
    in_file_above_px : int, optional
        Grey frames of more pixels stay in the file, if its parts can be read one by one.

    Returns
    -------
    list of Frame
        Palettes applied; inverted grey scales (white is zero) turned round.

    Raises
    ------
    MicrographError
        Cut short, damaged, too large, or with channels of unknown meaning.
    """
    with _open(path) as tif:
        all_series = _checked_series(tif, path, max_pixels)
        tags = stated_by_tags(tif, path)
        voltage_kv = voltage_of_tiff(tif, path)
        frames = []
        for index, series in all_series.items():
            stated = tags.of_series(index)
            page = series.keyframe
            turned = page.tags.valueof("Orientation", default=1) != 1
            notes = (*tags.notes, *(("TIFF orientation tag not applied",) if turned else ()))
            if in_file_above_px is not None and _stays_in_file(series, in_file_above_px):
                seen_notes = _as_seen(np.zeros((1, 1), page.dtype), page)[1]
                for one in series.pages:
                    paged = PagedImage(path, one, _turned_round(page))
                    seen = (tags.modality, tags.magnification, (*notes, *seen_notes), voltage_kv)
                    frames.append(Frame(paged, stated, *seen))
                continue
            for samples in _frames_of(series):
                samples, seen_notes = _as_seen(samples, page)
                seen = (tags.modality, tags.magnification, (*notes, *seen_notes), voltage_kv)
                frames.append(Frame(samples, stated, *seen))
    return frames


def count_tiff_frames(path: Path) -> int:
    """Number of frames, from the header."""
    with _open(path) as tif:
        return sum(_extent(series)[0] for series in _series(tif).values())


def tiff_claims(path: Path, max_pixels: int) -> list[Claim]:
    """What the header claims, series by series; raises what `read_tiff` would, as far as the header shows it."""
    with _open(path) as tif:
        all_series = _checked_series(tif, path, max_pixels)
        tags = stated_by_tags(tif, path)
        return [Claim(*_extent(series), tags.of_series(index)) for index, series in all_series.items()]


def _checked_series(tif: tifffile.TiffFile, path: Path, max_pixels: int) -> dict[int, Any]:
    all_series = _series(tif)
    claimed = 0
    for series in all_series.values():
        n_frames, height, width = _extent(series)
        claimed += n_frames * height * width
        check_claim(n_frames, height, width, max_pixels)
        check_claim(claimed, 1, 1, max_pixels)
        _check_complete(series, path.stat().st_size)
        _check_channels(series.keyframe)
    return all_series


@contextmanager
def _open(path: Path) -> Iterator[tifffile.TiffFile]:
    """An open TIFF; what tifffile only logs about damage becomes an error, the rest of its log is dropped."""
    damage: list[str] = []

    def listen(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.ERROR and any(sign in message for sign in _SIGNS_OF_DAMAGE):
            damage.append(message)
        return False

    logger = tifffile.logger()
    logger.addFilter(listen)
    try:
        # An OME set of several files would pull in its neighbours; each file is an image of its own here.
        with tifffile.TiffFile(path, _multifile=False) as tif:
            if len(tif.pages) and tif.is_ome and re.search("<!(DOCTYPE|ENTITY)", tif.ome_metadata or ""):
                raise MicrographError("its OME metadata define entities, which no microscope writes.")
            if not len(tif.pages) or not tif.series:
                raise MicrographError("the TIFF is cut short or damaged: it holds no page.")
            if damage:
                raise MicrographError(f"the TIFF is cut short or damaged ({damage[0].rsplit('> ', 1)[-1]}).")
            yield tif
    except tifffile.TiffFileError as error:
        raise MicrographError(f"the TIFF is damaged ({error}).") from error
    finally:
        logger.removeFilter(listen)


def _series(tif: tifffile.TiffFile) -> dict[int, Any]:
    """The series of full resolution by their index in the file."""
    full = {i: s for i, s in enumerate(tif.series) if not (s.keyframe.is_reduced or s.keyframe.is_mask)}
    return full or {0: tif.series[0]}


def _extent(series: Any) -> tuple[int, int, int]:
    """Frames, height and width."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise MicrographError(f"its shape {series.shape} with axes {series.axes} is no image.")
    n_frames = 1
    for axis, size in sizes.items():
        n_frames *= 1 if axis in "YXS" else size
    return n_frames, sizes["Y"], sizes["X"]


def _check_complete(series: Any, file_bytes: int) -> None:
    tile_px = math.prod(series.keyframe.tile or ())
    # A tile may be larger than a small picture; one of the decoders allocates what its size says.
    if tile_px > max(_LARGE_TILE_PX, 4 * series.keyframe.imagelength * series.keyframe.imagewidth):
        raise MicrographError(f"the TIFF is damaged: its tiles claim {tile_px} px each.")
    if series.dataoffset is not None and series.dataoffset + series.nbytes > file_bytes:
        raise MicrographError(
            f"the TIFF is cut short: its pixels need {series.nbytes} bytes, the file has {file_bytes} in all."
        )
    for page in series.pages:
        if page is None:
            raise MicrographError("the TIFF is incomplete: planes that its header names are not in the file.")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if offset + count > file_bytes:
                raise MicrographError(f"the TIFF is cut short or damaged: pixels end beyond its {file_bytes} bytes.")


def _stays_in_file(series: Any, above_px: int) -> bool:
    n_frames, height, width = _extent(series)
    pages = list(series.pages)
    return height * width > above_px and len(pages) == n_frames and all(can_stay_in_file(page) for page in pages)


def _turned_round(page: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda samples: _as_seen(samples, page)[0]


def _check_channels(page: Any) -> None:
    known = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if page.samplesperpixel == 1 or (known and page.samplesperpixel in (3, 4)):
        return
    is_alpha = [kind in (1, 2) for kind in page.extrasamples]
    if page.samplesperpixel == 2 and is_alpha == [True]:
        return
    raise MicrographError(
        f"its pixels have {page.samplesperpixel} channels of which the file does not say that they are red, green and "
        "blue; save each as an image of its own."
    )


def _frames_of(series: Any) -> Iterator[np.ndarray]:
    """Each frame, (height, width) or (height, width, channels)."""
    pixels = series.asarray()
    axes = series.axes
    inner = [axes.index("Y"), axes.index("X"), *([axes.index("S")] if "S" in axes else [])]
    outer = [i for i in range(pixels.ndim) if i not in inner]
    pixels = pixels.transpose(*outer, *inner)
    yield from pixels.reshape(-1, *pixels.shape[len(outer) :])


def _as_seen(samples: np.ndarray, page: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Samples with the palette or the inverted grey scale applied, as the picture is meant to be seen."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and samples.ndim == 2:
        palette = np.asarray(page.colormap)
        if palette.shape[1] == 256:
            palette = (palette >> 8).astype(np.uint8)
            if (palette == np.arange(256)).all():
                return samples, ()
        return palette.T[samples], ()
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if samples.dtype == np.bool_:
            return ~samples, ("inverted: white is zero in the file",)
        if samples.dtype.kind == "u":
            top = 2**page.bitspersample - 1
            return (top - samples).astype(samples.dtype), ("inverted: white is zero in the file",)
        return samples, ("white is zero in the file: contrast left as stored",)
    return samples, ()
