"""Layers that the residual networks share (He et al. 2016). TensorFlow is imported when called."""

from __future__ import annotations

from typing import Any

MOMENTUM = 0.98
"""Of the averages of batch normalisation: with Keras's 0.99 they take several hundred steps to be those of the data."""


def convolution(x: Any, width: int, size: int, strides: int, padding: str = "same", active: bool = True) -> Any:
    """A convolution without bias, batch normalisation, and ReLU where `active`."""
    from keras import layers

    x = layers.Conv2D(width, size, strides=strides, padding=padding, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, epsilon=1e-5)(x)
    return layers.ReLU()(x) if active else x


def residual(x: Any, width: int, strides: int, name: str | None = None) -> Any:
    """The basic block of two 3 × 3 convolutions; the way past them is a projection where the shape changes."""
    from keras import layers

    past = x
    if strides != 1 or x.shape[-1] != width:
        past = convolution(x, width, 1, strides, active=False)
    # padding on both sides, as published, and not where TensorFlow puts it
    y = convolution(layers.ZeroPadding2D(1)(x), width, 3, strides, padding="valid")
    y = convolution(layers.ZeroPadding2D(1)(y), width, 3, 1, padding="valid", active=False)
    return layers.ReLU(name=name)(layers.Add()([past, y]))
