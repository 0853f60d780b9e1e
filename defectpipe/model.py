"""A loop model: a folder with a cascade, a screener and a card that says how they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from defectpipe.card_check import check_card
from defectpipe.classes import DefectClasses
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.opencv_xml import MAX_XML_BYTES, read_cascade
from defectpipe.detection.scan import ScanRecipe
from defectpipe.errors import ModelError
from defectpipe.model_files import CARD, FolderModel, ModelFolder, file_sha256
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.onnx_check import MAX_ONNX_BYTES, check_onnx
from defectpipe.screening.screener import BATCH, OnnxNetwork, ScreeningRecipe
from defectpipe.statistics.predicted_f1 import F1Predictor

__all__ = ["CARD", "CASCADE", "FILES", "ONNX", "WEIGHTS", "LoopModel", "file_sha256", "find_model"]

CASCADE, WEIGHTS, ONNX = "cascade.xml", "screener.weights.h5", "screener.onnx"
FILES = (CASCADE, WEIGHTS, ONNX)
# A run opens the cascade and the ONNX file only; the weights are hashed.
MAX_BYTES = {CASCADE: MAX_XML_BYTES, WEIGHTS: 2**28, ONNX: MAX_ONNX_BYTES}

# What of a model the stages use; the rest (its figures, its training weights) changes no result.
_FILES_USED = {"candidates": (CASCADE,), "screening": (ONNX,), "measurement": ()}
_CARD_USED = {
    "candidates": ("scan", "max_candidates_per_megapixel", "working_pixel_size_nm"),
    "screening": ("screener", "screening", "box_scale", "threshold", "working_pixel_size_nm"),
    "measurement": ("box_convention", "polarity", "box_spread", "tight_scale"),
}


@dataclass(frozen=True, eq=False)
class LoopModel(FolderModel):
    """A model that finds loops; its card holds data, source, licence, conventions, recipes, figures, hashes."""

    @classmethod
    def load(cls, path: Path) -> LoopModel:
        """Read the card and check the other files against it; the network is loaded when first used.

        Raises
        ------
        ModelError
            A file is missing, is not the one that the card describes, or holds what no screener or cascade does.
        """
        files = ModelFolder.open(path, MAX_BYTES)
        check_card(files.card, files.path / CARD)
        model = cls(files.path, files.card, files.sha256, files)
        # Here, and not with the first image: a model that cannot be used stops a run before it computes anything.
        _ = model.cascade, model.f1_predictor
        check_onnx(files.content(ONNX), str(files.path / ONNX), model.seen, BATCH, model.classes.n_logits)
        return model

    def decisive(self, stage: str) -> dict[str, Any]:
        """What of it decides the results of a stage: hashes of files, and fields of the card; plain JSON values.

        Parameters
        ----------
        stage : str
            ``candidates``, ``screening`` or ``measurement``.

        Returns
        -------
        dict
            By name of the file.
        """
        files = {name: self.card["sha256"][name] for name in _FILES_USED[stage]}
        fields = {field: self.card.get(field) for field in _CARD_USED[stage]}
        # Only from where on there are any: what a card of one class of loops decides is as before there were classes.
        if stage != "candidates" and self.classes != DefectClasses():
            fields["classes"] = [[one.name, one.contour] for one in self.classes.each]
        return files | {CARD: fields}

    @property
    def classes(self) -> DefectClasses:
        """The classes of defects that it tells apart."""
        return DefectClasses.of(self.card.get("classes"))

    @property
    def box_convention(self) -> str:
        """Convention of the boxes that it gives: ``tight`` or ``padded``."""
        return str(self.card["box_convention"])

    @property
    def threshold(self) -> float:
        """Screening score from which a candidate counts as a loop, chosen on held-out folds."""
        return float(self.card["threshold"])

    @property
    def max_candidates(self) -> int:
        """Candidates that are screened, for each megapixel of the working image."""
        return int(self.card["max_candidates_per_megapixel"])

    @property
    def polarity(self) -> str:
        """Rim against background, for the measurement: ``dark``, ``bright`` or ``auto``."""
        return str(self.card["polarity"])

    @property
    def box_scale(self) -> float:
        """What the sides of the screener's boxes are multiplied by: on unseen families they come out small."""
        return float(self.card["box_scale"])

    @property
    def tight_scale(self) -> float | None:
        """What gives the sides of a loop's tight box when multiplied by those of its box; None: its convention does.

        The screener sees every loop in a crop of one size: it cannot know how many px of padding a box would have, and
        adds the same share to all.
        """
        scale = self.card.get("tight_scale")
        return None if scale is None else float(scale)

    @property
    def box_spread(self) -> float:
        """How far the measurement lets the sides of a loop stray from its box: standard deviation of the logarithm."""
        return float(self.card["box_spread"])

    @property
    def focus_gate(self) -> dict[str, Any] | None:
        """What was measured of its figures against the focus score (`training.focus_gate`); None: nothing."""
        section = self.card.get("focus_gate")
        return section if isinstance(section, dict) else None

    @property
    def scan(self) -> ScanRecipe:
        """How images are scanned."""
        return ScanRecipe(**self.card["scan"])

    @property
    def seen(self) -> ScreenerRecipe:
        """What the screener sees."""
        return ScreenerRecipe(**{**self.card["screener"], "widths": tuple(self.card["screener"]["widths"])})

    @property
    def screening(self) -> ScreeningRecipe:
        """How candidates become loops."""
        return ScreeningRecipe(**self.card["screening"])

    @property
    def f1_predictor(self) -> F1Predictor | None:
        """What predicts the F1 of an image without labels; None where its training could not make one."""
        values = self.card.get("predicted_f1")
        if not values or "line" not in values:
            return None
        try:
            return F1Predictor.from_card(values)
        except KeyError as error:
            lacks = f"'predicted_f1' of the card lacks {error}"
            raise ModelError(f"{self.path}: {lacks}; train the model again.") from error

    @cached_property
    def cascade(self) -> Cascade:
        """The cascade, read from XML."""
        return read_cascade(self.path / CASCADE, self.files.content(CASCADE))

    @cached_property
    def network(self) -> OnnxNetwork:
        """The screener, in ONNX Runtime."""
        return OnnxNetwork(self.path / ONNX, self.seen, self.files.content(ONNX), self.classes.n_logits)


def find_model(name_or_path: str, extra: Sequence[Path] = ()) -> Path:
    """Folder of a model: a path, a name in one of the `extra` folders, or a built-in name.

    Raises
    ------
    ModelError
        There is none; names those that there are.
    """
    given = Path(name_or_path).expanduser()
    if (given / CARD).is_file():
        return given.resolve()
    package = Path(__file__).resolve().parent
    places = [*extra, package / "models", package.parent / "models"]
    if given.name == name_or_path:
        for place in places:
            if (place / name_or_path / CARD).is_file():
                return (place / name_or_path).resolve()
    known = sorted({card.parent.name for place in places for card in place.glob(f"*/{CARD}")})
    raise ModelError(f"There is no model '{name_or_path}'; known here: {', '.join(known) or 'none'}. A path works too.")
