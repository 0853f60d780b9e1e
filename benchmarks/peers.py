"""Blob detectors that a user would install, as loop detectors on the FeCrAl set, beside models/fecral-loops.

    python benchmarks/peers.py [--only NAME ...] [--timed 8]

scikit-image's `blob_log`, `blob_dog`, `blob_doh`, and `trackpy.locate` (extra `benchmarks`). Each image is searched
with the parameters that are best (F1, one-to-one at IoU 0.4) on some images of the other folds; the figures are those
of `make bench-fecral`, by the same rules. CPU seconds are of one run, the chain of models/fecral-loops among them,
image by image in turn. Results: results/peers.json; with `--only` the other rows there stay.

Another detector is another `Peer` in `PEERS`: a function of an image to boxes and scores, and what to choose from.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import pandas as pd
from fecral_data import MODELS, NAME, RESULTS, training_images
from fecral_figures import held_out
from skimage.feature import blob_dog, blob_doh, blob_log

from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates, working_image
from defectpipe.boxes import touches_border
from defectpipe.io.tables import write_json
from defectpipe.model import LoopModel
from defectpipe.resolution import from_working
from defectpipe.settings import Settings
from defectpipe.statistics import evaluate
from defectpipe.statistics.scoring import BOX_COLUMNS, NOT_COUNTED, Objects, partners
from defectpipe.training import TrainingImage
from defectpipe.training.figures import LABELS, HeldOut, choose_thresholds

Found = tuple[np.ndarray, np.ndarray]
"""Square or other boxes (n, 4) in px of the working image, padded as the labels are, and scores (n,)."""

RESULT = RESULTS / "peers.json"
CHOICE_IMAGES_A_FOLD = 4
REDUCTION = 4
# Of the reduced image, in its px.
_BACKGROUND_PX = 16.0
_SIDES = np.arange(1.5, 5.01, 0.5)
_N_SCORES = 6


@dataclass(frozen=True)
class Peer:
    """A detector, and what is chosen for it on the other folds.

    Parameters
    ----------
    find : callable
        ``find(grey, fold, **parameters)``: `Found` in the working image (uint8: what the model of this project sees,
        reduced to its pixel size) of an image in this fold; a network takes there the weights that never saw the fold.
        Scores all equal: nothing is chosen by them.
    parameters : list of dict
        What `find` may be called with.
    sides : array_like
        Factors for the sides of the boxes.
    """

    find: Callable[..., Found]
    parameters: list[dict[str, Any]]
    sides: Any = (1.0,)


def flattened(grey: np.ndarray, polarity: str) -> np.ndarray:
    """The image reduced by `REDUCTION`, its background taken off, in standard deviations; loops bright."""
    small = cv2.resize(grey, None, fx=1 / REDUCTION, fy=1 / REDUCTION, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= cv2.GaussianBlur(small, (0, 0), _BACKGROUND_PX)
    return small / max(float(small.std()), 1e-6) * (-1 if polarity == "dark" else 1)


def skimage_blobs(
    detector: Callable[..., np.ndarray], grey: np.ndarray, fold: int, *, polarity: str, **parameters: Any
) -> Found:
    """Boxes of side sigma around the blobs; scikit-image gives no scores."""
    del fold
    blobs = detector(flattened(grey, polarity), **parameters)
    return _squares(blobs[:, 1], blobs[:, 0], blobs[:, 2]), np.ones(len(blobs))


def trackpy_features(grey: np.ndarray, fold: int, *, polarity: str, **parameters: Any) -> Found:
    """Boxes of side "size" (radius of gyration) around the features; their score is their mass."""
    import trackpy

    del fold
    trackpy.quiet()
    # It works on integers.
    picture = np.clip(np.rint(128 + 32 * flattened(grey, polarity)), 0, 255).astype(np.uint8)
    features = trackpy.locate(picture, **parameters)
    columns = (features[name].to_numpy(float) for name in ("x", "y", "size"))
    return _squares(*columns), features["mass"].to_numpy(float)


def _squares(x: np.ndarray, y: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Boxes in px of the working image from centres and sides in those of the reduced one."""
    x, y = ((v + 0.5) * REDUCTION - 0.5 for v in (x, y))
    half = REDUCTION * side / 2
    return np.stack([x - half, y - half, x + half, y + half], 1)


