"""The voltage that accelerated the beam, where a TIFF's tags or JEOL's text file beside it state it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile

from defectpipe.io.micrographs.jeol import text_beside

_TESCAN_TAG = 50431
# Beyond these it is another quantity, or another unit.
_LEAST_KV, _MOST_KV = 0.01, 3000.0


def voltage_of_tiff(tif: tifffile.TiffFile, path: Path) -> float | None:
    """Voltage in kV; None: not stated, or not in a way that can be understood.

    Parameters
    ----------
    tif : TiffFile
        Open.
    path : Path
        Its file; JEOL's text lies beside it.
    """
    readers: tuple[Callable[[], Any], ...] = (
        lambda: _thermo_fisher(tif),
        lambda: _zeiss(tif),
        lambda: _tescan(tif),
        lambda: _jeol(path),
    )
    for read in readers:
        # Vendors' tags are written by hundreds of program versions; one that surprises the parser states nothing.
        try:
            found = sensible_kv(read())
        except Exception:
            continue
        if found is not None:
            return found
    return None


def sensible_kv(value: Any) -> float | None:
    """The number, if it can be the voltage of an electron microscope in kV."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and _LEAST_KV <= number <= _MOST_KV else None


def _thermo_fisher(tif: tifffile.TiffFile) -> float | None:
    values = (tif.fei_metadata or {}).get("Beam", {})
    return float(values["HV"]) / 1000 if "HV" in values else None


def _zeiss(tif: tifffile.TiffFile) -> Any:
    _, value, unit = (tif.sem_metadata or {})["ap_actualkv"]
    return {"kV": 1.0, "V": 1e-3}[unit] * float(value)


def _tescan(tif: tifffile.TiffFile) -> float | None:
    tag = tif.pages.first.tags.get(_TESCAN_TAG)
    found = re.search(r"^HV=([0-9.eE+-]+)", bytes(tag.value).decode("latin-1"), re.MULTILINE) if tag else None
    return float(found[1]) / 1000 if found else None


def _jeol(path: Path) -> str | None:
    found = re.search(r"^\$CM_ACCEL_VOLT[ \t]+([0-9.]+)", text_beside(path) or "", re.MULTILINE)
    return found[1] if found else None
