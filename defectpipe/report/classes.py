"""The report's section on the classes of defects: figures of each, and how often the labels say the same class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defectpipe.report import text

_STATED_BY = {"major_axis": "major axis", "equivalent": "diameter of the circle of equal area"}


def class_section(summary: Mapping[str, Any], evaluation: Mapping[str, Any] | None, unit: str) -> dict[str, Any] | None:
    """Tables of the section; None where the model knows but one class.

    Parameters
    ----------
    summary : mapping
        ``summary.json``: its ``classes`` are used.
    evaluation : mapping or None
        ``evaluation.json``: its ``classes`` are used; None: no labels were given.
    unit : str
        Of the diameters, ``nm`` or ``px``.

    Returns
    -------
    dict
        ``unit``, ``density_unit``; ``rows``: of each class ``name``, ``place`` (number of its colour), ``stated_by``,
        ``n``, ``cut``, and with their intervals ``mean``, ``std``, ``density``; ``agreement``: None, or ``rows``
        (recall, precision, F1, diameters of pairs), ``columns`` and ``confusion`` (labels against loops), ``accuracy``,
        ``n_pairs``, ``interval``, ``n_without_class``.
    """
    found = summary.get("classes")
    if not found:
        return None
    column = "areal_density_per_m2"
    exponent = text.exponent_of(*(of[column] for of in found.values() if of[column]))
    rows = [
        {
            "name": name,
            "place": place,
            "stated_by": _STATED_BY[of["diameter"]],
            "n": text.count(of["n_loops"]),
            "cut": text.count(of["n_on_edge"]),
            "mean": _with_interval(of, f"mean_diameter_{unit}"),
            "std": _with_interval(of, f"std_diameter_{unit}"),
            "density": _with_interval(of, column, 10.0**exponent),
        }
        for place, (name, of) in enumerate(found.items())
    ]
    agreement = None if evaluation is None else evaluation.get("classes")
    return {
        "unit": unit,
        "density_unit": f"{text.power(exponent)} m⁻²",
        "rows": rows,
        "agreement": None if agreement is None else _agreement(agreement),
    }


def _agreement(found: Mapping[str, Any]) -> dict[str, Any]:
    confusion = found["confusion"]
    rows = [
        {
            "name": name,
            "scores": [_with_interval(of, score, decimals=3) for score in ("recall", "precision", "f1")],
            "found": f"{of['n_found']} of {of['n_labels']}",
            "true": f"{of['n_true']} of {of['n_loops']}",
            "signed": text.percentage(of["median_relative_error"]),
            "absolute": text.percentage(of["median_absolute_relative_error"]).lstrip("+"),
        }
        for name, of in found["by_class"].items()
    ]
    counts = [[text.count(n) for n in row] for row in confusion["counts"]]
    # A place without a label in which no loop is cannot be counted.
    counts[-1][-1] = text.NOTHING
    return {
        "rows": rows,
        "columns": confusion["loops"],
        "confusion": list(zip(confusion["labels"], counts, strict=True)),
        "accuracy": text.fixed(found["class_accuracy"], 3),
        "n_pairs": sum(sum(row[:-1]) for row in confusion["counts"][:-1]),
        "interval": found["interval"],
        "n_without_class": found["n_labels_without_class"],
    }


def _with_interval(of: Mapping[str, Any], name: str, scale: float = 1.0, decimals: int = 2) -> tuple[str, str]:
    keys = (name, f"{name}_ci_low", f"{name}_ci_high")
    value, low, high = (None if of[key] is None else of[key] / scale for key in keys)
    return text.fixed(value, decimals), text.between(low, high, decimals)
