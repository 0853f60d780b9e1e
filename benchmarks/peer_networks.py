"""Networks as rival detectors on the FeCrAl set: trained without each fold, kept in ``PEERS_CACHE``.

    python benchmarks/peer_networks.py [NAME ...] [--folds 0 1 ...]

`centre` (peer_centre.py) and `stardist` (peer_stardist.py) learn from the same images, prepared the same way, about as
long. What is there already is not trained again; an interrupted training of `centre` goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fecral_data import MODELS, NAME, training_images

from defectpipe.analysis import working_image
from defectpipe.io.tables import write_json
from defectpipe.model import LoopModel
from defectpipe.resolution import to_working
from defectpipe.statistics.scoring import BOX_COLUMNS

CACHE = Path(os.environ.get("PEERS_CACHE", Path(__file__).parent / "peers-cache"))
MODULES = {"centre": "peer_centre", "stardist": "peer_stardist"}
"""Module of each network: `train(samples, folder, seed)` writes a network there and says what it took."""
FOLDS = tuple(range(5))
SEED = 0
_RECORD = "training.json"
_BACKGROUND_PX = 32.0
# Grey levels; keeps flat places from becoming noise.
_LEAST_STD = 5.0
_MAX_OUTSIDE_PX = 40


@dataclass(frozen=True, eq=False)
class Sample:
    """A training image at the model's pixel size.

    Parameters
    ----------
    picture : ndarray of float32, shape (height, width)
        As `prepared` makes it.
    boxes : ndarray, shape (n, 4)
        Labels in its px, tight.
    share : float
        Of the draws, relative to the others'.
    """

    picture: np.ndarray
    boxes: np.ndarray
    share: float


def prepared(grey: np.ndarray) -> np.ndarray:
    """The image with its background taken off, over the local standard deviation; float32, about −2 to 2."""
    picture = grey.astype(np.float32)
    picture -= cv2.GaussianBlur(picture, (0, 0), _BACKGROUND_PX)
    variance = cv2.GaussianBlur(picture**2, (0, 0), _BACKGROUND_PX)
    return np.clip(picture / np.sqrt(variance + _LEAST_STD**2), -4, 4) / 2


def samples_without(fold: int) -> list[Sample]:
    """The images of the other folds; a family is drawn by the square root of its size."""
    model = LoopModel.load(MODELS / NAME)
    images = [i for i in training_images() if i.fold != fold]
    families = [i.group for i in images]
    weights = np.array([families.count(family) ** -0.5 for family in families])
    samples = []
    for image, share in zip(images, weights, strict=True):
        grey, factor = working_image(image.micrograph, model)
        boxes = to_working(image.labels[BOX_COLUMNS].to_numpy(float), factor)
        samples.append(Sample(prepared(grey), boxes, float(share)))
    return samples


def random_crops(samples: list[Sample], side_px: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Any]]:
    """Endless random crops, of another scale, turned, mirrored, with other contrast, sharpness and noise.

    Yields
    ------
    picture : ndarray of float32, shape (side_px, side_px)
    boxes : ndarray, shape (n, 4)
        All of the image's, in px of the crop; some lie outside.
    """
    shares = np.array([sample.share for sample in samples])
    shares /= shares.sum()
    while True:
        sample = samples[rng.choice(len(samples), p=shares)]
        yield _random_crop(sample, side_px, rng)


def _random_crop(sample: Sample, side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = sample.picture.shape
    taken = int(side_px / np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    y, x = (int(rng.integers(-_MAX_OUTSIDE_PX, max(n - taken, 0) + _MAX_OUTSIDE_PX + 1)) for n in (height, width))
    scale = side_px / taken
    picture = cv2.warpAffine(
        sample.picture,
        np.array([[scale, 0, -x * scale], [0, scale, -y * scale]], np.float32),
        (side_px, side_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    boxes = (sample.boxes - [x, y, x, y]) * scale
    last = side_px - 1
    if rng.random() < 0.5:
        picture, boxes = picture[:, ::-1], (boxes * [-1, 1, -1, 1] + [last, 0, last, 0])[:, [2, 1, 0, 3]]
    if rng.random() < 0.5:
        picture, boxes = picture[::-1], (boxes * [1, -1, 1, -1] + [0, last, 0, last])[:, [0, 3, 2, 1]]
    if rng.random() < 0.5:
        picture, boxes = picture.T, boxes[:, [1, 0, 3, 2]]
    picture = picture * rng.uniform(0.7, 1.35) + rng.uniform(-0.2, 0.2)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), rng.uniform(0.5, 1.5))
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(0.02, 0.15), picture.shape)
    return np.ascontiguousarray(picture, np.float32), boxes


def folder_of(name: str, fold: int) -> Path:
    """Where the network is that never saw this fold."""
    return CACHE / name / f"fold-{fold}"


def trained_folds(name: str) -> tuple[int, ...]:
    """Folds for which there is a network."""
    return tuple(fold for fold in FOLDS if (folder_of(name, fold) / _RECORD).exists())


def records(name: str) -> list[dict[str, Any]]:
    """What each of its trainings took."""
    return [json.loads((folder_of(name, f) / _RECORD).read_text(encoding="utf-8")) for f in trained_folds(name)]


def main() -> None:
    """Train what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; default: centre")
    parser.add_argument("--folds", nargs="*", type=int, choices=FOLDS, default=list(FOLDS))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    for name in args.names or ["centre"]:
        for fold in args.folds:
            if fold in trained_folds(name):
                print(f"{name}, fold {fold}: there already")
                continue
            folder = folder_of(name, fold)
            folder.mkdir(parents=True, exist_ok=True)
            began = time.process_time()
            record = import_module(MODULES[name]).train(samples_without(fold), folder, SEED)
            # Of this process: one that goes on from a checkpoint adds what was spent before.
            seconds = time.process_time() - began + record.pop("cpu_s_before", 0.0)
            write_json({"fold": fold, "seed": SEED, "cpu_minutes": round(seconds / 60, 2)} | record, folder / _RECORD)
            print(f"{name}, fold {fold}: {seconds / 60:.1f} CPU minutes", flush=True)


if __name__ == "__main__":
    main()
