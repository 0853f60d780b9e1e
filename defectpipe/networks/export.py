"""From a trained Keras network to the files that ship: weights (HDF5) and ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.io.files import write_atomic

if TYPE_CHECKING:
    import keras


def save_weights(network: keras.Model, path: Path) -> None:
    """Write the weights (HDF5) and nothing else: no optimiser, no code. `path` is replaced in one step."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.weights.h5"  # Keras insists on this ending
        network.save_weights(draft)
        write_atomic(path, draft.read_bytes())


def export_onnx(network: keras.Model, path: Path) -> None:
    """Write a Keras network as ONNX, with a free batch axis.

    Parameters
    ----------
    path : Path
        Replaced in one step; never half-written.
    """
    import tensorflow as tf
    import tf2onnx

    shape = network.input_shape
    network(np.zeros((1, *shape[1:]), np.float32), training=False)  # an uncalled model exports no graph

    @tf.function(input_signature=[tf.TensorSpec([None, *shape[1:]], tf.float32, name="input")])
    def forward(inputs: tf.Tensor) -> tf.Tensor:
        return network(inputs, training=False)

    model, _ = tf2onnx.convert.from_function(forward, input_signature=forward.input_signature, opset=17)
    write_atomic(path, model.SerializeToString())
