"""Training of the screener with Keras. TensorFlow is imported only when this runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.errors import LabelError
from defectpipe.networks.export import save_weights
from defectpipe.networks.training import fit
from defectpipe.screening.augmentation import Batches
from defectpipe.screening.network import ScreenerRecipe, build_network
from defectpipe.screening.samples import STORED_MARGIN, Samples, to_float

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ScreenerTraining:
    """Schedule of the training: steps, not minutes, so that the same seed trains the same network.

    Parameters
    ----------
    n_steps : int
        Of the first cycle, in which the learning rate falls to zero along a cosine.
    further_cycles : tuple of int
        Steps of each cycle after it, which begins at the peak again with the weights so far (warm restarts: Loshchilov
        & Hutter, arXiv 1608.03983).
    reweigh_at : tuple of float
        Shares of a cycle after which negatives are weighed anew.
    """

    n_steps: int = 4500
    further_cycles: tuple[int, ...] = ()
    batch_size: int = 192
    peak_learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    negatives_per_image: int = 300
    reweigh_at: tuple[float, ...] = (0.25, 0.5, 0.75)

    @property
    def cycles(self) -> tuple[int, ...]:
        """Steps of every cycle."""
        return (self.n_steps, *self.further_cycles)


def train_screener(
    samples: Samples,
    recipe: ScreenerRecipe,
    training: ScreenerTraining,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
    checkpoints: Path | None = None,
) -> keras.Model:
    """Train a screener on samples of `samples.make_samples`.

    Parameters
    ----------
    progress : callable, optional
        Called with the step and the mean loss, now and then.
    checkpoints : Path, optional
        Folder that keeps the weights after each cycle; a training that was interrupted goes on from the last.

    Raises
    ------
    LabelError
        There are too few loops to learn from.
    """
    if samples.is_loop.sum() < 20:
        raise LabelError(f"Only {samples.is_loop.sum()} loops to train the screener on: label more loops.")
    network, done = None, 0
    for cycle, n_steps in enumerate(training.cycles):
        last = cycle + 1 == len(training.cycles)
        kept = None if checkpoints is None or last else checkpoints / f"screener-cycle-{cycle}.weights.h5"
        trained = _new_network(recipe, seed + cycle)
        if kept is not None and kept.exists():
            trained.load_weights(kept)
        else:
            if network is not None:
                trained.set_weights(network.get_weights())
            _train_cycle(trained, samples, recipe, training, n_steps, (seed, cycle), _shifted(progress, done))
            if kept is not None:
                save_weights(trained, kept)
        network, done = trained, done + n_steps
    assert network is not None
    return network


def _new_network(recipe: ScreenerRecipe, seed: int) -> keras.Model:
    """A network whose weights and dropout depend on the seed alone, so that a cycle goes on from a file as without."""
    import keras

    keras.utils.set_random_seed(seed)
    return build_network(recipe)


def _train_cycle(
    network: keras.Model,
    samples: Samples,
    recipe: ScreenerRecipe,
    training: ScreenerTraining,
    n_steps: int,
    seed: tuple[int, int],
    progress: Callable[[int, float], None] | None,
) -> None:
    rng = np.random.default_rng(seed if seed[1] else seed[0])
    batches = Batches(samples, recipe.crop_px, recipe.context, training.batch_size, rng)

    def reweigh(step: int) -> None:
        if len(batches.others):
            batches.weigh_others(0.05 + _probabilities(network, samples.crops[batches.others], recipe))

    shares = training.reweigh_at if seed[1] == 0 else (0.0, *training.reweigh_at)
    fit(
        network,
        batches.next,
        screener_loss,
        n_steps=n_steps,
        peak_learning_rate=training.peak_learning_rate,
        weight_decay=training.weight_decay,
        callbacks={int(share * n_steps): reweigh for share in shares},
        progress=progress,
    )


def _shifted(progress: Callable[[int, float], None] | None, done: int) -> Callable[[int, float], None] | None:
    return None if progress is None else lambda step, loss: progress(done + step, loss)


def screener_loss(answers: Any, outputs: Any) -> Any:
    """Focal cross-entropy of the logit, and smooth L1 of the box where there is a loop."""
    import tensorflow as tf

    is_loop, logit = answers[:, 0], outputs[:, 0]
    probability = tf.sigmoid(logit)
    hardness = tf.stop_gradient(tf.where(is_loop > 0.5, 1 - probability, probability)) + 0.1
    classes = tf.nn.sigmoid_cross_entropy_with_logits(labels=is_loop, logits=logit) * hardness
    miss = tf.abs(answers[:, 1:] - outputs[:, 1:])
    box = tf.reduce_sum(tf.where(miss < 0.1, 5 * miss * miss, miss - 0.05), axis=1)
    return 2 * tf.reduce_mean(classes) + 2 * tf.reduce_sum(is_loop * box) / (tf.reduce_sum(is_loop) + 1)


def _probabilities(network: keras.Model, stored: np.ndarray, recipe: ScreenerRecipe) -> np.ndarray:
    first = (round(recipe.crop_px * STORED_MARGIN) - recipe.crop_px) // 2
    inside = slice(first, first + recipe.crop_px)
    result = np.empty(len(stored))
    for i in range(0, len(stored), 512):
        logits = network.predict_on_batch(to_float(stored[i : i + 512, inside, inside])[..., None])[:, 0]
        result[i : i + 512] = 1 / (1 + np.exp(-logits))
    return result
