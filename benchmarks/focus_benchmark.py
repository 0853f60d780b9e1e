"""Tables 1 and 2 and figure 2 of Yang et al. again, on simulated images.

    python benchmarks/focus_train.py && python benchmarks/focus_benchmark.py && python benchmarks/focus_tables.py

Writes ``results/focus.json`` and docs/focus-examples.png; with ``--ship NAME`` also ``models/focus``. Every RMSE is of
centre crops of the frozen test set against the true score, unless it says expert.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import focus_figure
import focus_freeze
import focus_sets
import numpy as np
from focus_train import ENTRIES, HELD_SHARE, LARGE, SPLIT_SEED
from provenance import provenance

from defectpipe.focus.calibration import by_magnification, calibrate_bands, calibrate_measure
from defectpipe.focus.measures import MEASURES, octave_spectrum
from defectpipe.focus.scorer import FocusScorer
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_json
from defectpipe.model import file_sha256
from defectpipe.training.focus_data import FocusSamples, split_by_specimen
from defectpipe.training.focus_model import FOCUS_ONNX, FOCUS_WEIGHTS, write_focus_card

RESULTS = Path(__file__).parent / "results"
MODELS = Path(__file__).parents[1] / "models"
MAGNIFICATIONS = (500.0, 1000.0, 2000.0, 5000.0, 10000.0)
PUBLISHED = {
    "absolute_variance": (3.0467, 2.9133, 2.7270, 2.7924, 2.7741, 2.8500),
    "resnet50": (0.3791, 0.3602, 0.5837, 0.5402, 0.8749, 0.5732),
    "resnet18": (0.3056, 0.3152, 0.3152, 0.4174, 0.6729, 0.4548),
    "resnet18, old data set": (None, None, None, None, None, 0.7132),
    "resnet50, old data set": (None, None, None, None, None, 0.7407),
}
N_CALIBRATION, N_CLASSICAL = 800, 1000  # images of the measures: some take 10 ms an image
N_INVARIANCE = (60, 15)  # images of the small networks, and of the large
N_TIMED = (20, 10)


def rmse(given: np.ndarray, truth: np.ndarray) -> float | None:
    """Root mean square error, rounded; None without images."""
    return round(float(np.sqrt(np.mean((given - truth) ** 2))), 4) if len(truth) else None


def row(given: np.ndarray, test: FocusSamples) -> dict:
    """One line of table 2; the first ``len(given)`` images of the test set."""
    n = len(given)
    truth, times, kind = test.score[:n], test.magnification[:n], test.kind[:n]
    by_time = {f"{m:g}": rmse(given[times == m], truth[times == m]) for m in MAGNIFICATIONS}
    samples = {name: rmse(given[kind == name], truth[kind == name]) for name in ("tinball", "grid")}
    return {
        "rmse": by_time,
        "total": rmse(given, truth),
        "with_a_sample": rmse(given[truth > 0], truth[truth > 0]),
        "empty_frames": rmse(given[truth == 0], truth[truth == 0]),
        "by_sample": samples,
        "against_expert": rmse(given, test.expert[:n]),
        "n_test": n,
    }


def classical(train: FocusSamples, test: FocusSamples) -> dict[str, dict]:
    """Every measure, calibrated on training images, for all magnifications together and for each."""
    cached = focus_sets.CACHE / "measures.npz"
    functions = {**MEASURES, "octave_bands": octave_spectrum}
    if not cached.exists():
        values = {}
        for part, samples in (("train", train), ("test", test)):
            patches = samples.patches()
            for name, function in functions.items():
                start = time.process_time()
                values[f"{name}-{part}"] = np.array([function(patch) for patch in patches])
                values[f"{name}-{part}-ms"] = np.array(1e3 * (time.process_time() - start) / len(patches))
        np.savez(cached, **values)
    known = np.load(cached)
    rows = {}
    for name in functions:
        calibrate = calibrate_bands if name == "octave_bands" else calibrate_measure
        values, seen = known[f"{name}-train"], known[f"{name}-test"]
        each = {
            m: calibrate(values[train.magnification == m], train.score[train.magnification == m])
            for m in MAGNIFICATIONS
        }
        made = row(calibrate(values, train.score)(seen), test)
        made["calibrated_by_magnification"] = row(by_magnification(each, seen, test.magnification), test)
        rows[name] = made | {"ms_per_image": round(float(known[f"{name}-test-ms"]), 2), "n_train": len(train)}
    return rows


def milliseconds(scorer: FocusScorer, test: FocusSamples, n: int) -> float:
    """Time of the processor for one image, preparation included, one image at a time."""
    patches = test.patches()[: n + 1]
    scorer(patches[:1], test.magnification[:1])
    start = time.process_time()
    for i in range(1, n + 1):
        scorer(patches[i : i + 1], test.magnification[i : i + 1])
    return round(1e3 * (time.process_time() - start) / n, 2)


def invariance(scorer: FocusScorer, test: FocusSamples, n: int) -> dict:
    """How far the score of the first `n` images moves when brightness and contrast do."""
    few = test.take(np.arange(n))
    patches = few.patches().astype(np.float32)
    before = scorer(patches, few.magnification)
    moved = {}
    for name, changed in (
        ("contrast x 3, brightness + 1000, exact", 3 * patches + 1000),
        ("contrast x 0.7, brightness + 20, 8 bit", np.clip(np.round(0.7 * patches + 20), 0, 255)),
        ("contrast x 0.5, brightness - 10, 8 bit", np.clip(np.round(0.5 * patches - 10), 0, 255)),
        ("contrast x 1.3, brightness 0, 8 bit", np.clip(np.round(1.3 * (patches - 128) + 128), 0, 255)),
    ):
        difference = np.abs(scorer(changed, few.magnification) - before)
        seen = difference[few.score > 0]
        moved[name] = {"rms": round(float(np.sqrt(np.mean(seen**2))), 4), "largest": round(float(seen.max()), 3)}
    return moved


def ship(name: str, results: dict, n_images: int | None) -> None:
    """Copy a network's folder to ``models/focus``, its figures added to the card."""
    source, target = focus_sets.CACHE / "networks" / name, MODELS / "focus"
    for file in (FOCUS_ONNX, FOCUS_WEIGHTS):
        write_atomic(target / file, (source / file).read_bytes())
    card = json.loads((source / "card.json").read_text())
    for made in ("name", "kind", "versions", "sha256", "magnification_scale"):
        card.pop(made, None)
    made = results["rows"][name]
    kept = (
        "rmse",
        "total",
        "with_a_sample",
        "empty_frames",
        "against_expert",
        "n_test",
        "held_out_total",
        "ms_per_image",
    )
    figures = {key: made[key] for key in (*kept, "moves_with_brightness_and_contrast")}
    description = "Focus score of SEM images of tin balls and grids, 500 to 10,000 times, from simulated images"
    write_focus_card(
        target,
        {
            "description": description,
            **card,
            "error_std": made["held_out_total"],
            "figures": figures | {"test_set": results["test_set"], "command": _command(n_images)},
        },
    )


