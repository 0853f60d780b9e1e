"""The pixel sizes that a TIFF states: OME, ImageJ, vendors' tags, the resolution fields, a text file beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import defusedxml.ElementTree as ElementTree
import tifffile

from defectpipe.io.micrographs.frames import StatedSize
from defectpipe.io.micrographs.jeol import read_jeol_text
from defectpipe.io.micrographs.units import nanometres

# A resolution coarser than this is for a printer (2540 dots per inch), not of a microscope.
_PRINT_NM = 1e4
_TESCAN_TAG = 50431
_SIS_TAG = 33560
_MODALITIES = ("SEM", "STEM", "TEM", "FIB")
_GATAN_UNITS_X, _GATAN_UNITS_Y, _GATAN_SCALE_X, _GATAN_SCALE_Y = 65003, 65004, 65009, 65010


@dataclass(frozen=True)
class TiffStatements:
    """What the tags of a TIFF say about its series."""

    stated: tuple[StatedSize, ...]
    ome_stated: tuple[StatedSize | None, ...]
    modality: str | None
    magnification: float | None
    notes: tuple[str, ...]

    def of_series(self, index: int) -> tuple[StatedSize, ...]:
        """The pixel sizes that hold for one series (OME states them image by image)."""
        ome = self.ome_stated[min(index, len(self.ome_stated) - 1)] if self.ome_stated else None
        return self.stated if ome is None else (ome, *self.stated)


def stated_by_tags(tif: tifffile.TiffFile, path: Path) -> TiffStatements:
    """Everything that a TIFF, and JEOL's text file beside it, state about pixel size, modality and magnification.

    A tag that cannot be read states nothing: it never keeps the pixels from being read.

    Parameters
    ----------
    tif : TiffFile
        Open.
    path : Path

    Returns
    -------
    TiffStatements
    """
    notes: list[str] = []
    stated: list[StatedSize] = []
    modality: str | None = None
    magnification: float | None = None
    for name, read in _VENDORS.items():
        size, kind, times = _quietly(read, tif, name, notes) or (None, None, None)
        stated += [size] if size is not None else []
        modality, magnification = modality or kind, magnification or times
    jeol = read_jeol_text(path, tif.pages.first.imagewidth)
    if jeol is not None:
        stated += [jeol.size] if jeol.size is not None else []
        modality, magnification = modality or "SEM", magnification or jeol.magnification
        notes += jeol.notes
    ome = _quietly(_ome, tif, "OME metadata", notes) or ()
    if tif.is_imagej:
        stated += _imagej(tif, notes)
    # A vendor's own tag goes before the resolution fields, which programs fill with print sizes.
    elif not stated and not any(ome):
        stated += _resolution(tif, notes)
    return TiffStatements(tuple(stated), tuple(ome), modality, magnification, tuple(notes))


_Statement = tuple[StatedSize | None, str | None, float | None]
_Reader = Callable[[tifffile.TiffFile], Any]


def _quietly(read: _Reader, tif: tifffile.TiffFile, name: str, notes: list[str]) -> Any:
    # Vendors' tags are written by hundreds of program versions; one that surprises the parser states nothing.
    try:
        return read(tif)
    except Exception as error:
        notes.append(f"the {name} cannot be read ({type(error).__name__})")
        return None


def _size(source: str, y: Any, x: Any, unit: str) -> StatedSize | None:
    y_nm, x_nm = nanometres(float(y), unit), nanometres(float(x), unit)
    return None if y_nm is None or x_nm is None else StatedSize(source, y_nm, x_nm)


def _times(value: Any) -> float | None:
    """Magnification from a number, ``188X``, or ``25.00 K X``."""
    match = re.match(r"\s*([0-9.]+(?:e\+?[0-9]+)?)\s*(K?)", str(value), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        return None
    return float(match[1]) * (1000.0 if match[2] else 1.0)


def _thermo_fisher(tif: tifffile.TiffFile) -> _Statement:
    values = tif.fei_metadata or {}
    scan = values.get("Scan", {})
    beam = str(values.get("Beam", {}).get("Beam", ""))
    modality = {"E": "SEM", "I": "FIB"}.get(beam[:1])
    if "PixelWidth" not in scan:
        return None, modality, None
    size = _size("Thermo Fisher tags", scan.get("PixelHeight", scan["PixelWidth"]), scan["PixelWidth"], "m")
    return size, modality, None


def _zeiss(tif: tifffile.TiffFile) -> _Statement:
    values = tif.sem_metadata or {}
    if not values:
        return None, None, None
    named = values.get("ap_image_pixel_size")
    size = _size("Zeiss tags", named[1], named[1], named[2]) if named else None
    unnamed = values.get("", ())
    if len(unnamed) > 3:
        # The same number with more digits, in m, for a picture 1024 px wide.
        precise = unnamed[3] * 1024 / tif.pages.first.imagewidth
        candidate = _size("Zeiss tags", precise, precise, "m")
        if candidate is not None and (size is None or abs(candidate.x_nm / size.x_nm - 1) < 0.01):
            size = candidate
    # ("Mag", 188, "X"), or ("Mag", "25.00 K X").
    return size, "SEM", _times("".join(str(part) for part in values.get("ap_mag", ())[1:]))


def _tescan(tif: tifffile.TiffFile) -> _Statement:
    tag = tif.pages.first.tags.get(_TESCAN_TAG)
    if tag is None:
        return None, None, None
    text = bytes(tag.value).decode("latin-1")
    found = dict(re.findall(r"(PixelSizeX|PixelSizeY|Magnification)=([0-9.eE+-]+)", text))
    size = _size("TESCAN tags", found.get("PixelSizeY", found["PixelSizeX"]), found["PixelSizeX"], "m")
    return size, "SEM", _times(found.get("Magnification"))


def _gatan(tif: tifffile.TiffFile) -> _Statement:
    tags = tif.pages.first.tags
    if _GATAN_SCALE_X not in tags:
        return None, None, None
    unit = str(tags.valueof(_GATAN_UNITS_X) or tags.valueof(_GATAN_UNITS_Y) or "")
    scale_x = tags.valueof(_GATAN_SCALE_X)
    return _size("Gatan tags", tags.valueof(_GATAN_SCALE_Y, default=scale_x), scale_x, unit), None, None


def _olympus(tif: tifffile.TiffFile) -> _Statement:
    # In some files it is in the second page.
    for page in tif.pages[:2]:
        tag = page.aspage().tags.get(_SIS_TAG)
        if tag is not None:
            values = tag.value
            size = _size("Olympus SIS tags", values["pixelsizey"], values["pixelsizex"], "m")
            return size, None, _times(values.get("magnification"))
    return None, None, None


def _imagej_info(tif: tifffile.TiffFile) -> _Statement:
    # ImageJ's notes on an image, kept when it saves the image again; lines "Magnification: 2000", "Modality: SEM".
    # Other programs note objectives there too, under longer names.
    text = str((tif.imagej_metadata or {}).get("Info", "")) if tif.is_imagej else ""
    found = dict(re.findall(r"^(Modality|Magnification)[ \t]*[:=](.*)$", text, re.MULTILINE))
    modality = found.get("Modality", "").strip()
    return None, modality if modality in _MODALITIES else None, _times(found.get("Magnification"))


_VENDORS: dict[str, _Reader] = {
    "Thermo Fisher tags": _thermo_fisher,
    "Zeiss tags": _zeiss,
    "TESCAN tags": _tescan,
    "Gatan tags": _gatan,
    "Olympus SIS tags": _olympus,
    "ImageJ info": _imagej_info,
}


def _ome(tif: tifffile.TiffFile) -> tuple[StatedSize | None, ...]:
    if not tif.is_ome:
        return ()
    # Hostile XML (entities) is refused by this parser.
    root = ElementTree.fromstring(tif.ome_metadata)
    sizes: list[StatedSize | None] = []
    for pixels in (element for element in root.iter() if element.tag.endswith("}Pixels") or element.tag == "Pixels"):
        x, y = pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY")
        if x is None or y is None:
            sizes.append(None)
            continue
        # The schema's default unit is µm.
        x_nm = nanometres(float(x), pixels.get("PhysicalSizeXUnit", "µm"))
        y_nm = nanometres(float(y), pixels.get("PhysicalSizeYUnit", "µm"))
        sizes.append(StatedSize("OME", y_nm, x_nm) if x_nm is not None and y_nm is not None else None)
    return tuple(sizes)


def _imagej(tif: tifffile.TiffFile, notes: list[str]) -> list[StatedSize]:
    description = str(tif.pages.first.description or "")
    fields = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    unit = fields.get("unit", "").strip()
    steps = _steps(tif)
    if steps is None or unit in ("", "pixel", "pixels"):
        return []
    y_step, x_step = steps
    y_nm, x_nm = nanometres(y_step, fields.get("yunit", unit)), nanometres(x_step, unit)
    if y_nm is None or x_nm is None:
        notes.append(f"pixel size unknown: ImageJ's unit '{unit}' is no length that microscopes use")
        return []
    if unit in ("cm", "mm") and x_nm > _PRINT_NM:
        notes.append("pixel size unknown: the resolution is that of a print")
        return []
    return [StatedSize("ImageJ", y_nm, x_nm)]


def _resolution(tif: tifffile.TiffFile, notes: list[str]) -> list[StatedSize]:
    """Size from the resolution in px per cm; per inch is always for printing."""
    steps = _steps(tif)
    unit = tif.pages.first.tags.valueof("ResolutionUnit", default=2)
    if steps is None or unit != tifffile.RESUNIT.CENTIMETER:
        return []
    size = _size("TIFF resolution per cm", *steps, "cm")
    if size is None or size.x_nm > _PRINT_NM:
        notes.append("pixel size unknown: the resolution is that of a print")
        return []
    return [size]


def _steps(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    """Units per px along y and x, from the resolution fields."""
    tags = tif.pages.first.tags
    steps = []
    for name in ("YResolution", "XResolution"):
        value = tags.valueof(name)
        numerator, denominator = value if isinstance(value, tuple) else (value or 0, 1)
        if not numerator or not denominator:
            return None
        steps.append(denominator / numerator)
    return steps[0], steps[1]
