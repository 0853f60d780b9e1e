"""A look at an ONNX file before ONNX Runtime sees it: a model can come from anybody.

ONNX Runtime follows paths to other files, runs loops and whatever operators a graph names, and allocates what its
shapes say. What is let through here is a small graph of known operators, whole in its one file, whose every
intermediate result has a known and moderate size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectpipe.errors import ModelError

MAX_ONNX_BYTES = 64 * 2**20
_MAX_NODES = 200
_MAX_VALUES = 2**25
_DOMAINS = ("", "ai.onnx")
# Those that tf2onnx makes of our layers, and their near relatives that another of its versions could take.
OPERATORS = frozenset(
    {
        *("Conv", "Gemm", "MatMul", "Add", "Mul", "Sub", "BatchNormalization", "Relu", "MaxPool", "Flatten", "Reshape"),
        *("Transpose", "Squeeze", "Unsqueeze", "Shape", "Gather", "Slice", "Concat", "Cast", "Constant", "Identity"),
    }
)


@dataclass(frozen=True)
class NetworkShape:
    """What a network must be to be let through.

    Parameters
    ----------
    kind : str
        What messages call it, such as "screener".
    inputs : mapping of str to sequence of int
        Shape of one sample of each input, without the batch axis. A single input may have any name.
    n_answers : int or sequence of int
        Answers that it gives to a sample, or their shape.
    batch : int
        Samples that it is given at once.
    takes : str
        What it does not take, for the message where the inputs differ.
    operators : frozenset of str
        Operators that may be in it.
    check_weights : callable, optional
        Given the parsed model; raises ValueError where its weights are not those of the card.
    """

    kind: str
    inputs: Mapping[str, Sequence[int]]
    n_answers: int | Sequence[int]
    batch: int
    takes: str
    operators: frozenset[str] = OPERATORS
    check_weights: Callable[[Any], None] | None = None


def check_network(data: bytes, name: str, shape: NetworkShape) -> None:
    """Refuse an ONNX file that is not such a network.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        How messages call it.
    shape : NetworkShape

    Raises
    ------
    ModelError
        Too large, damaged, with data in other files, unknown operators or domains, subgraphs or functions, or shapes
        that are not those asked for.
    """
    # 0.2 s, which only a process that loads a model pays.
    import onnx

    if len(data) > MAX_ONNX_BYTES:
        raise ModelError(f"{name}: larger than {MAX_ONNX_BYTES >> 20} MiB, which no {shape.kind} needs.")
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf has several kinds, in modules that differ by its version
        raise ModelError(f"{name}: cannot be loaded as an ONNX network ({error}).") from error
    try:
        _check_graph(model, shape.operators)
        _check_input(model, shape)
        if shape.check_weights is not None:
            shape.check_weights(model)
        _check_shapes(onnx, model, shape)
    except ValueError as error:
        raise ModelError(f"{name}: {error}; take the file that TrainModel wrote.") from error


def _check_graph(model: Any, operators: frozenset[str]) -> None:
    graph = model.graph
    if not graph.node or len(graph.node) > _MAX_NODES:
        raise ValueError(f"its graph has {len(graph.node)} operators")
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("it brings functions, training or sparse weights of its own")
    for node in graph.node:
        if node.domain not in _DOMAINS or node.op_type not in operators:
            raise ValueError(f"it needs the unknown operator '{node.domain and node.domain + '.'}{node.op_type}'"[:120])
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.sparse_tensors or attribute.ref_attr_name:
                raise ValueError(f"its operator {node.op_type} holds a graph of its own")
    # ONNX Runtime's own complaint about it would go to the terminal.
    if any(isinstance(name, bytes) for name in _texts(model)):
        raise ValueError("a name in it is no text")
    for tensor in _tensors(model):
        if tensor.data_location or tensor.external_data:
            raise ValueError("its weights are in another file")


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _texts(message: Any) -> Iterator[Any]:
    """Every text in a message and those below it; bytes where it is no UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else list(value):
                yield from _texts(inner)
        elif field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else list(value)


def _check_input(model: Any, wanted: NetworkShape) -> None:
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        for value in inputs
        if value.type.tensor_type.shape.dim
    }
    asked = {name: list(shape) for name, shape in wanted.inputs.items()}
    if len(asked) == len(inputs) == 1:
        asked = dict.fromkeys(shapes, next(iter(asked.values())))
    if len(shapes) != len(inputs) or len(model.graph.output) != 1 or shapes != asked:
        raise ValueError(f"it does not take {wanted.takes}: the card and the network do not belong together")


def _check_shapes(onnx: Any, model: Any, wanted: NetworkShape) -> None:
    """Every result, for a whole batch: its shape must follow from the graph, and be of a moderate size."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    names = {tensor.name for tensor in model.graph.initializer}
    for value in fixed.graph.input:
        if value.name not in names:
            value.type.tensor_type.shape.dim[0].dim_value = wanted.batch
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise ValueError(f"its shapes do not fit each other ({str(error).splitlines()[0][:120]})") from error
    shapes = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
        if value.type.tensor_type.HasField("shape")
    }
    for name in (name for node in model.graph.node for name in node.output if name):
        n_values = 1
        for side in shapes.get(name, [-1]):
            if side < 0:
                raise ValueError("the size of a result inside it cannot be known")
            n_values *= side
        if n_values > _MAX_VALUES:
            raise ValueError(f"a result inside it is too large for a {wanted.kind}")
    answers = [wanted.n_answers] if isinstance(wanted.n_answers, int) else list(wanted.n_answers)
    if shapes.get(model.graph.output[0].name) != [wanted.batch, *answers]:
        raise ValueError(f"it does not give {' × '.join(map(str, answers))} answers to a sample")
