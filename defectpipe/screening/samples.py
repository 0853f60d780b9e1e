"""Training samples of the screener: which candidates are loops, which are not, and which teach nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectpipe.boxes import overlaps, touches_border
from defectpipe.screening.crops import CropSource

# Crops are kept wider than the network sees them, so that shifting and scaling show true surroundings.
STORED_MARGIN = 1.5
_QUANTUM = 63.0  # crops are kept as int8


@dataclass(frozen=True, eq=False)
class Samples:
    """Crops and targets.

    Attributes
    ----------
    crops : ndarray of int8, shape (n, side, side)
        Normalised crops times 63.
    targets : ndarray of float32, shape (n, 4)
        Box relative to the candidate: centre x, y, logarithms of width and height, in units of the candidate's side.
    is_loop : ndarray of bool, shape (n,)
        Whether it is a defect of any class.
    classes : ndarray of int, shape (n,)
        Number of its class; 0 where it is none.
    """

    crops: np.ndarray
    targets: np.ndarray
    is_loop: np.ndarray
    classes: np.ndarray

    @staticmethod
    def joined(parts: list[Samples]) -> Samples:
        """All parts as one."""
        return Samples(
            np.concatenate([p.crops for p in parts]),
            np.concatenate([p.targets for p in parts]),
            np.concatenate([p.is_loop for p in parts]),
            np.concatenate([p.classes for p in parts]),
        )


def to_float(crops: np.ndarray) -> np.ndarray:
    """Stored crops as the float32 values that the network sees."""
    return crops.astype(np.float32) / _QUANTUM


def assign(candidates: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The label that each candidate shows.

    A candidate shows a label when its centre lies within 0.25 of the label's long side and its side within a factor
    1.5. Near misses, and candidates at the border, where loops are often not labelled, teach nothing.

    Parameters
    ----------
    candidates, labels : ndarray, shape (n, 4) and (m, 4)
        Boxes in the same convention.
    shape : tuple of int
        Height and width of the image.

    Returns
    -------
    ndarray of int, shape (n,)
        Index of the label; −1 for "not a loop", −2 for "teaches nothing".
    """
    result = np.full(len(candidates), -1)
    if len(labels):
        side = (candidates[:, 2:] - candidates[:, :2]).max(1)
        label_side = (labels[:, 2:] - labels[:, :2]).max(1)
        offset = (candidates[:, None, :2] + candidates[:, None, 2:] - labels[None, :, :2] - labels[None, :, 2:]) / 2
        distance = np.abs(offset).max(2) / label_side[None]
        ratio = np.abs(np.log(side[:, None] / label_side[None]))
        shows = (distance < 0.25) & (ratio < 0.4)
        near = ((distance < 0.35) & (ratio < 0.7)).any(1) | (overlaps(candidates, labels).max(1) > 0.35)
        result[near] = -2
        badness = np.where(shows, distance + 0.5 * ratio, np.inf)
        result[shows.any(1)] = badness[shows.any(1)].argmin(1)
        cut = touches_border(labels, shape)
        result[(result >= 0) & cut[np.maximum(result, 0)]] = -2
    result[(result == -1) & touches_border(candidates, shape)] = -2
    return result


def make_samples(
    grey: np.ndarray,
    candidates: np.ndarray,
    labels: np.ndarray,
    crop_px: int,
    context: float,
    max_negatives: int,
    rng: np.random.Generator,
    classes: np.ndarray | None = None,
) -> Samples:
    """Samples of one image: its candidates, and one shifted copy of each label.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)
    candidates, labels : ndarray, shape (n, 4) and (m, 4)
        Candidates best first.
    max_negatives : int
        So many of the candidates that are not loops are taken, the best ones.
    rng : Generator
    classes : ndarray of int, shape (m,), optional
        Number of each label's class. Default: all are of one.
    """
    shown = assign(candidates, labels, grey.shape[:2])
    is_whole = ~touches_border(labels, grey.shape[:2])
    whole, of_label = labels[is_whole], np.zeros(len(labels), np.int64) if classes is None else classes
    loops, loop_labels = candidates[shown >= 0], labels[shown[shown >= 0]] if len(labels) else np.zeros((0, 4))
    loops = np.concatenate([loops, _shifted_squares(whole, rng)])
    loop_labels = np.concatenate([loop_labels, whole])
    others = candidates[shown == -1][:max_negatives]
    boxes = np.concatenate([loops, others])
    stored_px = round(crop_px * STORED_MARGIN)
    crops = CropSource(grey).cut(boxes, stored_px, context * STORED_MARGIN)
    targets = np.zeros((len(boxes), 4), np.float32)
    targets[: len(loops)] = box_targets(loops, loop_labels)
    numbers = np.concatenate([of_label[shown[shown >= 0]], of_label[is_whole], np.zeros(len(others), np.int64)])
    return Samples(np.rint(crops * _QUANTUM).astype(np.int8), targets, np.arange(len(boxes)) < len(loops), numbers)


def box_targets(candidates: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes relative to candidates, as the network gives them: shape (n, 4)."""
    side = (candidates[:, 2:] - candidates[:, :2]).max(1)
    shift = (boxes[:, :2] + boxes[:, 2:] - candidates[:, :2] - candidates[:, 2:]) / 2
    return np.concatenate([shift / side[:, None], np.log((boxes[:, 2:] - boxes[:, :2]) / side[:, None])], 1)


def apply_targets(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Boxes from candidates and the network's answer: the inverse of `box_targets`."""
    side = (candidates[:, 2:] - candidates[:, :2]).max(1, keepdims=True)
    centre = (candidates[:, :2] + candidates[:, 2:]) / 2 + targets[:, :2] * side
    half = np.exp(np.clip(targets[:, 2:], -2, 2)) * side / 2
    return np.concatenate([centre - half, centre + half], 1)


def _shifted_squares(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = (labels[:, 2:] - labels[:, :2]).max(1, initial=0) * np.exp(rng.uniform(-0.25, 0.25, len(labels)))
    centre = (labels[:, :2] + labels[:, 2:]) / 2 + rng.normal(0, 0.08, (len(labels), 2)) * side[:, None]
    return np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], 1)
