"""Train the networks of recognition; what is trained already is left as it is, what was broken off goes on.

python benchmarks/recognition_train.py [PART ...] [--objects N] [--steps N]

Parts, in this order: ``recogniser``, ``fusion`` (needs the recogniser), ``pixelwise``, ``image`` (needs pixelwise).
Data: see ``recognition_data.py``. Networks: RECOGNITION_CACHE, by default ``recognition-cache``. One thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from recognition_data import DATA

from defectpipe.io.tables import write_json
from defectpipe.networks.export import save_weights
from defectpipe.networks.training import use_threads
from defectpipe.recognition.calibration import fit_temperature
from defectpipe.recognition.fusion import FusionRecipe, build_fusion, fit_fusion, pad_views
from defectpipe.recognition.image import drawn, fit_image_classifier
from defectpipe.recognition.pixelwise import PixelSource, PixelwiseRecipe, build_pixelwise, fit_pixelwise
from defectpipe.recognition.recogniser import Layout, build_recogniser
from defectpipe.recognition.training import RecogniserRecipe, fit_recogniser
from defectpipe.recognition.views import answer_all_ways
from defectpipe.training.recognition_data import COLUMNS, SolidImages, read_images
from defectpipe.training.recognition_figures import recogniser_figures
from defectpipe.training.recognition_sets import VIEW_PX
from defectpipe.training.recognition_targets import layout_of, targets_of

CACHE = Path(os.environ.get("RECOGNITION_CACHE", Path(__file__).parent / "recognition-cache"))
WEIGHTS, RUN = "network.weights.h5", "run.json"
SEED = 1


def train_recogniser(n_objects: int | None, n_steps: int | None) -> None:
    """Write its weights, its layout and its figures on the validation set."""
    folder = _folder("recogniser")
    recipe = _recipe(RecogniserRecipe(), n_steps)
    images = read_images("views-train", DATA, n_objects, maps=False)
    layout = layout_of(images.classes)
    start, tell = _clock("recogniser", recipe.n_steps)
    network = fit_recogniser(
        images.pixels, targets_of(images, layout), layout, recipe, SEED, folder / "checkpoint.npz", tell
    )
    save_weights(network, folder / WEIGHTS)
    seconds = time.process_time() - start
    held = read_images("views-validation", DATA, maps=False)
    answers = answer(network, held)
    label = targets_of(held, layout)["label"]
    logits = answers[..., layout.slices["classes"]]
    # several views are not quite independent of each other: a temperature for each number of them
    temperatures = {n: fit_temperature(logits[:, :n], label[:: held.n_views]) for n in range(1, held.n_views + 1)}
    figures = figures_of(answers, held, layout, temperatures)
    content = {
        "layout": dataclasses.asdict(layout),
        "recipe": dataclasses.asdict(recipe),
        "seed": SEED,
        "n_objects": len(images) // images.n_views,
        "n_views": len(images),
        "n_parameters": int(network.count_params()),
        "cpu_s_of_this_process": round(seconds),
        "temperatures": temperatures,
        "validation": figures,
    }
    write_json(content, folder / RUN)
    print("recogniser", json.dumps(figures["views"]), "deformed", figures["deformed"], flush=True)


def train_fusion(n_objects: int | None, n_steps: int | None) -> None:
    """On objects of their own: those that the recogniser learned from would make it too sure."""
    folder = _folder("fusion")
    layout, network, _ = load_recogniser()
    images = read_images("views-fusion", DATA, n_objects, maps=False)
    answers = answer(network, images)
    recipe = _recipe(FusionRecipe(), n_steps)
    targets = {name: values[:: images.n_views] for name, values in targets_of(images, layout).items()}
    start, tell = _clock("fusion", recipe.n_steps)
    fusion = fit_fusion(
        answers, targets["label"], targets["deformations"], layout, recipe, SEED, folder / "checkpoint.npz", tell
    )
    save_weights(fusion, folder / WEIGHTS)
    held = read_images("views-validation", DATA, maps=False)
    truth, seen = targets_of(held, layout)["label"][:: held.n_views], answer(network, held)
    temperatures = {
        n: fit_temperature(fused_logits(fusion, seen[:, :n], layout)[:, : len(layout.classes)], truth)
        for n in range(1, held.n_views + 1)
    }
    seconds = round(time.process_time() - start)
    write_json(
        {
            "recipe": dataclasses.asdict(recipe),
            "n_objects": len(answers),
            "cpu_s": seconds,
            "temperatures": temperatures,
        },
        folder / RUN,
    )


def train_pixelwise(n_objects: int | None, n_steps: int | None) -> None:
    """On single objects, fields of several, overlapping ones, and views."""
    folder = _folder("pixelwise")
    recipe = _recipe(PixelwiseRecipe(), n_steps)
    sources = [source_of(name, n_objects) for name in ("single-train", "several-train", "overlapping-train")]
    sources.append(source_of("views-train", n_objects or 2_400))
    start, tell = _clock("pixelwise", recipe.n_steps)
    network = fit_pixelwise(sources, recipe, SEED, folder / "checkpoint.npz", tell)
    save_weights(network, folder / WEIGHTS)
    seconds = round(time.process_time() - start)
    n_images = [len(source.pixels) for source in sources]
    write_json({"recipe": dataclasses.asdict(recipe), "n_images": n_images, "cpu_s": seconds}, folder / RUN)


def train_image(n_objects: int | None, n_steps: int | None) -> None:
    """From the maps of the pixel-wise network, and classes alone."""
    folder = _folder("image")
    recipe = _recipe(RecogniserRecipe(n_steps=4_000), n_steps)
    images = read_images("views-train", DATA, n_objects or 6_000, maps=False)
    layout = layout_of(images.classes)
    start, tell = _clock("image", recipe.n_steps)
    maps = drawn(load_pixelwise().predict_on_batch, images.pixels)
    network = fit_image_classifier(
        maps, targets_of(images, layout)["label"], images.classes, recipe, SEED, folder / "checkpoint.npz", tell
    )
    save_weights(network, folder / WEIGHTS)
    seconds = round(time.process_time() - start)
    content = {"classes": images.classes, "recipe": dataclasses.asdict(recipe), "n_views": len(images)}
    write_json(content | {"cpu_s": seconds}, folder / RUN)


def source_of(name: str, n_scenes: int | None = None) -> PixelSource:
    """Pictures of a set with their maps; of several bodies the first's pixel size is that of all."""
    images = read_images(name, DATA, n_scenes)
    size = np.ones(len(images))
    size[images.image_index] = images.column("pixel_size_nm")
    return PixelSource(images.pixels, images.instances, images.thickness_nm, size)


