"""One kind for every label and every loop of an image: found, or the first of the reasons why not that applies."""

from __future__ import annotations

import numpy as np
import pandas as pd

from defectpipe.boxes import overlaps
from defectpipe.screening.samples import assign
from defectpipe.settings import StatisticsSettings
from defectpipe.statistics.scoring import NO_PARTNER, NOT_COUNTED, Objects, partners

FOUND, TRUE, UNCOUNTED = "found", "true", "not counted"
MERGED, SPLIT, BOX_WRONG = "merged", "split", "box wrong"
REFUSED, REFUSED_OUTRIGHT, SUPPRESSED = "refused", "refused outright", "suppressed"
CANDIDATE_OFF, NO_CANDIDATE = "candidate off", "no candidate"
DUPLICATE, NEAR_BORDER = "duplicate", "near the border"
UNLABELLED_HIGH, UNLABELLED_LOW = "unlabelled, high score", "unlabelled, low score"

LABEL_KINDS = {
    FOUND: "a loop agrees with it, one-to-one at IoU 0.4",
    UNCOUNTED: "on the border, or it agrees only with a loop there",
    MERGED: "a false loop covers it and another label",
    SPLIT: "two or more false loops lie in it",
    BOX_WRONG: "a false loop in its place: IoU 0.2 to 0.4, or centres within 20 px and boxes that overlap",
    REFUSED: "the screener drew it, with a score from 0.15 to the threshold",
    SUPPRESSED: "a loop that agrees with another label overlaps it so much that a second one would be dropped",
    REFUSED_OUTRIGHT: "a candidate shows it (place and size), of which the screener left nothing above a score of 0.15",
    CANDIDATE_OFF: "candidates overlap it (IoU 0.2), none of them shows it: place or size is wrong",
    NO_CANDIDATE: "no candidate overlaps it",
}
"""What can be true of a label, in this order: the first that applies is its kind."""

LOOP_KINDS = {
    TRUE: "it agrees with a label, one-to-one at IoU 0.4",
    UNCOUNTED: "on the border, or it agrees only with a label there",
    MERGED: LABEL_KINDS[MERGED],
    SPLIT: LABEL_KINDS[SPLIT],
    BOX_WRONG: LABEL_KINDS[BOX_WRONG],
    DUPLICATE: "over a label that another loop has found: IoU 0.2, or centres within 20 px and boxes that overlap",
    NEAR_BORDER: "within 20 px of the border, no label in its place",
    UNLABELLED_HIGH: "no label in its place; it scores as the better half of the true loops: the label is questionable",
    UNLABELLED_LOW: "no label in its place",
}
"""What can be true of a loop, in this order."""

NEAR_BORDER_PX = 20.0
_PLACE_IOU = 0.2
# Of a box, so much in another one is "covered by it" or "lies in it".
_COVERED = 0.6


