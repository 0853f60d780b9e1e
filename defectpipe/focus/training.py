"""Training of a focus network with Keras, on any patches with scores. TensorFlow is imported only when this runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.focus.backbones import find_backbone, normalise_magnification, prepare
from defectpipe.networks.training import fit

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FocusRecipe:
    """Schedule of a training: steps, not minutes, so that the same seed trains the same network.

    Parameters
    ----------
    n_steps, batch_size : int
    learning_rate : float
        The highest of AdamW's schedule, or that of plain descent throughout.
    weight_decay : float
    momentum : float, optional
        Plain gradient descent with this momentum, as published, instead of AdamW.
    n_views : int
        Random crops of each image that are prepared, where a backbone is prepared once; others crop at every step.
    """

    n_steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    momentum: float | None = None
    n_views: int = 2


RECIPES: dict[str, FocusRecipe] = {
    "spectral": FocusRecipe(),
    "convolutional": FocusRecipe(n_steps=4000, batch_size=32, learning_rate=2e-3, weight_decay=1e-3),
    # Yang et al.: up to 100 epochs of their 27,235 images, one at a time
    "published": FocusRecipe(
        n_steps=2_723_500, batch_size=1, learning_rate=2e-4, weight_decay=0.0, momentum=0.9, n_views=1
    ),
}


def fit_focus(
    pixels: np.ndarray,
    score: np.ndarray,
    magnification: np.ndarray | None,
    backbone: str,
    recipe: FocusRecipe,
    seed: int,
    shape: tuple[int, int] | None = None,
    callbacks: dict[int, Callable[[int], None]] | None = None,
    progress: Callable[[int, float], None] | None = None,
    network: keras.Model | None = None,
    views: Sequence[np.ndarray] = (),
    checkpoint: Path | None = None,
) -> keras.Model:
    """Train a network on images cropped and mirrored at random, by the mean squared error of the score.

    Parameters
    ----------
    pixels : ndarray, shape (n, height, width)
        Grey values in any unit.
    score : ndarray, shape (n,)
        0 to 10.
    magnification : ndarray, shape (n,), optional
        None: the network does without it.
    backbone : str
        A name in `backbones.BACKBONES`.
    recipe : FocusRecipe
    seed : int
    shape : tuple of int, optional
        Rows and columns of a crop; the whole image by default.
    callbacks, progress, checkpoint : optional
        See `networks.training.fit`.
    network : keras.Model, optional
        Trained further, instead of a new one.
    views : sequence of ndarray, each of shape (n, n_features)
        What `prepare_view` gave, where several networks are trained on the same; made if there are none.

    Returns
    -------
    keras.Model
    """
    import keras

    keras.utils.set_random_seed(seed)
    shape = shape or pixels.shape[1:]
    network = network or find_backbone(backbone).build(shape, magnification is not None)
    batches = _Batches(pixels, np.asarray(score, np.float32), magnification, backbone, recipe, shape, seed, views)
    fit(
        network,
        batches.next,
        mean_squared_error,
        n_steps=recipe.n_steps,
        peak_learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        callbacks=callbacks,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network


def mean_squared_error(answers: Any, outputs: Any) -> Any:
    """Mean squared error of scores (n, 1)."""
    import tensorflow as tf

    return tf.reduce_mean(tf.square(answers - outputs))


class _Batches:
    """Endless batches: every image once before any comes again."""

    def __init__(
        self,
        pixels: np.ndarray,
        score: np.ndarray,
        magnification: np.ndarray | None,
        backbone: str,
        recipe: FocusRecipe,
        shape: tuple[int, int],
        seed: int,
        views: Sequence[np.ndarray],
    ) -> None:
        self._pixels, self._score, self._magnification = pixels, score, magnification
        self._backbone, self._shape, self._rng = backbone, shape, np.random.default_rng(seed)
        self._size = recipe.batch_size
        self._queue = np.empty(0, int)
        self._views = views
        if not views and find_backbone(backbone).prepared_once:
            self._views = [prepare_view(pixels, backbone, shape, (seed, view)) for view in range(recipe.n_views)]

    def next(self) -> tuple[Any, np.ndarray]:
        """The input, or both, and scores (n, 1)."""
        while self._queue.size < self._size:
            self._queue = np.concatenate([self._queue, self._rng.permutation(len(self._score))])
        rows, self._queue = self._queue[: self._size], self._queue[self._size :]
        if self._views:
            view = self._rng.integers(len(self._views), size=rows.size)
            values = np.stack([self._views[v][row] for v, row in zip(view, rows, strict=True)])
        else:
            (values,) = prepare(self._backbone, self._crops(rows), None).values()
        if self._magnification is None:
            return values, self._score[rows, None]
        return (values, normalise_magnification(self._magnification[rows])), self._score[rows, None]

    def _crops(self, rows: np.ndarray) -> np.ndarray:
        return random_crops(self._pixels, rows, self._shape, self._rng)


def random_crops(pixels: np.ndarray, rows: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Parts of some of the images at random places, mirrored at random: (n_rows, *shape)."""
    height, width = shape
    crops = []
    for row in rows:
        image = pixels[row]
        y = rng.integers(image.shape[0] - height + 1)
        x = rng.integers(image.shape[1] - width + 1)
        down, across = rng.integers(2, size=2) * 2 - 1
        crops.append(image[y : y + height, x : x + width][::down, ::across])
    return np.stack(crops)


def prepare_view(
    pixels: np.ndarray, backbone: str, shape: tuple[int, int], seed: tuple[int, ...], first: int = 0
) -> np.ndarray:
    """One random crop of every image, as a backbone that is prepared once takes it.

    Parameters
    ----------
    pixels : ndarray, shape (n, height, width)
    backbone : str
    shape : tuple of int
        Rows and columns of a crop.
    seed : tuple of int
    first : int
        Number of the first image, where `pixels` is a part of a set: parts give what the whole gives.

    Returns
    -------
    ndarray of float32, shape (n, n_features)
    """
    made = []
    for i in range(len(pixels)):
        crop = random_crops(pixels, np.array([i]), shape, np.random.default_rng((*seed, first + i)))
        made.append(prepare(backbone, crop, None)["features"])
    return np.concatenate(made)
