"""A model of solids: a folder with its networks and a card that says what they tell apart. NumPy, ONNX Runtime only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.errors import ModelError
from defectpipe.model_files import CARD, FolderModel, ModelFolder
from defectpipe.networks.onnx_check import MAX_ONNX_BYTES, OPERATORS, NetworkShape, check_network
from defectpipe.networks.pictures import normalise
from defectpipe.networks.session import open_session
from defectpipe.recognition.familiarity import Familiarity
from defectpipe.recognition.fusion import MAX_VIEWS, pad_views, split_fused
from defectpipe.recognition.ground_truth import Verdict, judge
from defectpipe.recognition.pixelwise import maps_of
from defectpipe.recognition.recogniser import Layout
from defectpipe.recognition.suitability import TRAINED_THICKNESS_NM
from defectpipe.recognition.views import VIEW_PX, answer_all_ways

if TYPE_CHECKING:
    import onnxruntime

KIND = "solids"
RECOGNISER, PIXELWISE, FUSION = "recogniser.onnx", "pixelwise.onnx", "fusion.onnx"
TRUNK, FAMILIARITY = "trunk.weights.h5", "familiarity.npz"
FILES = (TRUNK, RECOGNISER, PIXELWISE, FUSION, FAMILIARITY)
TILE_PX = 256
_OVERLAP_PX = 32
_BATCH = 64
_MAX_BYTES = {
    TRUNK: 2**26,
    RECOGNISER: MAX_ONNX_BYTES,
    PIXELWISE: MAX_ONNX_BYTES,
    FUSION: MAX_ONNX_BYTES,
    FAMILIARITY: 2**22,
}
_OPERATORS = OPERATORS | {
    *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "ReduceProd", "Pad", "Clip"),
    *("Resize", "Tile", "Expand", "Div", "Softplus", "Exp", "Log", "Max", "Min", "Neg", "ConstantOfShape"),
}


@dataclass(frozen=True, eq=False)
class SolidModel(FolderModel):
    """A model that recognises solids in dark-field pictures."""

    @classmethod
    def load(cls, path: Path) -> SolidModel:
        """Read the card and check the other files against it; networks are loaded when first used.

        Raises
        ------
        ModelError
            A file is missing, is not the one that the card describes, or holds what no such network does.
        """
        files = ModelFolder.open(path, _MAX_BYTES)
        _check_card(files.card, files.path / CARD)
        model = cls(files.path, files.card, files.sha256, files)
        for name, shape in model._shapes().items():
            check_network(files.content(name), str(files.path / name), shape)
        _ = model.familiarity
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes by its folder: a session of ONNX Runtime cannot be sent.
        return SolidModel.load, (self.path,)

    @property
    def layout(self) -> Layout:
        """What its answers are."""
        values = self.card["layout"]
        classes, deformations, dimensions = (
            tuple(str(v) for v in values[name]) for name in ("classes", "deformations", "dimensions")
        )
        return Layout(classes, deformations, dimensions, int(values["n_features"]))

    @property
    def trained_thickness_nm(self) -> tuple[float, float]:
        """Largest thicknesses of the bodies that it learned from, the thinnest body's and the thickest's."""
        low, high = self.card.get("trained_thickness_nm", TRAINED_THICKNESS_NM)
        return float(low), float(high)

    def answers(self, views: np.ndarray) -> np.ndarray:
        """Rows of `layout` (n, n_answers) for views (n, VIEW_PX, VIEW_PX) with grey values in any unit.

        Means over the 8 ways in which a view can lie.
        """
        return answer_all_ways(lambda part: self._run(RECOGNISER, {"view": part}), views, self.layout.n_answers)

    def judge(self, answers: np.ndarray, pixel_size_nm: float | None = None) -> Verdict:
        """What one object is, from the answers to its views, by the learned fusion.

        Parameters
        ----------
        answers : ndarray, shape (views, layout.n_answers)
            1 to `MAX_VIEWS` views: the fusion learned from no more. See `series.views_to_judge` where there are.
        pixel_size_nm : float, optional
            Of the views.

        Raises
        ------
        ValueError
            No view, or too many.
        """
        if not 1 <= len(answers) <= MAX_VIEWS:
            raise ValueError(f"An object is judged from 1 to {MAX_VIEWS} views, not {len(answers)}.")
        logits = self._run(FUSION, pad_views(answers[None], self.layout))
        temperature = float(self.card["temperatures"][str(len(answers))])
        classes, deformations = split_fused(logits, self.layout, temperature)
        return judge(answers, self.layout, pixel_size_nm, fused=(classes[0], deformations[0]))

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """Maps (height, width, 3) of a field (height, width), as `pixelwise.maps_of` gives them, tile by tile.

        Grey values in any unit, but all finite.
        """
        height, width = pixels.shape
        # one scale for the whole field: a tile without objects must not be stretched
        grey = normalise(pixels[None])[0]
        maps = np.zeros((height, width, 3), np.float32)
        for top in _starts(height):
            for left in _starts(width):
                part = grey[top : top + TILE_PX, left : left + TILE_PX]
                missing = (TILE_PX - part.shape[0], TILE_PX - part.shape[1])
                whole = np.pad(part, ((0, missing[0]), (0, missing[1])), mode="symmetric")
                made = maps_of(self._pixelwise, whole[None], standardised=True)[0]
                y0, x0 = (_OVERLAP_PX if start else 0 for start in (top, left))
                inner = made[y0 : part.shape[0], x0 : part.shape[1]]
                maps[top + y0 : top + part.shape[0], left + x0 : left + part.shape[1]] = inner
        return maps

    @cached_property
    def familiarity(self) -> Familiarity:
        """What views like those of the training look like."""
        name = self.path / FAMILIARITY
        try:
            with np.load(io.BytesIO(self.files.content(FAMILIARITY)), allow_pickle=False) as file:
                made = Familiarity(file["means"], file["whitening"], float(file["limit"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{name}: cannot be read ({error}).") from error
        k = self.layout.n_features
        if made.means.shape != (len(self.layout.classes), k) or made.whitening.shape != (k, k):
            raise ModelError(f"{name}: has not the shapes that the card tells.")
        return made

    def _pixelwise(self, pictures: np.ndarray) -> np.ndarray:
        return self._run(PIXELWISE, {"picture": pictures})

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = open_session(self.files.content(name), str(self.path / name))
        # a single input has lost its name
        names = [value.name for value in session.get_inputs()]
        named = inputs if len(inputs) > 1 else {names[0]: next(iter(inputs.values()))}
        try:
            return session.run(None, named)[0]
        except Exception as error:  # ONNX Runtime raises its own types, none of them public
            raise ModelError(f"{self.path / name}: cannot be used ({str(error).splitlines()[0]}).") from error

    @cached_property
    def _sessions(self) -> dict[str, onnxruntime.InferenceSession]:
        return {}

    def _shapes(self) -> dict[str, NetworkShape]:
        layout = self.layout
        fused: dict[str, Sequence[int]] = {
            "features": (MAX_VIEWS, layout.n_features),
            "evidence": (MAX_VIEWS, len(layout.classes)),
            "deformations": (MAX_VIEWS, len(layout.deformations)),
            "present": (MAX_VIEWS, 1),
        }
        view, tile = (VIEW_PX, VIEW_PX, 1), (TILE_PX, TILE_PX, 1)
        return {
            RECOGNISER: NetworkShape("recogniser", {"view": view}, layout.n_answers, _BATCH, "views", _OPERATORS),
            PIXELWISE: NetworkShape(
                "pixel-wise network", {"picture": tile}, (TILE_PX, TILE_PX, 3), 1, "tiles", _OPERATORS
            ),
            FUSION: NetworkShape(
                "fusion", fused, len(layout.classes) + len(layout.deformations), 1, "answers to views", _OPERATORS
            ),
        }


def _starts(size: int) -> list[int]:
    """Where tiles begin along a side, each but the first with an overlap that is cut off."""
    step = TILE_PX - 2 * _OVERLAP_PX
    return [0, *range(step, max(size - 2 * _OVERLAP_PX, 0), step)] if size > TILE_PX else [0]


def _check_card(card: dict[str, Any], path: Path) -> None:
    """Refuse a card that is no such model's, or whose values are of another type or out of range."""
    if card.get("kind") != KIND:
        raise ModelError(f"{path}: is no card of a model of solids.")
    layout, temperatures = card.get("layout"), card.get("temperatures")
    if (
        not isinstance(layout, dict)
        or not isinstance(layout.get("n_features"), int)
        or not 0 < layout["n_features"] < 4097
    ):
        raise ModelError(f"{path}: 'layout' does not say what the answers are.")
    for name, least in (("classes", 2), ("deformations", 1), ("dimensions", 0)):
        values = layout.get(name)
        if not isinstance(values, list) or not least <= len(values) <= 500 or len(set(map(str, values))) != len(values):
            raise ModelError(f"{path}: 'layout.{name}' is no list of names.")
        if not all(isinstance(value, str) and 0 < len(value) < 100 for value in values):
            raise ModelError(f"{path}: 'layout.{name}' is no list of names.")
    if not all("." in name for name in layout["dimensions"]):
        raise ModelError(f"{path}: 'layout.dimensions' holds other names than CLASS.DIMENSION.")
    wanted = {str(n) for n in range(1, MAX_VIEWS + 1)}
    if not isinstance(temperatures, dict) or set(temperatures) != wanted:
        raise ModelError(f"{path}: 'temperatures' does not hold one for each number of views to {MAX_VIEWS}.")
    for value in temperatures.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 100:
            raise ModelError(f"{path}: 'temperatures' holds {str(value)[:40]}, which is not between 0.01 and 100.")
    thickness = card.get("trained_thickness_nm", list(TRAINED_THICKNESS_NM))
    numbers = isinstance(thickness, list) and all(type(value) in (int, float) for value in thickness)
    if not numbers or len(thickness) != 2 or not 0 <= thickness[0] < thickness[1]:
        raise ModelError(f"{path}: 'trained_thickness_nm' does not hold a smallest and a largest thickness.")
