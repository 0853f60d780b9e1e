"""What corrections are worth on another material: a run of models/fecral-loops is put right, a model learns from it.

Simulated images of preset fcc, of which the truth stands for what a person would make of each field; half of the
images are corrected, all are labelled; each is drawn on its own, so each is a group. The training starts from the model
of the run, as `TrainModel --corrections` does by itself; ``--scratch`` adds one from scratch by a small recipe. What
the cards say was gained goes to results/corrections-gain.json. Needs no data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import children_cpu_s
from provenance import provenance

from defectpipe.io.tables import write_json
from defectpipe.simulation.dataset import simulate_dataset

RESULTS = Path(__file__).parent / "results"
SHARED = {"n_folds": 3, "focus_model": "none", "data_source": "simulated", "data_licence": "BSD-3-Clause"}
FROM_SCRATCH = SHARED | {
    "polarity": "dark",
    "cascade": {"n_stages": 10, "n_positives": 2000, "n_negatives": 3000, "max_stumps": 40},
    "screener": {"crop_px": 32, "widths": [16, 32, 48], "hidden": 32, "dropout": 0.2},
    "screener_training": {"n_steps": 2000, "batch_size": 64},
}


def task(place: Path, name: str, *arguments: object) -> None:
    """Run a task of defectpipe to its end, as on the command line."""
    luigi = Path(sys.executable).with_name("luigi")
    subprocess.run([luigi, "--module", "defectpipe", name, *map(str, arguments)], cwd=place, check=True)


def trained(place: Path, name: str, recipe: dict[str, Any], *more: object) -> dict[str, Any]:
    """What the card of a model that learns from the corrections says; and the CPU minutes of its training."""
    (place / f"{name}.json").write_text(json.dumps(recipe))
    before = children_cpu_s()
    learn = ("--images-dir", place / "set" / "images", "--labels-dir", place / "set" / "labels.coco.json")
    learn += ("--corrections", place / "out" / "corrections", "--recipe", place / f"{name}.json", "--n-jobs", 1)
    task(place, "TrainModel", *learn, "--name", name, *more)
    card = json.loads((place / "models" / name / "card.json").read_text())
    return {
        "cpu_minutes": round((children_cpu_s() - before) / 60, 1),
        "recipe": recipe,
        "started_from": card.get("started_from"),
        "thresholds": card["held_out"]["threshold_by_fold"],
        "gain": card["gain_from_corrections"],
    }


def main() -> None:
    """Simulate, run, correct, train; write and print what the cards say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--preset", default="fcc")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--steps", type=int, help="of the screener's training; default: as TrainModel has it")
    parser.add_argument("--scratch", action="store_true", help="train one from scratch as well")
    given = parser.parse_args()
    result: dict[str, Any] = provenance("make bench-corrections", "tensorflow", "keras", threads="one thread") | {
        "data": f"simulated: preset {given.preset}, {given.images} images, seed {given.seed}; half of them corrected",
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        simulate_dataset("loops", given.images, given.seed, given.preset, place / "set")
        truth = json.loads((place / "set" / "labels.coco.json").read_text())
        names = sorted(image["file_name"] for image in truth["images"])
        task(place, "RunAll", "--input-dir", place / "set" / "images", "--output-dir", place / "out")
        corrected = [image for image in truth["images"] if image["file_name"] in names[::2]]
        wanted = {image["id"] for image in corrected}
        mine = truth | {
            "images": corrected,
            "annotations": [one for one in truth["annotations"] if one["image_id"] in wanted],
        }
        (place / "out" / "corrections").mkdir()
        (place / "out" / "corrections" / "mine.json").write_text(json.dumps(mine))
        steps = {} if given.steps is None else {"screener_training": {"n_steps": given.steps}}
        result["from_the_model_before"] = trained(place, "better", SHARED | steps)
        if given.scratch:
            result["from_scratch"] = trained(place, "anew", FROM_SCRATCH, "--start-from", "none")
    write_json(result, RESULTS / "corrections-gain.json")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
