"""A fully convolutional centre detector: a heat map of loop centres, offsets and box sizes, at a quarter of the size.

As CenterNet (Zhou, Wang & Krähenbühl 2019, arXiv:1904.07850), on a small encoder-decoder. Keras trains, ONNX Runtime
infers, in tiles that the benchmark's images fill with one.
"""

from __future__ import annotations

import itertools
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from peer_networks import Sample, folder_of, prepared, random_crops

from defectpipe.boxes import suppress
from defectpipe.io.tables import write_json
from defectpipe.networks.export import export_onnx
from defectpipe.networks.session import open_session
from defectpipe.networks.training import fit, use_threads
from defectpipe.training.versions import versions

if TYPE_CHECKING:
    import keras

STRIDE = 4
CROP_PX, BATCH_SIZE, N_STEPS = 320, 6, 2000
PEAK_LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.02
_WIDTHS = (16, 32, 64, 96, 128)
# Sides are learned as log(side / _USUAL_SIDE_PX), centres where the heat is above _NEAR.
_USUAL_SIDE_PX, _NEAR = 40.0, 0.35
_HEAT_SIGMA = 0.13
_LEAST_SCORE, _MAX_OVERLAP, _MOST = 0.05, 0.45, 1500
TILE_PX, _MARGIN_PX = 1024, 64


def build(side_px: int | None = None) -> keras.Model:
    """The network, of pictures (n, side, side, 1), side a multiple of 32.

    It gives (n, side/4, side/4, 5): heat (logit), offset x and y (px of the output), logarithms of width and height.
    """
    import keras
    from keras import layers

    def convolved(x: Any, width: int, stride: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False)(x)
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.98)(x))

    picture = keras.Input((side_px, side_px, 1), name="input")
    x = convolved(convolved(picture, _WIDTHS[0], 2, 5), _WIDTHS[0])
    levels = []
    for width in _WIDTHS[1:]:
        x = convolved(convolved(x, width, 2), width)
        levels.append(x)
    for level, narrow, width in zip(levels[-2::-1], (96, 64, 32), (80, 48, 32), strict=True):
        upper = layers.UpSampling2D(2, interpolation="bilinear")(convolved(x, narrow, 1, 1))
        x = convolved(layers.Concatenate()([upper, level]), width)
    x = convolved(x, 32)
    heat = layers.Conv2D(1, 1, bias_initializer=keras.initializers.Constant(-3.0))(x)
    return keras.Model(picture, layers.Concatenate()([heat, layers.Conv2D(4, 1)(x)]))


def targets(boxes: np.ndarray, side_px: int) -> np.ndarray:
    """What the network should answer for a crop: (side/4, side/4, 6): heat, dx, dy, log sides, weight of these four."""
    n = side_px // STRIDE
    answer = np.zeros((n, n, 6), np.float32)
    y, x = np.mgrid[:n, :n].astype(np.float32)
    # Small ones last: where two overlap, the smaller is to be found.
    for x0, y0, x1, y1 in sorted(boxes.tolist(), key=lambda box: -(box[2] - box[0]) * (box[3] - box[1])):
        cx, cy = ((low + high + 1) / (2 * STRIDE) - 0.5 for low, high in ((x0, x1), (y0, y1)))
        if min(cx, cy) < -0.5 or max(cx, cy) > n - 0.5:
            continue
        width, height = x1 - x0, y1 - y0
        sx, sy = (max(side / STRIDE * _HEAT_SIGMA, 0.7) for side in (width, height))
        heat = np.exp(-((x - cx) ** 2 / (2 * sx * sx) + (y - cy) ** 2 / (2 * sy * sy)))
        column, row = (int(np.clip(round(c), 0, n - 1)) for c in (cx, cy))
        heat[row, column] = 1
        answer[..., 0] = np.maximum(answer[..., 0], heat)
        near = heat > _NEAR
        answer[near, 1], answer[near, 2] = cx - x[near], cy - y[near]
        answer[near, 3], answer[near, 4] = np.log(width / _USUAL_SIDE_PX), np.log(height / _USUAL_SIDE_PX)
        answer[near, 5] = heat[near]
    return answer


def loss(answers: Any, outputs: Any) -> Any:
    """Focal loss of the heat, and the absolute error of offsets and sides near centres."""
    import tensorflow as tf

    heat, logit = answers[..., 0], outputs[..., 0]
    p, log_p, log_q = tf.sigmoid(logit), tf.math.log_sigmoid(logit), tf.math.log_sigmoid(-logit)
    centre = tf.cast(heat > 0.999, tf.float32)
    focal = centre * (1 - p) ** 2 * log_p + (1 - centre) * (1 - heat) ** 4 * p**2 * log_q
    weight = answers[..., 5:6]
    error = tf.abs(answers[..., 1:5] - outputs[..., 1:5]) * tf.constant([0.25, 0.25, 1.0, 1.0])
    boxes = tf.reduce_sum(error * weight) / (tf.reduce_sum(weight) + 1)
    return -tf.reduce_sum(focal) / (tf.reduce_sum(centre) + 1) + 2 * boxes


