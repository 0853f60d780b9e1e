"""Training of the recognisers on pictures with answers. TensorFlow is imported only when this runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.networks.training import fit
from defectpipe.recognition.recogniser import Layout, RecogniserLoss, build_recogniser
from defectpipe.recognition.views import augment

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class RecogniserRecipe:
    """Schedule of a training: steps, not minutes, so that the same seed trains the same network.

    Parameters
    ----------
    n_steps, batch_size : int
    learning_rate : float
        The highest of AdamW's schedule.
    weight_decay, dropout : float
    noise : float
        See `views.augment`.
    deformation_weight, dimension_weight : float
        Of their losses, beside 1 of the class.
    """

    n_steps: int = 12_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    noise: float = 0.3
    deformation_weight: float = 1.0
    dimension_weight: float = 0.5


def fit_recogniser(
    pixels: np.ndarray,
    targets: Mapping[str, np.ndarray],
    layout: Layout,
    recipe: RecogniserRecipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
    network: keras.Model | None = None,
) -> keras.Model:
    """Train a recogniser on views, each lying in a random way at every step.

    Parameters
    ----------
    pixels : ndarray, shape (n, side, side)
        Grey values in any unit.
    targets : mapping of str to ndarray, each of n rows
        As `recogniser.RecogniserLoss` takes them.
    layout : Layout
    recipe : RecogniserRecipe
    seed : int
    checkpoint : Path, optional
        A training that was broken off goes on from there, and ends as it would have.
    progress : callable, optional
        See `networks.training.fit`.
    network : keras.Model, optional
        Trained further, instead of a new one.

    Returns
    -------
    keras.Model
        Gives rows of `layout`.
    """
    import keras

    keras.utils.set_random_seed(seed)
    network = network or build_recogniser(layout, pixels.shape[1], dropout=recipe.dropout)
    batches = Batches(pixels, targets, recipe.batch_size, seed, lambda part, rng: augment(part, rng, recipe.noise))
    fit(
        network,
        batches.next,
        RecogniserLoss(layout, recipe.deformation_weight, recipe.dimension_weight),
        n_steps=recipe.n_steps,
        peak_learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network


class Batches:
    """Endless batches: every picture once before any comes again; each batch depends on seed and step alone.

    Parameters
    ----------
    pixels : ndarray of n pictures
    targets : mapping of str to ndarray, each of n rows
    size : int
    seed : int
    prepare : callable
        From pictures and a generator to what the network takes.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        targets: Mapping[str, np.ndarray],
        size: int,
        seed: int,
        prepare: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    ) -> None:
        self._pixels, self._targets, self._size, self._seed, self._prepare = pixels, targets, size, seed, prepare
        self._step, self._epoch, self._order = 0, -1, np.empty(0, int)

    def next(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Inputs and answers."""
        places = np.arange(self._step * self._size, (self._step + 1) * self._size)
        rows = np.array([self._row(int(place)) for place in places])
        rng = np.random.default_rng((self._seed, 1, self._step))
        self._step += 1
        return self._prepare(self._pixels[rows], rng), {name: values[rows] for name, values in self._targets.items()}

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, len(self._pixels))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._pixels))
            self._epoch = epoch
        return int(self._order[within])
