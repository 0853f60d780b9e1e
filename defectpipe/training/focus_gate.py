"""From which focus score on a model's figures can be trusted: measured on defocused held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.errors import ModelError
from defectpipe.focus.assessment import assess_focus
from defectpipe.focus.gate import OK, REJECT, REVIEW, FocusGate
from defectpipe.focus.model import FocusModel
from defectpipe.micrograph import Micrograph
from defectpipe.model import find_model
from defectpipe.settings import Settings
from defectpipe.statistics.distributions import grouped_interval, ratio, sum_by_group
from defectpipe.training.box_scale import BoxScales
from defectpipe.training.degraded import IMAGES_PER_FOLD, choose_images, degraded_runs
from defectpipe.training.figures import HeldOut
from defectpipe.training.workspace import PartJob

GRID = np.round(np.arange(1.0, 10.01, 0.25), 2)
# F1 is lost where it falls below this share of its plateau.
KEPT_SHARE = 0.9
# Of fewer images, or labels in them, no curve is worth its name.
LEAST_IMAGES, LEAST_LABELS = 8, 50
_MIN_LEVELS = 3
# Of the fields as they are at most so many are judged by the gate.
_MOST_FIELDS = 300


def measure_focus_gate(
    parts: Sequence[PartJob],
    held_out: HeldOut,
    thresholds: Mapping[int, float],
    box_scales: Mapping[int, BoxScales],
    n_jobs: int,
    per_fold: int = IMAGES_PER_FOLD,
) -> tuple[dict[str, Any] | None, pd.DataFrame | None]:
    """The gate of a model from its parts, and the runs behind it.

    Parameters
    ----------
    parts : sequence of PartJob
        Trained, one for each fold; their recipe names the focus model.
    held_out, thresholds, box_scales, n_jobs, per_fold
        See `degraded.degraded_runs`.

    Returns
    -------
    gate : dict or None
        See `focus_gate`, with ``fields_as_they_are`` (see `judged_fields`) where there is a gate; None where the recipe
        wants none. Where its focus model cannot be used, ``skipped`` says why, and the hash of that model is None.
    degraded : DataFrame or None
        None where it could not be measured.
    """
    name = parts[0].recipe.focus_model
    if name == "none":
        return None, None
    try:
        focus = FocusModel.load(find_model(name))
    except ModelError as error:
        problem = f"the focus model '{Path(name).name}' could not be used: {error}"
        return {"focus_model": {"name": Path(name).name, "sha256": None}, "skipped": problem}, None
    chosen = [i for part in parts for i in choose_images(part.held_out_images, held_out.groups, per_fold, part.seed)]
    if problem := _too_few(len(chosen), sum(len(held_out.labels[image.image]) for image in chosen)):
        return {"focus_model": {"name": focus.name, "sha256": focus.sha256}, "skipped": problem}, None
    degraded = degraded_runs(parts, held_out, thresholds, box_scales, focus, n_jobs, per_fold)
    section = focus_gate(degraded, focus.name, focus.sha256)
    if (gate := FocusGate.of_card({"focus_gate": section}, focus.sha256)) is not None:
        most = math.ceil(_MOST_FIELDS / len(parts))
        whole = (choose_images(part.held_out_images, held_out.groups, most, part.seed) for part in parts)
        fields = ((held_out.groups[image.image], image.micrograph()) for images in whole for image in images)
        section["fields_as_they_are"] = judged_fields(fields, focus, gate)
    return section, degraded


def judged_fields(fields: Iterable[tuple[str, Micrograph]], focus: FocusModel, gate: FocusGate) -> dict[str, Any]:
    """What a gate says of labelled fields as they are: those that it does not let pass are its false alarms.

    Whoever labelled them took them for good enough; how sharp they are is not known apart from the score.

    Parameters
    ----------
    fields : iterable of (str, Micrograph)
        Group and image.
    focus : FocusModel
    gate : FocusGate

    Returns
    -------
    dict
        ``n_images``, ``n_ok``, ``n_review``, ``n_reject``, ``n_not_judged``; ``share_not_ok`` of those judged;
        ``median_score``; ``groups_not_ok``: of each group that has any, the number for review or rejected, and of all.
    """
    groups, scores, judged = [], [], []
    for group, m in fields:
        found = assess_focus(m, focus)
        groups.append(group)
        scores.append(np.nan if found.score is None else found.score)
        judged.append(gate.judge(found.score, found.state))
    counts = {word: judged.count(word) for word in (OK, REVIEW, REJECT, "")}
    known = len(judged) - counts[""]
    alarms = [group for group, word in zip(groups, judged, strict=True) if word in (REVIEW, REJECT)]
    return {
        "n_images": len(judged),
        "n_ok": counts[OK],
        "n_review": counts[REVIEW],
        "n_reject": counts[REJECT],
        "n_not_judged": counts[""],
        "share_not_ok": round(len(alarms) / known, 4) if known else None,
        "median_score": round(float(np.nanmedian(scores)), 2) if np.isfinite(scores).any() else None,
        "groups_not_ok": {name: [alarms.count(name), groups.count(name)] for name in sorted(set(alarms))},
    }


def _too_few(n_images: int, n_labels: int) -> str:
    if n_images >= LEAST_IMAGES and n_labels >= LEAST_LABELS:
        return ""
    return (
        f"{n_images} held-out images with {n_labels} labels are too few: "
        f"at least {LEAST_IMAGES} with {LEAST_LABELS} are needed"
    )


def focus_gate(degraded: pd.DataFrame, focus_name: str, focus_sha256: str) -> dict[str, Any]:
    """The gate of a model, for its card.

    The counts of each image are interpolated over its own focus scores, so that the same images stand behind every
    point of the curve. `ok_from` is where the pooled F1 has lost a tenth of its plateau; what is uncertain about that
    place, its 95 % interval over groups and a least half width, is for review.

    Parameters
    ----------
    degraded : DataFrame
        See `degraded.degraded_rows`, with ``image`` and ``group``.
    focus_name, focus_sha256 : str
        The focus model that the scores are of.

    Returns
    -------
    dict
        ``focus_model`` (name and hash) and either ``skipped`` (why there is no gate), or ``reject_below``, ``ok_from``,
        ``lost_tenth_at`` and its interval, ``plateau_f1``, ``n_images``, ``n_groups``, ``curve`` (lists over ``score``:
        ``f1``, ``diameter_relative_error``, with ``…_ci_low``, ``…_ci_high``).
    """
    out: dict[str, Any] = {"focus_model": {"name": focus_name, "sha256": focus_sha256}}
    usable = degraded[np.isfinite(degraded["focus_score"].to_numpy(float))]
    steps = usable.groupby("image")["focus_score"].nunique()
    usable = usable[usable["image"].isin(steps.index[steps >= _MIN_LEVELS])]
    first = usable.drop_duplicates("image")
    if problem := _too_few(len(first), int(first["n_labels"].sum())):
        return out | {"skipped": problem}
    sums = _sums_by_group(usable)
    f1 = _f1(sums.sum(0))
    plateau = float(np.nanmax(f1))
    if not plateau > 0:
        return out | {"skipped": "the model finds nothing in the held-out images"}
    place, interval = _lost_tenth(sums)
    low, high = min(place - _LEAST_HALF_WIDTH, interval[0]), max(place + _LEAST_HALF_WIDTH, interval[1])
    return out | {
        "reject_below": round(float(np.clip(low, 0, 10)), 2),
        "ok_from": round(float(np.clip(high, 0, 10)), 2),
        "lost_tenth_at": round(place, 2),
        "lost_tenth_at_ci_low": round(interval[0], 2),
        "lost_tenth_at_ci_high": round(interval[1], 2),
        "plateau_f1": round(plateau, 4),
        "n_images": len(first),
        "n_groups": len(sums),
        "curve": _curve(sums),
    }


_LEAST_HALF_WIDTH = 0.25
# Behind each grid point: true loops, labels and loops, sums of diameter errors and of their weights.
_N_SUMS = 4


def _sums_by_group(table: pd.DataFrame) -> np.ndarray:
    """Interpolated sums of each group, shape (n_groups, len(GRID), _N_SUMS)."""
    sums, groups = [], []
    for _, rows in table.groupby("image", sort=True):
        rows = rows.groupby("focus_score", as_index=False).mean(numeric_only=True).sort_values("focus_score")
        at = rows["focus_score"].to_numpy(float)
        error = rows["matched_diameter_relative_error"].to_numpy(float)
        known = np.isfinite(error)
        weight = np.where(known, rows["n_true"].to_numpy(float), 0.0)
        parts = [
            2 * rows["n_true"].to_numpy(float),
            rows["n_labels"].to_numpy(float) + rows["n_loops"].to_numpy(float),
            np.where(known, error, 0.0) * weight,
            weight,
        ]
        sums.append(np.stack([np.interp(GRID, at, part) for part in parts], 1).ravel())
    groups = table.drop_duplicates("image").sort_values("image")["group"].astype(str).tolist()
    return sum_by_group(np.array(sums), groups).reshape(-1, len(GRID), _N_SUMS)


def _f1(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[..., :2])


def _place(sums: np.ndarray) -> np.ndarray:
    """Lowest score from which on F1 stays above its share of the plateau; between grid points by interpolation.

    Parameters
    ----------
    sums : ndarray, shape (..., len(GRID), _N_SUMS)
    """
    f1 = _f1(sums)
    limit = KEPT_SHARE * np.nanmax(f1, -1, keepdims=True)
    below = ~(f1 >= limit)
    n = len(GRID)
    # the last grid point below the limit; -1: none
    last = np.where(below.any(-1), n - 1 - np.argmax(below[..., ::-1], -1), -1)
    i = np.clip(last, 0, n - 2)
    lower, upper = (np.take_along_axis(f1, (i + k)[..., None], -1)[..., 0] for k in (0, 1))
    share = np.clip((limit[..., 0] - lower) / np.maximum(upper - lower, 1e-9), 0, 1)
    return np.where(last < 0, GRID[0], GRID[i] + share * (GRID[i + 1] - GRID[i]))


def _lost_tenth(sums: np.ndarray) -> tuple[float, tuple[float, float]]:
    flat = sums.reshape(len(sums), -1)
    settings = Settings().statistics

    def statistic(total: np.ndarray) -> np.ndarray:
        return _place(total.reshape(*total.shape[:-1], len(GRID), _N_SUMS))

    place = float(statistic(flat.sum(0)))
    low, high = grouped_interval(flat, statistic, settings, (0, 10))
    return place, (place if low is None else low, place if high is None else high)


def _curve(sums: np.ndarray) -> dict[str, list[float | None]]:
    settings = Settings().statistics
    out: dict[str, list[float | None]] = {"score": [float(s) for s in GRID]}
    columns = {"f1": (slice(0, 2), (0.0, 1.0)), "diameter_relative_error": (slice(2, 4), (-1.0, np.inf))}
    for name, (part, bounds) in columns.items():
        rows = []
        for k in range(len(GRID)):
            here = sums[:, k, part]
            value = float(ratio(here.sum(0)))
            rows.append((value if np.isfinite(value) else None, *grouped_interval(here, ratio, settings, bounds)))
        for suffix, values in zip(("", "_ci_low", "_ci_high"), zip(*rows, strict=True), strict=True):
            out[name + suffix] = [None if v is None else round(v, 4) for v in values]
    return out
