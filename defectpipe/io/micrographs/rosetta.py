"""DM3, DM4, EMD, MRC, SER and EMI through rosettasciio, which is optional (GPL-3): the extra ``formats``."""

from __future__ import annotations

import contextlib
import glob
import importlib
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from defectpipe.errors import MicrographError
from defectpipe.io.hdf5 import check_hdf5
from defectpipe.io.micrographs.dm import check_dm
from defectpipe.io.micrographs.frames import Claim, Frame, StatedSize, check_claim
from defectpipe.io.micrographs.units import is_reciprocal, nanometres
from defectpipe.io.micrographs.voltage import sensible_kv

_READER_OF_SUFFIX = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".ser": "tia",
    ".emi": "tia",
    **dict.fromkeys((".mrc", ".mrcs", ".st", ".ali", ".rec"), "mrc"),
}
# The first of them that a text holds.
_MODES = ("STEM", "SEM", "TEM")
_MRC_BYTES_PER_PX = {0: 1, 1: 2, 2: 4, 4: 8, 6: 2, 12: 2}
# The extended header of Thermo Fisher's tomography software has a pixel size of its own.
_FEI_HEADER_BYTES = 128 * 1024
_SER_SPECTRA = 0x4120
# More than any header of a few dimensions with their names has.
_SER_HEAD_BYTES = 2**16


def read_microscope(path: Path, max_pixels: int) -> list[Frame]:
    """Every image of a microscope file, frame by frame; several detectors follow each other.

    Parameters
    ----------
    path : Path
    max_pixels : int
        A header that claims more is refused before anything is decoded.

    Returns
    -------
    list of Frame

    Raises
    ------
    MicrographError
        No image in it (spectra, diffraction patterns, four dimensions), too large, or rosettasciio is not installed.
    """
    images, left_out = _images_of(path)
    _check_claims(images, max_pixels)
    frames: list[Frame] = []
    for image in images:
        samples = _samples(image["data"])
        if len(samples) != math.prod(image["data"].shape[:-2]):
            raise MicrographError("the file is cut short or damaged: frames that its header names are not in it.")
        stated, size_notes = _stated_sizes(image["axes"], path)
        title = _title(image)
        notes = (*size_notes, *left_out, *((f"detector: {title}",) if len(images) > 1 and title else ()))
        modality, magnification = _instrument(image)
        voltage_kv = _voltage(image)
        tilts = _tilts(image["axes"], len(samples))
        frames.extend(
            Frame(one, stated, modality, magnification, notes, voltage_kv, tilt)
            for one, tilt in zip(samples, tilts, strict=True)
        )
    return frames


def microscope_claims(path: Path, max_pixels: int) -> list[Claim]:
    """What the header claims, image by image; raises what `read_microscope` would, as far as the header shows it."""
    images, _left_out = _images_of(path)
    _check_claims(images, max_pixels)
    claims = []
    for image in images:
        *outer, height, width = image["data"].shape
        claims.append(Claim(math.prod(outer), height, width, _stated_sizes(image["axes"], path)[0]))
    return claims


def _check_claims(images: list[dict[str, Any]], max_pixels: int) -> None:
    claimed = 0
    for image in images:
        *outer, height, width = image["data"].shape
        claimed += math.prod(outer) * height * width
        check_claim(math.prod(outer), height, width, max_pixels)
        check_claim(claimed, 1, 1, max_pixels)


def count_microscope_frames(path: Path) -> int:
    """Number of frames, from the header."""
    return sum(math.prod(image["data"].shape[:-2]) for image in _images_of(path)[0])


