"""Fields of a family that overlap: whether the expert labelled the same loops in both, and what that says of errors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from error_kinds import BOX_WRONG, FOUND, REFUSED, TRUE, UNCOUNTED, UNLABELLED_HIGH, UNLABELLED_LOW

from defectpipe.statistics.matching import match_one_to_one
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training import TrainingImage

_SIDE = 256
_STRUCTURE_PX = (1.0, 6.0)
# Of this set's pairs 95 % are below 0.45 and hardly any lies between that and 0.65.
LEAST_CORRELATION = 0.65
LEAST_OVERLAP = 0.1
# Smaller overlaps are looked at too, lest their nearest larger one is taken for the right shift.
_SEARCHED_OVERLAP = 0.05
# Loops at the border of either field are often not labelled.
MARGIN_PX = 40.0
_MATCH_IOU = 0.4


@dataclass(frozen=True)
class Overlap:
    """Two fields: a point of `first` lies at itself plus (`dx_px`, `dy_px`) in `second`."""

    first: str
    second: str
    dx_px: float
    dy_px: float
    correlation: float
    share: float


def overlapping(images: list[TrainingImage]) -> list[Overlap]:
    """Pairs of images of one family and size that show the same place, by correlation at every shift."""
    out = []
    families: dict[tuple[str, tuple[int, int]], list[TrainingImage]] = {}
    for image in images:
        families.setdefault((image.group, image.micrograph.shape), []).append(image)
    for (_, shape), members in families.items():
        grey = {i.micrograph.image: i.micrograph.grey8() for i in members}
        spectra = {name: _spectra(_reduced(g)) for name, g in grey.items()}
        whole = np.fft.rfft2(np.ones((_SIDE, _SIDE)), (2 * _SIDE, 2 * _SIDE))
        area = np.fft.irfft2(whole * np.conj(whole)) / _SIDE**2
        for a, b in itertools.combinations(sorted(grey), 2):
            (of_a, energy_a), (of_b, energy_b) = spectra[a], spectra[b]
            energy = np.fft.irfft2(np.conj(energy_a) * whole) * np.fft.irfft2(np.conj(whole) * energy_b)
            likeness = np.fft.irfft2(np.conj(of_a) * of_b) / np.sqrt(np.maximum(energy, 1.0))
            likeness[area < _SEARCHED_OVERLAP] = -1
            row, column = np.unravel_index(likeness.argmax(), likeness.shape)
            if likeness[row, column] < LEAST_CORRELATION or area[row, column] < LEAST_OVERLAP:
                continue
            dy, dx = (
                (v if v < _SIDE else v - 2 * _SIDE) * n / _SIDE for v, n in zip((row, column), shape, strict=True)
            )
            dx, dy = _refined(grey[a], grey[b], round(dx), round(dy))
            out.append(Overlap(a, b, dx, dy, float(likeness[row, column]), float(area[row, column])))
    return out


def repeats(images: list[TrainingImage], labels: pd.DataFrame, loops: pd.DataFrame) -> dict[str, Any]:
    """How far labels, and loops, of overlapping fields repeat each other.

    Returns
    -------
    dict
        ``labels_again``, ``loops_again``: F1 of the labels of one field against those of the other, and of the loops;
        ``labels_and_loops``: F1 of the one against the other in the same places.
        ``highest_f1_expected``: the square root of the labels' F1. If each object is labelled with a probability p of
        its own, independently in each field, that F1 is Σp²/Σp, and a detector of n objects reaches 2 Σp (over its
        own) / (n + Σp): by Cauchy and Schwarz at most the root.
        ``labelled_in_the_other_field``: of what has a kind in one field, the share in whose place there is a label in
        the other; ``by_chance``: the same with the other field's labels turned upside down.
    """
    pairs = overlapping(images)
    shapes = {i.micrograph.image: i.micrograph.shape for i in images}
    families = {i.micrograph.image: i.group for i in images}
    of = {
        name: {str(image): part for image, part in rows[rows["kind"] != UNCOUNTED].groupby("image")}
        for name, rows in (("labels", labels), ("loops", loops))
    }
    again = {name: np.zeros(3) for name in ("labels", "loops", "both")}
    by_family: dict[str, np.ndarray] = {}
    seen: list[pd.DataFrame] = []
    none = labels.iloc[:0]
    both_ways = [(p.first, p.second, np.array([p.dx_px, p.dy_px])) for p in pairs]
    both_ways += [(b, a, -shift) for a, b, shift in both_ways]
    for k, (a, b, shift) in enumerate(both_ways):
        here = {name: _common(rows.get(a, none), shapes[a], shift) for name, rows in of.items()}
        there = {name: _common(rows.get(b, none), shapes[b], -shift) for name, rows in of.items()}
        boxes = {name: rows[BOX_COLUMNS].to_numpy(float) + np.tile(shift, 2) for name, rows in here.items()}
        other = {name: rows[BOX_COLUMNS].to_numpy(float) for name, rows in there.items()}
        if k < len(pairs):
            counts = {name: _agreement(boxes[name], other[name]) for name in of}
            again["labels"] += counts["labels"]
            again["loops"] += counts["loops"]
            of_family = by_family.setdefault(families[a], np.zeros(4))
            of_family += np.array([*counts["labels"], 1])
        again["both"] += _agreement(boxes["labels"], boxes["loops"])
        turned = _turned(other["labels"], shapes[b], -shift)
        seen += [
            pd.DataFrame(
                {
                    "kind": rows["kind"],
                    "again": _matched(boxes[name], other["labels"]),
                    "by_chance": _matched(boxes[name], turned),
                }
            )
            for name, rows in here.items()
        ]
    table = pd.concat(seen).groupby("kind")
    shares = table.mean().round(3).assign(n=table.size())
    kinds = [k for k in (FOUND, REFUSED, TRUE, UNLABELLED_HIGH, UNLABELLED_LOW, BOX_WRONG) if k in shares.index]
    return {
        "n_pairs": len(pairs),
        "margin_px": MARGIN_PX,
        "labels_again": _summary(again["labels"]),
        "highest_f1_expected": round(_summary(again["labels"])["f1"] ** 0.5, 4),
        "loops_again": _summary(again["loops"]),
        "labels_and_loops": _summary(again["both"]),
        "labels_again_by_family": {f: {**_summary(c[:3]), "n_pairs": int(c[3])} for f, c in sorted(by_family.items())},
        "labelled_in_the_other_field": {kind: shares.loc[kind].to_dict() for kind in kinds},
    }


def _reduced(grey: np.ndarray) -> np.ndarray:
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = (cv2.GaussianBlur(small, (0, 0), sigma) for sigma in _STRUCTURE_PX)
    return (low - high) / max(float((low - high).std()), 1e-6)


def _spectra(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the picture and of its square, with room for every shift."""
    size = (2 * _SIDE, 2 * _SIDE)
    return np.fft.rfft2(picture, size), np.fft.rfft2(picture**2, size)