def train(samples: list[Sample], folder: Path, seed: int) -> dict[str, Any]:
    """Train on crops of the samples, and write ``network.onnx``."""
    import keras

    use_threads(1)
    keras.utils.set_random_seed(seed)
    crops, spent = random_crops(samples, CROP_PX, np.random.default_rng(seed)), folder / "spent.json"

    def next_batch() -> tuple[np.ndarray, np.ndarray]:
        drawn = list(itertools.islice(crops, BATCH_SIZE))
        pictures = np.stack([picture for picture, _ in drawn])[..., None]
        return pictures, np.stack([targets(boxes, CROP_PX) for _, boxes in drawn])

    before = _spent_before(spent)
    began = time.process_time()

    def progress(step: int, value: float) -> None:
        seconds = before + time.process_time() - began
        write_json({"cpu_s": seconds}, spent)
        print(f"centre: step {step}, loss {value:.3f}, {seconds:.0f} CPU s", flush=True)

    network, checkpoint = build(), folder / "checkpoint.npz"
    fit(
        network,
        next_batch,
        loss,
        n_steps=N_STEPS,
        peak_learning_rate=PEAK_LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        progress=progress,
        checkpoint=checkpoint,
    )
    export(network, folder)
    checkpoint.unlink(missing_ok=True)
    spent.unlink(missing_ok=True)
    return {
        "cpu_s_before": before,
        "n_steps": N_STEPS,
        "batch": f"{BATCH_SIZE} crops of {CROP_PX} px",
        "parameters": network.count_params(),
        "megabytes": round((folder / "network.onnx").stat().st_size / 1e6, 2),
        "versions": versions(("tensorflow", "keras", "onnxruntime")),
    }


def _spent_before(path: Path) -> float:
    import json

    return float(json.loads(path.read_text(encoding="utf-8"))["cpu_s"]) if path.exists() else 0.0


def export(network: keras.Model, folder: Path) -> None:
    """Write the trained network for tiles of `TILE_PX`."""
    fixed = build(TILE_PX)
    fixed.set_weights(network.get_weights())
    export_onnx(fixed, folder / "network.onnx")


def find(grey: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores in an image, by the network that never saw its fold."""
    session = _session(fold)
    picture = prepared(grey)
    height, width = picture.shape
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    for top, left in itertools.product(_starts(height), _starts(width)):
        part = picture[top : top + TILE_PX, left : left + TILE_PX]
        filled = np.pad(part, [(0, TILE_PX - n) for n in part.shape], mode="reflect")
        [maps] = session.run(None, {"input": filled[None, ..., None]})
        found, how_sure = decode(maps[0])
        # Each tile answers for what lies nearest to its middle.
        centre = (found[:, :2] + found[:, 2:]) / 2
        own = np.ones(len(found), bool)
        for axis, (start, size) in enumerate(((left, width), (top, height))):
            low = 0 if start == 0 else _MARGIN_PX
            high = size - start if start + TILE_PX >= size else TILE_PX - _MARGIN_PX
            own &= (centre[:, axis] >= low - 0.5) & (centre[:, axis] < high - 0.5)
        boxes.append(found[own] + [left, top, left, top])
        scores.append(how_sure[own])
    every, score = np.concatenate(boxes), np.concatenate(scores)
    kept = suppress(every, score, _MAX_OVERLAP, _MOST)
    return every[kept], score[kept]


def decode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores at the maxima of the heat."""
    import cv2

    heat = 1 / (1 + np.exp(-maps[..., 0].astype(float)))
    row, column = np.nonzero((heat >= cv2.dilate(heat, np.ones((3, 3)))) & (heat > _LEAST_SCORE))
    answer = maps[row, column].astype(float)
    x, y = ((at + answer[:, k] + 0.5) * STRIDE - 0.5 for k, at in ((1, column), (2, row)))
    half_w, half_h = (_USUAL_SIDE_PX / 2 * np.exp(np.clip(answer[:, k], -3, 3)) for k in (3, 4))
    return np.stack([x - half_w, y - half_h, x + half_w, y + half_h], 1), heat[row, column]


def _starts(size_px: int) -> list[int]:
    """Where tiles begin: neighbours share 2 × `_MARGIN_PX`."""
    step = TILE_PX - 2 * _MARGIN_PX
    return [0, *range(step, size_px - 2 * _MARGIN_PX, step)] if size_px > TILE_PX else [0]


@cache
def _session(fold: int) -> onnxruntime.InferenceSession:
    return open_session((folder_of("centre", fold) / "network.onnx").read_bytes(), f"centre, fold {fold}")
