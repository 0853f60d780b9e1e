"""Lengths of any unit that microscopes write, in nm."""

from __future__ import annotations

import math
import unicodedata

_NM_PER_UNIT = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e9),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre"), 1e7),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), 1e6),
    **dict.fromkeys(("μm", "um", "micron", "microns", "micrometer", "micrometers", "micrometre", "âμm"), 1e3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre"), 1.0),
    **dict.fromkeys(("å", "a", "ang", "angstrom", "angstroms", "ångström", "ångstrøm"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometers", "picometre"), 1e-3),
}


def nanometres(value: float, unit: str | None) -> float | None:
    """A length in nm.

    Parameters
    ----------
    value : float
    unit : str or None
        ``m``, ``cm``, ``mm``, ``µm``, ``nm``, ``Å``, ``pm`` in their usual spellings (``um``, ``micron``, ``n_m``,
        ImageJ's ``\\u00B5m``).

    Returns
    -------
    float or None
        None where the unit is missing or is no unit of length, or the value is not a positive number.
    """
    factor = _NM_PER_UNIT.get(_normal(unit or ""))
    if factor is None or not (math.isfinite(value) and value > 0):
        return None
    return float(value) * factor


def is_reciprocal(unit: str | None) -> bool:
    """Whether a unit belongs to reciprocal space (``1/nm``, ``nm^-1``, ``mrad``): a diffraction pattern's axes."""
    text = _normal(unit or "")
    return text.startswith("1/") or text.endswith(("^-1", "-1")) or text in ("mrad", "rad")


def _normal(unit: str) -> str:
    text = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("_", "")
    return unicodedata.normalize("NFKC", text).strip().strip("\0").strip().casefold()
