"""A network as a file: the same network gives the same bytes, whatever the converter called its parts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from defectpipe.networks.export import in_canonical_form

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "fecral-loops" / "screener.onnx"


def scrambled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same network with other names, and its parts in another order."""
    rng = random.Random(seed)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {name for node in graph.node for name in (*node.input, *node.output)} - kept - {""}
    others = {name: f"{name[:5]}__{rng.randrange(10**9)}" for name in sorted(names)}
    for node in graph.node:
        node.name = f"node {rng.random()}"
        node.input[:] = [others.get(name, name) for name in node.input]
        node.output[:] = [others.get(name, name) for name in node.output]
    for constant in graph.initializer:
        constant.name = others[constant.name]
    for field in ("node", "initializer"):
        parts = list(getattr(graph, field))
        rng.shuffle(parts)
        copies = [type(part).FromString(part.SerializeToString()) for part in parts]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("value_info")
    return made


@pytest.mark.parametrize("seed", range(3))
def test_names_and_order_of_the_parts_do_not_matter(seed: int) -> None:
    model = onnx.load(SHIPPED)
    once = in_canonical_form(model)
    other = scrambled(model, seed)
    assert other.SerializeToString() != model.SerializeToString()
    assert in_canonical_form(other).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    assert in_canonical_form(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_the_network_says_the_same_and_the_original_is_left_alone() -> None:
    model = onnx.load(SHIPPED)
    before = model.SerializeToString()
    ordered = in_canonical_form(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(ordered)
    sessions = [onnxruntime.InferenceSession(m.SerializeToString()) for m in (model, ordered)]
    size = sessions[0].get_inputs()[0].shape[1]
    crops = np.random.default_rng(0).normal(0, 0.6, (5, size, size, 1)).astype(np.float32)
    name = sessions[0].get_inputs()[0].name
    said, same = (session.run(None, {name: crops})[0] for session in sessions)
    np.testing.assert_array_equal(said, same)
