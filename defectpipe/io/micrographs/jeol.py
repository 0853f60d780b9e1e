"""JEOL writes the scale of a SEM picture to a text file of the same name beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from defectpipe.io.micrographs.frames import StatedSize
from defectpipe.io.micrographs.units import nanometres

# Width of the photograph that JEOL's magnification refers to. On the sample of a JSM-4700F (x50, 1280 px: 2 µm/px) the
# burnt-in bar of 500 µm is 250 px long.
PHOTOGRAPH_WIDTH_MM = 128.0
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class JeolText:
    """What JEOL's text file states."""

    size: StatedSize | None
    magnification: float | None
    notes: tuple[str, ...]


def read_jeol_text(path: Path, width_px: int) -> JeolText | None:
    """Scale of a picture from ``NAME.txt`` beside ``NAME.tif``.

    The length of the scale bar in px where it is given, else the magnification, which refers to a photograph
    `PHOTOGRAPH_WIDTH_MM` wide.

    Parameters
    ----------
    path : Path
        The picture.
    width_px : int
        Its width; if the text speaks of another, the picture was resized, and its scale is unknown.

    Returns
    -------
    JeolText or None
        None without such a file, or if it is not JEOL's.
    """
    text = text_beside(path)
    if text is None:
        return None
    fields = dict(re.findall(r"^\$+((?:CM|SM)_\w+)[ \t]+(\S.*?)[ \t]*\r?$", text, re.MULTILINE))
    if "CM_MAG" not in fields and "SM_MICRON_BAR" not in fields:
        return None
    magnification = _number(fields.get("CM_MAG", ""))
    full_width = _number(fields.get("CM_FULL_SIZE", "").split(" ")[0])
    if full_width is not None and full_width != width_px:
        note = f"pixel size unknown: JEOL's text file is for a picture {full_width:g} px wide, this one has {width_px}"
        return JeolText(None, magnification, (note,))
    bar_px = _number(fields.get("SM_MICRON_BAR", ""))
    marker = re.fullmatch(r"([0-9.]+)\s*(\D+)", fields.get("SM_MICRON_MARKER", ""))
    length = _number(marker[1]) if marker else None
    if bar_px and marker and length:
        size_nm = nanometres(length / bar_px, marker[2])
        size = StatedSize("JEOL text file, scale bar", size_nm, size_nm) if size_nm is not None else None
        return JeolText(size, magnification, ())
    if magnification and full_width:
        size_nm = PHOTOGRAPH_WIDTH_MM * 1e6 / magnification / full_width
        return JeolText(StatedSize("JEOL text file, magnification", size_nm, size_nm), magnification, ())
    return JeolText(None, magnification, ())


def text_beside(path: Path) -> str | None:
    """What JEOL's text file beside a picture holds; None: there is none."""
    for suffix in (".txt", ".TXT"):
        beside = path.with_suffix(suffix)
        try:
            if beside.is_file() and beside.stat().st_size <= _MAX_BYTES:
                text = beside.read_text(encoding="utf-8", errors="replace")
                return text if "$CM_" in text or "$$SM_" in text else None
        except OSError:
            continue
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None
