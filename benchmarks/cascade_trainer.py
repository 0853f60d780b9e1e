"""Our cascade trainer beside `opencv_traincascade`: the same windows and backgrounds, one thread each, in one run.

    python benchmarks/cascade_trainer.py /path/to/opencv_traincascade [--simulated]

Positives: windows about the loops of the training images, cut by our trainer, given to the other as a ``.vec`` file.
Backgrounds: the same images with each loop overwritten by a piece of the image without one; each trainer looks through
them in its own way (ours densely on the levels of its scan, the other in steps of half a window at scales √2 apart, on
images blurred beforehand as our scan blurs them). Window, stages, rates, windows and most stumps a stage are the same.
Both cascades are then judged by our scan on images of a held-out fold. CPU time is that of the whole process, start-up
and reading included. Results: results/cascade-trainer.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from children import children_cpu_s

from defectpipe.boxes import convert, overlaps
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.opencv_xml import cascade_to_xml, read_cascade
from defectpipe.detection.scan import ScanRecipe, find_candidates, pyramid, scan_level
from defectpipe.detection.training import CascadeRecipe, LabelledImage, cut_positives, squares, train_stages

SCAN = ScanRecipe(min_side_px=24.0)
WORKING_PIXEL_SIZE_NM = 0.2832
THEIRS = "opencv_traincascade"
# Name, share of the features that each stump is chosen from (the recipe's is 0.25), seed.
OURS = (
    ("ours", 0.25, 0),
    ("ours, second seed", 0.25, 1),
    ("ours, third seed", 0.25, 2),
    ("ours, twice the features", 0.5, 0),
)
RECALLS = (0.8, 0.9, 0.95)
BUDGETS = (25, 50, 100, 200, 400)
BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]


def main() -> None:
    """Train both, judge both, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traincascade", help="the program, built as benchmarks/README.md says")
    parser.add_argument("--simulated", action="store_true", help="simulated fields instead of the FeCrAl set")
    parser.add_argument("--every", type=int, default=3, help="one of so many images")
    parser.add_argument("--positives", type=int, default=6000, help="windows about loops in each stage")
    parser.add_argument("--negatives", type=int, default=6000, help="windows without a loop in each stage")
    parser.add_argument("--stages", type=int, default=10)
    given = parser.parse_args()
    # Here, not above: our training's process begins with this file, and needs none of it.
    from fecral_data import RESULTS
    from provenance import provenance

    from defectpipe.io.tables import write_json

    cv2.setNumThreads(1)
    recipe = CascadeRecipe(
        n_stages=given.stages,
        n_positives=given.positives,
        n_negatives=given.negatives,
        copies=6,
        negatives_per_image=300,
    )
    learned, held_out = simulated_images() if given.simulated else fecral_images(given.every)
    rng = np.random.default_rng(0)
    positives = np.concatenate([cut_positives(image, recipe, SCAN, rng) for image in learned])
    positives = positives[rng.permutation(len(positives))]
    recipe = dataclasses.replace(recipe, n_positives=min(recipe.n_positives, int(0.9 * len(positives))))
    backgrounds = [without_loops(image, rng) for image in learned]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_samples(folder, positives, backgrounds)
        warm_up = dataclasses.replace(recipe, n_stages=2, n_positives=200, n_negatives=200, max_stumps=2)
        train_ours(folder, positives[:400], backgrounds[:4], warm_up, 0.25, 0)
        seconds, cascades = {}, {}
        for name, share, seed in OURS[:2]:
            seconds[name] = train_ours(folder, positives, backgrounds, recipe, share, seed)
            cascades[name] = read_cascade(folder / "ours.xml")
        seconds[THEIRS] = train_theirs(folder, given.traincascade, recipe)
        cascades[THEIRS] = read_cascade(folder / "theirs" / "cascade.xml")
        for name, share, seed in OURS[2:]:
            seconds[name] = train_ours(folder, positives, backgrounds, recipe, share, seed)
            cascades[name] = read_cascade(folder / "ours.xml")
    windows = np.concatenate([cut_positives(image, recipe, SCAN, rng) for image in held_out])
    empty = [without_loops(image, rng) for image in held_out]
    rows = {
        name: {"cpu_s": round(seconds[name], 2), **judged(cascade, held_out, windows, empty)}
        for name, cascade in cascades.items()
    }
    said = provenance("", threads="one thread each")
    found = said | {
        # The place of the program is this machine's.
        "command": f"python benchmarks/cascade_trainer.py TRAINCASCADE --every {given.every} --stages {given.stages} "
        f"--positives {given.positives} --negatives {given.negatives}{' --simulated' * given.simulated}",
        "versions": said["versions"] | {"opencv_traincascade": "3.4.18"},
        "data": {
            "set": "simulated, preset demo" if given.simulated else "fecral-loops: folds 1 to 4, held out fold 0",
            "n_training_images": len(learned),
            "n_positives_cut": len(positives),
            "n_held_out_images": len(held_out),
            "n_held_out_labels": sum(len(image.boxes) for image in held_out),
        },
        "recipe": dataclasses.asdict(recipe),
        "rows": rows,
        "cpu_ratio": {name: round(seconds[THEIRS] / seconds[name], 2) for name, _, _ in OURS},
    }
    write_json(found, RESULTS / ("cascade-trainer-simulated.json" if given.simulated else "cascade-trainer.json"))
    print(json.dumps(found, indent=1))


