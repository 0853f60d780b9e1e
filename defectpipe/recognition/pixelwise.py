"""The pixel-wise classifier: for each pixel whether an object lies there, how thick it is, and how far inside it is.

A small U-Net (Ronneberger et al. 2015) gives three maps; `separation` tells objects apart by them, `measures` measures
them. Thickness is in px along the beam, so that a pixel size makes it nm; grey values alone, whose gain is the
operator's, do not say how thick an object is, and the network goes by the shape as well. `thickness.scaled_by_signal`
corrects it where the detector is calibrated. TensorFlow is imported when called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy.special import expit

from defectpipe.networks.residual import convolution, residual
from defectpipe.networks.training import fit
from defectpipe.recognition.views import standardise, turned

if TYPE_CHECKING:
    import keras

OUTLINE, THICKNESS, DEPTH = range(3)  # channels
# A thickness of this many px is 1 in the network's map.
THICKNESS_UNIT_PX = 32.0
# Sides of a picture are multiples of it.
STRIDE = 16
# 12 for the first would do, but the gradient of 12 channels crashes oneDNN 3 in TensorFlow 2.21 (AVX-512, 128 px).
_WIDTHS = (16, 24, 48, 96, 128)


def pixel_targets(instances: np.ndarray, thickness_px: np.ndarray) -> np.ndarray:
    """Targets of one picture.

    Parameters
    ----------
    instances : ndarray of int, shape (height, width)
        0: support; else the number of the object.
    thickness_px : ndarray, shape (height, width)

    Returns
    -------
    ndarray of float32, shape (height, width, 4)
        Outline (0 or 1); thickness over `THICKNESS_UNIT_PX`; depth, the distance to the object's edge over the largest
        in it; weight of the thickness: `THICKNESS_UNIT_PX` over the largest of the object that lies there (on the
        support: of any; without objects 1).
    """
    thickness = np.asarray(thickness_px, np.float32)
    made = np.zeros((*instances.shape, 4), np.float32)
    made[..., 0] = instances > 0
    made[..., 1] = thickness / THICKNESS_UNIT_PX
    made[..., 3] = THICKNESS_UNIT_PX / max(float(thickness.max()), 1.0)
    for number in np.unique(instances[instances > 0]):
        here = instances == number
        distance = cv2.distanceTransform(np.pad(here, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        made[..., 2] = np.where(here, distance / distance.max(), made[..., 2])
        made[here, 3] = THICKNESS_UNIT_PX / max(float(thickness[here].max()), 1.0)
    return made


def build_pixelwise(shape: tuple[int | None, int | None] = (None, None)) -> keras.Model:
    """From a standardised picture (n, height, width, 1) to maps (n, height, width, 3).

    Logit of the outline, thickness over `THICKNESS_UNIT_PX`, depth. Sides are multiples of `STRIDE`.
    """
    import keras
    from keras import layers

    picture = layers.Input((*shape, 1), name="picture")
    x = convolution(picture, _WIDTHS[0], 3, 1)
    passed = []
    for width in _WIDTHS[1:]:
        passed.append(x)
        x = residual(x, width, 2)
    for width, beside in zip(_WIDTHS[-2::-1], passed[::-1], strict=True):
        x = convolution(x, width, 1, 1)
        x = layers.Concatenate()([layers.UpSampling2D(2, interpolation="nearest")(x), beside])
        x = convolution(x, width, 3, 1)
    return keras.Model(picture, layers.Conv2D(3, 3, padding="same", name="maps")(x), name="pixelwise")


def pixelwise_loss(targets: Any, maps: Any) -> Any:
    """Cross-entropy of the outline, and the errors of thickness (over the object's largest) and of depth."""
    import tensorflow as tf

    outline = tf.nn.sigmoid_cross_entropy_with_logits(targets[..., 0], maps[..., OUTLINE])
    thickness = tf.square((maps[..., THICKNESS] - targets[..., 1]) * targets[..., 3])
    # of an object that the network takes for a much thicker one
    thickness = tf.where(thickness > 1.0, 2.0 * tf.sqrt(tf.maximum(thickness, 1.0)) - 1.0, thickness)
    depth = tf.square(maps[..., DEPTH] - targets[..., 2])
    return tf.reduce_mean(outline) + 4.0 * tf.reduce_mean(thickness) + tf.reduce_mean(depth)


@dataclass(frozen=True)
class PixelwiseRecipe:
    """Schedule of the training.

    Parameters
    ----------
    n_steps : int
    px_a_step : int
        Pixels of a batch, whatever the size of its pictures.
    tile_px : int
        Larger pictures are cut to random tiles of this side.
    learning_rate, weight_decay : float
    """

    n_steps: int = 7_000
    px_a_step: int = 16 * 128 * 128
    tile_px: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02


@dataclass(frozen=True, eq=False)
class PixelSource:
    """Pictures with their truth.

    Parameters
    ----------
    pixels, instances : ndarray, shape (n, height, width)
    thickness_nm : ndarray, shape (n, height, width)
    pixel_size_nm : ndarray, shape (n,)
    """

    pixels: np.ndarray
    instances: np.ndarray
    thickness_nm: np.ndarray
    pixel_size_nm: np.ndarray


def fit_pixelwise(
    sources: Sequence[PixelSource],
    recipe: PixelwiseRecipe,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> keras.Model:
    """Train the network on pictures of several sources in turn.

    Parameters
    ----------
    sources : sequence of PixelSource
        Square pictures whose side is a multiple of `STRIDE`.
    recipe : PixelwiseRecipe
    seed : int
    checkpoint, progress : optional
        See `training.fit_recogniser`.
    """
    import keras

    keras.utils.set_random_seed(seed)
    network = build_pixelwise()
    batches = _Tiles(sources, recipe, seed)
    fit(
        network,
        batches.next,
        pixelwise_loss,
        n_steps=recipe.n_steps,
        peak_learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        progress=progress,
        checkpoint=checkpoint,
    )
    return network


class _Tiles:
    """Random tiles, each lying in a random way; a batch depends on seed and step alone."""

    def __init__(self, sources: Sequence[PixelSource], recipe: PixelwiseRecipe, seed: int) -> None:
        self._sources, self._recipe, self._seed, self._step = sources, recipe, seed, 0

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self._seed, self._step))
        source = self._sources[self._step % len(self._sources)]
        self._step += 1
        whole = source.pixels.shape[1]
        side = min(self._recipe.tile_px, whole)
        pixels, targets = [], []
        for _ in range(max(self._recipe.px_a_step // side**2, 1)):
            i, way = int(rng.integers(len(source.pixels))), int(rng.integers(8))
            y, x = rng.integers(whole - side, size=2, endpoint=True)
            part = (i, slice(y, y + side), slice(x, x + side))
            thickness = source.thickness_nm[part].astype(np.float32) / np.float32(source.pixel_size_nm[i])
            pixels.append(turned(source.pixels[part][None], way)[0])
            targets.append(turned(pixel_targets(source.instances[part], thickness)[None], way)[0])
        return standardise(np.stack(pixels)), np.stack(targets)


def maps_of(network: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, standardised: bool = False) -> np.ndarray:
    """The maps of pictures of any size.

    Parameters
    ----------
    network : callable
        From standardised pictures (n, height, width, 1) to its output.
    pixels : ndarray, shape (n, height, width)
        Grey values in any unit.
    standardised : bool
        They are standardised already, as parts of a larger field.

    Returns
    -------
    ndarray of float32, shape (n, height, width, 3)
        Probability of the outline (0 to 1), thickness in px (0 where no object is likely), depth (0 to 1).
    """
    height, width = pixels.shape[1:]
    made = np.asarray(pixels, np.float32)[..., None] if standardised else standardise(pixels)
    down, right = -height % STRIDE, -width % STRIDE
    made = np.pad(made, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    maps = np.asarray(network(made), np.float32)[:, :height, :width]
    outline = expit(maps[..., OUTLINE])
    thickness = np.maximum(maps[..., THICKNESS], 0) * THICKNESS_UNIT_PX * (outline > 0.5)
    return np.stack([outline, thickness, np.clip(maps[..., DEPTH], 0, 1)], -1).astype(np.float32)
