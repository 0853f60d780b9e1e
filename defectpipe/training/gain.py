"""What learning from corrections gained: the model whose loops were corrected and the new one, on the same images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.analysis import clip
from defectpipe.boxes import convert, touches_border
from defectpipe.io.tables import loops_table
from defectpipe.model import LoopModel
from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics.distributions import grouped_interval, interval_name, sum_by_group
from defectpipe.statistics.pooling import ScoredImage, matched_diameters, pooled_scores, pooled_sizes, rule_name
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects, f1_of
from defectpipe.training.figures import HeldOut
from defectpipe.training.model_before import ModelBefore, loops_before, seen_before
from defectpipe.training.workspace import StoredImage

RULE = "one_to_one"
ANCHORED = (
    "The labels of the corrected images began as the loops of the model before: what a person left as it was speaks "
    "for that model."
)


def gain_from_corrections(
    before: ModelBefore,
    images: Sequence[StoredImage],
    corrected: Collection[str],
    held_out: HeldOut,
    thresholds: Mapping[int, float],
    folder: Path,
    n_jobs: int,
) -> dict[str, Any]:
    """What the card says of it.

    The new model's figures are those of its folds, each on the images that it never saw, at the threshold that the
    other folds choose. Boxes of both are compared in the new model's convention, and cut by the border alike.

    Parameters
    ----------
    before : ModelBefore
    images : sequence of StoredImage
        All of the training.
    corrected : collection of str
        Those whose labels are corrections.
    held_out : HeldOut
    thresholds : mapping of int to float
        By fold.
    folder : Path
        Scratch folder of the training.
    n_jobs : int

    Returns
    -------
    dict
        ``model_before`` (name, hash) and either ``skipped`` (why nothing could be compared), or ``rule``,
        ``corrected_images``, ``other_images`` (None without any; see `compare`), ``note``.
    """
    out: dict[str, Any] = {"model_before": {"name": before.name, "sha256": before.sha256}}
    if before.path is None:
        return out | {"skipped": before.missing}
    mine = [image for image in held_out.shapes if image in corrected]
    if not mine:
        return out | {"skipped": "no corrected image is held out"}
    loops = loops_before(before, images, folder, n_jobs)
    convention = LoopModel.load(before.path).box_convention
    boxes = convert(loops[BOX_COLUMNS].to_numpy(float), convention, held_out.box_convention)
    loops = loops.assign(**dict(zip(BOX_COLUMNS, boxes.T, strict=True)))
    after = held_out.kept(thresholds)
    seen = seen_before(before.path, images)
    others = [image for image in held_out.shapes if image not in corrected]
    settings = Settings().statistics
    return out | {
        "rule": f"{rule_name(RULE, settings)}, one-to-one, on {held_out.box_convention} boxes",
        "corrected_images": compare(mine, held_out, loops, after, seen),
        "other_images": compare(others, held_out, loops, after, seen) if others else None,
        "note": ANCHORED,
    }


def compare(
    images: Sequence[str], held_out: HeldOut, before: pd.DataFrame, after: pd.DataFrame, seen: Collection[str] | None
) -> dict[str, Any]:
    """Two sets of loops beside the same labels of the same images.

    Parameters
    ----------
    images : sequence of str
    held_out : HeldOut
        Labels, groups and shapes.
    before, after : DataFrame
        Columns of ``loops.csv``; boxes in the convention of `held_out`.
    seen : collection of str or None
        Images that the model before was trained on; None: nobody knows.

    Returns
    -------
    dict
        ``n_images``, ``n_labels``, ``n_groups``, ``interval`` (how it was made); ``before``, ``after`` (recall,
        precision, F1, relative error of the mean diameter, each with its interval; counts; median error of matched
        diameters); ``f1_gain`` with the interval of the paired difference; ``seen_by_model_before``: their number
        (None: nobody knows) and a sentence.
    """
    settings = Settings().statistics
    tables = [{str(image): part for image, part in loops.groupby("image")} for loops in (before, after)]
    scored = [[_scored(image, held_out, table.get(image), settings) for image in images] for table in tables]
    groups = [s.group for s in scored[0]]
    counts = np.stack([np.concatenate([a.counts[RULE], b.counts[RULE]]) for a, b in zip(*scored, strict=True)])
    sums = sum_by_group(counts, groups)
    gain = float(_gain(sums.sum(0)))
    low, high = grouped_interval(sums, _gain, settings, (-1, 1))
    unit = "group" if any(s.group != s.image for s in scored[0]) else "image"
    return {
        "n_images": len(images),
        "n_labels": int(sum(len(held_out.labels[image]) for image in images)),
        "n_groups": len(sums),
        "interval": interval_name(len(sums), unit),
        "before": _figures(scored[0], settings),
        "after": _figures(scored[1], settings),
        "f1_gain": _rounded(gain if np.isfinite(gain) else None),
        "f1_gain_ci_low": _rounded(low),
        "f1_gain_ci_high": _rounded(high),
        "seen_by_model_before": _seen_of(images, seen),
    }


def gain_sentence(gain: Mapping[str, Any]) -> str:
    """The gain in a line, for the terminal."""
    name = gain["model_before"]["name"] or "the model before"
    if "skipped" in gain:
        return f"what was gained over {name} is not known: {gain['skipped']}"
    of = gain["corrected_images"]
    if of["f1_gain"] is None:
        return f"what was gained over {name} is not known: its loops and the labels are too few"
    low, high = of["f1_gain_ci_low"], of["f1_gain_ci_high"]
    interval = "" if low is None else f" ({Settings().statistics.confidence:.0%} interval {low:+.3f} to {high:+.3f})"
    return (
        f"on the {of['n_images']} corrected images F1 is {of['after']['f1']:.3f}, held out; "
        f"{name} had {of['before']['f1']:.3f}: {of['f1_gain']:+.3f}{interval}"
    )


def _scored(image: str, held_out: HeldOut, loops: pd.DataFrame | None, settings: StatisticsSettings) -> ScoredImage:
    shape, margin_px = held_out.shapes[image], Settings().measurement.border_margin_px
    found = loops_table() if loops is None else loops
    boxes = clip(found[BOX_COLUMNS].to_numpy(float), shape)
    found = found.assign(
        on_edge=touches_border(boxes, shape, margin_px), **dict(zip(BOX_COLUMNS, boxes.T, strict=True))
    )
    return ScoredImage.of(image, held_out.groups[image], held_out.marked(image), Objects.from_loops(found), settings)


def _gain(sums: np.ndarray) -> np.ndarray:
    return f1_of(sums[..., 4:]) - f1_of(sums[..., :4])


def _figures(scored: Sequence[ScoredImage], settings: StatisticsSettings) -> dict[str, Any]:
    scores, sizes = pooled_scores(scored, RULE, settings), pooled_sizes(scored, settings)
    figures = {n: value for n, value in scores.items() if "_with_border" not in n and n != "mean_of_images"}
    figures |= {name: value for name, value in sizes.items() if name.startswith("mean_diameter_relative_error")}
    figures["matched_diameter_median_absolute_relative_error"] = matched_diameters(scored, settings)[
        "median_absolute_relative_error"
    ]
    return {name: _rounded(value) for name, value in figures.items()}


def _seen_of(images: Sequence[str], seen: Collection[str] | None) -> dict[str, Any]:
    if seen is None:
        said = "The model before has no list of its images: that it was trained on some of these cannot be excluded."
        return {"n_images": None, "said": said}
    n = sum(image in seen for image in images)
    said = f"The model before was trained on {n} of these images: its figures are too good."
    return {"n_images": n, "said": said if n else "The model before was trained on none of these images."}


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 4) if isinstance(value, float) else value
