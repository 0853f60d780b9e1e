"""A look at an ONNX file before ONNX Runtime sees it: a model can come from anybody.

ONNX Runtime follows paths to other files, runs loops and whatever operators a graph names, and allocates what its
shapes say. What is let through here is a small graph of the operators that a screener is made of, whole in its one
file, whose every intermediate result has a known and moderate size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from defectpipe.errors import ModelError
from defectpipe.screening.network import ScreenerRecipe

MAX_ONNX_BYTES = 64 * 2**20
_MAX_NODES = 200
_MAX_VALUES = 2**25
_DOMAINS = ("", "ai.onnx")
# Those that tf2onnx makes of our layers, and their near relatives that another of its versions could take.
_OPERATORS = frozenset(
    {
        *("Conv", "Gemm", "MatMul", "Add", "Mul", "Sub", "BatchNormalization", "Relu", "MaxPool", "Flatten", "Reshape"),
        *("Transpose", "Squeeze", "Unsqueeze", "Shape", "Gather", "Slice", "Concat", "Cast", "Constant", "Identity"),
    }
)
ANSWERS = 5


def check_onnx(data: bytes, name: str, recipe: ScreenerRecipe | int, batch: int) -> None:
    """Refuse an ONNX file that is not a screener.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        How messages call it.
    recipe : ScreenerRecipe or int
        What the card says of the network; or the side of its input alone.
    batch : int
        Number of crops that it will be given at once.

    Raises
    ------
    ModelError
        Too large, damaged, with data in other files, unknown operators or domains, subgraphs or functions, or shapes
        that are not the card's.
    """
    # 0.2 s, which only a process that loads a model pays.
    import onnx

    if len(data) > MAX_ONNX_BYTES:
        raise ModelError(f"{name}: larger than {MAX_ONNX_BYTES >> 20} MiB, which no screener needs.")
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf has several kinds, in modules that differ by its version
        raise ModelError(f"{name}: cannot be loaded as an ONNX network ({error}).") from error
    crop_px = recipe if isinstance(recipe, int) else recipe.crop_px
    try:
        _check_graph(model)
        _check_input(model, crop_px)
        if isinstance(recipe, ScreenerRecipe):
            _check_weights(model, recipe)
        _check_shapes(onnx, model, batch)
    except ValueError as error:
        raise ModelError(f"{name}: {error}; take the file that TrainModel wrote.") from error


def _check_graph(model: Any) -> None:
    graph = model.graph
    if not graph.node or len(graph.node) > _MAX_NODES:
        raise ValueError(f"its graph has {len(graph.node)} operators")
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("it brings functions, training or sparse weights of its own")
    for node in graph.node:
        if node.domain not in _DOMAINS or node.op_type not in _OPERATORS:
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


def _check_input(model: Any, crop_px: int) -> None:
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs]
    if (
        len(inputs) != 1
        or len(model.graph.output) != 1
        or len(shapes[0]) != 4
        or shapes[0][1:] != [crop_px, crop_px, 1]
    ):
        raise ValueError(f"it does not take crops of {crop_px} px: the card and the network do not belong together")


def _check_weights(model: Any, recipe: ScreenerRecipe) -> None:
    first, second, third = recipe.widths
    # Strided with padding, then two poolings that drop an odd last row.
    side = (recipe.crop_px + 1) // 2 // 2 // 2
    kernels = [(first, 1, 5, 5), (first, first, 3, 3), (second, first, 3, 3), (second, second, 3, 3)]
    kernels += [(third, second, 3, 3), (third, third, 3, 3), (32, third, 1, 1)]
    dense = [(32 * side * side, recipe.hidden), (recipe.hidden, ANSWERS)]
    # A matrix may be kept either way round.
    wanted = sorted([*kernels, *(tuple(sorted(shape)) for shape in dense)])
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    found = sorted(
        [*(s for s in shapes if len(s) == 4 and s[0] > 1), *(tuple(sorted(s)) for s in shapes if len(s) == 2)]
    )
    if found != wanted:
        raise ValueError("its weights have not the shapes that the card tells")


def _check_shapes(onnx: Any, model: Any, batch: int) -> None:
    """Every result, for a batch of crops: its shape must follow from the graph, and be of a moderate size."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    names = {tensor.name for tensor in model.graph.initializer}
    for value in fixed.graph.input:
        if value.name not in names:
            value.type.tensor_type.shape.dim[0].dim_value = batch
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
            raise ValueError("a result inside it is too large for a screener")
    if shapes.get(model.graph.output[0].name) != [batch, ANSWERS]:
        raise ValueError(f"it does not give {ANSWERS} answers to a crop")
