"""One training loop for every network: AdamW with warm-up, cosine, averaged weights. Imports TensorFlow when called."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.io.files import write_atomic

if TYPE_CHECKING:
    import keras

_WARM_UP_STEPS = 60
_REPORT_EVERY = 50


@dataclass(frozen=True)
class Checkpoints:
    """Where a training is kept, so that it can be taken up again after a break and end with the same network.

    Parameters
    ----------
    path : Path
        One file, replaced in one step.
    every : int
        Steps.
    skip_to : callable
        Called with the step before the first batch of a resumed training: batches have to go on as if they had been
        drawn from the beginning.
    """

    path: Path
    every: int
    skip_to: Callable[[int], None]


def use_threads(n: int) -> None:
    """Let TensorFlow use `n` threads; to be called before its first operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(n)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def fit(
    network: keras.Model,
    next_batch: Callable[[], tuple[Any, Any]],
    loss: Callable[[Any, Any], Any],
    *,
    n_steps: int,
    peak_learning_rate: float,
    weight_decay: float,
    momentum: float | None = None,
    callbacks: Mapping[int, Callable[[int], None]] | None = None,
    progress: Callable[[int, float], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train `network` in place; with AdamW it ends with the moving average of its weights.

    Parameters
    ----------
    next_batch : callable
        Gives inputs and answers (an array, or several by name) of one batch, best of the same shape each time.
    loss : callable
        Loss of (answers, outputs).
    momentum : float, optional
        Plain gradient descent with this momentum at a constant rate instead, as in older papers.
    callbacks : mapping of int to callable
        Called with the step, before that step.
    progress : callable
        Called with the step and the mean loss since the last call.
    checkpoints : Checkpoints, optional
        Read if there is one (its network must be the same), written as the training goes on, also after its last step.
    """
    import keras
    import tensorflow as tf

    average = float(np.clip(1 - 20 / n_steps, 0.9, 0.998))
    if momentum is None:
        optimizer = keras.optimizers.AdamW(
            peak_learning_rate, weight_decay=weight_decay, use_ema=True, ema_momentum=average, global_clipnorm=5.0
        )
    else:
        optimizer = keras.optimizers.SGD(peak_learning_rate, momentum=momentum, weight_decay=weight_decay or None)
    optimizer.build(network.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(inputs: Any, answers: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(answers, network(inputs, training=True))
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return value

    variables = [*network.variables, *optimizer.variables]
    first = 0
    if checkpoints is not None and checkpoints.path.exists():
        first = _read_checkpoint(checkpoints.path, variables)
        checkpoints.skip_to(first)
    losses: list[float] = []
    for i in range(first, n_steps):
        if callbacks and i in callbacks:
            callbacks[i](i)
        if momentum is None:
            decay = 0.5 + 0.5 * np.cos(np.pi * i / n_steps)
            optimizer.learning_rate.assign(peak_learning_rate * min(1.0, (i + 1) / _WARM_UP_STEPS) * decay + 1e-6)
        losses.append(float(step(*tf.nest.map_structure(tf.constant, next_batch()))))
        if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == n_steps):
            progress(i + 1, float(np.mean(losses)))
            losses.clear()
        if checkpoints is not None and ((i + 1) % checkpoints.every == 0 or i + 1 == n_steps):
            _write_checkpoint(checkpoints.path, i + 1, variables)
    if momentum is None:
        optimizer.finalize_variable_values(network.trainable_variables)


def _write_checkpoint(path: Path, step: int, variables: list[Any]) -> None:
    buffer = io.BytesIO()
    values: dict[str, Any] = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    np.savez(buffer, step=np.array(step), **values)
    write_atomic(path, buffer.getvalue())


def _read_checkpoint(path: Path, variables: list[Any]) -> int:
    """Number of steps done; `variables` are set to what they were by then."""
    with np.load(path) as file:
        for number, variable in enumerate(variables):
            variable.assign(file[f"v{number}"])
        return int(file["step"])
