"""From labelled images to a named model: cross-validation by group, threshold, final model, card."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.boxes import convert
from defectpipe.classes import DefectClasses
from defectpipe.errors import LabelError
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import read_parquet, write_parquet
from defectpipe.micrograph import Micrograph
from defectpipe.model import CARD, FILES
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.box_scale import BoxScales, choose_box_scales
from defectpipe.training.card import model_card
from defectpipe.training.figures import HeldOut, held_out_figures
from defectpipe.training.focus_gate import measure_focus_gate
from defectpipe.training.gain import gain_from_corrections
from defectpipe.training.image_list import IMAGE_LIST, NO_FOLD, pixel_sha256, write_image_list
from defectpipe.training.model_before import ModelBefore
from defectpipe.training.part import (
    CANDIDATES,
    LOOPS,
    measure_rescaled,
    part_card,
    scan_recipe,
    train_part,
    working_copy,
)
from defectpipe.training.predicted_f1 import judge_images, predicted_f1_card
from defectpipe.training.progress import rows_for, share_rows
from defectpipe.training.recipe import TrainingRecipe
from defectpipe.training.start import StartModel, folds_without_known, started_from, whole_recipe
from defectpipe.training.workspace import PartJob, fingerprint, store_images, write_card
from defectpipe.workers import begin_worker

HELD_OUT_FOLDER = "held-out"


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A labelled image.

    Parameters
    ----------
    micrograph : Micrograph
    labels : DataFrame
        Columns of `io.labels.LABEL_COLUMNS`, boxes tight. None: there are no loops.
    group : str
        Fields of one group never lie on both sides of a fold.
    fold : int, optional
    corrected : bool
        Whether the labels are a run's loops as a person corrected them.
    """

    micrograph: Micrograph
    labels: pd.DataFrame
    group: str
    fold: int | None = None
    corrected: bool = False


