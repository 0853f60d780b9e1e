"""Train the networks of the focus benchmark on simulated images; what is there already is not trained again.

    python benchmarks/focus_train.py [NAME ...]

Every network is trained on nine tenths of the specimens of its training set, judged on the other tenth (which may
choose what ships) and on the frozen test set, which chooses nothing. Folders go to ``FOCUS_CACHE``. The residual
networks get a budget on the CPU, stated in steps (`ENTRIES`); each goes on from a checkpoint if it was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import focus_sets
import numpy as np

from defectpipe.focus.backbones import find_backbone, normalise_magnification
from defectpipe.focus.scorer import FocusScorer
from defectpipe.focus.training import RECIPES, FocusRecipe
from defectpipe.io.tables import write_json
from defectpipe.networks.training import use_threads
from defectpipe.simulation.sem.scale import FocusScale
from defectpipe.training.focus_data import PATCH_SHAPE, old_labels, score_of_old, split_by_specimen
from defectpipe.training.focus_model import FOCUS_ONNX, train_focus

HELD_SHARE, SPLIT_SEED = 0.1, 0
# An image takes them a tenth of a second, so they are judged on fewer.
LARGE = ("resnet18", "resnet50")
N_HELD, N_TESTED = 100, 200
_QUARTER = (120, 160)  # of the area, at full resolution: what a CPU can train on; tested on the whole patch
_CONVOLUTIONAL = RECIPES["convolutional"]


@dataclass(frozen=True)
class Entry:
    """One network of the benchmark.

    Parameters
    ----------
    labels : str
        truth; expert; old (the expert's, on the older scale of 0 to 7, and back).
    n_images : int, optional
        Of the set's first, where it needs fewer than the others.
    train_shape : tuple of int
        Of the random crops; all are tested on the whole patch.
    """

    backbone: str
    with_magnification: bool = True
    dataset: str = "new"
    labels: str = "truth"
    recipe: FocusRecipe = RECIPES["spectral"]
    train_shape: tuple[int, int] = PATCH_SHAPE
    n_images: int | None = None
    seed: int = 1


_SPECTRAL = replace(RECIPES["spectral"], n_steps=2500, batch_size=128, n_views=1)
_SMALL = 1500  # images, for the comparison of the two data sets
_LARGE = replace(_CONVOLUTIONAL, n_steps=300, batch_size=8, learning_rate=1e-3)
ENTRIES: dict[str, Entry] = {
    "spectral": Entry("spectral", recipe=_SPECTRAL),
    "spectral-without-magnification": Entry("spectral", with_magnification=False, recipe=_SPECTRAL),
    "spectral-new-1500": Entry("spectral", labels="expert", recipe=replace(_SPECTRAL, n_steps=1200), n_images=_SMALL),
    "spectral-old-1500": Entry(
        "spectral", dataset="old", labels="old", recipe=replace(_SPECTRAL, n_steps=1200), n_images=_SMALL
    ),
    "absolute-variance": Entry("absolute_variance", recipe=replace(_SPECTRAL, n_steps=600)),
    # about 3 CPU minutes each, 4 for ResNet50, which is what there was; ResNet50 is without magnification, as published
    "resnet-mini": Entry("resnet-mini", recipe=replace(_CONVOLUTIONAL, n_steps=3000), train_shape=_QUARTER),
    "resnet18": Entry("resnet18", recipe=_LARGE, train_shape=_QUARTER),
    "resnet18-without-magnification": Entry("resnet18", with_magnification=False, recipe=_LARGE, train_shape=_QUARTER),
    "resnet50": Entry("resnet50", with_magnification=False, recipe=replace(_LARGE, n_steps=200), train_shape=_QUARTER),
}


def train(name: str, n_images: int | None = None, n_steps: int | None = None) -> Path:
    """Train one network and write its folder, with its scores of the held-out specimens and of the test set.

    Parameters
    ----------
    name : str
        In `ENTRIES`.
    n_images : int, optional
        The set's first, a tenth of them held out; all by default.
    n_steps : int, optional
        Instead of the recipe's.
    """
    entry = ENTRIES[name]
    recipe = replace(entry.recipe, n_steps=n_steps) if n_steps else entry.recipe
    folder = focus_sets.CACHE / "networks" / name
    samples, test = focus_sets.load(entry.dataset, "train", entry.n_images or n_images), focus_sets.load("new", "test")
    kept, held = split_by_specimen(samples, HELD_SHARE, SPLIT_SEED)
    score = {"truth": samples.score, "expert": samples.expert, "old": score_of_old(old_labels(samples.expert))}
    magnification = samples.magnification if entry.with_magnification else None
    prepared = find_backbone(entry.backbone).prepared_once
    views = []
    if prepared:
        views = [focus_sets.view(entry.dataset, samples, v, entry.backbone)[kept] for v in range(recipe.n_views)]
    clock = _Clock(folder / "clock.json")

    def progress(step: int, loss: float) -> None:
        clock.note()
        print(f"{name}: step {step}, RMSE {loss**0.5:.3f}, {clock.seconds:.0f} CPU s", flush=True)

    train_focus(
        _Rows(samples.pixels, kept),
        score[entry.labels][kept],
        None if magnification is None else magnification[kept],
        folder,
        modality="SEM",
        backbone=entry.backbone,
        recipe=recipe,
        seed=entry.seed,
        patch_shape=entry.train_shape,
        export_shape=PATCH_SHAPE,
        views=views,
        describe=_description(entry, len(kept), samples.score),
        progress=progress,
        checkpoint=None if prepared else folder / "checkpoint.npz",
    )
    seconds = clock.stop()
    scorer = FocusScorer(folder / FOCUS_ONNX, entry.backbone, entry.with_magnification)
    slow = entry.backbone in LARGE
    few, seen = samples.take(held[: N_HELD if slow else None]), test
    if slow:
        seen = test.take(np.arange(N_TESTED))
    if prepared:
        # a crop at random for those held out: their centre would be prepared for nothing else
        looked_at = focus_sets.view(entry.dataset, samples, 0, entry.backbone)[held]
        held_score = _score(scorer, looked_at, few.magnification)
        test_score = _score(scorer, focus_sets.centre("new", test, entry.backbone), seen.magnification)
    else:
        held_score, test_score = (scorer(part.patches(), part.magnification) for part in (few, seen))
    write_json(
        {"cpu_s_training": round(seconds, 1), "n_images_seen": recipe.n_steps * recipe.batch_size},
        folder / "run.json",
    )
    np.savez(
        folder / "scores.npz",
        held=held_score,
        held_truth=few.score,
        held_magnification=few.magnification,
        test=test_score,
    )
    for rows, given, truth in (("held out", held_score, few.score), ("test", test_score, seen.score)):
        print(name, rows, f"RMSE {np.sqrt(np.mean((given - truth) ** 2)):.4f}", flush=True)
    return folder


class _Clock:
    """CPU seconds of a training, over its interruptions; noted in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._began = path, time.process_time()
        self._before = float(json.loads(path.read_text())["cpu_s"]) if path.exists() else 0.0

    @property
    def seconds(self) -> float:
        return self._before + time.process_time() - self._began

    def note(self) -> None:
        write_json({"cpu_s": self.seconds}, self._path)

    def stop(self) -> float:
        """The seconds; the next training in this folder begins from none."""
        self._path.unlink(missing_ok=True)
        return self.seconds


def _score(scorer: FocusScorer, features: np.ndarray, magnification: np.ndarray) -> np.ndarray:
    inputs = {"features": features}
    if scorer.with_magnification:
        inputs["magnification"] = normalise_magnification(magnification)
    return scorer.score_inputs(inputs)


class _Rows:
    """Some images of a set on disk, read one by one."""

    def __init__(self, pixels: np.ndarray, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows
        self.shape = (len(rows), *pixels.shape[1:])

    def __getitem__(self, row: int) -> np.ndarray:
        return self._pixels[self._rows[row]]


def _description(entry: Entry, n: int, score: np.ndarray) -> dict:
    dataset = focus_sets.DATASETS[entry.dataset]
    return {
        "data": {
            "source": f"simulated: preset {dataset.preset} of defectpipe, seed {dataset.train_seed}",
            "licence": "BSD-3-Clause",
            "n_images": n,
            "n_empty": int((score == 0).sum()),
            "split": "by specimen: a tenth of the training specimens held out; the test set has a seed of its own",
            "labels": entry.labels,
        },
        "score_formula": "10 - 9 ln(sigma / perfect) / ln(lost / perfect), within 1 and 10; 0: nothing to judge",
        "score_scale": dataclasses.asdict(FocusScale()),
    }


if __name__ == "__main__":
    use_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, help="only the first of the training set's 27,235")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    for chosen in arguments.names or ENTRIES:
        if not (focus_sets.CACHE / "networks" / chosen / "scores.npz").exists():
            train(chosen, arguments.images, arguments.steps)
