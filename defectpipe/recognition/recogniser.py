"""The network behind every recogniser: a small residual trunk whose features answer all questions about a view.

What it gives for a view is one row: the features, the logits of the classes, the logits of the deformations, and
logarithms of dimensions in px. `Layout` says where each is. TensorFlow is imported when called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from defectpipe.networks.residual import convolution, residual

if TYPE_CHECKING:
    import keras

# Width and stride of each residual block after the first convolution, which halves the picture.
BLOCKS = ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1), (128, 2))
N_FEATURES = BLOCKS[-1][0]


@dataclass(frozen=True)
class Layout:
    """What is where in a row of answers.

    Parameters
    ----------
    classes : tuple of str
    deformations : tuple of str
        The first says whether there is any.
    dimensions : tuple of str
        ``CLASS.DIMENSION``: the natural logarithm of its value in px, which means something where the object is of
        that class; ``any.`` of every class.
    n_features : int
    """

    classes: tuple[str, ...]
    deformations: tuple[str, ...]
    dimensions: tuple[str, ...]
    n_features: int = N_FEATURES

    @property
    def slices(self) -> dict[str, slice]:
        """By name: features, classes, deformations, dimensions."""
        made, start = {}, 0
        for name, n in (
            ("features", self.n_features),
            ("classes", len(self.classes)),
            ("deformations", len(self.deformations)),
            ("dimensions", len(self.dimensions)),
        ):
            made[name] = slice(start, start + n)
            start += n
        return made

    @property
    def n_answers(self) -> int:
        """Length of a row."""
        return self.slices["dimensions"].stop


def build_trunk(side_px: int, n_channels: int = 1) -> keras.Model:
    """From a picture to the mean and the maximum over it of the last block's features, mixed to `N_FEATURES`."""
    import keras
    from keras import layers

    picture = layers.Input((side_px, side_px, n_channels), name="view")
    x = convolution(picture, BLOCKS[0][0], 5, 2)
    for width, strides in BLOCKS:
        x = residual(x, width, strides)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    features = layers.Dense(N_FEATURES, activation="relu", name="features")(x)
    return keras.Model(picture, features, name="trunk")


def build_recogniser(layout: Layout, side_px: int, n_channels: int = 1, dropout: float = 0.2) -> keras.Model:
    """The trunk with a linear layer for each question; its output is a row of `layout`."""
    import keras
    from keras import layers

    trunk = build_trunk(side_px, n_channels)
    x = layers.Dropout(dropout)(trunk.output)
    heads = [layers.Dense(len(layout.classes), name="classes")(x)]
    if layout.deformations:
        # what is deformed in one class is the rule in another
        of_class = layers.Dense(N_FEATURES, activation="relu", name="shape")(x)
        heads.append(layers.Dense(len(layout.deformations), name="deformations")(of_class))
    if layout.dimensions:
        heads.append(layers.Dense(len(layout.dimensions), name="dimensions")(x))
    return keras.Model(trunk.input, layers.Concatenate(name="answers")([trunk.output, *heads]), name="recogniser")


def deformation_loss(truth: Any, logits: Any) -> Any:
    """Cross-entropy of the deformations (n, k), the mean: whether there is any counts as much as which."""
    import tensorflow as tf

    each = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits)
    return (tf.reduce_mean(each[:, 0]) + tf.reduce_mean(each)) / 2


@dataclass(frozen=True)
class RecogniserLoss:
    """Cross-entropy of the class, and with weights that of the deformations and the error of the dimensions.

    Answers are ``label`` (n,), ``deformations`` (n, k; 0 or 1) and ``dimensions`` (n, m; NaN where there is none).
    """

    layout: Layout
    deformation_weight: float = 1.0
    dimension_weight: float = 0.5

    def __call__(self, answers: Any, outputs: Any) -> Any:
        """Mean over the batch."""
        import tensorflow as tf

        place = self.layout.slices
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(answers["label"], outputs[:, place["classes"]])
        )
        if self.layout.deformations:
            each = deformation_loss(answers["deformations"], outputs[:, place["deformations"]])
            loss += self.deformation_weight * each
        if self.layout.dimensions:
            known = tf.math.is_finite(answers["dimensions"])
            truth = tf.where(known, answers["dimensions"], 0.0)
            error = tf.where(known, tf.abs(outputs[:, place["dimensions"]] - truth), 0.0)
            # Huber's loss, quadratic up to 10 %
            each = tf.where(error < 0.1, 5.0 * error * error, error - 0.05)
            loss += self.dimension_weight * tf.reduce_sum(each) / tf.reduce_sum(tf.cast(known, tf.float32))
        return loss
