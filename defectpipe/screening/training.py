"""Training of the screener with Keras. TensorFlow is imported only when this runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.errors import LabelError, ModelError
from defectpipe.networks.training import fit
from defectpipe.screening.augmentation import Batches
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe, build_network
from defectpipe.screening.samples import STORED_MARGIN, Samples, to_float
from defectpipe.screening.start import StartWeights

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_ATTEMPTS, _SEEDS_APART = 3, 1000
# So many crops, and so large a range of their probabilities, tell a network that learned from one that did not.
_JUDGED, _LEAST_RANGE = 1000, 1e-3


@dataclass(frozen=True)
class ScreenerTraining:
    """Schedule of the training: steps, not minutes, so that the same seed trains the same network."""

    n_steps: int = 4500
    batch_size: int = 192
    peak_learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    negatives_per_image: int = 300
    reweigh_at: tuple[float, ...] = (0.25, 0.5, 0.75)


def train_screener(
    samples: Samples,
    recipe: ScreenerRecipe,
    training: ScreenerTraining,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
    n_classes: int = 0,
    start: StartWeights | None = None,
) -> keras.Model:
    """Train a screener on samples of `samples.make_samples`.

    Parameters
    ----------
    samples : Samples
    recipe : ScreenerRecipe
    training : ScreenerTraining
    seed : int
    progress : callable, optional
        Called with the step and the mean loss, now and then.
    n_classes : int
        Classes to be told apart; 0 where there is one only.
    start : StartWeights, optional
        What it begins with, instead of random weights.

    Raises
    ------
    LabelError
        There are too few loops to learn from.
    ModelError
        Whatever weights it began with, it learned nothing.
    """
    if samples.is_loop.sum() < 20:
        raise LabelError(f"Only {samples.is_loop.sum()} loops to train the screener on: label more loops.")
    for attempt in range(_ATTEMPTS):
        gentler = dataclasses.replace(training, peak_learning_rate=training.peak_learning_rate / 2**attempt)
        network = _trained(samples, recipe, gentler, seed + attempt * _SEEDS_APART, progress, n_classes, start)
        if _tells_apart(network, samples, recipe):
            return network
        if attempt < _ATTEMPTS - 1:
            logger.warning(
                "The screener's training came to nothing: it answers all crops alike. Again, at half the rate."
            )
    raise ModelError(
        f"The screener's training came to nothing {_ATTEMPTS} times: it answers all crops alike. Lower "
        "peak_learning_rate in the recipe, or give it more steps."
    )


def _trained(
    samples: Samples,
    recipe: ScreenerRecipe,
    training: ScreenerTraining,
    seed: int,
    progress: Callable[[int, float], None] | None,
    n_classes: int,
    start: StartWeights | None,
) -> keras.Model:
    import keras

    keras.utils.set_random_seed(seed)
    network = build_network(recipe, n_classes)
    if start is not None:
        start.give(network, recipe)
    rng = np.random.default_rng(seed)
    batches = Batches(samples, recipe.crop_px, recipe.context, training.batch_size, rng, n_classes)

    def reweigh(step: int) -> None:
        if len(batches.others):
            batches.weigh_others(0.05 + _probabilities(network, samples.crops[batches.others], recipe))

    fit(
        network,
        batches.next,
        screener_loss,
        n_steps=training.n_steps,
        peak_learning_rate=training.peak_learning_rate,
        weight_decay=training.weight_decay,
        callbacks={int(share * training.n_steps): reweigh for share in training.reweigh_at},
        progress=progress,
    )
    return network


def _tells_apart(network: keras.Model, samples: Samples, recipe: ScreenerRecipe) -> bool:
    """Whether its answers differ at all: units that no crop excites any more learn nothing, and a loss hides that."""
    every = max(1, len(samples.crops) // _JUDGED)
    return bool(np.ptp(_probabilities(network, samples.crops[::every], recipe)) > _LEAST_RANGE)


def screener_loss(answers: Any, outputs: Any) -> Any:
    """Focal cross-entropy of the logit; where there is a loop smooth L1 of the box, and cross-entropy of the class.

    Parameters
    ----------
    answers : tensor, shape (n, 5) or (n, 6)
        See `augmentation.Batches.next`.
    outputs : tensor, shape (n, 5) or (n, 5 + number of classes)
        See `network.build_network`.
    """
    import tensorflow as tf

    is_loop, logit = answers[:, 0], outputs[:, 0]
    probability = tf.sigmoid(logit)
    hardness = tf.stop_gradient(tf.where(is_loop > 0.5, 1 - probability, probability)) + 0.1
    classes = tf.nn.sigmoid_cross_entropy_with_logits(labels=is_loop, logits=logit) * hardness
    miss = tf.abs(answers[:, 1:5] - outputs[:, 1:5])
    box = tf.reduce_sum(tf.where(miss < 0.1, 5 * miss * miss, miss - 0.05), axis=1)
    if answers.shape[1] > LOGIT_AND_BOX:
        numbers = tf.cast(answers[:, 5], tf.int32)
        box += tf.nn.sparse_softmax_cross_entropy_with_logits(labels=numbers, logits=outputs[:, LOGIT_AND_BOX:])
    return 2 * tf.reduce_mean(classes) + 2 * tf.reduce_sum(is_loop * box) / (tf.reduce_sum(is_loop) + 1)


def _probabilities(network: keras.Model, stored: np.ndarray, recipe: ScreenerRecipe) -> np.ndarray:
    first = (round(recipe.crop_px * STORED_MARGIN) - recipe.crop_px) // 2
    inside = slice(first, first + recipe.crop_px)
    result = np.empty(len(stored))
    for i in range(0, len(stored), 512):
        logits = network.predict_on_batch(to_float(stored[i : i + 512, inside, inside])[..., None])[:, 0]
        result[i : i + 512] = 1 / (1 + np.exp(-logits))
    return result