def _images_of(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    images, refused = [], []
    for dataset in _load(path):
        reason = _why_no_image(dataset)
        if reason is None:
            images.append(dataset)
        else:
            refused.append(reason)
    if not images:
        raise MicrographError(f"it holds no image: {refused[0]}." if refused else "it holds no image data.")
    return images, tuple(f"left out: {reason}" for reason in dict.fromkeys(refused))


def _load(path: Path) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    name = _READER_OF_SUFFIX[suffix]
    if suffix == ".emi" and not any(path.parent.glob(f"{glob.escape(path.stem)}_*.ser")):
        raise MicrographError(f"its pixels are in a file {path.stem}_1.ser, which is not beside it.")
    try:
        reader = importlib.import_module(f"rsciio.{name}").file_reader
    except ImportError as error:
        raise MicrographError(
            f'{path.suffix} files are read through rosettasciio: pip install "defectpipe[formats]".'
        ) from error
    if name == "digitalmicrograph":
        check_dm(path)
    if name == "mrc":
        _check_mrc(_mrc_header(path), path.stat().st_size)
    if name == "emd":
        try:
            check_hdf5(path)
        except ValueError as error:
            raise MicrographError(f"{error}.") from error
    if suffix == ".ser":
        _check_ser(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Lazy: the shape is known, and can be refused, before anything is allocated.
        return list(reader(str(path), lazy=True))


def _why_no_image(dataset: dict[str, Any]) -> str | None:
    signal = [axis for axis in dataset["axes"] if not axis.get("navigate")]
    units = [str(axis.get("units") or "") for axis in signal]
    if len(signal) < 2:
        what = dataset.get("metadata", {}).get("Signal", {}).get("signal_type") or "one signal axis"
        return f"a spectrum ({what}{', ' + units[0] if units and units[0] else ''})"
    if any(is_reciprocal(unit) for unit in units):
        return f"a diffraction pattern (axes in {units[-1]})"
    if any(unit.lower() in ("ev", "kev") for unit in units):
        return f"a spectrum (axis in {units[-1]})"
    if len(signal) > 2 or len(dataset["axes"]) > 3 or dataset["data"].ndim != len(dataset["axes"]):
        return f"data of {len(dataset['axes'])} dimensions"
    return None


def _samples(data: Any) -> np.ndarray:
    """Pixels with shape (frames, height, width) or (frames, height, width, channels)."""
    # A copy: what is mapped from the file would change with it.
    pixels = np.array(data.compute(scheduler="synchronous") if hasattr(data, "compute") else data)
    if pixels.dtype.names:
        pixels = np.stack([pixels[name] for name in pixels.dtype.names], -1)
        return pixels.reshape(-1, *pixels.shape[-3:])
    return pixels.reshape(-1, *pixels.shape[-2:])


def _stated_sizes(axes: list[dict[str, Any]], path: Path) -> tuple[tuple[StatedSize, ...], tuple[str, ...]]:
    kind = path.suffix.lstrip(".").upper()
    y, x = [axis for axis in axes if not axis.get("navigate")][-2:]
    if _READER_OF_SUFFIX[path.suffix.lower()] == "mrc" and not _mrc_states_size(_mrc_header(path)):
        return (), ("pixel size unknown: the header gives no cell",)
    sizes = [nanometres(float(axis.get("scale") or 0), axis.get("units")) for axis in (y, x)]
    if sizes[0] is not None and sizes[1] is not None:
        return (StatedSize(kind, sizes[0], sizes[1]),), ()
    steps = ", ".join(f"{axis.get('scale')} {axis.get('units') or 'without a unit'}" for axis in (y, x))
    return (), (f"pixel size unknown: the file gives y, x: {steps}",)


def _tilts(axes: list[dict[str, Any]], n_frames: int) -> list[float | None]:
    """Tilt of each frame, where the frames follow each other in degrees."""
    outer = [axis for axis in axes if axis.get("navigate")]
    if len(outer) != 1 or str(outer[0].get("units") or "").lower() not in ("deg", "degree", "degrees", "°"):
        return [None] * n_frames
    step, first = (float(outer[0].get(name) or 0) for name in ("scale", "offset"))
    tilts = [first + step * i for i in range(n_frames)]
    return list(tilts) if step and max(map(abs, tilts)) <= 180 else [None] * n_frames


def _mrc_header(path: Path) -> bytes:
    with open(path, "rb") as stream:
        header = stream.read(1024)
    if len(header) < 1024:
        raise MicrographError(f"the MRC is cut short: its header of 1024 bytes ends after {len(header)}.")
    return header


def _check_mrc(header: bytes, file_bytes: int) -> None:
    # The mode, a small number, is huge when its bytes are read the wrong way round; rosettasciio 0.15 then takes the
    # sizes rightly and the pixels wrongly.
    if struct.unpack_from("<I", header, 12)[0] > 2**16:
        raise MicrographError("it is a big-endian MRC, which is not read; convert it to little-endian, or to TIFF.")
    width, height, sections, mode = struct.unpack_from("<4I", header)
    extended = struct.unpack_from("<I", header, 92)[0]
    bytes_per_px = _MRC_BYTES_PER_PX.get(mode)
    if bytes_per_px is None:
        raise MicrographError(f"its MRC mode {mode} is unknown: the header is damaged.")
    # The reader would take hours to plan the reading of a huge claim.
    if len(header) + extended + width * height * sections * bytes_per_px > file_bytes:
        raise MicrographError(
            f"the MRC is cut short or damaged: its header claims {sections} frames of {height} × {width} px, "
            f"the file has {file_bytes} bytes."
        )


def _check_ser(path: Path) -> None:
    # The reader takes counts and sizes as they stand.
    file_bytes = path.stat().st_size
    try:
        with open(path, "rb") as stream:
            head = stream.read(_SER_HEAD_BYTES)
            version, kind = struct.unpack_from("<HI", head, 4)
            word = "Q" if version > 0x210 else "I"
            n_elements, n_valid, place, n_dimensions = struct.unpack_from(f"<2I{word}I", head, 14)
            # Each element has an offset, each dimension 32 bytes and its names.
            needed = max(place, 8 * n_elements, 8 * n_valid, 32 * n_dimensions)
            position = 26 + struct.calcsize(word)
            for _ in range(n_dimensions if needed <= file_bytes else 0):
                for fixed in (24, 0):
                    position += fixed + 4 + struct.unpack_from("<I", head, position + fixed)[0]
            needed = max(needed, position)
            if needed <= file_bytes:
                stream.seek(place)
                stream.seek(*struct.unpack(f"<{word}", stream.read(struct.calcsize(word))))
                sides = ("<I", 22) if kind == _SER_SPECTRA else ("<2I", 42)
                needed = max(1, n_valid) * math.prod(struct.unpack_from(sides[0], stream.read(50), sides[1]))
    except struct.error as error:
        raise MicrographError(f"the SER is cut short or damaged: it ends after {file_bytes} bytes.") from error
    if needed > file_bytes:
        raise MicrographError("the SER is cut short or damaged: its counts do not fit in it.")


def _mrc_states_size(header: bytes) -> bool:
    """Whether an MRC header gives a cell and a sampling; the reader takes 1 where it does not."""
    if struct.unpack_from("<i", header, 92)[0] == _FEI_HEADER_BYTES:
        return True
    sampling, cell = struct.unpack_from("<2i", header, 28), struct.unpack_from("<2f", header, 40)
    return min(sampling) > 0 and min(cell) > 0


def _title(image: dict[str, Any]) -> str:
    return str(image.get("metadata", {}).get("General", {}).get("title", ""))


def _instrument(image: dict[str, Any]) -> tuple[str | None, float | None]:
    """Modality and magnification, where the file states them."""
    times = _positive(_stated(image, "magnification"))
    # In the file's own words: the reader takes for TEM what it does not know.
    said = str(_stated(image, "acquisition_mode", convert=False) or "").upper()
    mode = next((mode for mode in _MODES if mode in said), None)
    if mode is None and "SEM" in image.get("metadata", {}).get("Acquisition_instrument", {}):
        mode = "SEM"
    # Velox writes the magnification of STEM, 0 if it is not in use, and that of TEM with a submode.
    optics = image.get("original_metadata", {}).get("Optics")
    if mode is None and isinstance(optics, dict):
        nominal = _positive(optics.get("NominalMagnification"))
        if times is not None:
            mode = "STEM"
        elif nominal is not None and optics.get("TemOperatingSubMode") not in (None, "", "None"):
            mode, times = "TEM", nominal
    return mode, times


def _voltage(image: dict[str, Any]) -> float | None:
    """Voltage in kV."""
    return sensible_kv(_stated(image, "beam_energy"))


def _stated(image: dict[str, Any], name: str, convert: bool = True) -> Any:
    """What a file says of its instrument: as the reader gives it, or still among the file's own entries."""
    for values in image.get("metadata", {}).get("Acquisition_instrument", {}).values():
        if isinstance(values, dict) and values.get(name) is not None:
            return values[name]
    for entry, (place, converter) in image.get("mapping", {}).items():
        if not place.startswith("Acquisition_instrument.") or not place.endswith(f".{name}"):
            continue
        value: Any = image.get("original_metadata", {})
        for part in entry.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        # What it holds comes from the file, and may be anything.
        with contextlib.suppress(Exception):
            if value is not None:
                return converter(value) if convert and converter is not None else value
    return None


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
