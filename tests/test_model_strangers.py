"""A model from a stranger: what is not weights of our own architecture is refused before it can do anything."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from run_helpers import ROOT, command, write_blobs

from defectpipe.errors import ModelError
from defectpipe.model import CARD, CASCADE, FILES, ONNX, WEIGHTS, LoopModel

SHIPPED = ROOT / "models" / "fecral-loops"
Graph = Any


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "stranger"
    folder.mkdir()
    for name in (CARD, *FILES):
        shutil.copy(SHIPPED / name, folder)
    return folder


def vouch(folder: Path, **changes: object) -> Path:
    """Make the card's hashes those of the files: whoever made the files made the card too."""
    card = json.loads((folder / CARD).read_text()) | changes
    card["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / CARD).write_text(json.dumps(card))
    return folder


def hostile_onnx(folder: Path, change: Callable[[Graph], object]) -> Path:
    network = onnx.load(folder / ONNX)
    change(network)
    (folder / ONNX).write_bytes(network.SerializeToString())
    return vouch(folder)


def external_weights(network: Graph) -> None:
    tensor = network.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def external_constant(network: Graph) -> None:
    tensor = TensorProto(name="c", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    network.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=tensor))


def endless_loop(network: Graph) -> None:
    body = helper.make_graph([], "body", [], [])
    network.graph.node.append(helper.make_node("Loop", [], ["never"], body=body))


def hidden_graph(network: Graph) -> None:
    network.graph.node[0].attribute.append(helper.make_attribute("then_branch", helper.make_graph([], "g", [], [])))


def own_function(network: Graph) -> None:
    network.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [], []))


def foreign_domain(network: Graph) -> None:
    network.graph.node[2].domain = "com.stranger"


def unknown_operator(network: Graph) -> None:
    network.graph.node[2].op_type = "PyOp"


def bomb(network: Graph) -> None:
    """Every crop's values added to every other's: 87 GB from operators that a screener has."""
    flat = 64 * 48 * 48
    for name, shape in (("column", [flat, 1]), ("row", [1, flat])):
        network.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
        network.graph.node.append(helper.make_node("Reshape", ["input", f"{name}_shape"], [name]))
    network.graph.node.append(helper.make_node("Add", ["column", "row"], ["bomb"]))


def unknown_size(network: Graph) -> None:
    network.graph.node.append(helper.make_node("Reshape", ["input", "Identity:0"], ["who_knows"]))


def wide_padding(network: Graph) -> None:
    [pads] = [a for node in network.graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "pads"][
        :1
    ]
    pads.ints[:] = [100_000] * 4


def other_weights(network: Graph) -> None:
    [dense] = [tensor for tensor in network.graph.initializer if list(tensor.dims) == [1152, 128]]
    dense.CopyFrom(numpy_helper.from_array(np.zeros((1152, 127), np.float32), dense.name))


def other_input(network: Graph) -> None:
    network.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 50


def other_output(network: Graph) -> None:
    network.graph.output[0].name = network.graph.node[-3].output[0]
    del network.graph.node[-2:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_weights, "weights are in another file"),
        (external_constant, "weights are in another file"),
        (endless_loop, "unknown operator 'Loop'"),
        (hidden_graph, "holds a graph of its own"),
        (own_function, "brings functions"),
        (foreign_domain, r"unknown operator 'com\.stranger\.Relu'|unknown operator 'com\.stranger\.Conv'"),
        (unknown_operator, "unknown operator 'PyOp'"),
        (bomb, "too large for a screener"),
        (unknown_size, "cannot be known|do not fit"),
        (wide_padding, "too large for a screener|do not fit"),
        (other_weights, "not the shapes that the card tells"),
        (other_input, "does not take crops of 48 px"),
        (other_output, "does not give 5 answers|do not fit"),
        (lambda network: network.graph.ClearField("node"), "has 0 operators"),
    ],
)
def test_a_hostile_network_is_refused_before_a_session_is_made(model, monkeypatch, change, reason):
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("ONNX Runtime saw it"))
    with pytest.raises(ModelError, match=rf"screener\.onnx: .*(?:{reason})") as caught:
        LoopModel.load(hostile_onnx(model, change))
    assert "\n" not in str(caught.value)


def test_networks_and_cards_that_are_too_large_are_refused(model):
    with (model / ONNX).open("r+b") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelError, match=r"screener\.onnx: larger than 64 MiB"):
        LoopModel.load(vouch(model))
    with (model / CARD).open("r+b") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(ModelError, match="larger than 4 MiB"):
        LoopModel.load(model)


