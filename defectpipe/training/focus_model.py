"""From patches with focus scores to a named model: network, ONNX, card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defectpipe.focus.backbones import MAGNIFICATION_RANGE, find_backbone
from defectpipe.focus.training import RECIPES, FocusRecipe, fit_focus
from defectpipe.io.tables import write_json
from defectpipe.model import CARD, file_sha256
from defectpipe.networks.export import export_onnx, save_weights
from defectpipe.training.versions import versions

FOCUS_WEIGHTS, FOCUS_ONNX = "network.weights.h5", "network.onnx"
_PACKAGES = ("defectpipe", "numpy", "opencv-python-headless", "tensorflow", "keras", "onnxruntime")


def train_focus(
    pixels: np.ndarray,
    score: np.ndarray,
    magnification: np.ndarray | None,
    folder: Path,
    *,
    modality: str,
    backbone: str = "spectral",
    recipe: FocusRecipe | None = None,
    seed: int = 0,
    patch_shape: tuple[int, int] | None = None,
    export_shape: tuple[int, int] | None = None,
    describe: Mapping[str, Any] | None = None,
    progress: Callable[[int, float], None] | None = None,
    views: Sequence[np.ndarray] = (),
    checkpoint: Path | None = None,
) -> Path:
    """Train a network and write its folder: ``network.weights.h5``, ``network.onnx``, ``card.json``.

    Parameters
    ----------
    pixels : ndarray, shape (n, height, width)
        Grey values in any unit.
    score : ndarray, shape (n,)
        From 0 (nothing to judge) to 10.
    magnification : ndarray, shape (n,), optional
        None: the network does without it.
    folder : Path
    modality : str
        What it can judge: ``SEM``, ``STEM``.
    backbone : str
        A name in `focus.backbones.BACKBONES`.
    recipe : FocusRecipe, optional
    seed : int
    patch_shape : tuple of int, optional
        Rows and columns that the network sees, cut out of `pixels` at random; all of them by default.
    export_shape : tuple of int, optional
        Rows and columns of the patches that it will be used on, where they are not `patch_shape`; a convolutional
        network does not mind.
    describe : mapping, optional
        More for the card: ``data``, ``score_scale`` (sigma_ref, sigma_lost), ``figures``.
    progress : callable, optional
        See `networks.training.fit`.
    views : sequence of ndarray
        See `focus.training.fit_focus`.
    checkpoint : Path, optional
        See `networks.training.fit`; removed when the folder is written.

    Returns
    -------
    Path
        The folder.
    """
    if recipe is None:
        recipe = RECIPES["spectral" if find_backbone(backbone).prepared_once else "convolutional"]
    shape = patch_shape or pixels.shape[1:]
    network = fit_focus(
        *(pixels, score, magnification, backbone, recipe, seed, shape),
        progress=progress,
        views=views,
        checkpoint=checkpoint,
    )
    if export_shape is not None and export_shape != shape:
        resized = find_backbone(backbone).build(export_shape, magnification is not None)
        resized.set_weights(network.get_weights())
        network = resized
    save_weights(network, folder / FOCUS_WEIGHTS)
    export_onnx(network, folder / FOCUS_ONNX)
    write_focus_card(
        folder,
        {
            "backbone": backbone,
            "patch_shape_px": [int(n) for n in export_shape or shape],
            "trained_on_px": [int(n) for n in shape],
            "uses_magnification": magnification is not None,
            "modality": modality,
            "recipe": dataclasses.asdict(recipe),
            "seed": seed,
            "n_images": len(score),
            "n_parameters": int(network.count_params()),
            **(describe or {}),
        },
    )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return folder


def write_focus_card(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the card of a focus model, with the hashes of its files; also to add figures to a card.

    Parameters
    ----------
    folder : Path
        Holds the network already.
    content : mapping
        Plain JSON values.
    """
    hashes = {name: file_sha256(folder / name) for name in (FOCUS_WEIGHTS, FOCUS_ONNX)}
    made: dict[str, Any] = {"name": folder.name, "kind": "focus"}
    if content["uses_magnification"]:
        made["magnification_scale"] = {"from": MAGNIFICATION_RANGE[0], "to": MAGNIFICATION_RANGE[1], "by": "logarithm"}
    made |= {**content, "versions": versions(_PACKAGES), "sha256": hashes}
    write_json(made, folder / CARD)
