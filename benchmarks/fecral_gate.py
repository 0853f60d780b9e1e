"""The focus gate of models/fecral-loops: its folds' models on defocused held-out images.

    python benchmarks/fecral_gate.py PARTS [--per-fold N] [--table FILE] [--card models/fecral-loops]

PARTS is the folder of a training with fold-0 … fold-4 (cascade, screener, card, held-out tables each). `TrainModel`
measures the gate by itself; this is for parts that are there already. --card writes gate and table into that model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from fecral_data import training_images

from defectpipe.boxes import convert
from defectpipe.io.tables import write_parquet
from defectpipe.model import CARD
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.box_scale import choose_box_scales
from defectpipe.training.degraded import IMAGES_PER_FOLD
from defectpipe.training.figures import choose_thresholds
from defectpipe.training.focus_gate import measure_focus_gate
from defectpipe.training.loop_model import HELD_OUT_FOLDER, collect_held_out
from defectpipe.training.part import measure_rescaled
from defectpipe.training.recipe import TrainingRecipe
from defectpipe.training.workspace import PartJob, store_images, write_card


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--per-fold", type=int, default=IMAGES_PER_FOLD)
    parser.add_argument("--folds", type=int, nargs="*", help="only these, for a first look")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--card", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    recipe = TrainingRecipe.read(Path(__file__).parent / "fecral-recipe.json")
    images = training_images()
    if arguments.folds:
        images = [image for image in images if image.fold in arguments.folds]
    folds = [int(image.fold or 0) for image in images]
    boxes = [convert(i.labels[BOX_COLUMNS].to_numpy(float), "tight", recipe.box_convention) for i in images]
    stored = store_images(
        arguments.parts / f"gate-{len(images)}",
        [(i.micrograph, b, f) for i, b, f in zip(images, boxes, folds, strict=True)],
    )
    sizes = [i.micrograph.pixel_size_nm for i in images if i.micrograph.pixel_size_nm is not None]
    working = recipe.working_pixel_size_nm or float(np.median(sizes))
    jobs = [PartJob(arguments.parts / f"fold-{fold}", stored, fold, working, recipe, 0) for fold in sorted(set(folds))]
    held_out = collect_held_out(images, folds, [job.folder for job in jobs], recipe.box_convention)
    if len(jobs) > 1:
        _, scales = choose_box_scales(held_out)
    else:
        scales = {jobs[0].held_out or 0: 1.0}
    rescaled = [measure_rescaled(job, scales[job.held_out or 0]) for job in jobs] if arguments.card else None
    if rescaled is not None:
        import pandas as pd

        held_out = dataclasses.replace(held_out, loops=pd.concat(rescaled, ignore_index=True))
    if len(jobs) > 1:
        _, thresholds = choose_thresholds(held_out)
    else:
        thresholds = {jobs[0].held_out or 0: 0.5}
    gate, degraded = measure_focus_gate(jobs, held_out, thresholds, scales, 1, arguments.per_fold)
    print(json.dumps(gate, indent=1))
    if degraded is None:
        return
    if arguments.table:
        write_parquet(degraded, arguments.table)
    if arguments.card:
        card = json.loads((arguments.card / CARD).read_text(encoding="utf-8"))
        write_parquet(degraded, arguments.card / HELD_OUT_FOLDER / "degraded.parquet")
        write_card(arguments.card / CARD, card | {"focus_gate": gate})


if __name__ == "__main__":
    main()
