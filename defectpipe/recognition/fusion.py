"""A learned judgement of an object from 1 to 8 views: which views count, and what they say together.

A small network on what the recogniser says of each view, whatever their order and number (Zaheer et al., "Deep sets",
2017; Ilse et al., "Attention-based deep multiple instance learning", 2018). It starts as the baseline, the sum of
log-probabilities (of the deformations: the mean of their logits), and learns a weight for each view and corrections
from the views' features together. TensorFlow is imported when called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from defectpipe.networks.residual import MOMENTUM
from defectpipe.networks.training import fit
from defectpipe.recognition.calibration import log_softmax
from defectpipe.recognition.recogniser import Layout, deformation_loss

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
        ``features`` (objects, 8, n), ``evidence`` (objects, 8, classes; log-probabilities), ``deformations``
        (objects, 8, k; logits), ``present`` (objects, 8, 1): 1 of a view, 0 of none.
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
        "deformations": padded(answers[..., place["deformations"]]),
        "present": padded(np.ones((n_objects, n_views, 1))),
    }


def build_fusion(layout: Layout, dropout: float = 0.2) -> keras.Model:
    """From `pad_views` to the logits of classes and deformations, (n, classes + k); untrained it is the baseline."""
    import keras
    from keras import layers, ops

    n, k = len(layout.classes), len(layout.deformations)
    features = layers.Input((MAX_VIEWS, layout.n_features), name="features")
    evidence = layers.Input((MAX_VIEWS, n), name="evidence")
    deformations = layers.Input((MAX_VIEWS, k), name="deformations")
    present = layers.Input((MAX_VIEWS, 1), name="present")
    known = layers.Rescaling(0.1)(layers.Concatenate()([evidence, deformations]))
    x = layers.Concatenate()([layers.BatchNormalization(momentum=MOMENTUM)(features), known])
    x = layers.Dropout(dropout)(layers.Dense(_WIDTH, activation="relu")(x))
    # 1 of every view at first
    weight = layers.Dense(1, activation="softplus", kernel_initializer="zeros", bias_initializer=_inverse_softplus_one)(
        x
    )
    counted = layers.Multiply()([weight, present])
    total = ops.sum(layers.Multiply()([evidence, counted]), axis=1)
    n_present = ops.sum(present, axis=1)
    evenly = ops.sum(layers.Multiply()([deformations, present]), axis=1) / n_present
    mean = ops.sum(layers.Multiply()([x, present]), axis=1) / n_present
    most = ops.max(layers.Multiply()([x, present]), axis=1)
    together = layers.Concatenate()([mean, most, n_present / MAX_VIEWS])
    correction = layers.Dropout(dropout)(layers.Dense(_WIDTH, activation="relu")(together))
    correction = layers.Dense(n + k, kernel_initializer="zeros")(correction)
    fused = layers.Add()([layers.Concatenate()([total, evenly]), correction])
    return keras.Model([features, evidence, deformations, present], fused, name="fusion")


def split_fused(fused: np.ndarray, layout: Layout, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the classes (n, classes) and of each deformation (n, k) from the fusion's output.

    The temperature is of the classes only.
    """
    n = len(layout.classes)
    logits = np.asarray(fused, float)
    return np.exp(log_softmax(logits[:, :n] / temperature)), expit(logits[:, n:])


def fit_fusion(
    answers: np.ndarray,
    label: np.ndarray,
    deformations: np.ndarray,
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
    deformations : ndarray, shape (objects, k)
        1 where an object is deformed so, else 0.
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
    truth = (np.asarray(label, np.int32), np.asarray(deformations, np.float32))
    batches = _Groups(pad_views(answers, layout), truth, answers.shape[1], recipe.batch_size, seed)
    n = len(layout.classes)

    def loss(truth: Any, logits: Any) -> Any:
        of_class = tf.nn.sparse_softmax_cross_entropy_with_logits(truth[0], logits[:, :n])
        return tf.reduce_mean(of_class) + deformation_loss(truth[1], logits[:, n:])

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

    def __init__(
        self, inputs: dict[str, np.ndarray], truth: tuple[np.ndarray, ...], n_views: int, size: int, seed: int
    ) -> None:
        self._inputs, self._truth, self._n_views, self._size, self._seed = inputs, truth, n_views, size, seed
        self._step = 0

    def next(self) -> tuple[list[np.ndarray], tuple[np.ndarray, ...]]:
        rng = np.random.default_rng((self._seed, self._step))
        self._step += 1
        rows = rng.integers(len(self._truth[0]), size=self._size)
        count = rng.integers(1, self._n_views, self._size, endpoint=True)
        luck = rng.random((self._size, MAX_VIEWS))
        luck[:, self._n_views :] = 2.0
        chosen = luck.argsort(1).argsort(1) < count[:, None]
        inputs = [values[rows] * chosen[..., None] for values in self._inputs.values()]
        return inputs, tuple(values[rows] for values in self._truth)


def _inverse_softplus_one(shape: Any, dtype: Any = None) -> Any:
    from keras import ops

    return ops.full(shape, float(np.log(np.e - 1)), dtype)
