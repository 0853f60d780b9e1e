"""Detectors that a user would install or train, as loop detectors on the FeCrAl set, beside models/fecral-loops.

    python benchmarks/peers.py [--only NAME ...] [--timed 8]

scikit-image's `blob_log`, `blob_dog`, `blob_doh`, and `trackpy.locate` (extra `benchmarks`). Each image is searched
with the parameters that are best (F1, one-to-one at IoU 0.4) on some images of the other folds; the figures are those
of `make bench-fecral`, by the same rules. CPU seconds are of one run, the chain of models/fecral-loops among them,
image by image in turn. Results: results/peers.json; with `--only` the other rows there stay.

Networks (peer_networks.py, `make train-peers`) look at an image of a fold with the one that never saw it; their least
score is chosen on all images of the other folds that have one. The chain's figures on the same folds, its threshold
chosen the same way, stand in its row. Without two folds there is nothing to choose by: its row stays as it is.

Another detector is another `Peer` (peer.py) in `PEERS`: a function of an image to boxes and scores, and what to choose
from.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import pandas as pd
from fecral_data import MODELS, NAME, RESULTS, training_images
from fecral_figures import held_out
from peer import Found, Peer
from peer_blobs import BLOBS
from peer_networks import MODULES, records
from provenance import provenance

from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates, working_image
from defectpipe.boxes import convert, shrink, touches_border
from defectpipe.io.tables import write_json
from defectpipe.model import LoopModel
from defectpipe.resolution import from_working
from defectpipe.settings import Settings
from defectpipe.statistics import evaluate
from defectpipe.statistics.scoring import BOX_COLUMNS, NOT_COUNTED, Objects, partners
from defectpipe.training import TrainingImage
from defectpipe.training.figures import CANDIDATE_BUDGETS, LABELS, HeldOut, cascade_recall, choose_thresholds

RESULT = RESULTS / "peers.json"
CHOICE_IMAGES_A_FOLD = 4
_N_SCORES, _N_SCORES_OF_NETWORKS = 6, 40


def network_boxes(module: str, grey: np.ndarray, fold: int) -> Found:
    """What the network found that never saw this fold."""
    return import_module(module).find(grey, fold)


PEERS: dict[str, Peer] = {
    **BLOBS,
    "centre detector": Peer(partial(network_boxes, MODULES["centre"]), [{}], convention="tight", network="centre"),
    "StarDist": Peer(
        partial(network_boxes, MODULES["stardist"]), [{}], convention="tight", network="stardist", needs="stardist"
    ),
}


def main() -> None:
    """Choose, search, time, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS), help="these alone")
    parser.add_argument("--timed", type=int, default=8, help="images on which CPU seconds are measured")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    images = training_images()
    known, model = held_out(images), LoopModel.load(MODELS / NAME)
    ours = known.kept(choose_thresholds(known)[1])
    peers = {name: PEERS[name] for name in args.only if can_choose(name)}
    chosen, rows = {}, {}
    for name, peer in peers.items():
        here = [i for i in images if i.fold in peer.folds()]
        part = of_images(known, here)
        finder = Finder(peer, model)
        began = time.process_time()
        chosen[name], at_best = choose(finder, here, part)
        middle = time.process_time()
        rows[name] = {
            **judge(finder, chosen[name], here, part),
            "chosen": chosen[name],
            "cpu_s_of_the_choice": round(middle - began, 1),
        }
        if peer.network is not None:
            rows[name] |= {
                "f1_at_the_best_score_for_these_images": at_best,
                "as_candidates": as_candidates(finder, here, part),
                "folds": peer.folds(),
                "n_images": len(here),
                "n_families": len({i.group for i in here}),
                **cost(peer.network),
                "chain_on_these_folds": chain_likewise(here, part, model),
            }
        print(name, json.dumps(rows[name]), flush=True)
    timed = timing(peers, chosen, images[:: max(1, len(images) // args.timed)], model)
    rows[f"models/{NAME}"] = figures(known, ours)
    for name, seconds in timed.items():
        rows[name] |= {
            "cpu_s_per_megapixel": seconds,
            "cpu_over_the_chain": round(seconds / timed[f"models/{NAME}"], 3),
        }
    write_result(rows, images, args.timed)


def judge(
    finder: Finder, chosen: Mapping[int, Mapping[str, Any]], images: list[TrainingImage], known: HeldOut
) -> dict[str, Any]:
    """Figures of a detector with what was chosen for each fold."""
    return figures(known, pd.concat([_apply(finder, chosen[int(i.fold or 0)], i) for i in images], ignore_index=True))


def chain_likewise(images: list[TrainingImage], known: HeldOut, model: LoopModel) -> dict[str, Any]:
    """The chain's figures on some folds, with thresholds chosen as a network's are: on the others of these folds."""
    finder = KnownLoops(known, model)
    chosen, at_best = choose(finder, images, known)
    return judge(finder, chosen, images, known) | {
        "f1_at_the_best_score_for_these_images": at_best,
        "as_candidates": [cascade_recall(known, budget) for budget in CANDIDATE_BUDGETS],
    }


def as_candidates(finder: Finder, images: list[TrainingImage], known: HeldOut) -> list[dict[str, float]]:
    """Recall of what a network finds with any score at the cascade's numbers of candidates an image."""
    tables = []
    for image in images:
        boxes, scores = finder(image, {})
        table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
        tables.append(table.assign(image=image.micrograph.image, detection_score=scores))
    found = replace(known, candidates=pd.concat(tables, ignore_index=True))
    return [cascade_recall(found, budget) for budget in CANDIDATE_BUDGETS]


def can_choose(name: str) -> bool:
    """Whether it is installed and trained: a network's least score comes from another fold than it is judged on."""
    peer = PEERS[name]
    lacks = f"{peer.needs} is not installed" if peer.needs and find_spec(peer.needs) is None else None
    if lacks is None and len(peer.folds()) < 2:
        lacks = "it is not trained for two folds (`make train-peers`)"
    if lacks is not None:
        print(f"{name}: {lacks}; its row stays as it is.")
    return lacks is None


def of_images(known: HeldOut, images: list[TrainingImage]) -> HeldOut:
    """The part of what is known that concerns these images."""
    names = {i.micrograph.image for i in images}
    shapes, folds = ({n: v for n, v in part.items() if n in names} for part in (known.shapes, known.folds))
    loops, candidates = (table[table["image"].isin(names)] for table in (known.loops, known.candidates))
    return replace(known, shapes=shapes, folds=folds, loops=loops, candidates=candidates)


def cost(network: str) -> dict[str, Any]:
    """What its trainings took, and how large it is."""
    kept = records(network)
    return {
        "training_cpu_minutes": [record["cpu_minutes"] for record in kept],
        **{name: kept[0][name] for name in ("n_steps", "batch", "parameters", "megabytes", "versions")},
    }


class Finder:
    """What a peer finds in an image, boxes in its px, padded as the labels are.

    A network is asked once, since nothing but its least score is chosen.
    """

    def __init__(self, peer: Peer, model: LoopModel) -> None:
        self.peer = peer
        self._model = model
        self._known: dict[str, Found] = {}

    def __call__(self, image: TrainingImage, parameters: Mapping[str, Any], fold: int | None = None) -> Found:
        name = image.micrograph.image
        if name in self._known:
            return self._known[name]
        grey, factor = working_image(image.micrograph, self._model)
        boxes, scores = self.peer.find(grey, int(image.fold or 0) if fold is None else fold, **parameters)
        found = convert(from_working(boxes, factor), self.peer.convention, "padded"), scores
        if self.peer.network is not None:
            self._known[name] = found
        return found


class KnownLoops(Finder):
    """What the chain's held-out models found, down to a low score."""

    def __init__(self, known: HeldOut, model: LoopModel) -> None:
        super().__init__(Peer(lambda grey, fold: (np.zeros((0, 4)), np.zeros(0)), [{}], network="chain"), model)
        self._known = {
            str(image): (rows[BOX_COLUMNS].to_numpy(float), rows["screening_score"].to_numpy(float))
            for image, rows in known.loops.groupby("image")
        }


def choose(finder: Finder, images: list[TrainingImage], known: HeldOut) -> tuple[dict[int, dict[str, Any]], float]:
    """Parameters, factor and least score for the images of each fold, by F1 on images of the other folds.

    The second value is the F1 of what is best for all of these images, their own labels known: no fair figure, a bound.
    """
    peer = finder.peer
    few, n_scores = (choice_images(images), _N_SCORES) if peer.network is None else (images, _N_SCORES_OF_NETWORKS)
    names = [i.micrograph.image for i in few]
    folds = np.array([known.folds[name] for name in names])
    options: list[dict[str, Any]] = []
    counts: list[np.ndarray] = []
    for parameters in peer.parameters:
        found = [finder(i, parameters) for i in few]
        pooled = np.concatenate([scores for _, scores in found])
        least = np.unique(np.quantile(pooled, np.linspace(0, 0.98, n_scores))) if len(pooled) else np.array([0.0])
        for factor, score in itertools.product(np.asarray(peer.sides, float), least):
            options.append({"parameters": parameters, "side": float(factor), "least_score": round(float(score), 4)})
            here = [_kept(boxes, scores, factor, score) for boxes, scores in found]
            counts.append(np.array([_counts(known, n, b) for n, b in zip(names, here, strict=True)]))
    every = np.stack(counts)
    best = {}
    for fold in sorted(set(known.folds.values())):
        n_labels, n_loops, n_true = every[:, folds != fold].sum(1).T
        f1 = 2 * n_true / np.maximum(n_labels + n_loops, 1)
        best[fold] = options[int(f1.argmax())] | {"f1_of_the_choice": round(float(f1.max()), 4)}
    n_labels, n_loops, n_true = every.sum(1).T
    return best, round(float((2 * n_true / np.maximum(n_labels + n_loops, 1)).max()), 4)


def choice_images(images: list[TrainingImage]) -> list[TrainingImage]:
    """Some of each fold, evenly spaced by name."""
    out = []
    for fold in sorted({int(i.fold or 0) for i in images}):
        here = [i for i in images if i.fold == fold]
        out += [here[k] for k in np.linspace(0, len(here) - 1, CHOICE_IMAGES_A_FOLD).round().astype(int)]
    return out


def _kept(boxes: np.ndarray, scores: np.ndarray, factor: float, least: float) -> np.ndarray:
    return shrink(boxes[scores >= least], 1 / factor)


def _counts(known: HeldOut, image: str, boxes: np.ndarray) -> tuple[int, int, int]:
    """Labels and boxes that count, and boxes that are true."""
    settings = Settings()
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    loops = Objects.from_candidates(table, known.shapes[image], settings.measurement.border_margin_px)
    of_label, of_loop = partners(known.marked(image), loops, settings.statistics)
    return (of_label != NOT_COUNTED).sum(), (of_loop != NOT_COUNTED).sum(), (of_loop >= 0).sum()


def _apply(finder: Finder, chosen: Mapping[str, Any], image: TrainingImage) -> pd.DataFrame:
    """An image's loops, as far as the figures need them."""
    m = image.micrograph
    boxes = _kept(*finder(image, chosen["parameters"]), chosen["side"], chosen["least_score"])
    return pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
        image=m.image,
        frame=0,
        x_px=(boxes[:, 0] + boxes[:, 2]) / 2,
        y_px=(boxes[:, 1] + boxes[:, 3]) / 2,
        diameter_px=(boxes[:, 2:] - boxes[:, :2]).max(1, initial=0),
        on_edge=touches_border(boxes, m.shape, Settings().measurement.border_margin_px),
        screening_score=1.0,
    )


def figures(known: HeldOut, loops: pd.DataFrame) -> dict[str, Any]:
    """Recall, precision and F1 by both rules, as in `evaluation.json`, with intervals over families."""
    images = pd.DataFrame(
        [
            {"image": image, "frame": 0, "status": "ok", "height_px": height, "width_px": width}
            for image, (height, width) in known.shapes.items()
        ]
    )
    found = evaluate(
        images,
        loops,
        {LABELS: known.labels},
        box_convention=known.box_convention,
        settings=Settings(),
        groups=known.groups,
    )
    wanted = [f"{name}{end}" for name in ("recall", "precision", "f1") for end in ("", "_ci_low", "_ci_high")]
    return {rule: {name: round(found[rule][name], 4) for name in wanted} for rule in ("iou_0.4", "li2018")}


def timing(
    peers: Mapping[str, Peer], chosen: Mapping[str, Any], images: list[TrainingImage], model: LoopModel
) -> dict[str, float]:
    """CPU seconds a megapixel of each, and of the chain: image by image in turn, decoding left out."""
    settings = Settings()

    def chain(image: TrainingImage) -> None:
        m = image.micrograph
        screened = screen_candidates(m, detect_candidates(m, model, settings), model, settings)
        measure_loops(m, screened, model, settings)

    def search(name: str, image: TrainingImage) -> None:
        # Where no network left this fold out, any of them takes as long.
        fold = int(image.fold or 0) if image.fold in chosen[name] else min(chosen[name])
        Finder(peers[name], model)(image, chosen[name][fold]["parameters"], fold)

    calls: dict[str, Callable[[TrainingImage], None]] = {name: partial(search, name) for name in peers}
    calls[f"models/{NAME}"] = chain
    spent = dict.fromkeys(calls, 0.0)
    # The first image also compiles and loads.
    for k, image in enumerate([images[0], *images]):
        for name, call in calls.items():
            began = time.process_time()
            call(image)
            if k:
                spent[name] += time.process_time() - began
    megapixels = sum(i.micrograph.pixels.size for i in images) / 1e6
    return {name: round(seconds / megapixels, 4) for name, seconds in spent.items()}


def write_result(rows: Mapping[str, Any], images: list[TrainingImage], n_timed: int) -> None:
    """Write and print; rows of peers that did not run stay as they were."""
    before = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
    said = provenance("make bench-peers", "scikit-image", "trackpy", threads="one thread")
    merged = before | {name: {"date": said["date"], **row} for name, row in rows.items()}
    write_json(
        {
            **said,
            "n_images": len(images),
            "choice": {
                "images": [i.micrograph.image for i in choice_images(images)],
                "rule": "F1, one-to-one at IoU 0.4, on those of the other folds; networks: on all of the other folds",
            },
            "images_timed": n_timed,
            "rows": merged,
        },
        RESULT,
    )
    for name, row in merged.items():
        iou, paper = row["iou_0.4"], row["li2018"]
        print(
            f"{name:26s} F1 {iou['f1']:.3f} ({iou['f1_ci_low']:.2f} to {iou['f1_ci_high']:.2f})  20 px: recall "
            f"{paper['recall']:.3f} precision {paper['precision']:.3f}  {row['cpu_s_per_megapixel']:.3f} CPU s/MP"
        )


if __name__ == "__main__":
    main()