def load_recogniser() -> tuple[Layout, Any, dict]:
    """Layout, network and run of the trained recogniser."""
    run = json.loads((CACHE / "recogniser" / RUN).read_text())
    layout = Layout(**{k: tuple(v) if isinstance(v, list) else v for k, v in run["layout"].items()})
    return layout, _with_weights(build_recogniser(layout, VIEW_PX), "recogniser"), run


def load_fusion(layout: Layout) -> tuple[Any, dict]:
    """The trained fusion, and its run."""
    return _with_weights(build_fusion(layout), "fusion"), json.loads((CACHE / "fusion" / RUN).read_text())


def fused_logits(fusion: Any, answers: np.ndarray, layout: Layout) -> np.ndarray:
    """The fusion's output for rows (objects, views, n)."""
    return np.asarray(fusion.predict_on_batch(list(pad_views(answers, layout).values())))


def load_pixelwise() -> Any:
    """The trained pixel-wise network."""
    return _with_weights(build_pixelwise(), "pixelwise")


def load_image() -> tuple[Layout, Any, dict]:
    """Layout, network and run of the trained image classifier."""
    run = json.loads((CACHE / "image" / RUN).read_text())
    layout = Layout(tuple(run["classes"]), (), ())
    return layout, _with_weights(build_recogniser(layout, VIEW_PX, 3), "image"), run


def answer(network: Any, images: SolidImages) -> np.ndarray:
    """A recogniser's rows, shape (objects, views, n)."""
    rows = answer_all_ways(network.predict_on_batch, images.pixels, network.output_shape[-1])
    return rows.reshape(len(images) // images.n_views, images.n_views, -1)


def figures_of(answers: np.ndarray, images: SolidImages, layout: Layout, temperatures: dict[int, float]) -> dict:
    """See `recogniser_figures`."""
    columns = {name: images.column(name) for name in COLUMNS}
    return recogniser_figures(answers, layout, targets_of(images, layout), columns, temperatures)


def _folder(part: str) -> Path:
    (CACHE / part).mkdir(parents=True, exist_ok=True)
    return CACHE / part


def _recipe(recipe: Any, n_steps: int | None) -> Any:
    return dataclasses.replace(recipe, n_steps=n_steps) if n_steps else recipe


def _clock(part: str, n_steps: int) -> tuple[float, Callable[[int, float], None]]:
    start = time.process_time()

    def tell(step: int, loss: float) -> None:
        print(f"{part}: step {step} of {n_steps}, loss {loss:.4f}, {time.process_time() - start:.0f} s", flush=True)

    return start, tell


def _with_weights(network: Any, part: str) -> Any:
    network.load_weights(CACHE / part / WEIGHTS)
    return network


PARTS = {"recogniser": train_recogniser, "fusion": train_fusion, "pixelwise": train_pixelwise, "image": train_image}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--objects", type=int, help="only the first of each training set")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    use_threads(1)
    for chosen in arguments.parts or PARTS:
        if not (CACHE / chosen / RUN).exists():
            PARTS[chosen](arguments.objects, arguments.steps)
