"""All figures of recognition on the frozen test sets: ``results/recognition.json``. What is not trained is left out.

python benchmarks/recognition.py [SECTION ...] [--scenes N] [--imagenet]

Transfer against training from scratch is measured on five classes that no trained network has seen, from 25, 100, 1,000
and all pictures of them, five times from other pictures where there are more. ImageNet's row needs the internet:
``python benchmarks/recognition.py --imagenet``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance
from recognition_data import DATA
from recognition_train import (
    CACHE,
    RUN,
    answer,
    figures_of,
    fused_logits,
    load_fusion,
    load_image,
    load_pixelwise,
    load_recogniser,
)

from defectpipe.errors import ModelError, SettingsError
from defectpipe.io.tables import write_json
from defectpipe.networks.training import use_threads
from defectpipe.recognition.backbones import BACKBONES, features_of, load_backbone
from defectpipe.recognition.fusion import split_fused
from defectpipe.recognition.image import drawn, fit_image_classifier
from defectpipe.recognition.last_layer import fit_last_layer
from defectpipe.recognition.pixelwise import maps_of
from defectpipe.recognition.recogniser import Layout
from defectpipe.recognition.training import RecogniserRecipe, fit_recogniser
from defectpipe.recognition.views import standardise, turned
from defectpipe.training.pixelwise_figures import several_figures, single_figures
from defectpipe.training.recognition_data import SolidImages, read_images
from defectpipe.training.recognition_figures import TEN, accuracy_of_views, among, deformed_of_views, shares_right
from defectpipe.training.recognition_model import trunk_of
from defectpipe.training.recognition_targets import targets_of

RESULTS = Path(__file__).parent / "results" / "recognition.json"
N_PICTURES = (25, 100, 1_000, 4_000)
N_REPEATS = 5
# Steps of a training from scratch on so many pictures: enough for its loss on them to vanish.
_SCRATCH_STEPS = {25: 200, 100: 300, 1_000: 600, 4_000: 1_000}
_FEW = 2_000


def recogniser_section(n_scenes: int | None) -> dict[str, Any]:
    """The recogniser, and the fusion of views, on random orientations, at dose 30, and on tilt series."""
    layout, network, run = load_recogniser()
    temperatures = {int(n): t for n, t in run["temperatures"].items()}
    made: dict[str, Any] = {"training": {k: v for k, v in run.items() if k != "validation"}}
    for name in ("views-test", "views-test-dose-30", "views-test-tilt"):
        images = _read(name, n_scenes)
        if images is None:
            continue
        answers = answer(network, images)
        made[name] = figures_of(answers, images, layout, temperatures)
        if (CACHE / "fusion" / RUN).exists():
            made[name]["learned_fusion"] = _fused(answers, images, layout)
    return made


def _fused(answers: np.ndarray, images: SolidImages, layout: Layout) -> dict:
    fusion, run = load_fusion(layout)
    temperatures = {int(n): t for n, t in run["temperatures"].items()}

    def fuse(rows: np.ndarray, temperature: float) -> np.ndarray:
        return split_fused(fused_logits(fusion, rows, layout), layout, temperature)[0]

    def deformed(rows: np.ndarray) -> np.ndarray:
        return split_fused(fused_logits(fusion, rows, layout), layout)[1][:, 0]

    def fuse_ten(rows: np.ndarray, temperature: float) -> np.ndarray:
        among_ten = fuse(rows, temperature)[:, ten]
        return among_ten / among_ten.sum(1, keepdims=True)

    targets = {name: values[:: images.n_views] for name, values in targets_of(images, layout).items()}
    of_ten, ten, label_of_ten = among(targets["label"], layout, TEN)
    return {
        "classes": accuracy_of_views(answers, targets["label"], temperatures, fuse),
        "ten_classes": accuracy_of_views(answers[of_ten], label_of_ten, temperatures, fuse_ten),
        "deformed": deformed_of_views(answers, targets["deformations"][:, 0] > 0, deformed),
    }


def transfer_section(n_scenes: int | None, imagenet: bool) -> dict[str, Any]:
    """Accuracy on the unseen classes by backbone, weights and number of pictures: mean and standard deviation."""
    pool, test = _read("unseen-train", n_scenes), _read("unseen-test", n_scenes)
    if pool is None or test is None:
        return {}
    made: dict[str, Any] = {"classes": list(pool.classes)}
    builtin, random = trunk_of(load_recogniser()[1]), load_backbone("ours", "none", seed=1)
    made["ours, pretrained on the other classes"] = _last_layers(builtin, "ours", pool, test)
    made["ours, random weights"] = _last_layers(random, "ours", pool, test)
    made["ours, trained from scratch"] = _from_scratch(pool, test)
    for name in BACKBONES:
        if name != "ours":
            row: Any = "not measured: needs the internet; python benchmarks/recognition.py --imagenet"
            if imagenet:
                try:
                    row = _last_layers(load_backbone(name, "imagenet"), name, pool, test)
                except ModelError as error:
                    row = str(error)
            made[f"{name}, imagenet"] = row
    return made


def _last_layers(network: Any, name: str, pool: SolidImages, test: SolidImages) -> dict[int, dict[str, float]]:
    ways = [features_of(network, name, turned(pool.pixels, way)) for way in range(8)]
    test_ways = [features_of(network, name, turned(test.pixels, way)) for way in range(8)]
    figures = {}
    for n, draws in _draws(pool):
        right = []
        for rows in draws:
            used = ways if n < _FEW else ways[:1]
            features = np.concatenate([w[rows] for w in used])
            label = np.tile(pool.class_index[rows], len(used))
            groups = np.tile(rows // pool.n_views, len(used))
            layer = fit_last_layer(features, label, pool.classes, groups)
            given = np.mean([layer.logits(w) for w in test_ways], 0).argmax(1)
            right.append(float((given == test.class_index).mean()))
        figures[n] = {"accuracy": float(np.mean(right)), "std": float(np.std(right)), "n_draws": len(right)}
    return figures


def _from_scratch(pool: SolidImages, test: SolidImages) -> dict[int, dict[str, float]]:
    layout, figures = Layout(pool.classes, (), ()), {}
    for n, draws in _draws(pool):
        rows = draws[0]
        targets = {"label": pool.class_index[rows].astype(np.int32)}
        recipe = RecogniserRecipe(n_steps=_SCRATCH_STEPS[n], batch_size=min(64, n))
        network = fit_recogniser(pool.pixels[rows], targets, layout, recipe, seed=1)
        place = layout.slices["classes"]
        logits = [network.predict_on_batch(standardise(turned(test.pixels, way)))[:, place] for way in range(8)]
        figures[n] = {"accuracy": float((np.mean(logits, 0).argmax(1) == test.class_index).mean()), "n_draws": 1}
    return figures


def _draws(pool: SolidImages) -> list[tuple[int, list[np.ndarray]]]:
    """Rows of so many pictures, of every class as many, the same ones for every network."""
    made = []
    rng = np.random.default_rng(3)
    by_class = [np.flatnonzero(pool.class_index == i) for i in range(len(pool.classes))]
    for n in N_PICTURES:
        each = n // len(by_class)
        if each <= min(map(len, by_class)):
            repeats = N_REPEATS if n < len(pool) else 1
            made.append(
                (n, [np.concatenate([rng.choice(r, each, replace=False) for r in by_class]) for _ in range(repeats)])
            )
    return made


def pixelwise_section(n_scenes: int | None) -> dict[str, Any]:
    """Outlines, thickness, and objects told apart."""
    if not (CACHE / "pixelwise" / RUN).exists():
        return {}
    network = load_pixelwise().predict_on_batch
    made: dict[str, Any] = {"training": json.loads((CACHE / "pixelwise" / RUN).read_text())}
    for name, judge in (
        ("single-test", single_figures),
        ("several-test", several_figures),
        ("overlapping-test", several_figures),
    ):
        images = _read(name, n_scenes)
        if images is not None:
            maps = np.concatenate([maps_of(network, images.pixels[i : i + 16]) for i in range(0, len(images), 16)])
            made[name] = judge(maps, images)
    return made


def image_section(n_scenes: int | None) -> dict[str, Any]:
    """The image classifier, and the transfer-learnt one of the same classes, on the same views."""
    images = _read("views-test", n_scenes)
    if images is None or not (CACHE / "image" / RUN).exists():
        return {}
    layout, network, run = load_image()
    maps = drawn(load_pixelwise().predict_on_batch, images.pixels)
    rows = np.concatenate(
        [network.predict_on_batch(maps[i : i + 256].astype(np.float32)) for i in range(0, len(maps), 256)]
    )
    logits = rows[:, layout.slices["classes"]]
    truth = targets_of(images, layout)["label"]
    right, label = logits.argmax(1) == truth, truth[:: images.n_views]
    figures = {
        "training": run,
        "views": accuracy_of_views(logits.reshape(len(label), images.n_views, -1), label),
        "per_class": shares_right(right, [(name, truth == i) for i, name in enumerate(layout.classes)]),
    }
    return figures | {"tlic_of_random_backbone": _known_classes(images), "unseen_classes": _image_of_unseen(n_scenes)}


def _image_of_unseen(n_scenes: int | None) -> dict[int, dict[str, float]]:
    """The image classifier of the unseen classes, on the same pictures as the transfer-learnt one."""
    pool, test = _read("unseen-train", n_scenes), _read("unseen-test", n_scenes)
    if pool is None or test is None:
        return {}
    pixelwise = load_pixelwise().predict_on_batch
    maps, place, figures = drawn(pixelwise, pool.pixels), Layout(pool.classes, (), ()).slices["classes"], {}
    seen = [drawn(pixelwise, turned(test.pixels, way)).astype(np.float32) for way in range(8)]
    for n, draws in _draws(pool):
        rows, recipe = draws[0], RecogniserRecipe(n_steps=_SCRATCH_STEPS[n], batch_size=min(64, n))
        network = fit_image_classifier(maps[rows], pool.class_index[rows], pool.classes, recipe, seed=1)
        logits = [
            np.concatenate([network.predict_on_batch(part[i : i + 256])[:, place] for i in range(0, len(part), 256)])
            for part in seen
        ]
        figures[n] = {"accuracy": float((np.mean(logits, 0).argmax(1) == test.class_index).mean()), "n_draws": 1}
    return figures


def _known_classes(test: SolidImages) -> dict[str, float]:
    """A last layer on a backbone with random weights: what a pretrained one is worth on the known classes."""
    train = read_images("views-train", DATA, 1_200, maps=False)
    network = load_backbone("ours", "none", seed=1)
    layer = fit_last_layer(features_of(network, "ours", train.pixels), train.class_index, train.classes)
    given = layer.logits(features_of(network, "ours", test.pixels)).argmax(1)
    return {"accuracy": float((given == test.class_index).mean()), "n_training_pictures": len(train)}


def _read(name: str, n_scenes: int | None) -> SolidImages | None:
    try:
        return read_images(name, DATA, n_scenes)
    except SettingsError as error:
        print(f"{name} is left out: {error}", flush=True)
        return None


SECTIONS = {
    "recogniser": lambda n, imagenet: recogniser_section(n),
    "transfer": transfer_section,
    "pixelwise": lambda n, imagenet: pixelwise_section(n),
    "image": lambda n, imagenet: image_section(n),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--scenes", type=int, help="only the first of each set: a quick look, written nowhere")
    parser.add_argument("--imagenet", action="store_true")
    arguments = parser.parse_args()
    use_threads(1)
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for section in arguments.sections or SECTIONS:
        start = time.process_time()
        made = SECTIONS[section](arguments.scenes, arguments.imagenet)
        print(section, f"{time.process_time() - start:.0f} s of CPU time", flush=True)
        if arguments.scenes:
            print(json.dumps(made, default=lambda v: v.tolist(), indent=1))
        elif made:
            said = provenance("make bench-recognition", "tensorflow", "keras", threads="one thread")
            dates = figures.get("dates", {}) | {section: said["date"]}
            figures |= said | {"dates": dates, section: made}
            write_json(figures, RESULTS)
