"""From a trained Keras network to the files that ship: weights (HDF5) and ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from defectpipe.io.files import write_atomic

if TYPE_CHECKING:
    import keras
    import onnx

Message = TypeVar("Message", bound=Any)


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
    network : keras.Model
        Of one input, which is called ``input`` in the file, or of several, which keep their names.
    path : Path
        Replaced in one step; never half-written.
    """
    import tensorflow as tf
    import tf2onnx

    several = len(network.inputs) > 1
    shapes = [(tensor.name if several else "input", tensor.shape[1:]) for tensor in network.inputs]
    network(_only([np.zeros((1, *shape), np.float32) for _, shape in shapes]), training=False)  # uncalled: no graph

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32, name=name) for name, shape in shapes])
    def forward(*inputs: tf.Tensor) -> tf.Tensor:
        return network(_only(list(inputs)), training=False)

    model, _ = tf2onnx.convert.from_function(forward, input_signature=forward.input_signature, opset=17)
    write_atomic(path, in_canonical_form(model).SerializeToString(deterministic=True))


def in_canonical_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its nodes in order of use and their results numbered.

    The converter's order and numbers follow the hashes of strings, which differ from process to process: without this,
    the same weights would not give the same file.
    """
    graph = model.graph
    makers = {result: node for node in graph.node for result in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    inputs = {value.name for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    used: list[onnx.TensorProto] = []
    visited: set[str] = set()

    def visit(result: str) -> None:
        if not result or result in visited or result in inputs:
            return
        visited.add(result)
        if result in constants:
            names[result] = f"constant_{len(used)}"
            used.append(constants[result])
            return
        node = makers[result]
        for needed in node.input:
            visit(needed)
        for i, made in enumerate(node.output):
            visited.add(made)
            names.setdefault(made, f"result_{len(nodes)}_{i}")
        nodes.append(node)

    for value in graph.output:
        visit(value.name)
    nodes, used = [_copy(node) for node in nodes], [_copy(constant) for constant in used]
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for constant in used:
        constant.name = names[constant.name]
    ordered = _copy(model)
    for field, values in (("node", nodes), ("initializer", used), ("value_info", [])):
        ordered.graph.ClearField(field)
        getattr(ordered.graph, field).extend(values)
    return ordered


def _only(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _copy(message: Message) -> Message:
    made = type(message)()
    made.CopyFrom(message)
    return made
