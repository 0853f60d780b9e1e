"""Micrographs from a file of any format that is known: the one way in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from defectpipe.errors import MicrographError
from defectpipe.greyscale import PixelSource
from defectpipe.io.folder import (
    MICROSCOPE_SUFFIXES,
    OTHER_SUFFIXES,
    SPECTRUM_SUFFIXES,
    ImageFile,
)
from defectpipe.io.micrographs.bars import Bars, find_bars
from defectpipe.io.micrographs.frames import Frame
from defectpipe.io.micrographs.grey import constant_note, missing_note, to_grey
from defectpipe.io.micrographs.pixel_sizes import calibrate, given_size
from defectpipe.io.micrographs.raster import PNG_SIGNATURE, raster_claim, read_raster
from defectpipe.io.micrographs.rosetta import count_microscope_frames, microscope_claims, read_microscope
from defectpipe.io.micrographs.tiff import count_tiff_frames, read_tiff, tiff_claims
from defectpipe.micrograph import Calibration, Micrograph

MAX_PIXELS = 2**30
# The side of the detection window: in less, nothing can be found.
MIN_SIDE_PX = 24
_SUFFIX_OF_KIND = {
    "tiff": (".tif", ".tiff"),
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg", ".jpe"),
    "bmp": (".bmp",),
}


def read_micrographs(
    file: ImageFile | Path,
    *,
    image: str | None = None,
    pixel_sizes: Mapping[str, float] | None = None,
    pixel_size_nm: float | None = None,
    colour: str = "refuse",
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
    data_bar: str = "leave_out",
    crop_px: tuple[int, int] = (0, 0),
    in_file_above_px: int | None = None,
) -> list[Micrograph]:
    """Every frame of an image file, in the order of the file.

    What the file is, its content says, not its name. The pixel size comes from `pixel_sizes` if the image is in it,
    else from `pixel_size_nm`, else from the file (vendor tags, OME, ImageJ, DM, EMD, MRC, SER); a print resolution is
    none.

    Parameters
    ----------
    file : ImageFile or Path
    image : str, optional
        The image's name in every table; default: that of the `ImageFile`, or the file name.
    pixel_sizes : mapping of str to float, optional
        As `read_pixel_sizes` gives it.
    pixel_size_nm : float, optional
        Pixel size for images that are not in `pixel_sizes`; goes before what the file states.
    colour : {"refuse", "luminance"}
        What becomes of a colour picture whose channels differ.
    max_pixels : int
        Largest number of px, over all frames, that is read; more is refused from the header.
    min_side_px : int
        Smallest side in px, of what is analysed.
    data_bar : {"leave_out", "keep"}
        Whether a burnt-in strip of data, or a scale bar, is looked for, to be left out of the analysis (`find_bars`).
    crop_px : tuple of int
        Rows at the top and at the bottom that are left out instead of a strip that is looked for.
    in_file_above_px : int, optional
        Grey frames of more pixels stay in the file, where its format allows that; default: none.

    Returns
    -------
    list of Micrograph
        At least one; all pages of a stack, with `frame` from 0. Grey values at full depth, NaN and infinite kept.

    Raises
    ------
    MicrographError
        Whatever keeps the file from being read, in one sentence that names it.
    """
    if colour not in ("refuse", "luminance"):
        raise ValueError(f"colour is 'refuse' or 'luminance', not {colour!r}.")
    if data_bar not in ("leave_out", "keep"):
        raise ValueError(f"data_bar is 'leave_out' or 'keep', not {data_bar!r}.")
    path, name = _path_and_name(file, image)
    try:
        frames, sha256, notes = _decode(path, max_pixels, in_file_above_px)
        given = given_size(name, pixel_sizes)
        found = []
        for index, frame in enumerate(frames):
            pixels, grey_notes = _grey(frame, colour, min_side_px)
            left_out, bar_notes = _left_out(pixels, data_bar, crop_px, min_side_px)
            calibration, size_notes = calibrate(frame.stated, given, pixel_size_nm)
            micrograph = Micrograph(
                pixels=pixels,
                image=name,
                frame=index,
                calibration=calibration,
                sha256=sha256,
                modality=frame.modality,
                magnification=frame.magnification,
                voltage_kv=frame.voltage_kv,
                tilt_deg=frame.tilt_deg,
                rows=left_out.rows,
                left_out=left_out.scale_bars,
            )
            notes_of_frame = (*notes, *frame.notes, *grey_notes, *_summary_notes(micrograph), *bar_notes, *size_notes)
            found.append(replace(micrograph, notes=notes_of_frame))
        return found
    except MicrographError as error:
        raise MicrographError(f"{name}: {error}") from error
    # A damaged file makes the decoders raise anything; whatever it was, it is this file's one error.
    except Exception as error:
        raise MicrographError(f"{name}: cannot be read ({type(error).__name__}: {_first_line(error)}).") from error


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Parameters
    ----------
    format : str
        ``TIFF``, ``PNG``, ``JPEG``, ``BMP``, or the extension of a microscope's format, in capitals.
    n_frames : int
    height, width : int
        Of the first frame, in px.
    n_pixels : int
        Over all frames.
    calibration : Calibration or None
        Of the first frame.
    notes : tuple of str
        Pixel sizes of the file that were overridden.
    """

    format: str
    n_frames: int
    height: int
    width: int
    n_pixels: int
    calibration: Calibration | None
    notes: tuple[str, ...]