def _command(n_images: int | None) -> str:
    return "make focus-benchmark" + (f" IMAGES={n_images}" if n_images else "")


def main() -> None:
    """Write the results, the figure, and the model that ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="as for focus_train.py")
    parser.add_argument("--ship", choices=ENTRIES, help="the network that becomes models/focus")
    arguments = parser.parse_args()
    n_images = arguments.images
    test, train = focus_sets.load("new", "test"), focus_sets.load("new", "train", n_images)
    frozen = json.loads(focus_freeze.MANIFEST.read_text())
    if focus_freeze.manifest(test)["scores_sha256"] != frozen["scores_sha256"]:
        raise SystemExit("The test set is not the frozen one.")
    kept, _ = split_by_specimen(train, HELD_SHARE, SPLIT_SEED)
    rows = classical(train.take(kept[:N_CALIBRATION]), test.take(np.arange(N_CLASSICAL)))
    held, scores = {}, {}
    for name, entry in ENTRIES.items():
        folder = focus_sets.CACHE / "networks" / name
        if not (folder / "scores.npz").exists():
            print(f"{name}: not trained")
            continue
        made, card = np.load(folder / "scores.npz"), json.loads((folder / "card.json").read_text())
        scores[name] = made["test"]
        held[name] = rmse(made["held"], made["held_truth"])
        scorer = FocusScorer(folder / FOCUS_ONNX, entry.backbone, entry.with_magnification)
        rows[name] = row(made["test"], test) | {
            "held_out_total": held[name],
            "n_train": card["n_images"],
            "n_parameters": card["n_parameters"],
            "ms_per_image": milliseconds(scorer, test, N_TIMED[entry.backbone in LARGE]),
            "labels": entry.labels,
            "data_set": entry.dataset,
            "trained_on_px": card["trained_on_px"],
            **json.loads((folder / "run.json").read_text()),
        }
        if entry.n_images is None:
            n_looked_at = N_INVARIANCE[entry.backbone in LARGE]
            rows[name]["moves_with_brightness_and_contrast"] = invariance(scorer, test, n_looked_at)
    known = json.loads((MODELS / "focus" / "card.json").read_text())["sha256"][FOCUS_ONNX]
    networks = {name: file_sha256(focus_sets.CACHE / "networks" / name / FOCUS_ONNX) for name in held}
    shipped = arguments.ship or next((name for name, sha256 in networks.items() if sha256 == known), None)
    candidates = [name for name in held if ENTRIES[name].n_images is None]
    results = {
        **provenance("make focus-benchmark", "keras", "tensorflow", threads="one thread"),
        "command": _command(n_images),
        "test_set": {k: frozen[k] for k in ("preset", "seed", "n", "pixels_sha256")},
        "expert_rmse": rmse(test.expert, test.score),
        "mean_score_rmse": round(float(test.score.std()), 4),
        "shipped": shipped,
        "lowest_rmse_held_out": min(candidates, key=lambda name: held[name]),
        "published": {
            k: dict(zip([*(f"{m:g}" for m in MAGNIFICATIONS), "total"], v, strict=True)) for k, v in PUBLISHED.items()
        },
        "rows": rows,
    }
    write_json(results, RESULTS / "focus.json")
    if arguments.ship:
        ship(arguments.ship, results, n_images)
    focus_figure.draw(test, scores)


if __name__ == "__main__":
    main()
