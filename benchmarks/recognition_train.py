"""Train the recognisers of the benchmark; what is trained already is left as it is, what was broken off goes on.

python benchmarks/recognition_train.py [NAME ...] [--objects N] [--steps N]

Data: see ``recognition_data.py``. Networks: RECOGNITION_CACHE, by default ``recognition-cache``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
from recognition_data import DATA

from defectpipe.io.tables import write_json
from defectpipe.networks.export import save_weights
from defectpipe.networks.training import use_threads
from defectpipe.recognition.calibration import fit_temperature
from defectpipe.recognition.recogniser import Layout, build_recogniser
from defectpipe.recognition.training import RecogniserRecipe, fit_recogniser
from defectpipe.recognition.views import standardise
from defectpipe.training.recognition_data import COLUMNS, SolidImages, read_images
from defectpipe.training.recognition_figures import recogniser_figures
from defectpipe.training.recognition_sets import VIEW_PX
from defectpipe.training.recognition_targets import layout_of, targets_of

CACHE = Path(os.environ.get("RECOGNITION_CACHE", Path(__file__).parent / "recognition-cache"))
SEED = 1
_BATCH = 256


def train(name: str, n_objects: int | None, n_steps: int | None) -> None:
    """Train one recogniser, and write its weights, its layout and its figures on the validation set."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = RecogniserRecipe()
    if n_steps:
        recipe = dataclasses.replace(recipe, n_steps=n_steps)
    images = read_images("views-train", DATA, n_objects, maps=False)
    layout = layout_of(images.classes)
    start = time.process_time()

    def tell(step: int, loss: float) -> None:
        print(
            f"{name}: step {step} of {recipe.n_steps}, loss {loss:.4f}, {time.process_time() - start:.0f} s", flush=True
        )

    network = fit_recogniser(
        images.pixels, targets_of(images, layout), layout, recipe, SEED, folder / "checkpoint.npz", tell
    )
    save_weights(network, folder / "recogniser.weights.h5")
    seconds = time.process_time() - start
    held = read_images("views-validation", DATA, maps=False)
    answers = answer(network, held)
    label = targets_of(held, layout)["label"]
    temperature = fit_temperature(answers[..., layout.slices["classes"]].reshape(len(label), -1), label)
    figures = figures_of(answers, held, layout, temperature)
    content = {
        "layout": dataclasses.asdict(layout),
        "recipe": dataclasses.asdict(recipe),
        "seed": SEED,
        "n_objects": len(images) // images.n_views,
        "n_views": len(images),
        "n_parameters": int(network.count_params()),
        "cpu_s_of_this_process": round(seconds),
        "temperature": temperature,
        "validation": figures,
    }
    write_json(content, folder / "run.json")
    print(name, json.dumps(figures["views"]), "deformed", figures["deformed"], flush=True)


def load(name: str) -> tuple[Layout, object, dict]:
    """Layout, network and run of a trained recogniser."""
    run = json.loads((CACHE / name / "run.json").read_text())
    layout = Layout(**{k: tuple(v) if isinstance(v, list) else v for k, v in run["layout"].items()})
    network = build_recogniser(layout, VIEW_PX)
    network.load_weights(CACHE / name / "recogniser.weights.h5")
    return layout, network, run


def answer(network: object, images: SolidImages) -> np.ndarray:
    """A recogniser's rows, shape (objects, views, n)."""
    rows = [
        network.predict_on_batch(standardise(images.pixels[i : i + _BATCH]))  # type: ignore[attr-defined]
        for i in range(0, len(images), _BATCH)
    ]
    return np.concatenate(rows).reshape(len(images) // images.n_views, images.n_views, -1)


def figures_of(answers: np.ndarray, images: SolidImages, layout: Layout, temperature: float) -> dict:
    """See `recogniser_figures`; plain JSON values."""
    columns = {name: images.column(name) for name in COLUMNS}
    made = recogniser_figures(answers, layout, targets_of(images, layout), columns, temperature)
    made["confusion"]["rows_are_truth"] = made["confusion"]["rows_are_truth"].tolist()
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["recogniser"])
    parser.add_argument("--objects", type=int, help="only the first of the training set's")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    use_threads(1)
    for chosen in arguments.names:
        if not (CACHE / chosen / "run.json").exists():
            train(chosen, arguments.objects, arguments.steps)
