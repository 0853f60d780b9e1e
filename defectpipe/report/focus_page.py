"""``focus.html``: the images of a folder sorted by focus, each with its tiles, in one self-contained file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from defectpipe.io.files import write_atomic
from defectpipe.report import text
from defectpipe.report.report import MOST_ROWS, environment, page_hash, page_part

MOST_PICTURES = 200
"""Images with a picture, those of the lowest score."""

_STATES = {"scored": "scored", "cannot_be_judged": "cannot be judged", "not_calibrated": "not calibrated"}


@dataclass(frozen=True, eq=False)
class FocusPage:
    """What the page shows.

    Parameters
    ----------
    folder : str
        Name of the input folder.
    model : mapping
        ``name``, ``sha256`` of the focus model; ``reject_below``, ``ok_from`` of the loop model's gate, None without.
    table : DataFrame
        ``focus.csv``, in its order.
    pictures : mapping of (str, int) to bytes
        Image and frame to a JPEG.
    tiles : mapping of (str, int) to DataFrame
        Image and frame to its tiles: ``x0_px`` … ``y1_px``, ``focus_score``.
    version : str
        Of the program.
    """

    folder: str
    model: Mapping[str, Any]
    table: pd.DataFrame
    pictures: Mapping[tuple[str, int], bytes]
    tiles: Mapping[tuple[str, int], pd.DataFrame]
    version: str


def by_focus(table: pd.DataFrame) -> np.ndarray:
    """Rows by focus, the least sharp first, those without a score last."""
    scores = table["focus_score"].to_numpy(float)
    return np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind="stable")


def write_focus_page(page: FocusPage, path: Path) -> None:
    """Write the page, atomically."""
    write_atomic(path, render_focus_page(page).encode("utf-8", "backslashreplace"))


def render_focus_page(page: FocusPage) -> str:
    """The page as HTML; nothing is loaded from anywhere, no script runs, and names of files stay text."""
    style = page_part("report.css")
    order = by_focus(page.table)
    rows = [_row(page, int(k)) for k in order[:MOST_ROWS]]
    scores = page.table["focus_score"].dropna()
    return (
        environment()
        .get_template("focus.html.j2")
        .render(
            page=page,
            style=Markup(style),
            style_hash=page_hash(style),
            rows=rows,
            n_images=len(page.table),
            median=_known(scores.median() if len(scores) else np.nan, 1),
            n_scored=len(scores),
            gate=None if page.model["ok_from"] is None else {k: text.fixed(page.model[k], 1) for k in _GATE},
            most_rows=MOST_ROWS,
            most_pictures=MOST_PICTURES,
        )
    )


_GATE = ("reject_below", "ok_from")


def _row(page: FocusPage, k: int) -> dict[str, Any]:
    values = page.table.iloc[k]
    key = (str(values["image"]), int(values["frame"]))
    frame = f", frame {key[1]}" if key[1] else ""
    name = text.name(key[0]) + frame
    return {
        "name": name,
        "score": _known(values["focus_score"], 1),
        "std": _known(values["focus_score_std"], 1),
        "gate": str(values["focus_gate"]),
        "blur_px": _known(values["focus_blur_px"], 1),
        "blur_nm": _known(values["focus_blur_nm"], 2),
        "state": _STATES.get(str(values["focus_state"]), str(values["focus_state"])),
        "reason": text.sentence(values["reason"]),
        "picture": _picture(page, key, values, name),
    }


def _known(value: float, n_digits: int) -> str:
    return "" if pd.isna(value) else text.fixed(value, n_digits)


def _picture(page: FocusPage, key: tuple[str, int], values: pd.Series, name: str) -> Markup | None:
    """The frame with its tiles: the less sharp, the darker their frames; each says its score."""
    jpeg = page.pictures.get(key)
    if not jpeg or pd.isna(values["height_px"]):
        return None
    height, width = int(values["height_px"]), int(values["width_px"])
    parts = [
        Markup('<svg class="field" viewBox="-0.5 -0.5 {} {}" role="img" aria-label="{}">').format(width, height, name),
        Markup('<image x="-0.5" y="-0.5" width="{}" height="{}" href="data:image/jpeg;base64,{}"/>').format(
            width, height, base64.b64encode(jpeg).decode("ascii")
        ),
    ]
    tiles = page.tiles.get(key)
    # as large as the page's own text, at the width that pictures have there
    size = max(12.0, width / 18)
    for tile in [] if tiles is None else tiles.to_dict("records"):
        if not np.isfinite(tile["focus_score"]):
            continue
        x0, y0, x1, y1 = (float(tile[c]) - 0.5 for c in ("x0_px", "y0_px", "x1_px", "y1_px"))
        box = '<rect x="{}" y="{}" width="{}" height="{}" fill="none" stroke="{}" stroke-width="{}"/>'
        parts.append(Markup(box).format(x0, y0, x1 - x0, y1 - y0, _colour(tile["focus_score"]), width / 400))
        label = '<text x="{}" y="{}" font-size="{}" fill="{}" stroke="#000" stroke-width="{}" paint-order="stroke">'
        parts.append(
            Markup(label + "{}</text>").format(
                x0 + 0.3 * size,
                y0 + 1.2 * size,
                round(size, 1),
                _colour(tile["focus_score"]),
                round(size / 8, 1),
                text.fixed(tile["focus_score"], 1),
            )
        )
    return Markup("").join([*parts, Markup("</svg>")])


def _colour(score: float) -> str:
    # Of one hue by lightness, so that it can be told without colour.
    return f"hsl(38 90% {35 + 5 * float(np.clip(score, 0, 10)):.0f}%)"


def summary_line(table: pd.DataFrame, names: Sequence[str] = ("ok", "review", "reject")) -> str:
    """Numbers of images by gate and state, for the terminal."""
    scored = int(table["focus_score"].notna().sum())
    counts = [f"{int((table['focus_gate'] == name).sum())} {name}" for name in names]
    gate = f"; {', '.join(counts)}" if (table["focus_gate"] != "").any() else ""
    return f"{len(table)} images and frames, {scored} with a score{gate}"