LAUGHS = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("<opencv_storage>", "<!DOCTYPE x><opencv_storage>", "DTDForbidden"),
        ("<opencv_storage>", f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]><opencv_storage>&a9;', "Forbidden"),
        ("<opencv_storage>", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><opencv_storage>&a;', "Forbidden"),
        ('<?xml version="1.0"?>', '<?xml version="1.0" encoding="rot13"?>', "encoding"),
        ("<features>", "<features>" + "<_/>" * 600_000, "500000 tags"),
        ("<stageThreshold>", "<stageThreshold>1e999", "LBP stumps"),
    ],
)
def test_a_hostile_cascade_is_refused(model, before, after, reason):
    text = (model / CASCADE).read_text()
    assert before in text
    (model / CASCADE).write_text(text.replace(before, after, 1))
    began = time.process_time()
    with pytest.raises(ModelError, match=rf"cascade\.xml: .*{reason}"):
        LoopModel.load(vouch(model))
    assert time.process_time() - began < 5


def with_value(folder: Path, name: str, value: object) -> None:
    card = json.loads((folder / CARD).read_text())
    *sections, last = name.split(".")
    place = card
    for section in sections:
        place = place[section]
    place[last] = value
    (folder / CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", "0.5"),
        ("threshold", True),
        ("max_candidates_per_megapixel", 10**12),
        ("max_candidates_per_megapixel", 10.5),
        ("box_spread", float("inf")),
        ("scan.level_factor", 1.0),
        ("scan.border_px", 10**9),
        ("scan.max_overlap", None),
        ("scan", []),
        ("screener.crop_px", 10**6),
        ("screener.widths", [32, 64, 10**9]),
        ("screener.widths", "abc"),
        ("screening.usual_anchor", {}),
        ("screening.surprise", 1),
        ("working_pixel_size_nm", -1),
        ("box_convention", ["tight"]),
        ("polarity", "sideways"),
    ],
)
def test_a_card_with_a_value_of_another_kind_is_refused_by_its_name(model, name, value):
    with_value(model, name, value)
    with pytest.raises(ModelError, match=rf"card\.json: .*{name.split('.')[0]}"):
        LoopModel.load(model)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"sha256": []}', "\xff\xfe", '{"threshold": ' + "9" * 5000 + "}"]
)
def test_a_card_that_is_none_is_refused(model, text):
    (model / CARD).write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"card\.json"):
        LoopModel.load(model)


def test_a_pipe_in_the_place_of_a_file_does_not_stop_the_program(model):
    for name in (ONNX, CARD):
        (model / name).unlink()
        os.mkfifo(model / name)
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            LoopModel.load(model)


def test_a_file_that_changes_after_the_model_was_loaded_is_not_used(model):
    stranger = LoopModel.load(model)
    for name in (CASCADE, ONNX):
        (model / name).write_bytes((model / name).read_bytes() + b" ")
    assert len(stranger.cascade.stages) == len(LoopModel.load(SHIPPED).cascade.stages)
    with pytest.raises(ModelError, match=f"{ONNX} is not the file that card.json describes"):
        _ = stranger.network


class Payload:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.proof),)


def test_a_run_opens_no_pickle_and_refuses_a_hostile_model_in_one_sentence(model, tmp_path):
    proof = tmp_path / "proof"
    write_blobs(tmp_path / "in" / "a.tif", shape=(96, 96))
    (model / WEIGHTS).write_bytes(pickle.dumps(Payload(proof)))
    (model / "extra.pkl").write_bytes(pickle.dumps(Payload(proof)))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = ("RunAll", "--input-dir", "in", "--model", model, "--engine", "inline", *arguments)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command(*given), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    vouch(model)
    done = run()
    assert done.returncode == 0, done.stderr
    assert not proof.exists()
    hostile_onnx(model, external_weights)
    done = run("--output-dir", "out")
    assert done.returncode == 30
    assert "its weights are in another file" in done.stderr
    assert not (tmp_path / "out" / "images.csv").exists()
    with_value(model, "scan.level_factor", 1.0)
    done = run("--output-dir", "out")
    assert done.returncode == 30
    assert "'scan.level_factor' is 1.0, which is not between" in done.stderr
    assert "Traceback" not in done.stderr
