"""How many images to label: screeners from scratch and from simulation, on 5, 20, 80 and all images; and 316L.

Every screener is of one architecture and gets one budget of CPU time, as a number of steps that is measured once. On
the FeCrAl set two folds of families are held out; the images to learn from are drawn evenly over the other families,
the smaller sets are parts of the larger ones. The candidates are in every case those of models/fecral-loops' folds,
each image's by a cascade that never saw its family: the screener's start is all that differs. The rate of learning from
a start is chosen on fold 1, which is not reported.

The 316L set: each two images judged by screeners from scratch and from models/fecral-loops, on candidates of that
model's cascade, and on those of models/316l-loops' folds (each image's by a cascade that never saw it); beside them
what models/316l-loops says of its own, longer training. What is done is kept in ``--work-dir``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from fecral_data import MODELS, NAME, RESULTS, data_folder, training_images
from few_labels import GRID, Bench, Field, candidate_counts, counts_of
from provenance import provenance
from simulated_training import simulated_images

from defectpipe.boxes import convert
from defectpipe.detection.opencv_xml import cascade_to_xml, read_cascade
from defectpipe.detection.training import LabelledImage, train_cascade
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import read_parquet, write_json
from defectpipe.model import CASCADE, WEIGHTS, LoopModel
from defectpipe.networks.training import use_threads
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.screener import ScreeningRecipe
from defectpipe.screening.start import StartWeights
from defectpipe.screening.training import ScreenerTraining
from defectpipe.settings import Settings
from defectpipe.statistics.distributions import grouped_interval, interval_name, sum_by_group
from defectpipe.statistics.scoring import BOX_COLUMNS, f1_of
from defectpipe.training import TrainingImage, TrainingRecipe
from defectpipe.training.degraded import choose_images
from defectpipe.training.part import scan_recipe
from defectpipe.training.workspace import PartJob, StoredImage
from tasks.training_set import find_training_folder, read_training_images

FOLDS, CHOOSING_FOLD = (0, 3), 1
SIZES = (5, 20, 80, None)
STARTS = ("scratch", "simulation")
CHOSEN_WITH = 20
N_SIMULATED, N_SIMULATED_SCREENED, SIMULATION_STEPS = 120, 60, 1500
SEED, SIMULATION_SEED = 0, 20
SCRATCH_RATE, WARM_RATES = 1.7e-3, (5e-4, 1e-3)
CASCADE_RECIPE = dataclasses.replace(
    TrainingRecipe().cascade, n_stages=9, max_stumps=60, n_positives=4000, n_negatives=4000
)
# A quarter of the default's work, so that a minute is worth something.
SEEN = ScreenerRecipe(crop_px=32, widths=(24, 48, 64), hidden=48)
FIXED = 0.5
SHIPPED_316L = MODELS / "316l-loops" / "held-out"


def drawn(images: Sequence[TrainingImage], n: int | None) -> list[TrainingImage]:
    """`n` labelled images, one of each family in turn; of a smaller `n` the first of them. None: all."""
    if n is None:
        return list(images)
    of_name = {i.micrograph.image: i for i in images}
    groups = {name: i.group for name, i in of_name.items()}
    known = [StoredImage(Path(), name, None, 0, i.labels[BOX_COLUMNS].to_numpy()) for name, i in of_name.items()]
    return [of_name[one.image] for one in choose_images(known, groups, n, SEED)]


def simulation(bench: Bench) -> StartWeights:
    """A screener that has seen nothing but simulated fields, on candidates of a cascade that has not either."""
    place = bench.work / "simulation"
    if not (place / "training.json").exists():
        n = N_SIMULATED_SCREENED if (place / CASCADE).exists() else N_SIMULATED
        fields = [
            TrainingImage(dataclasses.replace(m, image=f"simulated-{k}"), _table(boxes), str(k), 0)
            for k, (m, boxes, _) in enumerate(simulated_images(n, "tight"))
        ]
        if not (place / CASCADE).exists():
            labelled = [LabelledImage(f.grey, f.boxes) for f in (bench.plain(i) for i in fields)]
            scan = scan_recipe(labelled, PartJob(place, (), None, bench.working_nm, TrainingRecipe(), SIMULATION_SEED))
            cascade, _ = train_cascade(labelled, CASCADE_RECIPE, scan, SIMULATION_SEED)
            write_atomic(place / CASCADE, cascade_to_xml(cascade, hit_rate=0.996, false_alarm_rate=0.4).encode())
        cascade = read_cascade(place / CASCADE)
        seen = [bench.field(i, cascade, "candidates-simulated") for i in fields[:N_SIMULATED_SCREENED]]
        training = bench.training(SIMULATION_STEPS, SCRATCH_RATE, warm=False)
        bench.screener("simulation", bench.samples(seen), training, None)
    return StartWeights((place / WEIGHTS).read_bytes(), "the simulation's screener")


def _table(boxes: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(boxes, columns=BOX_COLUMNS)


def fecral_curves(bench: Bench, judged_per_fold: int, sizes: Sequence[int | None]) -> dict[str, Any]:
    """Every size and start, on the held-out folds; the rate for the start from simulation chosen before, on another."""
    images = training_images()
    start = simulation(bench)
    candidates = by_image(read_parquet(MODELS / NAME / "held-out" / "candidates.parquet"))
    cache: dict[str, Field] = {}

    def fields(wanted: Sequence[TrainingImage]) -> list[Field]:
        for i in wanted:
            if i.micrograph.image not in cache:
                cache[i.micrograph.image] = bench.field_with(i, candidates[i.micrograph.image])
        return [cache[i.micrograph.image] for i in wanted]

    def learn_from(without: Sequence[int], n: int | None) -> list[Field]:
        return fields(drawn([i for i in images if i.fold not in without], n))

    def judged(fold: int) -> list[Field]:
        return fields(drawn([i for i in images if i.fold == fold], judged_per_fold))

    rates = {}
    samples = bench.samples(learn_from((*FOLDS, CHOOSING_FOLD), CHOSEN_WITH))
    n_steps = bench.n_steps(samples)
    for rate in WARM_RATES:
        place = bench.screener(f"rate-{rate}", samples, bench.training(n_steps, rate, warm=True), start)
        rates[rate] = best_f1(bench.counts(place, judged(CHOOSING_FOLD)))
        print("rate", rate, rates[rate], flush=True)
    best = max(rates, key=lambda rate: rates[rate][0])
    rows: list[dict[str, Any]] = []
    for n in sizes:
        of_fold = {fold: (learn_from((fold,), n), judged(fold)) for fold in FOLDS}
        for name in STARTS:
            counts, spent, own = {}, [], {}
            for fold, (seen, held_out) in of_fold.items():
                warm = name != "scratch"
                training = bench.training(n_steps, best if warm else SCRATCH_RATE, warm)
                folder = bench.work / f"{name}-{n or 'all'}-{fold}"
                samples = None if (folder / "training.json").exists() else bench.samples(seen)
                place = bench.screener(folder.name, samples, training, start if warm else None)
                counts[fold] = bench.counts(place, held_out)
                spent.append(bench.seconds(place))
                if n == SIZES[0]:
                    own[fold] = own_threshold(bench, folder.name, seen, training, start if warm else None)
            groups = [f.group for fold in FOLDS for f in of_fold[fold][1]]
            row = {
                "n_images": [len(seen) for seen, _ in of_fold.values()],
                "n_labels": [sum(len(f.labels) for f in seen) for seen, _ in of_fold.values()],
                "start": name,
                "cpu_minutes": [round(s / 60, 2) for s in spent],
                **figures(counts, groups, own),
            }
            rows.append(row)
            print(row, flush=True)
    untrained = {
        fold: bench.counts(bench.work / "simulation", judged(fold), kept=f"counts-{fold}.npy") for fold in FOLDS
    }
    groups = [f.group for fold in FOLDS for f in judged(fold)]
    return {
        "held_out_folds": list(FOLDS),
        "n_judged": [len(judged(fold)) for fold in FOLDS],
        "interval": interval_name(len(set(groups)), "group"),
        "screener": dataclasses.asdict(SEEN),
        "simulation": json.loads((bench.work / "simulation" / "training.json").read_text(encoding="utf-8")),
        "simulation_alone": figures(untrained, groups),
        "rate_chosen_on_fold": CHOOSING_FOLD,
        "rates": {str(rate): round(f1, 4) for rate, (f1, _) in rates.items()},
        "rate": best,
        "cascade_recall": candidate_recall([f for fold in FOLDS for f in judged(fold)], bench.convention),
        "rows": rows,
    }


def own_threshold(
    bench: Bench, name: str, seen: Sequence[Field], training: ScreenerTraining, start: StartWeights | None
) -> int:
    """Place in `GRID` of the threshold that the images to learn from choose: each half judged by the other."""
    counts = []
    for k in range(2):
        place = bench.screener(f"{name}-inner-{k}", bench.samples(seen[k::2]), training, start)
        counts.append(bench.counts(place, seen[1 - k :: 2]))
    return balanced(np.concatenate(counts))


def balanced(counts: np.ndarray) -> int:
    """Place in `GRID` of the threshold at which as many loops are found as there are labels."""
    sums = counts.sum(0)
    return int(np.abs(sums[:, 2] - sums[:, 0]).argmin())


def figures(
    counts: Mapping[int, np.ndarray], groups: Sequence[str], own: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """F1 pooled over the folds: at the threshold that the other folds choose, at 0.5, and at the best one.

    And, where the images to learn from have chosen one, at that.
    """
    at_half, chosen, thresholds = [], [], []
    for fold, of_images in counts.items():
        k = balanced(np.concatenate([c for other, c in counts.items() if other != fold]))
        thresholds.append(float(GRID[k]))
        chosen.append(of_images[:, k])
        at_half.append(of_images[:, int(np.abs(GRID - FIXED).argmin())])
    best, threshold = best_f1(np.concatenate(list(counts.values())))
    by_own = {}
    if own:
        at_own = np.concatenate([of_images[:, own[fold]] for fold, of_images in counts.items()])
        by_own = _pooled("f1_at_own_threshold", at_own, groups)
        by_own["own_thresholds"] = [float(GRID[k]) for k in own.values()]
    return by_own | {
        **_pooled("f1_at_0.5", np.concatenate(at_half), groups),
        **_pooled("f1", np.concatenate(chosen), groups),
        "thresholds": thresholds,
        "f1_at_best_threshold": best,
        "best_threshold": threshold,
    }


def _pooled(name: str, counts: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    sums = sum_by_group(counts, groups)
    low, high = grouped_interval(sums, f1_of, Settings().statistics, (0, 1))
    interval = None if low is None or high is None else [round(low, 4), round(high, 4)]
    return {name: round(float(f1_of(sums.sum(0))), 4), f"{name}_interval": interval}


def best_f1(counts: np.ndarray) -> tuple[float, float]:
    """Highest pooled F1 over all thresholds, and the threshold: what no choice could beat."""
    f1 = np.nan_to_num(f1_of(counts.sum(0)))
    return round(float(f1.max()), 4), float(GRID[int(f1.argmax())])


def candidate_recall(fields: Sequence[Field], convention: str) -> dict[str, float]:
    """Share of the labels that a candidate overlaps with IoU 0.4, and the candidates an image."""
    n_labels, n_found, n_candidates, _ = np.sum([candidate_counts(f, convention) for f in fields], axis=0)
    return {
        "recall_iou_0.4": round(float(n_found / max(n_labels, 1)), 4),
        "candidates_an_image": round(float(n_candidates / len(fields)), 1),
    }


def images_316l() -> list[TrainingImage]:
    """The ten images with the folds of their training."""
    folder = data_folder().parent / "316l-loops"
    if not folder.is_dir():
        sys.exit(f"The 316L set is not in {folder}.")
    groups = Path(__file__).with_name("316l-groups.csv")
    found = find_training_folder(str(folder), str(folder / "labels.coco.json"), str(groups))
    return read_training_images(found, None, Settings())


def by_image(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Candidates that a training kept: the boxes of each image, best first."""
    table = table.sort_values(["image", "detection_score"], ascending=[True, False], kind="stable")
    return {str(image): part[BOX_COLUMNS].to_numpy(float) for image, part in table.groupby("image")}


