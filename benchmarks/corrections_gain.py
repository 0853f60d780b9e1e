"""What corrections are worth on another material: a run of models/fecral-loops is put right, a model learns from it.

Simulated images of preset fcc, of which the truth stands for what a person would make of each field; half of the
images are corrected, all are labelled; each is drawn on its own, so each is a group. The recipe is small: about five
CPU minutes in all. Prints what the new model's card says was gained. Needs no data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from defectpipe.simulation.dataset import simulate_dataset

RECIPE = {
    "n_folds": 3,
    "polarity": "dark",
    "data_source": "simulated",
    "data_licence": "BSD-3-Clause",
    "cascade": {"n_stages": 10, "n_positives": 2000, "n_negatives": 3000, "max_stumps": 40},
    "screener": {"crop_px": 32, "widths": [16, 32, 48], "hidden": 32, "dropout": 0.2},
    "screener_training": {"n_steps": 2000, "batch_size": 64},
}


def task(place: Path, name: str, *arguments: object) -> None:
    """Run a task of defectpipe to its end, as on the command line."""
    luigi = Path(sys.executable).with_name("luigi")
    subprocess.run([luigi, "--module", "defectpipe", name, *map(str, arguments)], cwd=place, check=True)


def main() -> None:
    """Simulate, run, correct, train; print the card's entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--preset", default="fcc")
    parser.add_argument("--seed", type=int, default=21)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        simulate_dataset("loops", given.images, given.seed, given.preset, place / "set")
        truth = json.loads((place / "set" / "labels.coco.json").read_text())
        names = sorted(image["file_name"] for image in truth["images"])
        (place / "recipe.json").write_text(json.dumps(RECIPE))
        images, labels = place / "set" / "images", place / "set" / "labels.coco.json"
        task(place, "RunAll", "--input-dir", images, "--output-dir", place / "out")
        corrected = [image for image in truth["images"] if image["file_name"] in names[::2]]
        wanted = {image["id"] for image in corrected}
        mine = truth | {
            "images": corrected,
            "annotations": [one for one in truth["annotations"] if one["image_id"] in wanted],
        }
        (place / "out" / "corrections").mkdir()
        (place / "out" / "corrections" / "mine.json").write_text(json.dumps(mine))
        learn = ("--images-dir", images, "--labels-dir", labels)
        learn += ("--corrections", place / "out" / "corrections", "--recipe", place / "recipe.json")
        task(place, "TrainModel", *learn, "--name", "better")
        card = json.loads((place / "models" / "better" / "card.json").read_text())
        print(json.dumps(card["gain_from_corrections"], indent=1))


if __name__ == "__main__":
    main()