def _refined(a: np.ndarray, b: np.ndarray, dx: int, dy: int) -> tuple[float, float]:
    """The shift to a fraction of a px, from one that is right to some px."""
    height, width = a.shape
    x0, x1, y0, y1 = max(0, -dx), min(width, width - dx), max(0, -dy), min(height, height - dy)
    one = a[y0:y1, x0:x1].astype(np.float32)
    two = b[y0 + dy : y1 + dy, x0 + dx : x1 + dx].astype(np.float32)
    window = cv2.createHanningWindow((one.shape[1], one.shape[0]), cv2.CV_32F)
    (more_x, more_y), _ = cv2.phaseCorrelate(one - one.mean(), two - two.mean(), window)
    step = 2 * max(a.shape) / _SIDE
    return (dx + more_x, dy + more_y) if max(abs(more_x), abs(more_y)) <= step else (float(dx), float(dy))


def _common(rows: pd.DataFrame, shape: tuple[int, int], shift: np.ndarray) -> pd.DataFrame:
    """Those that lie in both fields, `MARGIN_PX` from either border; both fields have the same shape."""
    boxes = rows[BOX_COLUMNS].to_numpy(float)
    inside = np.ones(len(boxes), bool)
    for moved in (boxes, boxes + np.tile(shift, 2)):
        inside &= (moved[:, :2] >= MARGIN_PX).all(1) & (moved[:, 2:] <= np.array(shape[::-1]) - MARGIN_PX).all(1)
    return rows[inside]


def _turned(boxes: np.ndarray, shape: tuple[int, int], shift: np.ndarray) -> np.ndarray:
    """Boxes upside down within what both fields show."""
    height, dy = shape[0], shift[1]
    total = max(0, -dy) + min(height, height - dy)
    return np.stack([boxes[:, 0], total - boxes[:, 3], boxes[:, 2], total - boxes[:, 1]], 1)


def _agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([len(a), len(b), len(match_one_to_one(a, b, _MATCH_IOU))])


def _matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(len(a), bool)
    out[match_one_to_one(a, b, _MATCH_IOU)[:, 0]] = True
    return out


def _summary(counts: np.ndarray) -> dict[str, float]:
    first, second, same = (int(v) for v in counts)
    return {"n_first": first, "n_second": second, "n_same": same, "f1": round(2 * same / max(first + second, 1), 4)}
