"""Loops, black dots and cavities told apart on simulated fields: trained on some, judged on others.

The threshold is chosen on fields of a third set. Simulated fields are easier than real ones: this shows that the way
from labels of several classes to figures of each holds, not how well it does on a micrograph.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from fecral_data import RESULTS
from provenance import provenance

from defectpipe.detection.training import CascadeRecipe
from defectpipe.io.tables import read_parquet, write_json
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.training import ScreenerTraining
from defectpipe.settings import Settings
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics import evaluate
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training import TrainingImage, TrainingRecipe
from defectpipe.training.figures import HeldOut
from defectpipe.training.part import CANDIDATES, LOOPS, train_part
from defectpipe.training.threshold import balanced_threshold
from defectpipe.training.workspace import PartJob, store_images

PRESET = "mixed"
SEED = 1
TRAIN, CHOOSE, TEST = 0, 1, 2
RECIPE = TrainingRecipe(
    polarity="dark",
    max_candidates_per_megapixel=400,
    focus_model="none",
    classes={
        "loop": {"diameter": "major_axis", "contour": "rim", "labels": ["open"]},
        "black_dot": {"diameter": "equivalent", "contour": "edge"},
        "cavity": {"diameter": "equivalent", "contour": "edge"},
    },
    cascade=CascadeRecipe(n_stages=7, max_stumps=40, n_positives=3000, n_negatives=3000, copies=6),
    screener=ScreenerRecipe(crop_px=32, widths=(16, 32, 48), hidden=48),
    screener_training=ScreenerTraining(n_steps=500, batch_size=64),
)


def field(index: int) -> TrainingImage:
    """One simulated field with its labels, a group of its own."""
    made = simulate_field(PRESETS[PRESET], SEED, index)
    return TrainingImage(made.micrograph, made.labels, made.micrograph.image)


def train(images: list[TrainingImage], parts: list[int], folder: Path) -> HeldOut:
    """Train on the first part; what the model finds in the others."""
    triples = [
        (i.micrograph, i.labels[BOX_COLUMNS].to_numpy(float), int(part != TRAIN))
        for i, part in zip(images, parts, strict=True)
    ]
    stored = store_images(folder, triples, [RECIPE.defect_classes.numbers(i.labels) for i in images])
    place = train_part(PartJob(folder / "part", stored, 1, images[0].micrograph.pixel_size_nm, RECIPE, SEED))
    rest = {i.micrograph.image: (i, part) for i, part in zip(images, parts, strict=True) if part != TRAIN}
    return HeldOut(
        {name: i.micrograph.shape for name, (i, _) in rest.items()},
        {name: i.labels for name, (i, _) in rest.items()},
        {name: i.group for name, (i, _) in rest.items()},
        {name: part for name, (_, part) in rest.items()},
        read_parquet(place / LOOPS),
        read_parquet(place / CANDIDATES),
        RECIPE.box_convention,
        classes=RECIPE.defect_classes,
    )


def judge(found: HeldOut) -> dict[str, Any]:
    """Agreement on the test fields, with the threshold of the fields that it is chosen on."""
    threshold = balanced_threshold(found, [CHOOSE])
    names = [name for name, part in found.folds.items() if part == TEST]
    loops = found.loops[found.loops["image"].isin(names)]
    images = pd.DataFrame(
        [
            {"image": name, "frame": 0, "status": "ok", "height_px": height, "width_px": width}
            for name, (height, width) in found.shapes.items()
            if name in names
        ]
    )
    agreement = evaluate(
        images,
        loops[loops["screening_score"] >= threshold],
        {"truth": {name: found.labels[name] for name in names}},
        box_convention=found.box_convention,
        settings=Settings(),
        classes=found.classes,
    )
    return {"threshold": threshold, "all_classes": agreement["iou_0.4"], "classes": agreement["classes"]}


def main() -> None:
    """Train, judge, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=20)
    parser.add_argument("--n-choose", type=int, default=5)
    parser.add_argument("--n-test", type=int, default=12)
    given = parser.parse_args()
    parts = [TRAIN] * given.n_train + [CHOOSE] * given.n_choose + [TEST] * given.n_test
    images = [field(index) for index in range(len(parts))]
    with tempfile.TemporaryDirectory() as folder:
        found = judge(train(images, parts, Path(folder)))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = provenance("make bench-classes", "tensorflow", threads="one thread") | {
        "preset": PRESET,
        "seed": SEED,
        "n_images": {"training": given.n_train, "threshold": given.n_choose, "test": given.n_test},
        **found,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }
    write_json(result, RESULTS / "classes.json")
    for name, of in found["classes"]["by_class"].items():
        scores = ", ".join(f"{score} {of[score]:.3f}" for score in ("recall", "precision", "f1"))
        print(f"{name:10s} {of['n_labels']:4d} labels, {scores}, diameter {of['median_absolute_relative_error']:.3f}")
    print(found["classes"]["confusion"], "class accuracy", found["classes"]["class_accuracy"])


if __name__ == "__main__":
    main()
