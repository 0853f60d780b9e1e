"""A learned judgement of an object from 1 to 8 views: which views count, and what they say together.

A small network on what the recogniser says of each view, whatever their order and number (Zaheer et al., "Deep sets",
2017; Ilse et al., "Attention-based deep multiple instance learning", 2018). It starts as the baseline, the sum of
log-probabilities, and learns a weight for each view and a correction from the views' features together. TensorFlow is
imported when called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.networks.residual import MOMENTUM
from defectpipe.networks.training import fit
from defectpipe.recognition.calibration import log_softmax
from defectpipe.recognition.recogniser import Layout

if TYPE_CHECKING:
    import keras

MAX_VIEWS = 8
_WIDTH = 64


@dataclass(frozen=True)
class FusionRecipe:
    """Schedule of the fusion's training.

    Parameters
    ----------
    n_steps, batch_size : int
    learning_rate, weight_decay, dropout : float
    """

    n_steps: int = 3_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.2


def pad_views(answers: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """The fusion network's inputs from the answers to up to 8 views of each object.

    Parameters
    ----------
    answers : ndarray, shape (objects, views, layout.n_answers)
        Of the recogniser.
    layout : Layout

    Returns
    -------
    dict of ndarray of float32
        ``features`` (objects, 8, n), ``evidence`` (objects, 8, classes; log-probabilities), ``present``
        (objects, 8, 1): 1 of a view, 0 of none.
    """
    n_objects, n_views = answers.shape[:2]
    place = layout.slices

    def padded(values: np.ndarray) -> np.ndarray:
        made = np.zeros((n_objects, MAX_VIEWS, values.shape[-1]), np.float32)
        made[:, :n_views] = values
        return made

    return {
        "features": padded(answers[..., place["features"]]),
        "evidence": padded(log_softmax(answers[..., place["classes"]])),
        "present": padded(np.ones((n_objects, n_views, 1))),
    }


def build_fusion(layout: Layout, dropout: float = 0.2) -> keras.Model:
    """From `pad_views` to the logits of the classes, (n, classes); untrained it gives the summed log-probabilities."""
    import keras
    from keras import layers, ops

    n = len(layout.classes)
    features = layers.Input((MAX_VIEWS, layout.n_features), name="features")
    evidence = layers.Input((MAX_VIEWS, n), name="evidence")
    present = layers.Input((MAX_VIEWS, 1), name="present")
    x = layers.Concatenate()([layers.BatchNormalization(momentum=MOMENTUM)(features), layers.Rescaling(0.1)(evidence)])
    x = layers.Dropout(dropout)(layers.Dense(_WIDTH, activation="relu")(x))
    # 1 of every view at first
    weight = layers.Dense(1, activation="softplus", kernel_initializer="zeros", bias_initializer=_inverse_softplus_one)(
        x
    )
    counted = layers.Multiply()([weight, present])
    total = ops.sum(layers.Multiply()([evidence, counted]), axis=1)
    mean = ops.sum(layers.Multiply()([x, present]), axis=1) / ops.sum(present, axis=1)
    most = ops.max(layers.Multiply()([x, present]), axis=1)
    together = layers.Concatenate()([mean, most, ops.sum(present, axis=1) / MAX_VIEWS])
    correction = layers.Dense(_WIDTH, activation="relu")(together)
    correction = layers.Dense(n, kernel_initializer="zeros")(layers.Dropout(dropout)(correction))
    return keras.Model([features, evidence, present], layers.Add()([total, correction]), name="fusion")


def fit_fusion(
    answers: np.ndarray,
    label: np.ndarray,
    layout: Layout,
    recipe: FusionRecipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> keras.Model:
    """Train the fusion on objects that the recogniser has not learned from: on those it is too sure.

    Parameters
    ----------
    answers : ndarray, shape (objects, views, layout.n_answers)
    label : ndarray of int, shape (objects,)
    layout : Layout
    recipe : FusionRecipe
    seed : int
    checkpoint, progress : optional
        See `training.fit_recogniser`.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    network = build_fusion(layout, recipe.dropout)
    batches = _Groups(
        pad_views(answers, layout), np.asarray(label, np.int32), answers.shape[1], recipe.batch_size, seed
    )

    def loss(truth: Any, logits: Any) -> Any:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits))

    fit(
        network,
        batches.next,
        loss,
        n_steps=recipe.n_steps,
        peak_learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network


class _Groups:
    """Random objects with a random choice of their views; a batch depends on seed and step alone."""

    def __init__(self, inputs: dict[str, np.ndarray], label: np.ndarray, n_views: int, size: int, seed: int) -> None:
        self._inputs, self._label, self._n_views, self._size, self._seed = inputs, label, n_views, size, seed
        self._step = 0

    def next(self) -> tuple[list[np.ndarray], np.ndarray]:
        rng = np.random.default_rng((self._seed, self._step))
        self._step += 1
        rows = rng.integers(len(self._label), size=self._size)
        count = rng.integers(1, self._n_views, self._size, endpoint=True)
        luck = rng.random((self._size, MAX_VIEWS))
        luck[:, self._n_views :] = 2.0
        chosen = luck.argsort(1).argsort(1) < count[:, None]
        return [values[rows] * chosen[..., None] for values in self._inputs.values()], self._label[rows]


def _inverse_softplus_one(shape: Any, dtype: Any = None) -> Any:
    from keras import ops

    return ops.full(shape, float(np.log(np.e - 1)), dtype)
