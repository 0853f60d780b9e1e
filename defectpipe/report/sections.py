"""The sections of the report above the gallery: headline figures, what was left out, agreement with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from defectpipe.report import figures, text
from defectpipe.report.data import ReportData, described_rule, one_to_one_rule

MOST_LISTED = 200
"""Rows of one kind among what was left out."""

Card = dict[str, str]
_GATES = {"review": "to review", "reject": "rejected"}
_RATIOS = ("recall", "precision", "f1")


def headline(data: ReportData) -> list[Card]:
    """The figures at the top, each with its interval and the place of its rows."""
    pooled, unit = data.pooled, data.unit
    confidence = f"{pooled['confidence']:.0%}".replace("%", " %")
    whole = pooled["n_loops"] - pooled["n_on_edge"]
    cards = [
        _card("Loops", text.count(pooled["n_loops"]), "", f"{whole} whole, {pooled['n_on_edge']} cut by the border"),
        _size_card(pooled, "Mean diameter", f"mean_diameter_{unit}", unit, confidence),
        _size_card(pooled, "Standard deviation of the diameters", f"std_diameter_{unit}", unit, confidence),
        _density_card(pooled, confidence),
    ]
    if data.evaluation is not None:
        rule = one_to_one_rule(data.evaluation)
        scores = data.evaluation[rule]
        counts = {"recall": ("n_found", "n_labels", "labels found"), "precision": ("n_true", "n_loops", "loops true")}
        for ratio, (part, of, what) in counts.items():
            interval = text.between(scores[f"{ratio}_ci_low"], scores[f"{ratio}_ci_high"], 3)
            note = f"{scores[part]} of {scores[of]} {what}"
            shown = f"{confidence} interval {interval}; {note}" if interval else note
            cards.append(_card(ratio.capitalize(), text.fixed(scores[ratio], 3), "", shown, "#agreement"))
    elif data.has_predictions:
        predicted = data.images["predicted_f1"].dropna()
        note = f"no labels; {data.n_low_predictions} of {len(predicted)} images too low to trust"
        cards.append(_card("Predicted F1, median", text.fixed(predicted.median(), 2), "", note, "#by-image"))
    n_ok = pooled["n_images"] - pooled["n_review"] - pooled["n_failed"]
    status = f"{n_ok} ok, {pooled['n_review']} to review, {pooled['n_failed']} failed"
    cards.append(_card("Images and frames", text.count(pooled["n_images"]), "", status))
    assessed = int(data.images["focus_score"].notna().sum())
    focus = text.figure(data.images["focus_score"].median(), 3) if assessed else "not assessed"
    gates = data.images["focus_gate"].astype(str)
    told = [f"{n} {word}" for name, word in _GATES.items() if (n := int((gates == name).sum()))]
    note = f"of {assessed} images" + (f"; {', '.join(told)}" if told else "")
    cards.append(_card("Focus score, median", focus, "", note if assessed else "", "#by-image"))
    return cards


def left_out(data: ReportData) -> list[dict[str, Any]]:
    """What does not enter the figures, or only in part, with the reasons; each kind with its number of rows."""
    images, summary = data.images, data.summary
    groups: list[dict[str, Any]] = []

    def add(kind: str, entries: list[tuple[str, str, str]]) -> None:
        if entries:
            groups.append({"kind": kind, "n": len(entries), "entries": entries[:MOST_LISTED]})

    rejected = (images["focus_gate"] == "reject") & (images["status"] != "failed")
    blurred = np.flatnonzero(rejected.to_numpy(bool))
    for status, kind in (("failed", "Failed images"), ("review", "Images to review")):
        rows = np.flatnonzero(((images["status"] == status) & ~rejected).to_numpy(bool))
        add(kind, [(images["image"].iloc[k], images["reason"].iloc[k], f"#i{k + 1}") for k in rows])
    kind = "Out of focus: measured, but left out of the pooled figures"
    add(kind, [(images["image"].iloc[k], images["reason"].iloc[k], f"#i{k + 1}") for k in blurred])
    noted = np.flatnonzero(((images["status"] == "ok") & (images["reason"] != "")).to_numpy(bool))
    add("Noted on images", [(images["image"].iloc[k], images["reason"].iloc[k], f"#i{k + 1}") for k in noted])
    add("Skipped files", [(name, why, "") for name, why in summary["skipped"].items()])
    why = "diameters in px only; not in the means in nm, nor in the density"
    add("Images without a pixel size", [(name, why, "") for name in summary["without_pixel_size"]])
    labels = summary.get("labels")
    if labels is not None:
        add("Label files that failed", [(name, str(why), "") for name, why in dict(labels["errors"]).items()])
        add("Labels without an image", [(name, "not used", "") for name in labels["unmatched_labels"]])
        add("Images without labels", [(name, "not scored", "") for name in labels["unlabelled_images"]])
        if labels["n_clipped"]:
            add("Labels clipped", [(f"{labels['n_clipped']} boxes", "cut at the border of their image", "")])
    cut = int(data.pooled["n_on_edge"])
    if cut:
        add("Loops cut by the border", [(f"{cut} loops", "counted; in no mean, deviation or density", "#images")])
    return groups


def size_figures(data: ReportData) -> list[dict[str, Any]]:
    """Histogram and cumulative curve of the diameters; beside the labels' over the same images where there are any."""
    loops, unit = data.loops, data.unit
    column = f"diameter_{unit}"
    whole = loops[~loops["on_edge"].to_numpy(bool) & loops[column].notna()]
    sets: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    labels, evaluation = data.label_diameters, data.evaluation
    scored = set() if evaluation is None else {row["image"] for row in evaluation["images"]}
    all_scored = bool(data.images[data.images["status"] != "failed"]["image"].isin(scored).all())
    frames = bool((data.images["frame"] > 0).any())
    if labels is None or not scored or not all_scored or frames:
        sets.append(("all images", whole[column].to_numpy(float), None))
    if labels is not None and scored:
        part = whole[whole["image"].isin(scored) & (whole["frame"] == 0)][column].to_numpy(float)
        marked = labels[labels["image"].isin(scored)][column].to_numpy(float)
        sets.append((f"the {len(scored)} labelled images", part, marked[np.isfinite(marked)]))
    out: list[dict[str, Any]] = []
    for which, found, marked_sizes in sets:
        if len(found) or (marked_sizes is not None and len(marked_sizes)):
            note = f"Over {which}; without what the border cuts."
            svg, bars = figures.diameter_histogram(found, marked_sizes, unit, f"bar-{len(out)}")
            said = f"{note} A bar leads to its loops."
            out.append({"svg": svg, "caption": said, "bars": bars, "scored": marked_sizes is not None})
            out.append({"svg": figures.cumulative_curve(found, marked_sizes, unit), "caption": note})
    return out


