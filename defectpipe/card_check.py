"""A model's card as it may come from anybody: every value that a run uses has its type and stays in its range."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from defectpipe.boxes import CONVENTIONS
from defectpipe.classes import DefectClasses
from defectpipe.errors import ModelError

MAX_CARD_BYTES = 4 * 2**20
_POLARITIES = ("dark", "bright", "auto")
# Lowest and highest value; whole numbers where both are.
_RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0.0, 1.0),
    "max_candidates_per_megapixel": (1, 100_000),
    "box_spread": (1e-3, 10.0),
    "box_scale": (0.5, 2.0),
    "scan.context": (0.1, 10.0),
    "scan.min_side_px": (1.0, 1e4),
    "scan.max_side_px": (1.0, 1e5),
    # At 1 the levels of the pyramid would never end.
    "scan.level_factor": (1.01, 10.0),
    "scan.blur_sigma_px": (0.0, 100.0),
    "scan.border_px": (0, 1000),
    "scan.coarse_step_below": (0.0, 100.0),
    "scan.max_overlap": (0.0, 1.0),
    "screener.crop_px": (8, 512),
    "screener.context": (0.1, 10.0),
    "screener.hidden": (1, 4096),
    "screener.dropout": (0.0, 1.0),
    "screening.first_overlap": (0.0, 1.0),
    "screening.second_look_above": (0.0, 1.0),
    "screening.max_overlap": (0.0, 1.0),
    "screening.image_share": (-10.0, 10.0),
    "screening.usual_anchor": (-100.0, 100.0),
}
_WIDTHS = (2, 1024)
_PIXEL_SIZE_NM = (1e-4, 1e5)
_TIGHT_SCALE = (0.2, 2.0)
_LARGEST, _SMALLEST_SCALE = 1e4, 1e-7


def read_card(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Content of a card, as bytes and as values.

    Raises
    ------
    ModelError
        Missing, too large, no JSON object.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        with path.open("rb") as file:
            text = file.read(MAX_CARD_BYTES + 1)
        if len(text) > MAX_CARD_BYTES:
            raise ValueError(f"larger than {MAX_CARD_BYTES >> 20} MiB")
        card = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path.parent}: holds no readable {path.name} ({error}); give a folder that TrainModel wrote."
        ) from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), dict):
        raise ModelError(f"{path}: is no card: it holds no hashes; give a folder that TrainModel wrote.")
    return text, card


def check_card(card: dict[str, Any], path: Path) -> None:
    """Refuse a card that lacks a value, or whose value has another type or is out of range.

    Parameters
    ----------
    card : dict
    path : Path
        For messages.

    Raises
    ------
    ModelError
        Names the value.
    """
    for name, (low, high) in _RANGES.items():
        _check_number(path, name, _value(card, name, path), low, high)
    widths = _value(card, "screener.widths", path)
    if not isinstance(widths, list) or len(widths) != 3:
        raise ModelError(f"{path}: 'screener.widths' is no list of three numbers; train the model again.")
    for width in widths:
        _check_number(path, "screener.widths", width, *_WIDTHS)
    size = _value(card, "working_pixel_size_nm", path)
    if size is not None:
        _check_number(path, "working_pixel_size_nm", size, *_PIXEL_SIZE_NM)
    # Cards of earlier versions have none.
    if card.get("tight_scale") is not None:
        _check_number(path, "tight_scale", card["tight_scale"], *_TIGHT_SCALE)
    for name, allowed in (("box_convention", CONVENTIONS), ("polarity", _POLARITIES)):
        if _value(card, name, path) not in allowed:
            raise ModelError(f"{path}: '{name}' is none of {', '.join(allowed)}.")
    _check_classes(card.get("classes"), path)
    _check_focus_gate(card.get("focus_gate"), path)
    for section in ("scan", "screener", "screening"):
        known = {name.partition(".")[2] for name in _RANGES if name.startswith(f"{section}.")} | {"widths"}
        if unknown := sorted(set(card[section]) - known):
            raise ModelError(f"{path}: '{section}.{unknown[0][:60]}' is unknown to this version of the program.")
    _check_predictor(card.get("predicted_f1"), path)


def _check_classes(values: Any, path: Path) -> None:
    """A card that says nothing of classes is of one."""
    if values is None:
        return
    try:
        if not isinstance(values, dict) or not values:
            raise ValueError("'classes' holds no names")
        DefectClasses.of(values)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; train the model again.") from error


def _check_predictor(values: Any, path: Path) -> None:
    """What predicts the F1 is optional: absent, not made, or whole."""
    if values is None or (isinstance(values, dict) and "line" not in values):
        return
    inside = {"predicted_f1": values}
    calibration = _value(inside, "predicted_f1.calibration", path)
    if not isinstance(calibration, list) or len(calibration) != 2:
        raise ModelError(f"{path}: 'predicted_f1.calibration' is no list of two numbers; train the model again.")
    for value in calibration:
        _check_number(path, "predicted_f1.calibration", value, -_LARGEST, _LARGEST)
    for name, least in (("means", -_LARGEST), ("coefficients", -_LARGEST), ("scales", _SMALLEST_SCALE)):
        column = _value(inside, f"predicted_f1.line.{name}", path)
        if not isinstance(column, dict):
            raise ModelError(f"{path}: 'predicted_f1.line.{name}' holds no names and numbers; train the model again.")
        for feature, value in column.items():
            _check_number(path, f"predicted_f1.line.{name}.{feature[:60]}", value, least, _LARGEST)
    _check_number(path, "predicted_f1.line.intercept", _value(inside, "predicted_f1.line.intercept", path), 0.0, 1.0)
    for name in ("variance", "variance_per_loop", "width", "coverage"):
        place = f"predicted_f1.interval.{name}"
        _check_number(path, place, _value(inside, place, path), 0.0, _LARGEST)


def _check_focus_gate(gate: Any, path: Path) -> None:
    if gate is None:
        return
    focus = gate.get("focus_model") if isinstance(gate, dict) else None
    # where that one could not be used, there is nothing to hash
    unused = isinstance(gate, dict) and "skipped" in gate and "ok_from" not in gate
    named = ("name",) if unused and isinstance(focus, dict) and focus.get("sha256", "") is None else ("name", "sha256")
    if not isinstance(focus, dict) or not all(isinstance(focus.get(key), str) for key in named):
        raise ModelError(f"{path}: 'focus_gate' does not name its focus model and that one's hash.")
    if "ok_from" in gate or "reject_below" in gate:
        for name in ("ok_from", "reject_below"):
            _check_number(path, f"focus_gate.{name}", gate.get(name), 0.0, 10.0)
        if gate["reject_below"] > gate["ok_from"]:
            raise ModelError(f"{path}: 'focus_gate.reject_below' is above 'focus_gate.ok_from'.")


def _value(card: dict[str, Any], name: str, path: Path) -> Any:
    values: Any = card
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ModelError(f"{path}: incomplete, '{name}' is missing; train the model again.")
        values = values[part]
    return values


def _check_number(path: Path, name: str, value: Any, low: float, high: float) -> None:
    kinds = int if isinstance(low, int) and isinstance(high, int) else int | float
    good = isinstance(value, kinds) and not isinstance(value, bool)
    # Python's JSON knows NaN, and whole numbers of any length.
    if not good or (isinstance(value, float) and math.isnan(value)) or not low <= value <= high:
        raise ModelError(f"{path}: '{name}' is {str(value)[:40]}, which is not between {low:g} and {high:g}.")