def train_loop_model(
    images: Sequence[TrainingImage],
    name: str,
    models_dir: Path,
    *,
    recipe: TrainingRecipe | Path | None = None,
    seed: int = 0,
    n_jobs: int | None = None,
    before: ModelBefore | None = None,
    start: StartModel | None = None,
) -> Path:
    """Train a model: one for each held-out fold, for the figures and the threshold, then one on all images.

    A training that was interrupted goes on where it stood when the same call is made again.

    Parameters
    ----------
    images : sequence of TrainingImage
    name : str
        Folder of the model in `models_dir`.
    models_dir : Path
    recipe : TrainingRecipe or path of a JSON file, optional
    seed : int
    n_jobs : int, optional
        Parts trained at once, each on one core. Default: the cores that this process may use.
    before : ModelBefore, optional
        The model whose loops were corrected: the card says what was gained over it.
    start : StartModel, optional
        The model that every part starts from. Its recipe is then that of `start.recipe_from`, changed by the file; and
        images that it was trained on, with the other fields of their groups, are in no figure.

    Returns
    -------
    Path
        The model's folder: cascade, weights, ONNX, card, and ``held-out/`` with what each fold's model found in the
        images that it never saw.

    Raises
    ------
    LabelError
        There are too few loops or groups, or a label is of none of the recipe's classes.
    SettingsError
        The recipe asks for what its start cannot give.
    """
    if not images:
        raise LabelError("There are no labelled images to train on.")
    recipe = whole_recipe(recipe, None if start is None else start.load())
    pixels = [] if start is None else [pixel_sha256(i.micrograph.grey8()) for i in images]
    folds, known = folds_without_known(
        [i.group for i in images],
        [len(i.labels) for i in images],
        [i.fold for i in images],
        recipe.n_folds,
        pixels,
        start,
    )
    boxes = [convert(i.labels[BOX_COLUMNS].to_numpy(float), "tight", recipe.box_convention) for i in images]
    triples = [(i.micrograph, b, fold) for i, b, fold in zip(images, boxes, folds, strict=True)]
    classes = [recipe.defect_classes.numbers(i.labels, i.micrograph.image) for i in images]
    sha256 = fingerprint(triples, recipe, seed, classes, "" if start is None else start.sha256)
    work = models_dir / ".defectpipe" / f"{name}-training-{sha256[:12]}"
    sizes = [i.micrograph.pixel_size_nm for i in images if i.micrograph.pixel_size_nm is not None]
    working_size = recipe.working_pixel_size_nm or (float(np.median(sizes)) if sizes else None)
    stored = store_images(work, triples, classes)
    parts: list[int | None] = [*range(max(folds) + 1), None]
    jobs = [
        PartJob(
            work / ("all" if held_out is None else f"fold-{held_out}"),
            stored,
            held_out,
            working_size,
            recipe,
            seed,
            start,
        )
        for held_out in parts
    ]
    n_jobs = n_jobs or len(os.sched_getaffinity(0))
    folders = _train_parts(jobs, n_jobs)
    everything = collect_held_out(images, folds, folders[:-1], recipe.box_convention, recipe.defect_classes)
    held_out = everything.in_folds()
    scales, box_scales = choose_box_scales(held_out)
    held_out = dataclasses.replace(
        held_out,
        loops=_rescaled(jobs[:-1], box_scales, n_jobs),
        tight_scales={fold: s.tight for fold, s in box_scales.items()},
    )
    figures: dict[str, Any] = scales.card()
    figures["box_scale_by_fold"] = {str(fold): s.box for fold, s in box_scales.items()}
    figures["tight_scale_by_fold"] = {str(fold): s.tight for fold, s in box_scales.items()}
    figures |= held_out_figures(held_out)
    thresholds = {int(fold): value for fold, value in figures["threshold_by_fold"].items()}
    gate, degraded = measure_focus_gate(jobs[:-1], held_out, thresholds, box_scales, n_jobs)
    corrected = {i.micrograph.image: len(i.labels) for i in images if i.corrected}
    # Before the new files are there: both models may have one name.
    gain = None
    if before is not None and corrected:
        gain = gain_from_corrections(before, stored, corrected, held_out, thresholds, work, n_jobs)
    target = models_dir / name
    for file in FILES:
        write_atomic(target / file, (folders[-1] / file).read_bytes())
    write_parquet(held_out.loops, target / HELD_OUT_FOLDER / "loops.parquet")
    write_parquet(held_out.candidates, target / HELD_OUT_FOLDER / "candidates.parquet")
    # Where the start has no list, nobody knows which images are behind this model either.
    target.joinpath(IMAGE_LIST).unlink(missing_ok=True)
    if start is None or known is not None:
        rows = [(i.micrograph.image, i.group, i.micrograph) for i in images]
        write_image_list(target, rows, folds, None if start is None else start.path)
    if degraded is not None:
        write_parquet(degraded, target / HELD_OUT_FOLDER / "degraded.parquet")
    usage = part_card(jobs[-1], scan_recipe([working_copy(image, jobs[-1]) for image in stored], jobs[-1]))
    card = model_card(name, usage, figures, everything, sizes, recipe, seed) | {"focus_gate": gate}
    if start is not None:
        recall = figures["cascade"][-1]["recall_20px"]
        card["started_from"] = started_from(start, recipe, known, folds.count(NO_FOLD), recall)
    known_sizes = {i.micrograph.image: i.micrograph.pixel_size_nm for i in images}
    card["predicted_f1"] = predicted_f1_card(judge_images(held_out, thresholds, known_sizes, working_size, degraded))
    if corrected:
        n_labels = sum(corrected.values())
        card["data"] |= {"n_images_from_corrections": len(corrected), "n_labels_from_corrections": n_labels}
    if gain is not None:
        card["gain_from_corrections"] = gain
    write_card(target / CARD, card)
    shutil.rmtree(work)
    return target


def collect_held_out(
    images: Sequence[TrainingImage],
    folds: Sequence[int],
    folders: Sequence[Path],
    box_convention: str,
    classes: DefectClasses | None = None,
) -> HeldOut:
    """What the folds' models found in their held-out images, beside the labels."""
    loops, candidates = (
        pd.concat([read_parquet(folder / table) for folder in folders], ignore_index=True)
        for table in (LOOPS, CANDIDATES)
    )
    return HeldOut(
        {i.micrograph.image: i.micrograph.shape for i in images},
        {i.micrograph.image: i.labels for i in images},
        {i.micrograph.image: i.group for i in images},
        {i.micrograph.image: fold for i, fold in zip(images, folds, strict=True)},
        loops,
        candidates,
        box_convention,
        classes=classes or DefectClasses(),
    )


def _train_parts(jobs: list[PartJob], n_jobs: int) -> list[Path]:
    # Each part in a process of its own: TensorFlow and forked children do not go together.
    context = multiprocessing.get_context("spawn")
    n_processes = min(n_jobs, len(jobs))
    with context.Pool(n_processes, share_rows, rows_for(context, n_processes), maxtasksperchild=1) as pool:
        return pool.map(train_part, jobs, chunksize=1)


def _rescaled(jobs: list[PartJob], scales: Mapping[int, BoxScales], n_jobs: int) -> pd.DataFrame:
    given = [(job, scales[job.held_out]) for job in jobs if job.held_out is not None]
    with multiprocessing.get_context("spawn").Pool(min(n_jobs, len(given)), begin_worker) as pool:
        return pd.concat(pool.starmap(measure_rescaled, given, chunksize=1), ignore_index=True)