def image_figures(data: ReportData) -> list[dict[str, Any]]:
    """Mean diameter, density and focus, image by image."""
    images, pooled, unit = data.images, data.pooled, data.unit
    names = [_name_of(data, k) for k in range(len(images))]
    links = [f"#i{k + 1}" for k in range(len(images))]
    out = []
    mean = images[f"mean_diameter_{unit}"].to_numpy(float)
    unknown = np.full(len(images), np.nan)
    low, high = (
        images[f"mean_diameter_nm_ci_{end}"].to_numpy(float) if unit == "nm" else unknown for end in ("low", "high")
    )
    if np.isfinite(mean).any():
        of_all = tuple(pooled[f"mean_diameter_{unit}{end}"] for end in ("", "_ci_low", "_ci_high"))
        title, label = "Mean diameter of each image", f"mean diameter ({unit})"
        svg = figures.image_by_image(title, label, mean, (low, high), of_all, names, links)
        note = f"Bars: {pooled['confidence']:.0%} intervals over the loops of an image.".replace("%", " %")
        out.append({"svg": svg, "caption": note if unit == "nm" else ""})
    column = "areal_density_per_m2"
    ends_of = [column, f"{column}_ci_low", f"{column}_ci_high"]
    density = images[ends_of].to_numpy(float)
    if np.isfinite(density).any():
        exponent = text.exponent_of(pooled[column], *density[np.isfinite(density[:, 0]), 0])
        density = density / 10.0**exponent
        of_all = tuple(None if pooled[c] is None else pooled[c] / 10.0**exponent for c in ends_of)
        label = f"areal density ({text.power(exponent)} m⁻²)"
        title, ends = "Areal density of each image", (density[:, 1], density[:, 2])
        svg = figures.image_by_image(title, label, density[:, 0], ends, of_all, names, links)
        out.append({"svg": svg, "caption": "Bars: exact Poisson intervals of the counts."})
    predicted, low, high = (images[f"predicted_f1{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    if np.isfinite(predicted).any():
        title, known = "Predicted F1 of each image", (None, None, None)
        svg = figures.image_by_image(title, "predicted F1", predicted, (low, high), known, names, links)
        note = "From how the loops score, not from labels. Bars hold nine of ten images that the model never saw."
        out.append({"svg": svg, "caption": note})
    focus = images["focus_score"].to_numpy(float)
    if np.isfinite(focus).any():
        values = density[:, 0] if np.isfinite(density).any() else images["n_loops"].to_numpy(float, na_value=np.nan)
        label = label if np.isfinite(density).any() else "number of loops"
        svg = figures.focus_by_density(focus, values, label, names, links)
        out.append({"svg": svg, "caption": "Does blur hide loops? Focus from 0 (lost) to 10 (sharp)."})
    return out


def agreement(data: ReportData) -> dict[str, Any] | None:
    """Tables and figures beside the labels; None without labels."""
    evaluation = data.evaluation
    if evaluation is None:
        return None
    own = one_to_one_rule(evaluation)
    rules = [_rule_row(rule, evaluation[rule], evaluation) for rule in (own, "li2018")]
    curve = evaluation["precision_recall_curve"]
    shown = []
    if curve["recall"]:
        here = (evaluation[own]["recall"], evaluation[own]["precision"])
        note = f"Rule: {described_rule(own, evaluation)}. It ends where the screener lists no further candidates."
        shown.append({"svg": figures.precision_recall(curve, here), "caption": note})
    if data.images[["recall", "precision"]].notna().to_numpy().any():
        names = [_name_of(data, k) for k in range(len(data.images))]
        links = [f"#i{k + 1}" for k in range(len(data.images))]
        recall, precision = (data.images[c].to_numpy(float) for c in ("recall", "precision"))
        svg = figures.agreement_by_image(recall, precision, names, links)
        shown.append({"svg": svg, "caption": f"Rule: {described_rule(own, evaluation)}."})
    return {
        "n_images": evaluation["n_images"],
        "interval": evaluation["interval"],
        "reference": evaluation["reference"],
        "rules": rules,
        "sizes": _size_rows(evaluation["sizes"]),
        "matched": {
            "n": evaluation["matched"]["n_pairs"],
            "signed": text.percentage(evaluation["matched"]["median_relative_error"]),
            "absolute": text.percentage(evaluation["matched"]["median_absolute_relative_error"]).lstrip("+"),
        },
        "figures": shown,
        "experts": _experts(evaluation.get("experts"), own),
    }


def _card(label: str, value: str, unit: str, note: str, link: str = "#images") -> Card:
    return {"label": label, "value": value, "unit": unit if value != text.NOTHING else "", "note": note, "link": link}


def _size_card(pooled: Mapping[str, Any], label: str, column: str, unit: str, confidence: str) -> Card:
    value = pooled[column]
    interval = text.between(pooled[f"{column}_ci_low"], pooled[f"{column}_ci_high"], text.decimals_of(value))
    note = f"{confidence} interval {interval} {unit}" if interval else "no interval"
    return _card(label, text.figure(value), unit, note if text.known(value) is not None else "no whole loop", "#sizes")


def _density_card(pooled: Mapping[str, Any], confidence: str) -> Card:
    column = "areal_density_per_m2"
    value, low, high = (pooled[column + end] for end in ("", "_ci_low", "_ci_high"))
    if text.known(value) is None:
        return _card("Areal density", text.NOTHING, "", "needs a pixel size", "#by-image")
    exponent = text.exponent_of(value or high)
    scale, unit = 10.0**exponent, f"× {text.power(exponent)} m⁻²"
    interval = "" if low is None or high is None else text.between(low / scale, high / scale, 2)
    note = f"{confidence} interval {interval} {unit}" if interval else "no interval"
    return _card("Areal density", text.fixed(value / scale, 2), unit, note, "#by-image")


def _rule_row(rule: str, scores: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    cells = [
        (text.fixed(scores[r], 3), text.between(scores[f"{r}_ci_low"], scores[f"{r}_ci_high"], 3)) for r in _RATIOS
    ]
    return {
        "name": described_rule(rule, evaluation),
        "cells": cells,
        "found": f"{scores['n_found']} of {scores['n_labels']}",
        "true": f"{scores['n_true']} of {scores['n_loops']}",
    }


def _size_rows(sizes: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for label, own, error in (
        ("Number", "n_loops", "count"),
        ("Mean diameter (px)", "mean_diameter_px", "mean_diameter"),
        ("Standard deviation of the diameters (px)", "std_diameter_px", "std_diameter"),
    ):
        theirs = "n_labels" if own == "n_loops" else f"labels_{own}"
        write = text.count if own == "n_loops" else _two_decimals
        name = f"{error}_relative_error"
        ends = [text.percentage(sizes[f"{name}_ci_{end}"]) for end in ("low", "high")]
        interval = "" if text.NOTHING in ends else " to ".join(ends)
        rows.append(
            {
                "label": label,
                "loops": write(sizes[own]),
                "labels": write(sizes[theirs]),
                "error": text.percentage(sizes[name]),
                "interval": interval,
            }
        )
    return rows


def _two_decimals(value: Any) -> str:
    return text.fixed(value, 2)


def _experts(found: Mapping[str, Any] | None, rule: str) -> dict[str, Any] | None:
    if found is None:
        return None
    verdict = found["machine_inside_expert_spread"]
    pairs = [
        (f"{pair['reference']} and {pair['compared']}", text.fixed(pair[rule]["f1"], 3), pair["n_images"])
        for pair in found["expert_against_expert"]
    ]
    pairs += [
        (f"program and {expert}", text.fixed(scores[rule]["f1"], 3), scores["n_images"])
        for expert, scores in found["machine_against_expert"].items()
    ]
    sizes = [(expert, figures_) for expert, figures_ in verdict["pooled"]["experts"].items()]
    sizes.append(("program", verdict["pooled"]["machine"]))
    inside = {True: "inside", False: "outside", None: text.NOTHING}
    names = ("count", "mean_diameter_px", "std_diameter_px")
    return {
        "n_images": verdict["n_images"],
        "pairs": pairs,
        "sizes": [
            (who, text.count(of["count"]), *(text.fixed(of[f"{n}_diameter_px"], 2) for n in ("mean", "std")))
            for who, of in sizes
        ],
        "inside": [inside[verdict[name]] for name in names],
        "f1_inside": inside[verdict[f"f1_{rule}"]],
    }


def _name_of(data: ReportData, row: int) -> str:
    image, frame = data.images["image"].iloc[row], data.images["frame"].iloc[row]
    return text.name(image) + (f", frame {frame}" if frame else "")
