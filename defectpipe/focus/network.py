"""Convolutional networks that score focus: ResNet18 and ResNet50 with the published head, and a small one.

The published head: He et al. 2016 (ResNet), whose features are joined with the magnification and pass three fully
connected layers (Yang et al., "Robust deep-learning based autofocus score prediction for scanning electron
microscope"). The widths of those layers are not published; 256 and 64 are ours. TensorFlow is imported when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from defectpipe.focus.spectral import score_head
from defectpipe.networks.residual import MOMENTUM, convolution, residual

if TYPE_CHECKING:
    import keras

PUBLISHED_WIDTHS = (256, 64)
_STAGES_18 = ((64, 2), (128, 2), (256, 2), (512, 2))


def resnet18(shape: tuple[int, int, int], n_classes: int | None = None) -> keras.Model:
    """ResNet18 (He et al. 2016, table 1): 11,689,512 parameters with three channels and 1,000 classes.

    Parameters
    ----------
    shape : tuple of int
        Rows, columns, channels.
    n_classes : int, optional
        Adds the classifier's logits; without it the output is the mean of the last stage, (n, 512).

    Returns
    -------
    keras.Model
        The stages' outputs are named ``stage1`` to ``stage4``.
    """
    import keras
    from keras import layers

    inputs = layers.Input(shape)
    x = convolution(layers.ZeroPadding2D(3)(inputs), 64, 7, 2, padding="valid")
    x = layers.MaxPooling2D(3, 2, padding="valid")(layers.ZeroPadding2D(1)(x))
    for number, (width, n_blocks) in enumerate(_STAGES_18, 1):
        for block in range(n_blocks):
            last = block == n_blocks - 1
            strides = 2 if number > 1 and block == 0 else 1
            x = residual(x, width, strides, name=f"stage{number}" if last else None)
    x = layers.GlobalAveragePooling2D()(x)
    if n_classes is not None:
        x = layers.Dense(n_classes)(x)
    return keras.Model(inputs, x, name="resnet18")


def resnet50(shape: tuple[int, int, int]) -> keras.Model:
    """ResNet50 as Keras has it, from random weights; the output is the mean of the last stage, (n, 2048)."""
    import keras

    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape, pooling="avg")
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return network


def build_published(backbone: str, shape: tuple[int, int], with_magnification: bool) -> keras.Model:
    """ResNet18 or ResNet50 of one grey channel, its features joined with the magnification, three layers, one score."""
    import keras
    from keras import layers

    patch = layers.Input((*shape, 1), name="patch")
    inputs = [patch]
    x = {"resnet18": resnet18, "resnet50": resnet50}[backbone]((*shape, 1))(patch)
    if with_magnification:
        magnification = layers.Input((1,), name="magnification")
        inputs.append(magnification)
        x = layers.Concatenate()([x, magnification])
    for width in PUBLISHED_WIDTHS:
        x = layers.Dense(width, activation="relu")(x)
    # starts at the middle of the scale
    score = layers.Dense(1, bias_initializer=keras.initializers.Constant(5.0), name="score")(x)
    return keras.Model(inputs if with_magnification else inputs[0], score, name=f"{backbone}_score")


def build_mini(shape: tuple[int, int], with_magnification: bool) -> keras.Model:
    """A small residual network: the mean of its last stage, joined with the magnification, two layers, the score."""
    import keras
    from keras import layers

    patch = layers.Input((*shape, 1), name="patch")
    inputs = [patch]
    x = convolution(patch, 16, 7, 4)
    for width, strides in ((16, 1), (32, 2), (64, 2)):
        x = residual(x, width, strides)
    x = layers.GlobalAveragePooling2D()(x)
    if with_magnification:
        magnification = layers.Input((1,), name="magnification")
        inputs.append(magnification)
        x = layers.Concatenate()([x, layers.Rescaling(4.0, -2.0)(magnification)])
    x = layers.Dense(64, activation="silu")(x)
    x = layers.Dense(32, activation="silu")(x)
    return keras.Model(inputs if with_magnification else inputs[0], score_head(x), name="resnet_mini")