def read_header(
    file: ImageFile | Path,
    *,
    image: str | None = None,
    pixel_sizes: Mapping[str, float] | None = None,
    pixel_size_nm: float | None = None,
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
) -> Header:
    """What an image file claims to hold, without its pixels; parameters as for `read_micrographs`.

    Raises
    ------
    MicrographError
        As `read_micrographs`, as far as the header shows it: damaged pixels and colour show only in reading.
    """
    path, name = _path_and_name(file, image)
    try:
        kind = _kind_of(path)
        if kind == "tiff":
            claims = tiff_claims(path, max_pixels)
        elif kind == "microscope":
            claims = microscope_claims(path, max_pixels)
        else:
            claims = [raster_claim(path, kind, max_pixels)]
        given = given_size(name, pixel_sizes)
        sizes = []
        for claim in claims:
            _check_side(claim.height, claim.width, min_side_px)
            sizes.append(calibrate(claim.stated, given, pixel_size_nm))
    except MicrographError as error:
        raise MicrographError(f"{name}: {error}") from error
    except Exception as error:
        raise MicrographError(f"{name}: cannot be read ({type(error).__name__}: {_first_line(error)}).") from error
    return Header(
        path.suffix.lstrip(".").upper() if kind == "microscope" else kind.upper(),
        sum(claim.n_frames for claim in claims),
        claims[0].height,
        claims[0].width,
        sum(math.prod((claim.n_frames, claim.height, claim.width)) for claim in claims),
        *sizes[0],
    )


def count_frames(file: ImageFile | Path) -> int:
    """Number of frames in an image file, from its header.

    Raises
    ------
    MicrographError
        As `read_micrographs`, as far as the header shows it.
    """
    path, name = _path_and_name(file, None)
    try:
        kind = _kind_of(path)
        if kind == "tiff":
            return count_tiff_frames(path)
        return count_microscope_frames(path) if kind == "microscope" else 1
    except MicrographError as error:
        raise MicrographError(f"{name}: {error}") from error
    except Exception as error:
        raise MicrographError(f"{name}: cannot be read ({type(error).__name__}: {_first_line(error)}).") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    MicrographError
        The file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise MicrographError(f"{path}: cannot be read ({error.strerror}).") from error


def _path_and_name(file: ImageFile | Path, image: str | None) -> tuple[Path, str]:
    if isinstance(file, ImageFile):
        return file.path, image or file.image
    return Path(file), image or Path(file).name


