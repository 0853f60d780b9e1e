"""The screener's architecture: from a crop to the logit of "a defect", a correction of the box, and the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

LOGIT_AND_BOX = 5
"""Answers before those of the classes."""


@dataclass(frozen=True)
class ScreenerRecipe:
    """Shape of the network and of what it sees.

    Parameters
    ----------
    crop_px : int
        Side of its input.
    context : float
        Side of the crop over the long side of the candidate's box.
    widths : tuple of int
        Channels at half, a quarter, an eighth and a sixteenth of the crop's resolution.
    """

    crop_px: int = 48
    context: float = 2.0
    widths: tuple[int, int, int] = (32, 64, 96)
    hidden: int = 128
    dropout: float = 0.3


def build_network(recipe: ScreenerRecipe, n_classes: int = 0) -> keras.Model:
    """Keras model: (n, crop_px, crop_px, 1) to (n, 5 + n_classes).

    The output is the logit, then the box's centre x and y relative to the candidate's centre, then the logarithms of
    its width and height, all in units of the candidate's long side; then a logit for each class, of which the softmax
    are the probabilities of the classes if it is a defect.

    Parameters
    ----------
    recipe : ScreenerRecipe
    n_classes : int
        Classes to be told apart; 0 where there is one only.
    """
    import keras
    from keras import layers

    def convolution(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.98)(x))

    first, second, third = recipe.widths
    inputs = layers.Input((recipe.crop_px, recipe.crop_px, 1), name="crop")
    x = convolution(inputs, first, 5, strides=2)
    x = convolution(x, first)
    x = layers.MaxPooling2D()(x)
    x = convolution(convolution(x, second), second)
    x = layers.MaxPooling2D()(x)
    x = convolution(convolution(x, third), third)
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.Dropout(recipe.dropout)(layers.Flatten()(x))
    x = layers.Dense(recipe.hidden, activation="relu")(x)
    x = layers.Dropout(recipe.dropout)(x)
    return keras.Model(inputs, layers.Dense(LOGIT_AND_BOX + n_classes, name="logit_and_box")(x), name="screener")
