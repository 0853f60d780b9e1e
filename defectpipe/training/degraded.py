"""What a model finds in held-out images that were defocused on purpose: the ground of the focus gate."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from defectpipe.analysis import analyse
from defectpipe.focus.assessment import assess_focus
from defectpipe.io.tables import read_parquet, write_parquet
from defectpipe.micrograph import Micrograph
from defectpipe.model import LoopModel
from defectpipe.resolution import binning
from defectpipe.settings import DetectionSettings, ScreeningSettings, Settings
from defectpipe.simulation.defocused import defocus
from defectpipe.statistics.pooling import matched_diameters
from defectpipe.statistics.predicted_f1 import LOWEST_SCORE
from defectpipe.statistics.scoring import COUNTS, Objects, score
from defectpipe.training.box_scale import BoxScales
from defectpipe.training.workspace import PartJob, StoredImage
from defectpipe.workers import begin_worker

if TYPE_CHECKING:
    from defectpipe.focus.model import FocusModel
    from defectpipe.training.figures import HeldOut

DEGRADED = "held_out_degraded.parquet"
# RMS width of the added defocus, in px at the resolution that the model works at.
BLUR_LEVELS_PX = (0.0, 1.5, 3.0, 5.0, 8.0)
IMAGES_PER_FOLD = 10
_QUANTILES = (0.1, 0.5, 0.9)


@dataclasses.dataclass(frozen=True, eq=False)
class DegradedJob:
    """The held-out images of one fold that are defocused, and how the fold's model is used.

    Parameters
    ----------
    part : PartJob
    images : tuple of StoredImage
    marked : mapping of str to Objects
        Image to its labels.
    groups : mapping of str to str
    threshold : float
    scales : BoxScales
        As the other folds choose them.
    focus : FocusModel
    """

    part: PartJob
    images: tuple[StoredImage, ...]
    marked: Mapping[str, Objects]
    groups: Mapping[str, str]
    threshold: float
    scales: BoxScales
    focus: FocusModel


def degraded_runs(
    parts: Sequence[PartJob],
    held_out: HeldOut,
    thresholds: Mapping[int, float],
    box_scales: Mapping[int, BoxScales],
    focus: FocusModel,
    n_jobs: int = 1,
    per_fold: int = IMAGES_PER_FOLD,
) -> pd.DataFrame:
    """Run each fold's model over defocused copies of some of its held-out images.

    Parameters
    ----------
    parts : sequence of PartJob
        Trained, one for each fold.
    held_out : HeldOut
        Labels and groups.
    thresholds, box_scales : mapping of int to float and BoxScales
        By fold, as the other folds choose them.
    focus : FocusModel
    n_jobs : int
        Folds at once.
    per_fold : int
        At most so many images of a fold, as evenly from its groups as can be.

    Returns
    -------
    DataFrame
        A row for each image and blur; see `degraded_rows`.
    """
    jobs = []
    for part in parts:
        assert part.held_out is not None
        images = choose_images(part.held_out_images, held_out.groups, per_fold, part.seed)
        marked = {image.image: held_out.marked(image.image) for image in images}
        groups = {image.image: held_out.groups[image.image] for image in images}
        fold = part.held_out
        jobs.append(DegradedJob(part, tuple(images), marked, groups, thresholds[fold], box_scales[fold], focus))
    if n_jobs == 1:
        tables = [run_degraded(job) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(min(n_jobs, len(jobs)), begin_worker) as pool:
            tables = pool.map(run_degraded, jobs, chunksize=1)
    return pd.concat(tables, ignore_index=True)


def choose_images(
    images: Sequence[StoredImage], groups: Mapping[str, str], n_images: int, seed: int
) -> list[StoredImage]:
    """At most `n_images` of those with labels: one of each group in turn, drawn with a seed."""
    rng = np.random.default_rng(seed)
    labelled = [image for image in images if len(image.boxes)]
    order = [labelled[i] for i in rng.permutation(len(labelled))]
    turns: dict[str, int] = {}
    ranked = []
    for place, image in enumerate(order):
        group = groups[image.image]
        turns[group] = turns.get(group, 0) + 1
        ranked.append((turns[group], place, image))
    chosen = sorted(ranked, key=lambda item: item[:2])[:n_images]
    return [image for _, _, image in chosen]


def run_degraded(job: DegradedJob) -> pd.DataFrame:
    """The rows of one fold; taken from its folder where they are already."""
    place = job.part.folder / DEGRADED
    if place.exists():
        return read_parquet(place)
    model = LoopModel.load(job.part.folder)
    model = dataclasses.replace(model, card=model.card | {"threshold": job.threshold} | job.scales.card())
    rows = []
    for i, image in enumerate(job.images):
        known = {"image": image.image, "group": job.groups[image.image], "fold": job.part.held_out}
        rng = np.random.default_rng([job.part.seed, job.part.held_out or 0, i])
        rows += [
            known | row for row in degraded_rows(image.micrograph(), job.marked[image.image], model, job.focus, rng)
        ]
    table = pd.DataFrame(rows)
    write_parquet(table, place)
    return table


def degraded_rows(
    m: Micrograph,
    marked: Objects,
    model: LoopModel,
    focus: FocusModel,
    rng: np.random.Generator,
    levels_px: Sequence[float] = BLUR_LEVELS_PX,
) -> list[dict[str, Any]]:
    """One image at each blur: its focus as measured, what was found, and how the loops' scores lie.

    Returns
    -------
    list of dict
        What is unknown or undefined is NaN. ``added_sigma_px`` (of the image's own px), ``working_sigma_px`` (of the
        model's); ``focus_score``, ``focus_score_std``, ``focus_state``; ``n_labels``, ``n_found``, ``n_loops``,
        ``n_true``, ``f1`` (one-to-one, IoU 0.4, without the border); ``diameter_relative_error`` (mean of the loops
        over mean of the labels, less 1), ``matched_diameter_relative_error`` (median over matched pairs);
        ``n_candidates``, ``n_screened`` (above the lowest score kept), ``score_mean``, ``score_p10``, ``score_p50``,
        ``score_p90`` (screening scores of the loops), ``score_share_doubtful`` (of the screened, those within 0.2 of
        the threshold), ``fit_quality_mean``; ``threshold`` in use, ``pixel_size_nm``, ``screening_scores`` (list: all
        screened loops off the border).
    """
    factor = binning(m.shape, m.pixel_size_nm, model.working_pixel_size_nm)
    settings = Settings(detection=DetectionSettings(model.max_candidates), screening=ScreeningSettings(LOWEST_SCORE))
    rows = []
    for level in levels_px:
        seen = dataclasses.replace(m, pixels=defocus(m.grey8(), level * factor, rng))
        row: dict[str, Any] = {"added_sigma_px": level * factor, "working_sigma_px": level}
        found = assess_focus(seen, focus)
        row |= {"focus_score": _number(found.score), "focus_score_std": _number(found.score_std)}
        row["focus_state"] = found.state
        candidates, every = analyse(seen, model, settings)
        loops = every[every["screening_score"] >= model.threshold]
        row |= {"threshold": model.threshold, "pixel_size_nm": _number(m.pixel_size_nm)}
        row["screening_scores"] = every.loc[~every["on_edge"], "screening_score"].tolist()
        rows.append(row | _agreement(marked, loops) | _score_features(every, loops, model.threshold, len(candidates)))
    return rows


def _number(value: float | None) -> float:
    # A column of nothing but None would be one of objects.
    return np.nan if value is None else value


def _agreement(marked: Objects, loops: pd.DataFrame) -> dict[str, Any]:
    from defectpipe.statistics.pooling import ScoredImage

    settings = Settings().statistics
    found = Objects.from_loops(loops)
    counts = score(marked, found, settings)["one_to_one"]
    named = {name: int(value) for name, value in zip(COUNTS, counts, strict=True)}
    total = named["n_labels"] + named["n_loops"]
    matched = matched_diameters([ScoredImage.of("", "", marked, found, settings)], settings)
    whole, wanted = found.whole(), marked.whole()
    return named | {
        "f1": 2 * named["n_true"] / total if total else np.nan,
        "diameter_relative_error": whole.mean() / wanted.mean() - 1 if len(whole) and len(wanted) else np.nan,
        "matched_diameter_relative_error": _number(matched["median_relative_error"]),
    }


def _score_features(every: pd.DataFrame, loops: pd.DataFrame, threshold: float, n_candidates: int) -> dict[str, Any]:
    scores, kept = every["screening_score"].to_numpy(float), loops["screening_score"].to_numpy(float)
    quantiles = np.quantile(kept, _QUANTILES) if len(kept) else np.full(len(_QUANTILES), np.nan)
    return {
        "n_candidates": n_candidates,
        "n_screened": len(scores),
        "score_mean": kept.mean() if len(kept) else np.nan,
        **{f"score_p{round(100 * q)}": value for q, value in zip(_QUANTILES, quantiles, strict=True)},
        "score_share_doubtful": float((np.abs(scores - threshold) < 0.2).mean()) if len(scores) else np.nan,
        "fit_quality_mean": loops["fit_quality"].mean() if len(loops) else np.nan,
    }
