"""Loops and labels of one image as the report lists them, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from defectpipe.report import text

_NOT_COUNTED = -2  # as in `statistics.scoring`


def loop_rows(loops: pd.DataFrame, of_loop: np.ndarray | None, unit: str) -> list[dict[str, str]]:
    """Rows of the loops of one frame.

    Parameters
    ----------
    loops : DataFrame
        Rows of ``loops.csv``.
    of_loop : ndarray of int, shape (n,), or None
        Place of the label that each agrees with; negative: none (see `statistics.scoring.partners`). None: not
        labelled.
    unit : str
        Of the diameters in the histogram, and of their uncertainty.

    Returns
    -------
    list of dict
        Texts by column. ``label``: number of the label (from 1), ``none``, or ``–`` where the loop counts neither way.
        ``size``: the diameter to the last bit; empty where it is in no histogram.
        ``uncertainty``: of the diameter, in `unit`; a dash where there is none, as of ellipses that a person drew.
    """
    return [
        {
            "id": text.count(values["loop_id"]),
            "x": text.fixed(values["x_px"], 1),
            "y": text.fixed(values["y_px"], 1),
            "diameter_px": text.fixed(values["diameter_px"], 1),
            "diameter_nm": text.fixed(values["diameter_nm"], 2),
            "uncertainty": text.fixed(values.get(f"diameter_uncertainty_{unit}"), 2 if unit == "nm" else 1),
            "minor_px": text.fixed(values["minor_px"], 1),
            "angle": text.fixed(values["angle_deg"], 0),
            "cut": "cut" if values["on_edge"] else "",
            "class": text.name(values["class"]),
            "score": text.fixed(values["screening_score"], 2),
            "fit": text.fixed(values["fit_quality"], 2),
            "size": _size(values, unit),
            "label": "" if of_loop is None else _partner(int(of_loop[place]), "none"),
        }
        for place, values in enumerate(loops.to_dict("records"))
    ]


def label_rows(labels: pd.DataFrame, of_label: np.ndarray | None, loops: pd.DataFrame) -> list[dict[str, str]]:
    """Rows of the labels of one image, numbered from 1 as the label file has them.

    Parameters
    ----------
    labels : DataFrame
        Boxes tight.
    of_label : ndarray of int, shape (n,), or None
        Place in `loops` of the loop that found each; negative: none.
    loops : DataFrame
        Rows of ``loops.csv`` of this image.

    Returns
    -------
    list of dict
        Texts by column. ``loop``: the loop's number, empty where there is none; ``verdict``: in words.
    """
    numbers = loops["loop_id"].to_numpy(int)
    rows = []
    for place, values in enumerate(labels.to_dict("records")):
        partner = -1 if of_label is None else int(of_label[place])
        said = "found" if partner >= 0 else "not counted: border" if partner == _NOT_COUNTED else "missed"
        sides = (values["x1_px"] - values["x0_px"], values["y1_px"] - values["y0_px"])
        rows.append(
            {
                "number": str(place + 1),
                "x": text.fixed(values["x_px"], 1),
                "y": text.fixed(values["y_px"], 1),
                "diameter_px": text.fixed(values["diameter_px"], 1),
                "side_px": text.fixed(max(sides), 1),
                "loop": str(numbers[partner]) if partner >= 0 else "",
                "verdict": said,
            }
        )
    return rows


def _partner(place: int, none: str) -> str:
    return str(place + 1) if place >= 0 else text.NOTHING if place == _NOT_COUNTED else none


def _size(values: dict[Any, Any], unit: str) -> str:
    diameter = text.known(values[f"diameter_{unit}"])
    return "" if diameter is None or values["on_edge"] else repr(diameter)
