"""``report.html``: one self-contained file that shows what a run found, how sure it is, and what to look at first."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from defectpipe.io.files import write_atomic
from defectpipe.report import gallery, objects, sections, text
from defectpipe.report.classes import class_section
from defectpipe.report.data import ReportData
from defectpipe.report.gallery import Findings, Need

REPORT_VERSION = 5
"""Raised when the report shows something else of the same results."""

MOST_ROWS = 2000
"""Images with a row in the report, the worst; ``images.csv`` has them all."""

N_WORST = 5


def write_report(data: ReportData, path: Path) -> None:
    """Write the report of a run, atomically.

    Parameters
    ----------
    data : ReportData
    path : Path
    """
    write_atomic(path, render_report(data).encode("utf-8", "backslashreplace"))


def render_report(data: ReportData) -> str:
    """The report as HTML: the same tables give the same text.

    Scripts and styles are allowed by their hashes alone, and nothing is loaded from anywhere: whatever a file is
    called, its name stays text.

    Parameters
    ----------
    data : ReportData
    """
    pictured = {(found.image, found.frame) for found in data.gallery}
    shown = sorted(need.row for need in data.order[:MOST_ROWS])
    exponent = text.exponent_of(*data.images["areal_density_per_m2"].dropna())
    style, script = page_part("report.css"), page_part("report.js")
    cards = _cards(data, exponent)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            style=Markup(style),
            script=Markup(script),
            style_hash=page_hash(style),
            script_hash=page_hash(script),
            headline=sections.headline(data),
            left_out=sections.left_out(data),
            most_left_out=sections.MOST_LISTED,
            size_figures=sections.size_figures(data),
            image_figures=sections.image_figures(data),
            agreement=sections.agreement(data),
            classes=class_section(data.summary, data.evaluation, data.unit),
            worst=[_worst(data, need, pictured) for need in data.order[:N_WORST]],
            cards=cards,
            listed={card["number"] for card in cards if card["loops"]},
            labels_listed={card["number"] for card in cards if card["labels"]},
            most_listed=gallery.MOST_LISTED,
            area_um2=text.figure(data.pooled["analysed_area_m2"] * 1e12),
            layers=_layers(data),
            rows=[_row(data, row, pictured, exponent) for row in shown],
            has_focus=bool(data.images["focus_score"].notna().any()),
            has_frames=bool((data.images["frame"] > 0).any()),
            density_unit=f"{text.power(exponent)} m⁻²",
            n_without_picture=int((data.images["status"] != "failed").sum()) - len(data.gallery),
            settings=json.dumps(data.summary["settings"], indent=1, ensure_ascii=True),
            confidence=f"{100 * data.pooled['confidence']:g} %",
        )
    )


def _row(data: ReportData, row: int, pictured: set[tuple[str, int]], exponent: int) -> dict[str, Any]:
    """A row of the table of images."""
    values = data.images.iloc[row]
    image, frame = str(values["image"]), int(values["frame"])
    unit = data.unit
    mean, density = values[f"mean_diameter_{unit}"], values["areal_density_per_m2"]
    low, high = (values.get(f"mean_diameter_{unit}_ci_{end}") for end in ("low", "high"))
    scale = 10.0**exponent
    density_low, density_high = (values[f"areal_density_per_m2_ci_{end}"] / scale for end in ("low", "high"))
    return {
        "number": row + 1,
        "name": text.name(image),
        "frame": frame,
        "status": str(values["status"]),
        "reason": text.sentence(values["reason"]),
        "in_gallery": (image, frame) in pictured,
        "n_loops": text.count(values["n_loops"]),
        "n_on_edge": text.count(values["n_on_edge"]),
        "mean": text.fixed(mean, 2),
        "mean_interval": text.between(low, high, 2),
        "std": text.fixed(values[f"std_diameter_{unit}"], 2),
        "density": text.fixed(density / scale, 2),
        "density_interval": text.between(density_low, density_high, 2),
        "focus": text.fixed(values["focus_score"], 1),
        "gate": "" if values["focus_gate"] in ("", "ok") else str(values["focus_gate"]),
        "predicted": text.fixed(values["predicted_f1"], 2),
        "predicted_interval": text.between(values["predicted_f1_low"], values["predicted_f1_high"], 2),
        "n_labels": text.count(values["n_labels"]),
        "recall": text.fixed(values["recall"], 3),
        "precision": text.fixed(values["precision"], 3),
        "pixel_size": text.plain(values["pixel_size_nm"]),
        "pixel_size_source": text.name(values["pixel_size_source"]),
        "rows": _rows_in_file(data, image, frame),
        "keys": {
            "number": row + 1,
            "loops": _key(values["n_loops"]),
            "mean": _key(mean),
            "cut": _key(values["n_on_edge"]),
            "std": _key(values[f"std_diameter_{unit}"]),
            "density": _key(density),
            "focus": _key(values["focus_score"]),
            "labels": _key(values["n_labels"]),
            "pixel": _key(values["pixel_size_nm"]),
            "recall": _key(values["recall"]),
            "precision": _key(values["precision"]),
            "predicted": _key(values["predicted_f1"]),
        },
    }


def _cards(data: ReportData, exponent: int) -> list[dict[str, Any]]:
    """The gallery, in the order of need; loops and labels have rows until there are too many of them."""
    place = {
        (str(image), int(frame)): row
        for row, (image, frame) in enumerate(zip(data.images["image"], data.images["frame"], strict=True))
    }
    rank = {need.row: (position, need) for position, need in enumerate(data.order)}
    pictured = {(found.image, found.frame) for found in data.gallery}
    listed, out = 0, []
    for found in data.gallery:
        row = place[found.image, found.frame]
        loops = data.loops_of(found.image, found.frame)
        labels = found.labels[min(found.labels)] if found.labels else None
        n_rows = len(loops) + (0 if labels is None else len(labels))
        has_rows = listed + n_rows <= gallery.MOST_LISTED
        listed += n_rows if has_rows else 0
        position, need = rank[row]
        facts = _facts(data, found, len(loops))
        of_label, of_loop = found.partners or (None, None)
        scored = found.frame == 0 and found.image in data.f1
        card = _row(data, row, pictured, exponent) | {
            "rank": position,
            "need": need.reason,
            "loops": objects.loop_rows(loops, of_loop, data.unit) if has_rows else [],
            "labels": [] if labels is None or not has_rows else objects.label_rows(labels, of_label, loops),
            "has_rows": has_rows,
            "scored": scored,
            "focus_said": _focus(data.images.iloc[row]),
            "overlay": text.address(found.overlay) if found.overlay else "",
            "facts": facts,
            "f1": _key(data.f1.get(found.image) if found.frame == 0 else None),
        }
        values = data.images.iloc[row]
        card["drawing"] = found.jpeg and gallery.drawing(
            found,
            loops,
            (int(values["height_px"]), int(values["width_px"])),
            pixel_size_nm=text.known(values["pixel_size_nm"]),
            box_convention=str(data.summary["model"]["box_convention"]),
            experts=data.experts,
            loop_link=f"#i{row + 1}-l" if has_rows else "",
            described=f"Micrograph {card['name']}, {'; '.join(facts)}",
            classes=list(data.summary.get("classes", {})),
        )
        out.append(card)
    return out


def _facts(data: ReportData, found: Findings, n_loops: int) -> list[str]:
    """What there is over a picture, in words; the first is the number of its loops."""
    out = [f"{n_loops} loops", f"{found.n_candidates} candidates", f"{found.n_screened_out} screened out"]
    if max(found.n_candidates, found.n_screened_out) > gallery.MOST_CANDIDATES:
        out.append(f"the best {gallery.MOST_CANDIDATES} of each are drawn")
    for expert, labels in found.labels.items():
        out.append(f"{len(labels)} labels" + (f" of {text.name(expert)}" if len(data.experts) > 1 else ""))
    return out


def _focus(values: pd.Series) -> str:
    """Spread and blur behind a frame's focus score, where they are known."""
    parts = []
    if text.known(values["focus_score_std"]) is not None:
        parts.append(f"± {text.fixed(values['focus_score_std'], 1)}")
    if text.known(values["focus_blur_px"]) is not None:
        in_nm = text.known(values["focus_blur_nm"])
        blur = f"blur {text.figure(values['focus_blur_px'], 2)} px"
        parts.append(blur + (f" = {text.figure(in_nm, 2)} nm" if in_nm is not None else ""))
    return ", ".join(parts)


