"""Every setting of a run, with its default; read from JSON and written to ``summary.json``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defectpipe.errors import SettingsError


@dataclass(frozen=True)
class ReadingSettings:
    """How image files are read.

    Parameters
    ----------
    colour : str
        What becomes of a picture in colour: ``refuse``, or ``luminance`` (0.299 R + 0.587 G + 0.114 B).
    max_pixels : int
        A file whose header claims more pixels, over all its frames, is refused.
    data_bar : str
        ``leave_out``: a burnt-in strip of data at the top or bottom, or a scale bar in the picture, is looked for, and
        not analysed. ``keep``: nothing is looked for.
    crop_top_px, crop_bottom_px : int
        Rows of every image that are not analysed; where one is given, no strip is looked for at all.
    """

    colour: str = "refuse"
    max_pixels: int = 2**30
    data_bar: str = "leave_out"
    crop_top_px: int = 0
    crop_bottom_px: int = 0


@dataclass(frozen=True)
class TilingSettings:
    """How large images are analysed: tile by tile, so that memory is bounded; the tiles do not show in the results.

    Parameters
    ----------
    above_megapixels : float
        Images of more are tiled; TIFFs in tiles, strips or plain rows then stay in their file.
    tile_px : int
        Side of a tile at the resolution that the model works at.
    offset_px : int
        Shift of the grid of tiles, by which it can be checked that it makes no difference.
    """

    above_megapixels: float = 64.0
    tile_px: int = 2048
    offset_px: int = 0


@dataclass(frozen=True)
class DetectionSettings:
    """Candidates of the cascade. None: as the model's card says."""

    max_candidates_per_megapixel: int | None = None


@dataclass(frozen=True)
class ScreeningSettings:
    """Screening of the candidates. None: as the model's card says."""

    threshold: float | None = None


@dataclass(frozen=True)
class MeasurementSettings:
    """Flood, contour and ellipse fit.

    Parameters
    ----------
    min_fit_quality : float
        Loops of a lower fit quality are listed with their image marked for review.
    border_margin_px : float
        Loops whose box comes so near to the border count as cut by it.
    expert_scatter, expert_scatter_px : float
        How one expert's marks of the same loop scatter, as a share of the diameter and in px: parts of
        ``diameter_uncertainty``. Measured on loops labelled twice (see `measurement.UncertaintySettings`); 0 for both
        leaves the uncertainty of the measurement alone.
    """

    min_fit_quality: float = 0.2
    border_margin_px: float = 2.0
    expert_scatter: float = 0.09
    expert_scatter_px: float = 2.6


@dataclass(frozen=True)
class FocusSettings:
    """The focus score.

    Parameters
    ----------
    model : str
        ``auto``: the focus model that the loop model's card names; ``none``: focus is not assessed; else a focus model
        by name or path, whose scores have no gate where the loop model's gate was measured with another.
    """

    model: str = "auto"


@dataclass(frozen=True)
class StatisticsSettings:
    """Intervals and scores.

    Parameters
    ----------
    min_predicted_f1 : float
        Images of a lower predicted F1 are marked for review: two teams of experts agree with 0.6 to 0.75.
    """

    confidence: float = 0.95
    n_resamples: int = 2000
    seed: int = 0
    match_iou: float = 0.4
    match_distance_px: float = 20.0
    human_seconds_per_image: float = 60.0
    min_predicted_f1: float = 0.65


@dataclass(frozen=True)
class LabelSettings:
    """How labels are read.

    Parameters
    ----------
    box_convention : str
        Of boxes: ``auto`` (padded for ``y1 x1 y2 x2`` text, else tight), ``tight`` or ``padded``.
    clip : bool
        Whether boxes that reach out of their image are cut at its border, and counted, instead of refused.
    """

    box_convention: str = "auto"
    clip: bool = False


@dataclass(frozen=True)
class Settings:
    """All settings; the sections are independent, so that a change makes only its own stage stale."""

    reading: ReadingSettings = field(default_factory=ReadingSettings)
    tiling: TilingSettings = field(default_factory=TilingSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    screening: ScreeningSettings = field(default_factory=ScreeningSettings)
    measurement: MeasurementSettings = field(default_factory=MeasurementSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    focus: FocusSettings = field(default_factory=FocusSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)

    def to_dict(self) -> dict[str, Any]:
        """Sections and values as plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "settings") -> Settings:
        """Settings from (a part of) what `to_dict` gives; unknown names are refused.

        Raises
        ------
        SettingsError
            A section or name is unknown, or a value has the wrong type.
        """
        sections = {f.name: f for f in dataclasses.fields(cls)}
        made: dict[str, Any] = {}
        for name, section in values.items():
            if name not in sections:
                raise SettingsError(f"{where}: unknown section '{name}'; known: {', '.join(sections)}.")
            if not isinstance(section, dict):
                raise SettingsError(f"{where}: section '{name}' must hold names and values.")
            default = getattr(cls(), name)
            known = {f.name for f in dataclasses.fields(default)}
            for key, value in section.items():
                if key not in known:
                    raise SettingsError(f"{where}: unknown setting '{name}.{key}'; known: {', '.join(sorted(known))}.")
                _check(where, f"{name}.{key}", value, getattr(default, key))
            made[name] = dataclasses.replace(default, **section)
        return cls(**made)

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Settings from a JSON file: a file of settings, or a ``summary.json`` of an earlier run."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: cannot be read as JSON ({error}).") from error
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: a settings file holds sections of names and values.")
        if "settings" in values:
            values = values["settings"]
        return cls.from_dict(values, str(path))


_CHOICES = {
    "labels.box_convention": ("auto", "tight", "padded"),
    "reading.colour": ("refuse", "luminance"),
    "reading.data_bar": ("leave_out", "keep"),
}
# Whole numbers, with the least that makes sense.
_AT_LEAST = {
    "reading.max_pixels": 1,
    "reading.crop_top_px": 0,
    "reading.crop_bottom_px": 0,
    "tiling.tile_px": 64,
    "tiling.offset_px": 0,
}


def _check(where: str, name: str, value: Any, default: Any) -> None:
    if isinstance(default, str):
        good = isinstance(value, str)
    elif isinstance(default, bool):
        good = isinstance(value, bool)
    elif default is None:
        good = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good:
        raise SettingsError(f"{where}: '{name}' cannot be {value!r}.")
    if name in _CHOICES and value not in _CHOICES[name]:
        *others, last = _CHOICES[name]
        raise SettingsError(f"{where}: '{name}' is {', '.join(others)} or {last}, not {value!r}.")
    if name in _AT_LEAST and not (isinstance(value, int) and value >= _AT_LEAST[name]):
        raise SettingsError(f"{where}: '{name}' is a whole number from {_AT_LEAST[name]}, not {value!r}.")
