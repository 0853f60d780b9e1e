"""A loop model: a folder with a cascade, a screener and a card that says how they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from defectpipe.boxes import CONVENTIONS
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.opencv_xml import read_cascade
from defectpipe.detection.scan import ScanRecipe
from defectpipe.errors import ModelError
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.screener import OnnxNetwork, ScreeningRecipe

CARD, CASCADE, WEIGHTS, ONNX = "card.json", "cascade.xml", "screener.weights.h5", "screener.onnx"
FILES = (CASCADE, WEIGHTS, ONNX)

# What of a model the stages use; the rest (its figures, its training weights) changes no result.
_FILES_USED = {"candidates": (CASCADE,), "screening": (ONNX,), "measurement": ()}
_CARD_USED = {
    "candidates": ("scan", "max_candidates_per_megapixel", "working_pixel_size_nm"),
    "screening": ("screener", "screening", "threshold", "working_pixel_size_nm"),
    "measurement": ("box_convention", "polarity", "box_spread"),
}


@dataclass(frozen=True, eq=False)
class LoopModel:
    """A model that finds loops.

    Attributes
    ----------
    path : Path
        Its folder.
    card : dict
        Contents of ``card.json``: data, source, licence, conventions, recipes, figures, hashes.
    sha256 : str
        Hash over all its files.
    """

    path: Path
    card: dict[str, Any]
    sha256: str

    @classmethod
    def load(cls, path: Path) -> LoopModel:
        """Read the card and check the other files against it; cascade and network are loaded when first used.

        Raises
        ------
        ModelError
            A file is missing, or is not the one that the card describes.
        """
        path = Path(path)
        try:
            text = (path / CARD).read_bytes()
            card = json.loads(text)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path}: holds no readable {CARD} ({error}); give a folder that TrainModel wrote."
            ) from error
        total = hashlib.sha256(text)
        for name in FILES:
            try:
                digest = file_sha256(path / name)
            except OSError as error:
                raise ModelError(f"{path}: {name} is missing ({error}).") from error
            if digest != card.get("sha256", {}).get(name):
                raise ModelError(
                    f"{path}: {name} is not the file that {CARD} describes; restore the model or train it again."
                )
            total.update(digest.encode())
        model = cls(path, card, total.hexdigest())
        model._check()
        return model

    def _check(self) -> None:
        try:
            sound = self.box_convention in CONVENTIONS and 0 <= self.threshold <= 1 and self.max_candidates > 0
            _ = self.scan, self.seen, self.screening, self.polarity, self.box_spread
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.path / CARD}: incomplete ({error!r}); train the model again.") from error
        if not sound:
            raise ModelError(f"{self.path / CARD}: box convention, threshold or number of candidates is out of range.")

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
        return files | {CARD: {field: self.card.get(field) for field in _CARD_USED[stage]}}

    @property
    def name(self) -> str:
        """Its name, as the card gives it."""
        return str(self.card.get("name", self.path.name))

    @property
    def box_convention(self) -> str:
        """Convention of the boxes that it gives: ``tight`` or ``padded``."""
        return str(self.card["box_convention"])

    @property
    def working_pixel_size_nm(self) -> float | None:
        """Pixel size to which images are reduced before it sees them; None: they are not."""
        size = self.card["working_pixel_size_nm"]
        return None if size is None else float(size)

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
    def box_spread(self) -> float:
        """How far the measurement lets the sides of a loop stray from its box: standard deviation of the logarithm."""
        return float(self.card["box_spread"])

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

    @cached_property
    def cascade(self) -> Cascade:
        """The cascade, read from XML."""
        return read_cascade(self.path / CASCADE)

    @cached_property
    def network(self) -> OnnxNetwork:
        """The screener, in ONNX Runtime."""
        return OnnxNetwork(self.path / ONNX, self.seen.crop_px)


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


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