def _grid(**choices: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


_POLARITIES = ["dark", "bright"]
PEERS: dict[str, Peer] = {
    "scikit-image blob_log": Peer(
        partial(skimage_blobs, blob_log),
        _grid(
            polarity=_POLARITIES,
            min_sigma=[2.0, 3.5, 5.0],
            max_sigma=[9.0],
            num_sigma=[8],
            log_scale=[True],
            threshold=[0.8, 1.2, 1.8],
        ),
        _SIDES,
    ),
    "scikit-image blob_dog": Peer(
        partial(skimage_blobs, blob_dog),
        _grid(
            polarity=_POLARITIES,
            min_sigma=[2.0, 3.5, 5.0],
            max_sigma=[9.0],
            threshold=[0.35, 0.6, 0.9, 1.3],
        ),
        _SIDES,
    ),
    "scikit-image blob_doh": Peer(
        # The determinant does not tell dark from bright.
        partial(skimage_blobs, blob_doh),
        _grid(
            polarity=["dark"],
            min_sigma=[3.5, 5.0, 7.0],
            max_sigma=[12.0],
            num_sigma=[8],
            log_scale=[True],
            threshold=[0.1, 0.2, 0.4],
        ),
        _SIDES / 2,
    ),
    "trackpy locate": Peer(
        trackpy_features,
        _grid(polarity=_POLARITIES, diameter=[11, 15, 21], percentile=[64]),
        _SIDES + 0.5,
    ),
}


def main() -> None:
    """Choose, search, time, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS), help="these alone")
    parser.add_argument("--timed", type=int, default=8, help="images on which CPU seconds are measured")
    args = parser.parse_args()
    if "trackpy locate" in args.only and find_spec("trackpy") is None:
        sys.exit("trackpy is not installed: pip install '.[benchmarks]', or choose others with --only.")
    cv2.setNumThreads(1)
    images = training_images()
    known, model = held_out(images), LoopModel.load(MODELS / NAME)
    peers = {name: PEERS[name] for name in args.only}
    chosen, rows = {}, {}
    for name, peer in peers.items():
        began = time.process_time()
        chosen[name] = choose(peer, images, known, model)
        middle = time.process_time()
        loops = pd.concat([_apply(peer, chosen[name][int(i.fold or 0)], i, model) for i in images], ignore_index=True)
        rows[name] = {
            **figures(known, loops),
            "chosen": chosen[name],
            "cpu_s_of_the_choice": round(middle - began, 1),
        }
        print(name, json.dumps(rows[name]), flush=True)
    ours = known.kept(choose_thresholds(known)[1])
    timed = timing(peers, chosen, images[:: max(1, len(images) // args.timed)], model)
    rows[f"models/{NAME}"] = figures(known, ours)
    for name, seconds in timed.items():
        rows[name] |= {
            "cpu_s_per_megapixel": seconds,
            "cpu_over_the_chain": round(seconds / timed[f"models/{NAME}"], 3),
        }
    write_result(rows, images, args.timed)


def choose(peer: Peer, images: list[TrainingImage], known: HeldOut, model: LoopModel) -> dict[int, dict[str, Any]]:
    """Parameters, factor and least score for the images of each fold, by F1 on images of the other folds."""
    few = choice_images(images)
    names = [i.micrograph.image for i in few]
    folds = np.array([known.folds[name] for name in names])
    options: list[dict[str, Any]] = []
    counts: list[np.ndarray] = []
    for parameters in peer.parameters:
        found = [_found(peer, i, model, parameters) for i in few]
        pooled = np.concatenate([scores for _, scores in found])
        least = np.unique(np.quantile(pooled, np.linspace(0, 0.98, _N_SCORES))) if len(pooled) else np.array([0.0])
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
    return best


def choice_images(images: list[TrainingImage]) -> list[TrainingImage]:
    """Some of each fold, evenly spaced by name."""
    out = []
    for fold in sorted({int(i.fold or 0) for i in images}):
        here = [i for i in images if i.fold == fold]
        out += [here[k] for k in np.linspace(0, len(here) - 1, CHOICE_IMAGES_A_FOLD).round().astype(int)]
    return out


def _found(peer: Peer, image: TrainingImage, model: LoopModel, parameters: Mapping[str, Any]) -> Found:
    """What is found in an image, boxes in its own px."""
    grey, factor = working_image(image.micrograph, model)
    boxes, scores = peer.find(grey, int(image.fold or 0), **parameters)
    return from_working(boxes, factor), scores


def _kept(boxes: np.ndarray, scores: np.ndarray, factor: float, least: float) -> np.ndarray:
    boxes = boxes[scores >= least]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def _counts(known: HeldOut, image: str, boxes: np.ndarray) -> tuple[int, int, int]:
    """Labels and boxes that count, and boxes that are true."""
    settings = Settings()
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    loops = Objects.from_candidates(table, known.shapes[image], settings.measurement.border_margin_px)
    of_label, of_loop = partners(known.marked(image), loops, settings.statistics)
    return (of_label != NOT_COUNTED).sum(), (of_loop != NOT_COUNTED).sum(), (of_loop >= 0).sum()


def _apply(peer: Peer, chosen: Mapping[str, Any], image: TrainingImage, model: LoopModel) -> pd.DataFrame:
    """An image's loops, as far as the figures need them."""
    m = image.micrograph
    boxes = _kept(*_found(peer, image, model, chosen["parameters"]), chosen["side"], chosen["least_score"])
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
        _found(peers[name], image, model, chosen[name][int(image.fold or 0)]["parameters"])

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
    merged = before | dict(rows)
    write_json(
        {
            "command": "make bench-peers",
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {platform.system()}, one thread",
            "versions": {
                name: version(name)
                for name in ("scikit-image", "trackpy", "numpy", "scipy")
                if name != "trackpy" or find_spec(name)
            },
            "n_images": len(images),
            "choice": {
                "images": [i.micrograph.image for i in choice_images(images)],
                "rule": "F1, one-to-one at IoU 0.4, on those of the other folds",
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
