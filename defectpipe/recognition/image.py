"""The image classifier: what the pixel-wise network draws of a picture, and from that the class.

Its supervision is weak: it learns from the class of each picture alone; outline and thickness of its own pictures are
never shown to it. What it sees is the maps of the frozen pixel-wise network, not the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.networks.training import fit
from defectpipe.recognition.pixelwise import THICKNESS, maps_of
from defectpipe.recognition.recogniser import Layout, RecogniserLoss, build_recogniser
from defectpipe.recognition.training import Batches, RecogniserRecipe
from defectpipe.recognition.views import lying_anyhow

if TYPE_CHECKING:
    import keras

_BATCH = 128


def drawn(network: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """What the image classifier sees of pictures (n, height, width): float16 (n, height, width, 3).

    The maps of the pixel-wise network, with the thickness over its largest: the class does not hang on the size.
    """
    parts = []
    for i in range(0, len(pixels), _BATCH):
        maps = maps_of(network, pixels[i : i + _BATCH])
        largest = maps[..., THICKNESS].max((1, 2), keepdims=True)
        maps[..., THICKNESS] /= np.maximum(largest, 1e-3)
        parts.append(maps.astype(np.float16))
    return np.concatenate(parts)


def fit_image_classifier(
    maps: np.ndarray,
    label: np.ndarray,
    classes: tuple[str, ...],
    recipe: RecogniserRecipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> keras.Model:
    """Train the image classifier.

    Parameters
    ----------
    maps : ndarray, shape (n, side, side, 3)
        From `drawn`.
    label : ndarray of int, shape (n,)
        Indices in `classes`: all that it is told.
    classes : tuple of str
    recipe : RecogniserRecipe
        Its `noise` is not used.
    seed : int
    checkpoint, progress : optional
        See `training.fit_recogniser`.

    Returns
    -------
    keras.Model
        Gives rows of a `Layout` with classes alone.
    """
    import keras

    keras.utils.set_random_seed(seed)
    layout = Layout(classes, (), ())
    network = build_recogniser(layout, maps.shape[1], maps.shape[3], recipe.dropout)
    targets: Mapping[str, np.ndarray] = {"label": np.asarray(label, np.int32)}
    batches = Batches(
        maps, targets, recipe.batch_size, seed, lambda part, rng: lying_anyhow(part.astype(np.float32), rng)
    )
    fit(
        network,
        batches.next,
        RecogniserLoss(layout),
        n_steps=recipe.n_steps,
        peak_learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network