def _layers(data: ReportData) -> list[dict[str, Any]]:
    """The switches of the gallery: key, words, and whether the layer is shown at first."""
    experts = data.experts
    names = ["Labels"] if len(experts) == 1 else [f"Labels of {text.name(expert)}" for expert in experts]
    every = [("candidates", "Candidates"), ("screened", "Screened out"), ("loops", "Loops")]
    every += [(f"labels-{k}", name) for k, name in enumerate(names)]
    return [{"key": key, "name": name, "on": key not in gallery.OFF_AT_FIRST} for key, name in every]


def _worst(data: ReportData, need: Need, pictured: set[tuple[str, int]]) -> dict[str, Any]:
    image, frame = str(data.images["image"].iloc[need.row]), int(data.images["frame"].iloc[need.row])
    reason = need.reason
    if data.images["status"].iloc[need.row] != "ok":
        reason += f": {text.sentence(data.images['reason'].iloc[need.row])}"
    number = need.row + 1
    link = f"#g{number}" if (image, frame) in pictured else f"#i{number}"
    return {"name": text.name(image) + (f", frame {frame}" if frame else ""), "reason": reason, "link": link}


def _rows_in_file(data: ReportData, image: str, frame: int) -> str:
    """Which rows of ``loops.csv`` are a frame's, counted from 1 below the header."""
    rows = data.loop_rows.get((image, frame), np.zeros(0, int))
    if not len(rows):
        return ""
    return f"row {rows[0] + 1}" if len(rows) == 1 else f"rows {rows[0] + 1} to {rows[-1] + 1}"


def _key(value: Any) -> str:
    """A number to sort by; empty: unknown, which goes last."""
    number = text.known(value)
    return "" if number is None else f"{number:.9g}"


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Templates of the pages; what is put into them is escaped."""
    loader = jinja2.DictLoader({name: page_part(name) for name in ("report.html.j2", "focus.html.j2")})
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"name": text.name, "sentence": text.sentence, "figure": text.figure}
    return environment


def page_part(name: str) -> str:
    """A template, style or script of the pages."""
    return (files("defectpipe.report") / "page" / name).read_text(encoding="utf-8")


def page_hash(part: str) -> str:
    """What the page's policy knows a script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