def _decode(path: Path, max_pixels: int, in_file_above_px: int | None) -> tuple[list[Frame], str, tuple[str, ...]]:
    kind = _kind_of(path)
    notes: tuple[str, ...] = ()
    if kind in _SUFFIX_OF_KIND and path.suffix.lower() not in _SUFFIX_OF_KIND[kind]:
        notes = (f"its content is {kind.upper()}, whatever its name says",)
    if kind == "tiff":
        return read_tiff(path, max_pixels, in_file_above_px), sha256_of(path), notes
    if kind == "microscope":
        return read_microscope(path, max_pixels), sha256_of(path), notes
    data = path.read_bytes()
    return read_raster(data, kind, max_pixels), hashlib.sha256(data).hexdigest(), notes


def _kind_of(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise MicrographError(f"the file cannot be opened ({error.strerror}).") from error
    if not head:
        raise MicrographError("the file is empty (0 bytes).")
    suffix = path.suffix.lower()
    if suffix in SPECTRUM_SUFFIXES:
        raise MicrographError(f"a {suffix} file is a spectrum, no image.")
    for signature, kind in (
        (PNG_SIGNATURE, "png"),
        (b"\xff\xd8\xff", "jpeg"),
        *((order, "tiff") for order in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ):
        if head.startswith(signature):
            return kind
    if head.startswith(b"BM") and suffix not in MICROSCOPE_SUFFIXES:
        return "bmp"
    if suffix in OTHER_SUFFIXES:
        raise MicrographError(f"{suffix} files are not read; save it as TIFF or PNG.")
    if suffix in MICROSCOPE_SUFFIXES and not _is_text(head):
        return "microscope"
    what = "holds text" if _is_text(head) else "holds something else"
    raise MicrographError(f"its name says {suffix.lstrip('.').upper()}, but it {what}.")


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _grey(frame: Frame, colour: str, min_side_px: int) -> tuple[np.ndarray | PixelSource, tuple[str, ...]]:
    height, width = frame.samples.shape[:2]
    _check_side(height, width, min_side_px)
    return to_grey(frame.samples, colour) if isinstance(frame.samples, np.ndarray) else (frame.samples, ())


def _left_out(
    pixels: np.ndarray | PixelSource, data_bar: str, crop_px: tuple[int, int], min_side_px: int
) -> tuple[Bars, tuple[str, ...]]:
    """What is left out of the analysis, and the notes that say so."""
    height = pixels.shape[0]
    if any(crop_px):
        rows = (crop_px[0], height - crop_px[1])
        if rows[1] - rows[0] < min_side_px:
            raise MicrographError(f"of its {height} rows, {crop_px[0]} at the top and {crop_px[1]} below are cropped.")
        left, right = f"{crop_px[0]} rows at the top", f"{crop_px[1]} at the bottom"
        return Bars(rows, ()), (f"cropped as set: {left}, {right}",)
    bars = Bars((0, height), ()) if data_bar == "keep" else find_bars(pixels)
    return bars, bars.notes(height)


def _summary_notes(micrograph: Micrograph) -> tuple[str, ...]:
    """The notes that `to_grey` makes of values, for an image that stays in its file."""
    if isinstance(micrograph.pixels, np.ndarray) or micrograph.pixels.dtype == np.uint8:
        return ()
    values = micrograph.values
    height, width = micrograph.analysed_shape
    hidden = sum((y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in micrograph.left_out)
    if values.n_missing == height * width:
        raise MicrographError("no pixel holds a finite value.")
    missing = (missing_note(values.n_missing - hidden),) if values.n_missing > hidden else ()
    return (*missing, *((constant_note(values.lowest),) if values.lowest == values.highest else ()))


def _check_side(height: int, width: int, min_side_px: int) -> None:
    if min(height, width) < min_side_px:
        raise MicrographError(f"{height} × {width} px are too few; each side needs {min_side_px} px.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:300]