def curves_316l(bench: Bench, rate: float) -> dict[str, Any]:
    """Leave two images out, by cascade and start, beside the shipped model's own folds; all on tight boxes."""
    model, images = LoopModel.load(MODELS / NAME), images_316l()
    start = StartWeights(model.files.content(WEIGHTS), str(model.path / WEIGHTS))
    own = by_image(read_parquet(SHIPPED_316L / "candidates.parquet"))
    candidates = {
        NAME: [bench.field(i, model.cascade, "candidates-316l") for i in images],
        # Its cascade learned from tight boxes.
        "316l-loops": [
            bench.field_with(i, convert(own[i.micrograph.image], "tight", bench.convention)) for i in images
        ],
    }
    n_steps = bench.n_steps(bench.samples(candidates[NAME]))
    rows = []
    for cascade, fields in candidates.items():
        for name in ("scratch", NAME):
            trained, seconds = _trained_316l(bench, f"316l-{cascade}-{name}", fields, n_steps, rate, start)
            rows.append(
                {
                    "cascade": cascade,
                    "start": name,
                    "cpu_minutes": [round(s / 60, 2) for s in seconds],
                    **figures(trained, _groups(fields)),
                    "candidates": candidate_recall(fields, bench.convention),
                }
            )
            print(rows[-1], flush=True)
    loops = {str(image): part for image, part in read_parquet(SHIPPED_316L / "loops.parquet").groupby("image")}
    shipped: dict[int, list[np.ndarray]] = {}
    for f in sorted(fields, key=lambda f: f.fold):
        found = loops[f.image][[*BOX_COLUMNS, "screening_score"]].to_numpy(float)
        shipped.setdefault(f.fold, []).append(counts_of(found[:, :4], found[:, 4], f.labels, f.shape, "tight"))
    return {
        "interval": interval_name(len(images), "image"),
        "n_steps": n_steps,
        "rows": rows,
        "as_shipped": figures({fold: np.stack(of_images) for fold, of_images in shipped.items()}, _groups(fields)),
    }