def fecral_images(every: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Some images of folds 1 to 4, and of fold 0, at the working resolution."""
    from fecral_data import training_images

    from defectpipe.resolution import binning, reduce, to_working

    learned: list[LabelledImage] = []
    held_out: list[LabelledImage] = []
    for fold, images in ((0, held_out), (1, learned)):
        for image in [i for i in training_images() if (i.fold == 0) == (fold == 0)][::every]:
            m = image.micrograph
            factor = binning(m.shape, m.pixel_size_nm, WORKING_PIXEL_SIZE_NM)
            boxes = convert(image.labels[BOX_COLUMNS].to_numpy(float), "tight", "padded")
            images.append(LabelledImage(reduce(m.grey8(), factor), to_working(boxes, factor)))
    return learned, held_out


def simulated_images() -> tuple[list[LabelledImage], list[LabelledImage]]:
    """32 simulated fields to learn from, 12 others."""
    from defectpipe.simulation.loops.fields import simulate_field
    from defectpipe.simulation.loops.presets import PRESETS

    made = [simulate_field(PRESETS["demo"], 5, i) for i in range(44)]
    images = [LabelledImage(f.micrograph.grey8(), f.labels[BOX_COLUMNS].to_numpy(float)) for f in made]
    return images[:32], images[32:]


def without_loops(image: LabelledImage, rng: np.random.Generator) -> np.ndarray:
    """The image with the window about each loop overwritten by a piece of the same size that holds none."""
    pixels = image.pixels.copy()
    height, width = pixels.shape
    windows = squares(image.boxes, SCAN)
    for box in windows:
        x0, y0 = np.floor(np.clip(box[:2], 0, None)).astype(int)
        x1, y1 = np.ceil(np.minimum(box[2:], [width, height])).astype(int)
        w, h = x1 - x0, y1 - y0
        if w < 1 or h < 1:
            continue
        tried = np.stack([rng.integers(0, width - w + 1, 300), rng.integers(0, height - h + 1, 300)], 1)
        free = overlaps(np.concatenate([tried, tried + np.array([w, h])], 1), windows).max(1) == 0
        if free.any():
            u, v = tried[free.argmax()]
            pixels[y0:y1, x0:x1] = image.pixels[v : v + h, u : u + w]
        else:
            pixels[y0:y1, x0:x1] = int(np.median(image.pixels))
    return pixels


def write_samples(folder: Path, positives: np.ndarray, backgrounds: list[np.ndarray]) -> None:
    """What the other trainer reads: the windows as ``.vec``, the backgrounds, blurred, as images with a list."""
    n, side = positives.shape[:2]
    with (folder / "positives.vec").open("wb") as file:
        file.write(np.array([n, side * side], "<i4").tobytes() + bytes(4))
        for window in positives:
            file.write(bytes(1) + window.astype("<i2").tobytes())
    for i, pixels in enumerate(backgrounds):
        blurred = cv2.GaussianBlur(pixels, (0, 0), SCAN.blur_sigma_px)
        cv2.imwrite(str(folder / f"{i:04d}.pgm"), blurred)
    names = [str(folder / f"{i:04d}.pgm") for i in range(len(backgrounds))]
    (folder / "backgrounds.txt").write_text("\n".join(names) + "\n")


def train_ours(
    folder: Path,
    positives: np.ndarray,
    backgrounds: list[np.ndarray],
    recipe: CascadeRecipe,
    feature_share: float,
    seed: int,
) -> float:
    """CPU seconds of a process of its own that trains and writes ``ours.xml``."""
    np.savez(folder / "samples.npz", positives=positives, **{f"b{i:04d}": b for i, b in enumerate(backgrounds)})
    before = children_cpu_s()
    child = multiprocessing.get_context("spawn").Process(
        target=_train_ours, args=(folder, dataclasses.replace(recipe, feature_share=feature_share), seed)
    )
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("Our training failed.")
    return children_cpu_s() - before


def _train_ours(folder: Path, recipe: CascadeRecipe, seed: int) -> None:
    cv2.setNumThreads(1)
    with np.load(folder / "samples.npz") as kept:
        images = [LabelledImage(kept[k], np.zeros((0, 4))) for k in sorted(kept.files) if k != "positives"]
        positives = kept["positives"]
    cascade, reports = train_stages(positives, images, recipe, SCAN, np.random.default_rng(seed))
    print("ours: stumps", [report.n_stumps for report in reports], f"{time.process_time():.1f} CPU s", flush=True)
    xml = cascade_to_xml(cascade, hit_rate=recipe.hit_rate, false_alarm_rate=recipe.false_alarm_rate)
    (folder / "ours.xml").write_text(xml)


def train_theirs(folder: Path, program: str, recipe: CascadeRecipe) -> float:
    """CPU seconds of `opencv_traincascade` on one thread, with the same rates and sizes."""
    (folder / "theirs").mkdir()
    arguments = {
        "data": folder / "theirs",
        "vec": folder / "positives.vec",
        "bg": folder / "backgrounds.txt",
        "numPos": recipe.n_positives,
        "numNeg": recipe.n_negatives,
        "numStages": recipe.n_stages,
        "numThreads": 1,
        "featureType": "LBP",
        "w": recipe.window_px,
        "h": recipe.window_px,
        "minHitRate": recipe.hit_rate,
        "maxFalseAlarmRate": recipe.false_alarm_rate,
        "weightTrimRate": 0.95,
        "maxDepth": 1,
        "maxWeakCount": recipe.max_stumps,
        "bt": "GAB",
    }
    before = children_cpu_s()
    line = [program, *(text for name, value in arguments.items() for text in (f"-{name}", str(value)))]
    said = subprocess.run(line, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    print(said.stdout[-1500:], flush=True)
    return children_cpu_s() - before


def judged(
    cascade: Cascade, images: list[LabelledImage], windows: np.ndarray, backgrounds: list[np.ndarray]
) -> dict[str, Any]:
    """Held-out figures: of single windows, and of candidates after suppression by their number a megapixel."""
    megapixels = sum(image.pixels.size for image in images) / 1e6
    found = [find_candidates(image.pixels, cascade, SCAN, 4 * BUDGETS[-1]) for image in images]
    passed = looked_at = 0
    for pixels in backgrounds:
        for level in pyramid(pixels, cascade.window_px, SCAN):
            passed += len(scan_level(cascade, level)[0])
            looked_at += np.prod([-(-(n - cascade.window_px + 1) // level.step) for n in level.pixels.shape])
    # The place of each candidate among those of all images; equal ones, as short cascades give many, in their order.
    scores = np.concatenate([score for _, score in found])
    places = np.empty(len(scores), int)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    ranked = np.split(places, np.cumsum([len(score) for _, score in found])[:-1])
    boxes = [of_image for of_image, _ in found]
    curve = {n: _recall(images, boxes, ranked, int(n * megapixels)) for n in range(5, int(len(scores) / megapixels), 5)}
    needed = {
        str(wanted): next((n for n, (_, overlapping) in curve.items() if overlapping >= wanted), None)
        for wanted in RECALLS
    }
    shown = {str(n): {"recall_20px": r[0], "recall_iou_0.4": r[1]} for n, r in curve.items() if n in BUDGETS}
    return {
        "stages": len(cascade.stages),
        "stumps": [len(stage.stumps) for stage in cascade.stages],
        "hit_rate_of_held_out_windows": round(float((cascade.judge(windows) == len(cascade.stages)).mean()), 4),
        "false_alarms_of_held_out_backgrounds": float(f"{passed / looked_at:.3g}"),
        "at_candidates_per_megapixel": shown,
        "candidates_per_megapixel_for_recall_iou_0.4": needed,
        "n_candidates_per_megapixel_in_all": round(len(scores) / megapixels, 1),
    }


def _recall(
    images: list[LabelledImage], boxes: list[np.ndarray], places: list[np.ndarray], n: int
) -> tuple[float, float]:
    """Shares of the labels found by the `n` best candidates of all images: by the 20 px rule, by an overlap of 0.4."""
    hits = [_hits(image, b[place < n]) for image, b, place in zip(images, boxes, places, strict=True)]
    near, overlapping = np.concatenate(hits).mean(0)
    return round(float(near), 4), round(float(overlapping), 4)


def _hits(image: LabelledImage, boxes: np.ndarray) -> np.ndarray:
    """Of each label whether a candidate's centre is within 20 px in x and y, and whether one overlaps by 0.4."""
    from defectpipe.settings import Settings
    from defectpipe.statistics.matching import near_any

    if not len(boxes):
        return np.zeros((len(image.boxes), 2), bool)
    centres, of_labels = ((b[:, :2] + b[:, 2:]) / 2 for b in (boxes, image.boxes))
    near = near_any(of_labels, centres, Settings().statistics.match_distance_px)
    return np.stack([near, overlaps(image.boxes, boxes).max(1) >= 0.4], 1)


if __name__ == "__main__":
    main()
