"""One training loop for every network: AdamW with warm-up, cosine, averaged weights. Imports TensorFlow when called."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.io.files import write_atomic

if TYPE_CHECKING:
    import keras

_WARM_UP_STEPS = 60
_REPORT_EVERY = 50
_KEEP_EVERY = 100


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
    checkpoint: Path | None = None,
) -> None:
    """Train `network` in place; with AdamW it ends with the moving average of its weights.

    Parameters
    ----------
    next_batch : callable
        Gives inputs and answers (each an array, or several) of one batch, of the same shape each time.
    loss : callable
        Loss of (answers, outputs).
    momentum : float, optional
        Plain gradient descent with this momentum at a constant rate instead, as in older papers.
    callbacks : mapping of int to callable
        Called with the step, before that step.
    progress : callable
        Called with the step and the mean loss since the last call.
    checkpoint : Path, optional
        File that keeps the state every `_KEEP_EVERY` steps: the same call goes on from there if it was interrupted. The
        batches before are drawn once more, so that the training ends as it would have without the interruption;
        `callbacks` of steps that are done are not called again. Whoever gave it removes it.
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

    state = [*network.variables, *optimizer.variables]
    start = 0 if checkpoint is None else _restore(checkpoint, state, n_steps)
    for _ in range(start):
        next_batch()
    losses: list[float] = []
    for i in range(start, n_steps):
        if callbacks and i in callbacks:
            callbacks[i](i)
        if momentum is None:
            decay = 0.5 + 0.5 * np.cos(np.pi * i / n_steps)
            optimizer.learning_rate.assign(peak_learning_rate * min(1.0, (i + 1) / _WARM_UP_STEPS) * decay + 1e-6)
        losses.append(float(step(*tf.nest.map_structure(tf.constant, next_batch()))))
        if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == n_steps):
            progress(i + 1, float(np.mean(losses)))
            losses.clear()
        if checkpoint is not None and (i + 1) % _KEEP_EVERY == 0:
            _keep(checkpoint, state, i + 1, n_steps)
    if momentum is None:
        optimizer.finalize_variable_values(network.trainable_variables)


def _keep(path: Path, state: Sequence[Any], step: int, n_steps: int) -> None:
    held = io.BytesIO()
    arrays = {f"v{k:05d}": variable.numpy() for k, variable in enumerate(state)}
    np.savez(held, step=step, n_steps=n_steps, **arrays)
    write_atomic(path, held.getvalue())


def _restore(path: Path, state: Sequence[Any], n_steps: int) -> int:
    """The step to go on from; 0 where there is nothing, or what is there belongs to another training."""
    if not path.exists():
        return 0
    with np.load(path) as kept:
        arrays = [kept[name] for name in sorted(kept.files) if name.startswith("v")]
        if int(kept["n_steps"]) != n_steps or [a.shape for a in arrays] != [tuple(v.shape) for v in state]:
            return 0
        for variable, value in zip(state, arrays, strict=True):
            variable.assign(value)
        return int(kept["step"])