def classify(
    labels: Objects,
    loops: Objects,
    screened: pd.DataFrame,
    candidates: np.ndarray,
    shape: tuple[int, int],
    settings: StatisticsSettings,
    *,
    high_score: float,
    max_overlap: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kinds of one image's labels and loops.

    Parameters
    ----------
    labels, loops : Objects
        Loops that reach the threshold; boxes in one convention.
    screened : DataFrame
        Everything that the screener left, the loops first and in the same order: boxes, ``screening_score``.
    candidates : ndarray, shape (n, 4)
        The cascade's square boxes.
    shape : (int, int)
        Height and width.
    settings : StatisticsSettings
    high_score : float
        From this score on an unlabelled loop makes its label questionable.
    max_overlap : float
        Overlap at which the chain drops the weaker of two loops.

    Returns
    -------
    labels : DataFrame
        ``kind``; ``score``: of the loop that found it, or of what the screener refused, else NaN.
    loops : DataFrame
        ``kind``.
    """
    of_label, of_loop = partners(labels, loops, settings)
    boxes = screened[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(float)
    scores = screened["screening_score"].to_numpy(float)
    n_loops = len(loops)
    overlap = overlaps(labels.boxes, boxes)
    label_kind, score = np.full(len(labels), "", object), np.full(len(labels), np.nan)
    loop_kind = np.full(n_loops, "", object)
    label_kind[of_label == NOT_COUNTED], label_kind[of_label >= 0] = UNCOUNTED, FOUND
    loop_kind[of_loop == NOT_COUNTED], loop_kind[of_loop >= 0] = UNCOUNTED, TRUE
    score[of_label >= 0] = scores[of_label[of_label >= 0]]

    missed, false = of_label == NO_PARTNER, of_loop == NO_PARTNER
    covered, within = _covered(labels.boxes, loops.boxes), _covered(loops.boxes, labels.boxes).T
    merging = false & ((covered & ~(of_label == NOT_COUNTED)[:, None]).sum(0) >= 2) & (covered & missed[:, None]).any(0)
    loop_kind[merging] = MERGED
    label_kind[missed & (covered & merging).any(1)] = MERGED
    pieces = within & false & ~merging
    split = missed & (label_kind == "") & (pieces.sum(1) >= 2)
    label_kind[split] = SPLIT
    loop_kind[(pieces & split[:, None]).any(0) & (loop_kind == "")] = SPLIT

    place = _same_place(labels, loops, overlap[:, :n_loops], settings.match_distance_px)
    for i, j in _best_pairs(
        np.where(place & (label_kind == "")[:, None] & (loop_kind == ""), overlap[:, :n_loops] + 1e-9, 0)
    ):
        label_kind[i] = loop_kind[j] = BOX_WRONG

    label_kind[label_kind == ""] = _unfound(
        labels.boxes[label_kind == ""],
        overlap[label_kind == ""],
        n_loops,
        candidates,
        shape,
        match_iou=settings.match_iou,
        max_overlap=max_overlap,
    )
    refused = label_kind == REFUSED
    score[refused] = np.where(overlap[refused, n_loops:] >= _PLACE_IOU, scores[n_loops:], 0).max(1, initial=0)

    rest = loop_kind == ""
    near_border = border_distance_px(loops.boxes, shape) < NEAR_BORDER_PX
    loop_kind[rest] = np.where(scores[:n_loops][rest] >= high_score, UNLABELLED_HIGH, UNLABELLED_LOW)
    loop_kind[rest & near_border] = NEAR_BORDER
    loop_kind[rest & (place & (label_kind == FOUND)[:, None]).any(0)] = DUPLICATE
    return pd.DataFrame({"kind": label_kind, "score": score}), pd.DataFrame({"kind": loop_kind})


def border_distance_px(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Least distance of each box (n, 4) from the border of an image of `shape` (height, width)."""
    far = np.array([shape[1], shape[0]]) - 0.5
    return np.minimum((boxes[:, :2] + 0.5).min(1, initial=np.inf), (far - boxes[:, 2:]).min(1, initial=np.inf))


def share_covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each box of `a` (n, 4) that lies in each box of `b` (m, 4); shape (n, m)."""
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    area = (a[:, 2:] - a[:, :2]).prod(1)
    return np.clip(size, 0, None).prod(2) / np.maximum(area, 1e-9)[:, None]


def _covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return share_covered(a, b) >= _COVERED


def _same_place(labels: Objects, loops: Objects, overlap: np.ndarray, distance_px: float) -> np.ndarray:
    apart = np.abs(labels.centres[:, None] - loops.centres[None]).max(2, initial=0)
    return (overlap >= _PLACE_IOU) | ((apart <= distance_px) & (overlap > 0))


def _best_pairs(worth: np.ndarray) -> list[tuple[int, int]]:
    """Greedy one-to-one pairs of positive worth, the best first."""
    pairs = []
    worth = worth.copy()
    while worth.size and worth.max() > 0:
        i, j = np.unravel_index(worth.argmax(), worth.shape)
        pairs.append((int(i), int(j)))
        worth[i, :] = worth[:, j] = 0
    return pairs


def _unfound(
    boxes: np.ndarray,
    overlap: np.ndarray,
    n_loops: int,
    candidates: np.ndarray,
    shape: tuple[int, int],
    *,
    match_iou: float,
    max_overlap: float,
) -> np.ndarray:
    """Kinds of labels in whose place there is no false loop; `overlap` with all that the screener left."""
    kept, refused = overlap[:, :n_loops], overlap[:, n_loops:]
    # A candidate "shows" a label by the rule by which the screener is trained.
    shown = np.array([(assign(candidates, box[None], shape) >= 0).any() for box in boxes], bool)
    near = (overlaps(boxes, candidates) >= _PLACE_IOU).any(1)
    return np.select(
        [
            (refused >= match_iou).any(1),
            (kept > max_overlap).any(1),
            (refused >= _PLACE_IOU).any(1),
            shown,
            near,
        ],
        [REFUSED, SUPPRESSED, REFUSED, REFUSED_OUTRIGHT, CANDIDATE_OFF],
        NO_CANDIDATE,
    ).astype(object)
