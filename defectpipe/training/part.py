"""One model of a training: cascade, candidates, screener; and what it finds in the images that it never saw."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectpipe.analysis import BOX_COLUMNS, analyse, clip, measure_loops
from defectpipe.boxes import shrink
from defectpipe.detection.scan import ScanRecipe, find_candidates, most_candidates
from defectpipe.detection.training import LabelledImage
from defectpipe.io.tables import read_parquet, write_parquet
from defectpipe.model import CARD, FILES, ONNX, WEIGHTS, LoopModel, file_sha256
from defectpipe.resolution import binning, reduce, to_working
from defectpipe.screening.samples import Samples, make_samples
from defectpipe.settings import DetectionSettings, ScreeningSettings, Settings
from defectpipe.statistics.predicted_f1 import LOWEST_SCORE
from defectpipe.training.box_scale import BoxScales
from defectpipe.training.cascades import proposing_cascades, train_cascade_of_part
from defectpipe.training.progress import PartProgress
from defectpipe.training.workspace import PartJob, StoredImage, write_card

CANDIDATES, LOOPS = "held_out_candidates.parquet", "held_out_loops.parquet"
# The smallest window side that the scan goes down to: below it a loop is blurred away.
_SMALLEST_WINDOW_PX = 12.0
# In use the scan goes down to smaller loops than the labels have: another specimen may hold them.
_SMALLER_IN_USE = 0.75


def train_part(job: PartJob) -> Path:
    """Train one model and apply it to its held-out images; steps that are done are not done again.

    Returns
    -------
    Path
        Folder with the model, and `CANDIDATES` and `LOOPS` of the held-out images.
    """
    cv2.setNumThreads(1)
    job.folder.mkdir(parents=True, exist_ok=True)
    with PartProgress(job.title) as progress:
        if not (job.folder / CARD).exists():
            images = [working_copy(image, job) for image in job.training_images]
            scan = scan_recipe(images, job)
            train_cascade_of_part(job, images, scan, progress)
            _train_screener(job, images, scan, progress)
            write_card(job.folder / CARD, part_card(job, scan))
        if job.held_out is not None and not (job.folder / LOOPS).exists():
            _apply(job, progress)
    return job.folder


def working_copy(image: StoredImage, job: PartJob) -> LabelledImage:
    """Image and boxes at the working resolution."""
    m = image.micrograph()
    factor = binning(m.shape, m.pixel_size_nm, job.working_pixel_size_nm)
    return LabelledImage(reduce(m.grey8(), factor), to_working(image.boxes, factor))


def scan_recipe(images: list[LabelledImage], job: PartJob) -> ScanRecipe:
    """Scan over the sizes that the labels have; a cascade that is kept keeps its way of scanning."""
    kept = None if job.recipe.train_cascade or job.start is None else job.start.load()
    default = ScanRecipe() if kept is None else kept.scan
    sides = np.concatenate([(image.boxes[:, 2:] - image.boxes[:, :2]).max(1, initial=0) for image in images])
    if not len(sides):
        return default
    small, large = np.percentile(sides, [4, 99.7]) * default.context
    smallest = float(np.clip(round(small), _SMALLEST_WINDOW_PX, 2 * job.recipe.cascade.window_px))
    return dataclasses.replace(default, min_side_px=smallest, max_side_px=float(max(round(1.1 * large), 2 * smallest)))


def part_card(job: PartJob, scan: ScanRecipe) -> dict[str, Any]:
    """What the analysis needs to use a model that was trained with `scan`."""
    recipe = job.recipe
    smallest = max(_SMALLEST_WINDOW_PX, _SMALLER_IN_USE * scan.min_side_px)
    return {
        "name": job.folder.name,
        "classes": recipe.defect_classes.to_card(),
        "box_convention": recipe.box_convention,
        "working_pixel_size_nm": job.working_pixel_size_nm,
        "polarity": recipe.polarity,
        "box_spread": recipe.box_spread,
        **BoxScales().card(),
        "threshold": 0.5,
        "max_candidates_per_megapixel": recipe.max_candidates_per_megapixel,
        "scan": dataclasses.asdict(dataclasses.replace(scan, min_side_px=smallest)),
        "screener": dataclasses.asdict(recipe.screener),
        "screening": dataclasses.asdict(recipe.screening),
        "sha256": {name: file_sha256(job.folder / name) for name in FILES},
    }


def _train_screener(job: PartJob, images: list[LabelledImage], scan: ScanRecipe, progress: PartProgress) -> None:
    if all((job.folder / name).exists() for name in (WEIGHTS, ONNX)):
        return
    from defectpipe.networks.export import export_onnx, save_weights
    from defectpipe.networks.training import use_threads
    from defectpipe.screening.training import train_screener

    use_threads(1)
    recipe, rng = job.recipe, np.random.default_rng(job.seed)
    cascades = proposing_cascades(job, images, scan, progress)
    samples: list[Samples] = []
    progress.begin("candidates", len(images))
    for stored, image, cascade in zip(job.training_images, images, cascades, strict=True):
        limit = most_candidates(image.pixels.shape, recipe.max_candidates_per_megapixel)
        boxes, _ = find_candidates(image.pixels, cascade, scan, limit)
        samples.append(
            make_samples(
                image.pixels,
                boxes,
                image.boxes,
                recipe.screener.crop_px,
                recipe.screener.context,
                recipe.screener_training.negatives_per_image,
                rng,
                stored.classes,
            )
        )
        progress.step()
    progress.begin("screener", recipe.screener_training.n_steps)
    n_classes = recipe.defect_classes.n_logits
    network = train_screener(
        Samples.joined(samples),
        recipe.screener,
        recipe.screener_training,
        job.seed,
        progress.loss,
        n_classes,
        None if job.start is None else job.start.weights(recipe),
    )
    save_weights(network, job.folder / WEIGHTS)
    export_onnx(network, job.folder / ONNX)


def measure_rescaled(job: PartJob, scales: BoxScales) -> pd.DataFrame:
    """The loops of the held-out images with the sides of their boxes multiplied by `scales.box`, measured anew.

    Boxes at the border were cut before: they grow inwards too, which matters little, for such loops do not count.
    """
    model, settings = LoopModel.load(job.folder), Settings()
    model = dataclasses.replace(model, card=model.card | scales.card())
    loops = read_parquet(job.folder / LOOPS)
    tables = []
    for image in job.held_out_images:
        rows = loops[loops["image"] == image.image].reset_index(drop=True)
        m = image.micrograph()
        boxes = clip(shrink(rows[BOX_COLUMNS].to_numpy(float), 1 / scales.box), m.shape)
        rows = rows.assign(kept=True, **dict(zip(BOX_COLUMNS, boxes.T, strict=True)))
        tables.append(measure_loops(m, rows, model, settings))
    return pd.concat(tables, ignore_index=True).assign(fold=job.held_out)


def _apply(job: PartJob, progress: PartProgress) -> None:
    """Run the chain over the held-out images, down to the lowest score."""
    model = LoopModel.load(job.folder)
    settings = Settings(
        detection=DetectionSettings(job.recipe.max_candidates_per_megapixel),
        screening=ScreeningSettings(LOWEST_SCORE),
    )
    candidates, loops = [], []
    progress.begin("held-out images", len(job.held_out_images))
    for image in job.held_out_images:
        m = image.micrograph()
        found, measured = analyse(m, model, settings)
        loops.append(measured)
        numbers = found[[*BOX_COLUMNS, "detection_score"]].astype("float32")
        candidates.append(numbers.assign(image=m.image, fold=job.held_out))
        progress.step()
    write_parquet(pd.concat(candidates, ignore_index=True), job.folder / CANDIDATES)
    write_parquet(pd.concat(loops, ignore_index=True).assign(fold=job.held_out), job.folder / LOOPS)
