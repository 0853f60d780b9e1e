"""One interface for everything that gives a focus score: what it takes from a patch, and the network that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.errors import SettingsError
from defectpipe.focus.measures import absolute_variance
from defectpipe.focus.spectral import TILE_PX, spectral_features
from defectpipe.networks.pictures import normalise
from defectpipe.networks.residual import MOMENTUM

if TYPE_CHECKING:
    import keras

Inputs = dict[str, np.ndarray]
MAGNIFICATION_RANGE = (500.0, 10000.0)


@dataclass(frozen=True)
class Backbone:
    """A kind of network.

    Parameters
    ----------
    prepare : callable
        From one patch, normalised where `normalised` says so, to its array; NumPy and OpenCV only.
    input_name : str
        Of that array among the network's inputs.
    build : callable
        (patch shape, whether the magnification is joined) to a Keras model; imports TensorFlow.
    normalised : bool
        Whether a patch is brought to zero mean and unit deviation first, so that brightness and contrast do not count.
    prepared_once : bool
        Whether what it takes is worth keeping, instead of the patch, through a training.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    input_name: str
    build: Callable[[tuple[int, int], bool], keras.Model]
    normalised: bool = True
    prepared_once: bool = False


def normalise_magnification(magnification: np.ndarray) -> np.ndarray:
    """Magnifications on a scale of 0 (500 times) to 1 (10,000 times), by their logarithm: (n,) to float32 (n, 1).

    Yang et al. normalise to the same range and do not say how.
    """
    low, high = MAGNIFICATION_RANGE
    return (np.log(np.asarray(magnification, np.float64) / low) / np.log(high / low)).astype(np.float32)[:, None]


def prepare(backbone: str, patches: np.ndarray, magnification: np.ndarray | None) -> Inputs:
    """A network's inputs by name, from patches as they come from the micrograph.

    Parameters
    ----------
    backbone : str
        A name in `BACKBONES`.
    patches : ndarray, shape (n, height, width)
        Grey values, in any unit.
    magnification : ndarray, shape (n,), optional
        None for a network without it.

    Returns
    -------
    dict of ndarray of float32
        ``patch`` (n, height, width, 1) or ``features`` (n, n_features), and ``magnification`` (n, 1) where given.

    Raises
    ------
    SettingsError
        There is no such backbone, or patches are smaller than `TILE_PX`.
    """
    chosen = find_backbone(backbone)
    patches = np.asarray(patches)
    if patches.ndim != 3 or min(patches.shape[1:]) < TILE_PX:
        raise SettingsError(f"Focus is scored on patches of {TILE_PX} px a side or more, not of shape {patches.shape}.")
    values = normalise(patches) if chosen.normalised else np.asarray(patches, np.float32)
    made = np.stack([chosen.prepare(patch) for patch in values]) if len(values) else np.empty((0, 0), np.float32)
    inputs = {chosen.input_name: made.astype(np.float32, copy=False)}
    if magnification is not None:
        inputs["magnification"] = normalise_magnification(magnification)
    return inputs


def find_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises
    ------
    SettingsError
        There is none.
    """
    if name not in BACKBONES:
        raise SettingsError(f"There is no focus backbone '{name}'; known: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def _build_spectral(shape: tuple[int, int], with_magnification: bool) -> keras.Model:
    from defectpipe.focus.spectral import build_spectral

    return build_spectral(with_magnification)


def _build_mini(shape: tuple[int, int], with_magnification: bool) -> keras.Model:
    from defectpipe.focus.network import build_mini

    return build_mini(shape, with_magnification)


def _build_published(name: str) -> Callable[[tuple[int, int], bool], keras.Model]:
    def build(shape: tuple[int, int], with_magnification: bool) -> keras.Model:
        from defectpipe.focus.network import build_published

        return build_published(name, shape, with_magnification)

    return build


def _build_absolute_variance(shape: tuple[int, int], with_magnification: bool) -> keras.Model:
    """A regression on one number: what the simplest measure is worth."""
    import keras
    from keras import layers

    value = layers.Input((1,), name="features")
    inputs = [value]
    x = layers.BatchNormalization(momentum=MOMENTUM, center=False, scale=False)(value)
    if with_magnification:
        magnification = layers.Input((1,), name="magnification")
        inputs.append(magnification)
        x = layers.Concatenate()([x, magnification])
    x = layers.Dense(16, activation="silu")(x)
    score = layers.Dense(1, bias_initializer=keras.initializers.Constant(5.0), name="score")(x)
    return keras.Model(inputs if with_magnification else inputs[0], score, name="absolute_variance")


def _channel(patch: np.ndarray) -> np.ndarray:
    return patch[..., None]


def _log_absolute_variance(patch: np.ndarray) -> np.ndarray:
    return np.array([np.log(absolute_variance(patch) + 1e-3)], np.float32)


BACKBONES: dict[str, Backbone] = {
    "spectral": Backbone(spectral_features, "features", _build_spectral, prepared_once=True),
    "resnet-mini": Backbone(_channel, "patch", _build_mini),
    "resnet18": Backbone(_channel, "patch", _build_published("resnet18")),
    "resnet50": Backbone(_channel, "patch", _build_published("resnet50")),
    "absolute_variance": Backbone(
        _log_absolute_variance, "features", _build_absolute_variance, normalised=False, prepared_once=True
    ),
}
