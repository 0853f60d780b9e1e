"""A focus model: a folder with a network and a card that says what it was trained on. NumPy and ONNX Runtime only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from defectpipe.errors import ModelError
from defectpipe.focus.backbones import BACKBONES
from defectpipe.focus.scorer import FocusScorer
from defectpipe.focus.spectral import N_FEATURES
from defectpipe.focus_scale import (
    MAGNIFICATION_LIMITS,
    FocusLimits,
    FocusScale,
    blur_of_score,
    focus_limits,
    magnification_of,
)
from defectpipe.model_files import CARD, FolderModel, ModelFolder
from defectpipe.networks.onnx_check import MAX_ONNX_BYTES, OPERATORS, NetworkShape, check_network

ONNX, WEIGHTS = "network.onnx", "network.weights.h5"
FILES = (WEIGHTS, ONNX)
KIND = "focus"
# No more tiles than this are scored at once.
_BATCH = 64
_OPERATORS = OPERATORS | {
    *("Erf", "Div", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Pow", "ReduceMean", "ReduceMax", "GlobalAveragePool"),
    *("GlobalMaxPool", "AveragePool", "Pad", "Clip", "Max", "Min", "Neg", "Softplus"),
}
_MAX_BYTES = {WEIGHTS: 2**28, ONNX: MAX_ONNX_BYTES}
# Beyond the magnifications of the training by more than this factor a score means nothing.
_MARGIN = 1.5
_PATCH_PX = (64, 2048)


@dataclass(frozen=True, eq=False)
class FocusModel(FolderModel):
    """A model that scores focus."""

    @classmethod
    def load(cls, path: Path) -> FocusModel:
        """Read the card and check the other files against it.

        Raises
        ------
        ModelError
            A file is missing, is not the one that the card describes, or holds what no focus network does.
        """
        files = ModelFolder.open(path, _MAX_BYTES)
        _check_card(files.card, files.path / CARD)
        model = cls(files.path, files.card, files.sha256, files)
        check_network(files.content(ONNX), str(files.path / ONNX), model._shape())
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes by its folder: a session of ONNX Runtime cannot be sent.
        return FocusModel.load, (self.path,)

    @property
    def modality(self) -> str:
        """What it was trained on, such as ``SEM``."""
        return str(self.card["modality"])

    @property
    def patch_px(self) -> tuple[int, int]:
        """Height and width of what it looks at."""
        height, width = self.card["patch_shape_px"]
        return int(height), int(width)

    @property
    def uses_magnification(self) -> bool:
        """Whether it has to know the magnification."""
        return bool(self.card["uses_magnification"])

    @property
    def error_std(self) -> float:
        """Error of a score on images that it never saw, root of the mean square, as the card says; 0: it does not."""
        return float(self.card.get("error_std", 0.0))

    def knows(self, modality: str) -> bool:
        """Whether it was trained on this modality."""
        return modality.upper().startswith(self.modality.upper())

    def magnification_of(self, stated: float | None, pixel_size_nm: float | None) -> tuple[float | None, str]:
        """The magnification that the network is told, and why it cannot be told any (else empty).

        The pixel size decides, since a stated magnification refers to a width of display that differs from maker to
        maker; only without it the stated one is taken.
        """
        if not self.uses_magnification:
            return None, ""
        value = stated if pixel_size_nm is None else magnification_of(pixel_size_nm)
        if value is None:
            return None, "neither pixel size nor magnification is known"
        low, high = MAGNIFICATION_LIMITS
        if not low / _MARGIN <= value <= high * _MARGIN:
            return None, f"a magnification of {value:.3g} is beyond the {low:g} to {high:g} of the training"
        return float(np.clip(value, low, high)), ""

    def scores(self, patches: np.ndarray, magnification: float | None = None) -> np.ndarray:
        """Scores (n,), from 0 to 10, of patches (n, height, width).

        Raises
        ------
        ModelError
            The network cannot give them.
        """
        told = None if magnification is None else np.full(len(patches), magnification)
        return self._scorer(patches, told)

    def limits(self, magnification: float | None = None) -> FocusLimits:
        """Total blurs, in px at the working resolution, that scores of 10 and 1 stand for."""
        scale = self.card["score_scale"]
        if "perfect_px" in scale:
            return FocusLimits(float(scale["perfect_px"]), float(scale["lost_px"]))
        return focus_limits(magnification or MAGNIFICATION_LIMITS[0], FocusScale(**scale))

    def blur_px(self, score: float, magnification: float | None = None) -> float | None:
        """Total blur that a score stands for, in px at the working resolution; None below 1, where there is nothing."""
        return blur_of_score(min(score, 10.0), self.limits(magnification)) if score >= 1 else None

    def _shape(self) -> NetworkShape:
        backbone = BACKBONES[self.card["backbone"]]
        sample: tuple[int, ...] = (*self.patch_px, 1)
        if backbone.input_name == "features":
            sample = (N_FEATURES if self.card["backbone"] == "spectral" else 1,)
        inputs: dict[str, tuple[int, ...]] = {backbone.input_name: sample}
        if self.uses_magnification:
            inputs["magnification"] = (1,)
        takes = f"what the backbone {self.card['backbone']} gives"
        return NetworkShape("focus network", inputs, 1, _BATCH, takes, _OPERATORS)

    @cached_property
    def _scorer(self) -> FocusScorer:
        return FocusScorer(self.files.content(ONNX), str(self.card["backbone"]), self.uses_magnification)


def _check_card(card: dict[str, Any], path: Path) -> None:
    """Refuse a card that is no focus model's, or whose values are of another type or out of range."""
    if card.get("kind") != KIND:
        raise ModelError(f"{path}: is no card of a focus model.")
    if card.get("backbone") not in BACKBONES:
        raise ModelError(f"{path}: 'backbone' is none of {', '.join(BACKBONES)}.")
    if not isinstance(card.get("uses_magnification"), bool):
        raise ModelError(f"{path}: 'uses_magnification' is neither true nor false.")
    modality, patch, scale = card.get("modality"), card.get("patch_shape_px"), card.get("score_scale")
    if not isinstance(modality, str) or not 0 < len(modality) < 20:
        raise ModelError(f"{path}: 'modality' is no name.")
    if not isinstance(patch, list) or len(patch) != 2:
        raise ModelError(f"{path}: 'patch_shape_px' is not a height and a width.")
    ranges: list[tuple[str, Any, float, float]] = [("patch_shape_px", side, *_PATCH_PX) for side in patch]
    ranges.append(("error_std", card.get("error_std", 0.0), 0.0, 10.0))
    if card.get("working_pixel_size_nm") is not None:
        ranges.append(("working_pixel_size_nm", card["working_pixel_size_nm"], 1e-4, 1e6))
    known = ({"perfect_px", "lost_px"}, set(FocusScale.__dataclass_fields__))
    if not isinstance(scale, dict) or set(scale) not in known:
        raise ModelError(f"{path}: 'score_scale' holds neither perfect_px and lost_px nor the SEM scale's parameters.")
    ranges += [(f"score_scale.{name}", value, 1e-3, 1e4) for name, value in scale.items()]
    for name, value, low, high in ranges:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high or (name == "patch_shape_px" and not isinstance(value, int)):
            raise ModelError(f"{path}: '{name}' is {str(value)[:40]}, which is not between {low:g} and {high:g}.")
    if "perfect_px" in scale and not scale["perfect_px"] < scale["lost_px"]:
        raise ModelError(f"{path}: 'score_scale.perfect_px' is not below 'score_scale.lost_px'.")
