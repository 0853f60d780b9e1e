"""Numbers, names and addresses as the report writes them."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

from defectpipe.io.folder import shown

NOTHING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(value: Any) -> float | None:
    """A number, or None for what is unknown (None, NaN, pandas' NA)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def figure(value: Any, digits: int = 4) -> str:
    """A number with `digits` significant digits, never fewer than its whole part; a dash where it is unknown."""
    number = known(value)
    if number is None:
        return NOTHING
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return _signed(f"{number:.{min(decimals, 12)}f}")


def plain(value: Any) -> str:
    """A number as it was given, in at most six significant digits; a dash where it is unknown."""
    number = known(value)
    return NOTHING if number is None else _signed(f"{number:.6g}")


def fixed(value: Any, decimals: int) -> str:
    """A number with so many decimals, for columns that line up; a dash where it is unknown."""
    number = known(value)
    return NOTHING if number is None else _signed(f"{number:.{decimals}f}")


def count(value: Any) -> str:
    """A whole number, or a dash."""
    number = known(value)
    return NOTHING if number is None else f"{int(number)}"


def percentage(value: Any) -> str:
    """A relative deviation with its sign, in per cent."""
    number = known(value)
    return NOTHING if number is None else _signed(f"{100 * number:+.1f}") + " %"


def between(low: Any, high: Any, decimals: int) -> str:
    """An interval with so many decimals; empty where it is unknown."""
    if known(low) is None or known(high) is None:
        return ""
    return f"{fixed(low, decimals)} to {fixed(high, decimals)}"


def decimals_of(value: Any, digits: int = 4) -> int:
    """Decimals with which a number has `digits` significant digits."""
    number = known(value)
    return 0 if not number else min(12, max(0, digits - 1 - math.floor(math.log10(abs(number)))))


def exponent_of(*values: Any) -> int:
    """The power of ten of the largest of some numbers; 0 where none is known."""
    numbers = [abs(n) for value in values if (n := known(value))]
    return math.floor(math.log10(max(numbers))) if numbers else 0


def power(exponent: int) -> str:
    """A power of ten, such as ``10²⁰``."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def name(text: str) -> str:
    """A file's name, with what cannot be seen, turns the writing round or is no Unicode written as an escape."""
    return shown(str(text)).encode("utf-8", "backslashreplace").decode("utf-8")


def sentence(text: str) -> str:
    """Text from a table; line breaks stay."""
    return shown(str(text), keep="\n").encode("utf-8", "backslashreplace").decode("utf-8")


def address(path: str) -> str:
    """A path below the output folder as a relative address; no name can make another kind of address of it."""
    return "./" + quote(path.encode("utf-8", "surrogateescape"))


def _signed(text: str) -> str:
    return text.replace("-", "−")
