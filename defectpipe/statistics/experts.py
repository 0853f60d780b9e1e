"""Several experts on the same images: each against the others, and whether the machine lies inside their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from defectpipe.settings import StatisticsSettings
from defectpipe.statistics.pooling import ScoredImage, pooled_agreement, rule_name, size_figures
from defectpipe.statistics.scoring import RULES, Objects

FIGURES = ("count", "mean_diameter_px", "std_diameter_px")


def compare_experts(by_expert: Mapping[str, Sequence[ScoredImage]], settings: StatisticsSettings) -> dict[str, Any]:
    """The machine among several experts.

    Parameters
    ----------
    by_expert : mapping of str to sequence of ScoredImage
        For each expert, the machine's loops scored against the expert's labels; at least two experts.
    settings : StatisticsSettings

    Returns
    -------
    dict
        ``expert_against_expert`` (each pair: the second scored against the first, over the images of both),
        ``machine_against_expert``, ``images`` (count, mean, std of each image that several experts labelled) and
        ``machine_inside_expert_spread``.
    """
    names = sorted(by_expert)
    images = {name: {s.image: s for s in by_expert[name]} for name in names}
    between = [
        {"reference": a, "compared": b} | pooled_agreement(_against(images[a], images[b], settings), settings)
        for a, b in combinations(names, 2)
    ]
    machine = {name: pooled_agreement(by_expert[name], settings) for name in names}
    return {
        "names": names,
        "expert_against_expert": between,
        "machine_against_expert": machine,
        "images": _image_by_image(images),
        "machine_inside_expert_spread": _verdict(images, between, machine, settings),
    }


def inside(value: float | None, spread: Sequence[float | None]) -> bool | None:
    """Whether `value` lies between the smallest and the largest of `spread`; None where figures lack."""
    known = [v for v in spread if v is not None]
    return None if value is None or len(known) < 2 else min(known) <= value <= max(known)


def _against(
    a: Mapping[str, ScoredImage], b: Mapping[str, ScoredImage], settings: StatisticsSettings
) -> list[ScoredImage]:
    return [
        ScoredImage.of(image, a[image].group, a[image].labels, b[image].labels, settings)
        for image in sorted(a.keys() & b.keys())
    ]


def _image_by_image(images: Mapping[str, Mapping[str, ScoredImage]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image in sorted(set().union(*images.values())):
        seen = {name: scored[image] for name, scored in images.items() if image in scored}
        if len(seen) < 2:
            continue
        experts = {name: size_figures(s.labels) for name, s in seen.items()}
        machine = size_figures(next(iter(seen.values())).loops)
        rows.append(
            {
                "image": image,
                "experts": experts,
                "machine": machine,
                "inside": {f: inside(machine[f], [e[f] for e in experts.values()]) for f in FIGURES},
            }
        )
    return rows


def _verdict(
    images: Mapping[str, Mapping[str, ScoredImage]],
    between: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Mapping[str, Any]],
    settings: StatisticsSettings,
) -> dict[str, Any]:
    common = sorted(set.intersection(*(set(scored) for scored in images.values())))
    experts = {name: size_figures(_together([s[i].labels for i in common])) for name, s in images.items()}
    first = next(iter(images.values()))
    ours = size_figures(_together([first[i].loops for i in common]))
    spread: dict[str, Any] = {f: inside(ours[f], [e[f] for e in experts.values()]) if common else None for f in FIGURES}
    for rule in RULES:
        key = rule_name(rule, settings)
        theirs = [pair[key]["f1"] for pair in between if pair[key]["f1"] is not None]
        mine = [against[key]["f1"] for against in machine.values() if against[key]["f1"] is not None]
        # As near to the experts, on average, as the two experts who differ most are to each other.
        spread[f"f1_{key}"] = bool(np.mean(mine) >= min(theirs)) if mine and theirs else None
    rows = [row for row in _image_by_image(images) if row["image"] in set(common)]
    share = {
        f: float(np.mean([row["inside"][f] for row in rows if row["inside"][f] is not None]))
        if any(row["inside"][f] is not None for row in rows)
        else None
        for f in FIGURES
    }
    return {
        "n_images": len(common),
        "pooled": {"experts": experts, "machine": ours},
        **spread,
        "share_of_images_inside": share,
        # One more expert, exchangeable with these k, lies between their extremes with probability (k − 1)/(k + 1).
        "share_expected_of_one_more_expert": (len(images) - 1) / (len(images) + 1),
    }


def _together(parts: Sequence[Objects]) -> Objects:
    return Objects(
        np.concatenate([np.zeros((0, 4)), *(p.boxes for p in parts)]),
        np.concatenate([np.zeros((0, 2)), *(p.centres for p in parts)]),
        np.concatenate([np.zeros(0), *(p.diameters_px for p in parts)]),
        np.concatenate([np.zeros(0, bool), *(p.on_edge for p in parts)]),
    )
