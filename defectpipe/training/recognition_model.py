"""The folder of a model of solids: its networks as they ship, and its card."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_json
from defectpipe.model_files import CARD, file_sha256
from defectpipe.networks.export import export_onnx, save_weights
from defectpipe.recognition.familiarity import Familiarity
from defectpipe.recognition.model import FAMILIARITY, FILES, FUSION, KIND, PIXELWISE, RECOGNISER, TILE_PX, TRUNK
from defectpipe.recognition.pixelwise import build_pixelwise
from defectpipe.recognition.recogniser import Layout, build_trunk
from defectpipe.recognition.views import VIEW_PX
from defectpipe.training.versions import versions

if TYPE_CHECKING:
    import keras

_PACKAGES = ("keras", "numpy", "onnx", "tensorflow", "tf2onnx")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedSolids:
    """What a model of solids is made of.

    Parameters
    ----------
    layout : Layout
    recogniser, pixelwise, fusion : keras.Model
    familiarity : Familiarity
    temperatures : mapping of int to float
        Of the logits of the classes that the fusion gives, for 1 to 8 views.
    """

    layout: Layout
    recogniser: keras.Model
    pixelwise: keras.Model
    fusion: keras.Model
    familiarity: Familiarity
    temperatures: Mapping[int, float]


def trunk_of(recogniser: keras.Model, side_px: int = VIEW_PX) -> keras.Model:
    """The backbone of a recogniser: a network of its own with the same weights."""
    trunk = build_trunk(side_px)
    for layer in trunk.layers:
        layer.set_weights(_twin(layer, trunk, recogniser).get_weights())
    return trunk


def _twin(layer: keras.Layer, trunk: keras.Model, recogniser: keras.Model) -> keras.Layer:
    # names of layers are numbered through a process: the place among those with weights counts
    place = [one for one in trunk.layers if one.weights].index(layer) if layer.weights else None
    return recogniser.layers[0] if place is None else [one for one in recogniser.layers if one.weights][place]


def write_solid_model(folder: Path, trained: TrainedSolids, describe: Mapping[str, Any] | None = None) -> Path:
    """Write networks and card.

    Parameters
    ----------
    folder : Path
        Made if missing; its name is the model's.
    trained : TrainedSolids
    describe : mapping, optional
        More for the card: ``data``, ``figures``, ``recipe``.

    Returns
    -------
    Path
        The folder.
    """
    tile = build_pixelwise((TILE_PX, TILE_PX))
    tile.set_weights(trained.pixelwise.get_weights())
    save_weights(trunk_of(trained.recogniser), folder / TRUNK)
    for network, name in ((trained.recogniser, RECOGNISER), (tile, PIXELWISE), (trained.fusion, FUSION)):
        export_onnx(network, folder / name)
    buffer = io.BytesIO()
    known = trained.familiarity
    np.savez(
        buffer,
        means=known.means.astype(np.float32),
        whitening=known.whitening.astype(np.float32),
        limit=np.array(known.limit),
    )
    write_atomic(folder / FAMILIARITY, buffer.getvalue())
    content = {
        "name": folder.name,
        "kind": KIND,
        "layout": dataclasses.asdict(trained.layout),
        "temperatures": {str(n): float(t) for n, t in trained.temperatures.items()},
        **(describe or {}),
        "versions": versions(_PACKAGES),
        "sha256": {name: file_sha256(folder / name) for name in FILES},
    }
    write_json(content, folder / CARD)
    return folder
