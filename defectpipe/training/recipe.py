"""Every choice of a training that is not data; a JSON file can change any part of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defectpipe.boxes import CONVENTIONS
from defectpipe.classes import DefectClasses
from defectpipe.detection.training import CascadeRecipe
from defectpipe.errors import SettingsError
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.screener import ScreeningRecipe
from defectpipe.screening.training import ScreenerTraining


@dataclass(frozen=True)
class TrainingRecipe:
    """How a loop model is trained.

    Parameters
    ----------
    n_folds : int
        Folds of the cross-validation, where the images do not bring their own; never more than there are groups.
    working_pixel_size_nm : float or None
        Pixel size to which images are reduced; None: the median of the training images.
    box_convention : str
        Of the boxes that the model gives: ``tight`` or ``padded``.
    polarity : str
        Rim against background: ``dark``, ``bright`` or ``auto``.
    box_spread : float
        Standard deviation, as a logarithm, that the measurement allows the sides of the screener's boxes. On families
        that it never saw those of models/fecral-loops stray by 0.15; more lets the flood undo their bias too (chosen
        on its folds 0 to 2).
    max_candidates_per_megapixel : int
        Candidates that the screener sees, in training and in use.
    train_cascade : bool
        False, where a training starts from a model: that one's cascade is kept.
    unseen_candidates : bool
        Whether the screener learns from candidates of cascades that never saw the image: for each fold that a model
        learns from, one more cascade is trained on the others. In use every image is one that the cascade has not seen;
        a cascade that has learned from few images proposes better in those than elsewhere.
        See benchmarks/README.md for what it brings.
    classes : dict
        Classes of defects by name, each with its conventional ``diameter`` and the further names that ``labels`` have
        for it (`classes.DefectClasses.of`). Empty: one class of loops, to which every label belongs.
    focus_model : str
        Name or path of the focus model that the focus gate is measured with; ``none``: it is not measured.
    description, data_source, data_licence : str
        For the card.
    """

    n_folds: int = 5
    working_pixel_size_nm: float | None = None
    box_convention: str = "tight"
    polarity: str = "auto"
    box_spread: float = 0.25
    max_candidates_per_megapixel: int = 400
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    train_cascade: bool = True
    unseen_candidates: bool = False
    focus_model: str = "focus-stem"
    description: str = ""
    data_source: str = "not stated"
    data_licence: str = "not stated"
    cascade: CascadeRecipe = field(default_factory=CascadeRecipe)
    screener: ScreenerRecipe = field(default_factory=ScreenerRecipe)
    screener_training: ScreenerTraining = field(default_factory=ScreenerTraining)
    screening: ScreeningRecipe = field(default_factory=ScreeningRecipe)

    def __post_init__(self) -> None:
        if self.box_convention not in CONVENTIONS:
            raise SettingsError(
                f"recipe: box_convention is one of {', '.join(CONVENTIONS)}, not {self.box_convention!r}."
            )
        if self.polarity not in ("dark", "bright", "auto"):
            raise SettingsError(f"recipe: polarity is dark, bright or auto, not {self.polarity!r}.")
        if self.n_folds < 2:
            raise SettingsError("recipe: n_folds is at least 2, for the threshold comes from held-out folds.")
        try:
            DefectClasses.of(self.classes)
        except ValueError as error:
            raise SettingsError(f"recipe: {error}.") from error

    @property
    def defect_classes(self) -> DefectClasses:
        """The classes that a model of this recipe tells apart."""
        return DefectClasses.of(self.classes)

    @classmethod
    def read(cls, path: Path, default: TrainingRecipe | None = None) -> TrainingRecipe:
        """Recipe from a JSON file that holds any part of it, the rest of `default`; unknown names are refused."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: cannot be read as JSON ({error}).") from error
        return _replaced(default or cls(), values, str(path))


def _replaced(default: Any, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise SettingsError(f"{where}: holds names and values, not {values!r}.")
    known = {f.name for f in dataclasses.fields(default)}
    changed = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"{where}: unknown name '{name}'; known: {', '.join(sorted(known))}.")
        old = getattr(default, name)
        if dataclasses.is_dataclass(old):
            value = _replaced(old, value, f"{where}: {name}")
        elif isinstance(old, tuple):
            value = tuple(value)
        elif old is not None and not isinstance(value, type(old) | int):
            raise SettingsError(f"{where}: '{name}' cannot be {value!r}.")
        changed[name] = value
    return dataclasses.replace(default, **changed)