def _trained_316l(
    bench: Bench, name: str, fields: Sequence[Field], n_steps: int, rate: float, start: StartWeights
) -> tuple[dict[int, np.ndarray], list[float]]:
    """Counts of each fold by a screener that never saw it, and what each training took."""
    warm = not name.endswith("scratch")
    counts, seconds = {}, []
    for fold in sorted({f.fold for f in fields}):
        samples = bench.samples([f for f in fields if f.fold != fold])
        training = bench.training(n_steps, rate if warm else SCRATCH_RATE, warm)
        place = bench.screener(f"{name}-{fold}", samples, training, start if warm else None)
        seconds.append(bench.seconds(place))
        counts[fold] = bench.counts(place, [f for f in fields if f.fold == fold], tight=True)
    return counts, seconds


def _groups(fields: Sequence[Field]) -> list[str]:
    """Groups of the images, fold by fold."""
    return [f.group for f in sorted(fields, key=lambda f: f.fold)]


def main() -> None:
    """Train what is not there yet, judge, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-minutes", type=float, default=2.0, help="of each screener's training steps")
    parser.add_argument("--judged", type=int, default=16, help="held-out images of each fold, evenly over its families")
    parser.add_argument("--sizes", type=int, nargs="+", default=[n or 0 for n in SIZES], help="images; 0: all")
    parser.add_argument("--work-dir", type=Path, default=Path("work") / "learning-curves")
    parser.add_argument("--only-316l", action="store_true", help="keep the other figures that are there")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    use_threads(1)
    place = RESULTS / "learning-curves.json"
    if given.only_316l:
        result = json.loads(place.read_text(encoding="utf-8"))
    else:
        result = fecral_result(given.work_dir, given.cpu_minutes, given.judged, [n or None for n in given.sizes])
        write_json(result, place)
    # Small blobs, close to each other: as in its own recipe.
    small = Bench(given.work_dir, given.cpu_minutes, ScreenerRecipe(), 20.0, 1000, ScreeningRecipe(max_overlap=0.2))
    stamp = provenance("", "tensorflow", "keras", threads="one thread")
    command = f'make bench-learning ARGS="--cpu-minutes {given.cpu_minutes:g} --only-316l"'
    of_316l = stamp | {"command": command} | curves_316l(small, result["fecral"]["rate"])
    print(of_316l["as_shipped"])
    write_json(result | {"316l": of_316l}, place)


def fecral_result(work: Path, cpu_minutes: float, judged: int, sizes: Sequence[int | None]) -> dict[str, Any]:
    """The figures of the FeCrAl set, with how they were made."""
    bench = Bench(work, cpu_minutes, SEEN)
    fecral = fecral_curves(bench, judged, sizes)
    return provenance("", "tensorflow", "keras", threads="one thread") | {
        # What changes the figures: not where the work is kept.
        "command": f'make bench-learning ARGS="--cpu-minutes {cpu_minutes:g} --judged {judged}"',
        "data": "fecral-loops (242 images), 316l-loops (10 images), simulated fields of preset fecral",
        "seed": SEED,
        "budget": {"cpu_minutes": cpu_minutes, "n_steps": bench.known_steps(), "batch": bench.batch},
        "fecral": fecral,
    }


if __name__ == "__main__":
    main()
