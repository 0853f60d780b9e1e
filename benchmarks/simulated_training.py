"""What simulated loops are worth: models trained on simulated images only, on real only, on both; scored on real ones.

Two folds of families are held out (0 and 1). The budget is a number of steps of the screener, the same for all three,
and its CPU minutes stand in the results. With ``--cascade`` each mix also trains its own cascade (four minutes each);
otherwise all take that of the real images of the same fold, which is trained first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pandas as pd
from fecral_data import NAME, RESULTS, training_images
from provenance import provenance

from defectpipe.boxes import convert
from defectpipe.io.tables import read_parquet, write_json
from defectpipe.model import CASCADE
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.figures import HeldOut, held_out_figures
from defectpipe.training.part import CANDIDATES, LOOPS, train_part
from defectpipe.training.recipe import TrainingRecipe
from defectpipe.training.workspace import PartJob, StoredImage, store_images

FOLDS = (0, 1)
MIXES = ("real", "simulated", "both")
SEED = 20
_NEVER_HELD_OUT = -1


def simulated_images(n: int, convention: str) -> list[tuple]:
    """Fields of the preset `fecral` with their visible loops, as the training stores images."""
    fields = [simulate_field(PRESETS["fecral"], SEED, index) for index in range(n)]
    return [
        (f.micrograph, convert(f.labels[BOX_COLUMNS].to_numpy(float), "tight", convention), _NEVER_HELD_OUT)
        for f in fields
    ]


def jobs_of(mix: str, work: Path, real: list, simulated: list, recipe: TrainingRecipe) -> list[PartJob]:
    """One job a held-out fold; the images of the fold are in it, to be judged, whatever the mix."""
    size = json.loads(Path(__file__).parents[1].joinpath("models", NAME, "card.json").read_text())[
        "working_pixel_size_nm"
    ]
    made = []
    for fold in FOLDS:
        held_out = [image for image in real if image.fold == fold]
        seen = [image for image in real if image.fold != fold] if mix != "simulated" else []
        images: list[StoredImage] = [*held_out, *seen, *(simulated if mix != "real" else [])]
        made.append(PartJob(work / f"{mix}-{fold}", tuple(images), fold, size, recipe, SEED))
    return made


def timed_part(job: PartJob) -> float | None:
    """Train and apply; CPU seconds, of this process alone. None: it was done in an earlier run."""
    if (job.folder / LOOPS).exists():
        return None
    start = time.process_time()
    train_part(job)
    return time.process_time() - start


def main() -> None:
    """Train the models, score them, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800, help="of the screener's training")
    parser.add_argument("--n-simulated", type=int, default=120)
    parser.add_argument("--cascade", action="store_true", help="each mix trains its own cascade")
    parser.add_argument("--work-dir", type=Path, default=Path("work") / "simulated-training")
    given = parser.parse_args()
    recipe = TrainingRecipe.read(Path(__file__).with_name("fecral-recipe.json"))
    recipe = dataclasses.replace(
        recipe, screener_training=dataclasses.replace(recipe.screener_training, n_steps=given.steps)
    )
    images = training_images()
    triples = [
        (
            i.micrograph,
            convert(i.labels[BOX_COLUMNS].to_numpy(float), "tight", recipe.box_convention),
            i.fold,
        )
        for i in images
    ]
    real = store_images(given.work_dir / "real", triples)
    simulated = store_images(given.work_dir / "simulated", simulated_images(given.n_simulated, recipe.box_convention))
    jobs = {mix: jobs_of(mix, given.work_dir, real, simulated, recipe) for mix in MIXES}
    n_jobs = min(len(FOLDS), len(os.sched_getaffinity(0)))
    seconds: dict[str, list[float | None]] = {}
    with multiprocessing.get_context("spawn").Pool(n_jobs, maxtasksperchild=1) as pool:
        for mix in MIXES:
            for job, reference in zip(jobs[mix], jobs["real"], strict=True):
                if mix != "real" and not given.cascade and not (job.folder / CASCADE).exists():
                    job.folder.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(reference.folder / CASCADE, job.folder / CASCADE)
            seconds[mix] = pool.map(timed_part, jobs[mix], chunksize=1)
    judged = [i for i in images if i.fold in FOLDS]
    rows = {}
    for mix in MIXES:
        loops, candidates = (
            pd.concat([read_parquet(job.folder / table) for job in jobs[mix]], ignore_index=True)
            for table in (LOOPS, CANDIDATES)
        )
        names = [i.micrograph.image for i in judged]
        figures = held_out_figures(
            HeldOut(
                {i.micrograph.image: i.micrograph.shape for i in judged},
                dict(zip(names, (i.labels for i in judged), strict=True)),
                dict(zip(names, (i.group for i in judged), strict=True)),
                dict(zip(names, (int(i.fold or 0) for i in judged), strict=True)),
                loops,
                candidates,
                recipe.box_convention,
            )
        )
        rows[mix] = {
            "n_real": [sum(i.fold >= 0 for i in job.training_images) for job in jobs[mix]],
            "n_simulated": len(simulated) if mix != "real" else 0,
            "cpu_minutes": [None if s is None else round(s / 60, 1) for s in seconds[mix]],
            "f1_iou_0.4": figures["chain"]["iou_0.4"]["f1"],
            "f1_ci": [figures["chain"]["iou_0.4"].get(f"f1_ci_{end}") for end in ("low", "high")],
            "recall_20px": figures["chain"]["li2018"]["recall"],
            "precision_20px": figures["chain"]["li2018"]["precision"],
            "long_side_median_error": figures["long_side"]["measured_median_absolute_relative_error"],
            "cascade_recall_20px_at_140": figures["cascade"][0]["recall_20px"],
        }
        print(mix, rows[mix])
    settings = {"steps": given.steps, "own_cascade": given.cascade, "held_out_folds": list(FOLDS), "seed": SEED}
    said = provenance("make bench-simulated-training", "tensorflow", "keras", threads="one thread each training")
    write_json(said | {"settings": settings, "mixes": rows}, RESULTS / "simulated-training.json")


if __name__ == "__main__":
    main()
