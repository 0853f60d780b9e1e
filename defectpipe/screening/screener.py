"""Screening of candidates with a trained network, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from defectpipe.boxes import suppress
from defectpipe.errors import ModelError
from defectpipe.networks.session import open_session
from defectpipe.screening.crops import Crops, CropSource
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe
from defectpipe.screening.onnx_check import check_onnx
from defectpipe.screening.samples import apply_targets

# Few batch shapes, the last one padded to the next: larger ones are no faster, and each shape is planned anew.
BATCH, _SHAPES_APART = 64, 16
# The second look, on a better box and four views, counts twice.
_WEIGHT_OF_SECOND = 2.0
_ANCHOR_LOOPS = 5
# Boxes of the second look lie on this grid: OpenCV resamples on one of 1/32 px, where the last digit of a float32 would
# otherwise decide between two neighbours.
_PLACES_A_PX = 64

_MIRRORS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


class Network(Protocol):
    """What answers crops: (n, crop_px, crop_px, 1) to (n, 5 + n_classes), see `network.build_network`."""

    n_classes: int

    def __call__(self, crops: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class ScreeningRecipe:
    """How candidates become loops; part of the model.

    Parameters
    ----------
    first_overlap : float
        Overlap at which corrected boxes are taken for one loop before the second look.
    second_look_above : float
        Candidates of at least this probability are looked at again, on their corrected box and mirrored three ways.
    max_overlap : float
        Overlap at which the weaker of two loops is dropped.
    image_share : float
        How far a score is relative to its image: this share of the image's anchor, the mean logit of its five best
        loops, is taken off every logit, and of `usual_anchor` added. Contrast and thickness shift all scores of a field
        together; without this, one threshold finds too many loops in one field and too few in the next.
    usual_anchor : float
        Anchor of a field whose scores stay as they are.
    """

    first_overlap: float = 0.6
    second_look_above: float = 0.15
    max_overlap: float = 0.4
    image_share: float = 0.45
    usual_anchor: float = 1.5


class OnnxNetwork:
    """A network in an ONNX file, on one thread.

    Parameters
    ----------
    path : Path
    recipe : ScreenerRecipe or int
        What the card says of the network, against which it is checked; or the side of its input alone, in px.
    data : bytes, optional
        Content of the file, where it has been read already.
    n_classes : int
        Classes that it tells apart; 0 where there is one only.

    Raises
    ------
    ModelError
        The file cannot be loaded, or does not take and give what a screener does.
    """

    def __init__(self, path: Path, recipe: ScreenerRecipe | int, data: bytes | None = None, n_classes: int = 0) -> None:
        try:
            data = path.read_bytes() if data is None else data
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
        check_onnx(data, str(path), recipe, BATCH, n_classes)
        self.n_classes = n_classes
        self._session = open_session(data, str(path))
        [taken] = self._session.get_inputs()
        self._input = taken.name
        # A graph from elsewhere may take whole batches only.
        self._shapes_apart = BATCH if isinstance(taken.shape[0], int) else _SHAPES_APART
        self._crop_px = recipe if isinstance(recipe, int) else recipe.crop_px

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Answers to crops (n, crop_px, crop_px, 1), float32; ModelError if the network cannot give them."""
        answers = [np.zeros((0, LOGIT_AND_BOX + self.n_classes), np.float32)]
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            shape = -(-len(part) // self._shapes_apart) * self._shapes_apart
            batch = np.zeros((shape, self._crop_px, self._crop_px, 1), np.float32)
            batch[: len(part)] = part
            try:
                [answer] = self._session.run(None, {self._input: batch})
            except Exception as error:  # ONNX Runtime raises its own types, none of them public
                raise ModelError(f"The network cannot be used ({str(error).splitlines()[0]}).") from error
            answers.append(answer[: len(part)])
        return np.concatenate(answers)


@dataclass(frozen=True, eq=False)
class Screened:
    """Loops, best first.

    Attributes
    ----------
    boxes : ndarray, shape (n, 4)
    scores : ndarray, shape (n,)
        Probabilities.
    candidates : ndarray of int, shape (n,)
        The candidate that each came from.
    classes : ndarray of int, shape (n,)
        Number of the likeliest class; 0 where the network knows but one.
    """

    boxes: np.ndarray
    scores: np.ndarray
    candidates: np.ndarray
    classes: np.ndarray


def screen(
    grey: np.ndarray | Crops, candidates: np.ndarray, network: Network, seen: ScreenerRecipe, recipe: ScreeningRecipe
) -> Screened:
    """Judge candidates and correct their boxes, twice: the second look is on the corrected box and its mirror images.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width), or Crops
    candidates : ndarray, shape (n, 4)
    network : Network
    seen : ScreenerRecipe
        What the network sees of a candidate.

    Returns
    -------
    Screened
        Every loop of probability `second_look_above` or more, whatever the threshold that it is used with.
    """
    source = CropSource(grey) if isinstance(grey, np.ndarray) else grey
    answers = _answers(source, candidates, network, seen)
    boxes, logits = apply_targets(candidates, answers[:, 1:LOGIT_AND_BOX]), answers[:, 0].astype(float)
    kept = suppress(boxes, logits, recipe.first_overlap)
    kept = kept[_probability(logits[kept]) >= recipe.second_look_above]
    boxes, logits = np.rint(boxes[kept] * _PLACES_A_PX) / _PLACES_A_PX, logits[kept]
    first_classes = answers[kept, LOGIT_AND_BOX:]
    answers = _mirrored_answers(source, boxes, network, seen)
    boxes, logits = (
        apply_targets(boxes, answers[:, 1:LOGIT_AND_BOX]),
        (logits + _WEIGHT_OF_SECOND * answers[:, 0]) / (1 + _WEIGHT_OF_SECOND),
    )
    of_class = first_classes + _WEIGHT_OF_SECOND * answers[:, LOGIT_AND_BOX:]
    classes = of_class.argmax(1) if of_class.shape[1] else np.zeros(len(boxes), int)
    final = suppress(boxes, logits, recipe.max_overlap)
    relative = logits[final] - recipe.image_share * (anchor(logits[final]) - recipe.usual_anchor)
    return Screened(boxes[final], _probability(relative), kept[final], classes[final])


def anchor(logits: np.ndarray) -> float:
    """Mean of the five highest logits of an image, of all where there are fewer; 0 where there is none."""
    return float(np.sort(logits)[-_ANCHOR_LOOPS:].mean()) if len(logits) else 0.0


def _answers(source: Crops, boxes: np.ndarray, network: Network, seen: ScreenerRecipe) -> np.ndarray:
    answers = np.empty((len(boxes), LOGIT_AND_BOX + network.n_classes), np.float32)
    for part in source.parts(boxes):
        answers[part] = network(source.cut(boxes[part], seen.crop_px, seen.context)[..., None])
    return answers


def _mirrored_answers(source: Crops, boxes: np.ndarray, network: Network, seen: ScreenerRecipe) -> np.ndarray:
    """Mean of the answers to each crop and its mirror images, turned back."""
    total = np.zeros((len(boxes), LOGIT_AND_BOX + network.n_classes), np.float32)
    turn_back = np.ones(total.shape[1], np.float32)
    for part in source.parts(boxes):
        crops = source.cut(boxes[part], seen.crop_px, seen.context)[..., None]
        # All four views in one go: fewer batches that are padded.
        views = np.concatenate([crops[:, ::y, ::x] for x, y in _MIRRORS])
        for (x, y), answers in zip(_MIRRORS, np.split(network(views), len(_MIRRORS)), strict=True):
            turn_back[1:3] = x, y
            total[part] += answers * turn_back
    return total / 4


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
