"""StarDist (Schmidt et al. 2018, arXiv:1806.03535) as a rival, installed beside the project and not a dependency of it.

    pip install --no-deps --target FOLDER stardist==0.9.2 csbdeep==0.8.2 tf_keras==2.21.0
    PYTHONPATH=FOLDER make train-peers ARGS="stardist --folds 0 4"

It wants Keras 2, which `tf_keras` still is. Ellipses in the tight boxes of the labels are its masks.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from peer_networks import Sample, folder_of, prepared, random_crops

from defectpipe.networks.training import use_threads
from defectpipe.training.versions import versions

# Not its defaults (32 filters, 128 after, no normalisation, 40,000 steps at 3e-4): what a few CPU minutes train. With
# its usual weight of the distances, in px, they hide what tells loops from the rest.
N_RAYS, GRID, N_FILTERS, N_FILTERS_AFTER = 32, (4, 4), 16, 64
PATCH_PX, BATCH_SIZE, EPOCH_STEPS, N_EPOCHS = 256, 8, 50, 16
PEAK_LEARNING_RATE = 1e-3
LOSS_WEIGHTS = (1.0, 0.05)
_VALIDATION_SHARE, _N_VALIDATION = 16, 32
# Below the least score that is chosen.
_LEAST_PROBABILITY, _MAX_OVERLAP = 0.1, 0.4


def instances(boxes: np.ndarray, side_px: int) -> np.ndarray:
    """Ellipses in the boxes, numbered from 1 (int32, 0 outside); small ones lie on top."""
    picture = np.zeros((side_px, side_px), np.int32)
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    for number, (x0, y0, x1, y1) in enumerate(boxes[order].tolist(), 1):
        middle, axes = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
        bits = 4
        centre, half = ([round(v * 2**bits) for v in pair] for pair in (middle, axes))
        cv2.ellipse(picture, centre, half, 0, 0, 360, number, cv2.FILLED, cv2.LINE_8, bits)
    return picture


def train(samples: list[Sample], folder: Path, seed: int) -> dict[str, Any]:
    """Train on crops of the samples; the best by the loss on every sixteenth of them stays."""
    if find_spec("stardist") is None:
        sys.exit(f"StarDist is not installed.\n\n{__doc__}")
    _legacy_keras()
    import tf_keras
    from stardist.models import Config2D, StarDist2D

    use_threads(1)
    tf_keras.utils.set_random_seed(seed)
    held = samples[::_VALIDATION_SHARE]
    kept = [sample for k, sample in enumerate(samples) if k % _VALIDATION_SHARE]
    n_crops = N_EPOCHS * EPOCH_STEPS * BATCH_SIZE

    @functools.lru_cache(maxsize=4 * BATCH_SIZE)
    def crop(index: int) -> tuple[np.ndarray, np.ndarray]:
        picture, boxes = next(random_crops(kept, PATCH_PX, np.random.default_rng([seed, index])))
        return picture, instances(boxes, PATCH_PX)

    class Crops(tf_keras.utils.Sequence):
        """Pictures (0) or their instances (1), each drawn when it is asked for."""

        def __init__(self, part: int) -> None:
            self._part = part

        def __len__(self) -> int:
            return n_crops

        def __getitem__(self, index: int) -> np.ndarray:
            return crop(int(index))[self._part]

    checks = itertools.islice(random_crops(held, PATCH_PX, np.random.default_rng(seed)), _N_VALIDATION)
    pictures, masks = zip(*((picture, instances(boxes, PATCH_PX)) for picture, boxes in checks), strict=True)
    settings = Config2D(
        n_rays=N_RAYS,
        grid=GRID,
        n_channel_in=1,
        unet_n_filter_base=N_FILTERS,
        unet_batch_norm=True,
        net_conv_after_unet=N_FILTERS_AFTER,
        train_loss_weights=LOSS_WEIGHTS,
        train_patch_size=(PATCH_PX, PATCH_PX),
        train_batch_size=BATCH_SIZE,
        train_epochs=N_EPOCHS,
        train_steps_per_epoch=EPOCH_STEPS,
        train_learning_rate=PEAK_LEARNING_RATE,
        train_reduce_lr=None,
        train_sample_cache=False,
        train_tensorboard=False,
        use_gpu=False,
    )
    model = StarDist2D(settings, name="model", basedir=str(folder))
    model.prepare_for_training()
    model.callbacks.append(
        tf_keras.callbacks.LearningRateScheduler(
            lambda epoch: PEAK_LEARNING_RATE * (0.5 + 0.5 * float(np.cos(np.pi * epoch / N_EPOCHS))) + 1e-6
        )
    )
    model.train(Crops(0), Crops(1), validation_data=(list(pictures), list(masks)), seed=seed)
    return {
        "n_steps": N_EPOCHS * EPOCH_STEPS,
        "batch": f"{BATCH_SIZE} crops of {PATCH_PX} px",
        "parameters": model.keras_model.count_params(),
        "megabytes": round((folder / "model" / "weights_best.h5").stat().st_size / 1e6, 2),
        "versions": versions(("stardist", "csbdeep", "tf_keras", "tensorflow")),
    }


def find(grey: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Tight boxes around the polygons, and their probabilities, by the network that never saw the fold."""
    _, found = _model(fold).predict_instances(
        prepared(grey), prob_thresh=_LEAST_PROBABILITY, nms_thresh=_MAX_OVERLAP, verbose=False
    )
    rows, columns = np.moveaxis(np.asarray(found["coord"], float).reshape(-1, 2, N_RAYS), 1, 0)
    boxes = np.stack([columns.min(1), rows.min(1), columns.max(1), rows.max(1)], 1)
    return boxes, np.asarray(found["prob"], float)


@functools.cache
def _model(fold: int) -> Any:
    _legacy_keras()
    use_threads(1)
    from stardist.models import StarDist2D

    return StarDist2D(None, name="model", basedir=str(folder_of("stardist", fold)))


def _legacy_keras() -> None:
    """TensorFlow reads it when its Keras is first asked for."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
