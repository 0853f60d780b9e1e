"""The analysis of errors: kinds on boxes laid out by hand, overlapping fields on pictures cut from one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from defectpipe.micrograph import Micrograph
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects
from defectpipe.training import TrainingImage

SHAPE = (400, 600)


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import error_kinds

    return error_kinds


def objects(boxes: list[list[float]]) -> Objects:
    table = pd.DataFrame(np.array(boxes, float).reshape(-1, 4), columns=BOX_COLUMNS)
    return Objects.from_candidates(table, SHAPE, 2.0)


def classified(kinds, labels, screened, candidates=(), threshold=0.5):
    """Kinds of labels and of the loops, from (box, score) of everything that the screener left."""
    screened = sorted(screened, key=lambda row: -row[1])
    boxes = np.array([box for box, _ in screened], float).reshape(-1, 4)
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(screening_score=[score for _, score in screened])
    of_labels, of_loops = kinds.classify(
        objects(labels),
        objects([box for box, score in screened if score >= threshold]),
        table,
        np.array(candidates, float).reshape(-1, 4),
        SHAPE,
        Settings().statistics,
        high_score=0.8,
        max_overlap=0.4,
    )
    return of_labels, list(of_loops["kind"])


def test_found_and_refused_labels(kinds):
    """A label is refused with the score of what the screener drew there, and it is not the found one's."""
    labels, loops = classified(
        kinds, [[100, 100, 140, 130], [300, 200, 340, 240]], [([101, 99, 141, 131], 0.9), ([302, 200, 343, 240], 0.3)]
    )
    assert list(labels["kind"]) == [kinds.FOUND, kinds.REFUSED]
    assert list(labels["score"]) == [0.9, 0.3]
    assert loops == [kinds.TRUE]


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        ([98, 98, 142, 142], "REFUSED_OUTRIGHT"),
        ([122, 100, 166, 144], "CANDIDATE_OFF"),
        ([300, 300, 340, 340], "NO_CANDIDATE"),
    ],
)
def test_labels_that_only_the_cascade_could_have_seen(kinds, candidate, kind):
    """What the screener left nothing of is told apart by the candidates."""
    labels, _ = classified(kinds, [[100, 100, 140, 140]], [], [candidate])
    assert list(labels["kind"]) == [getattr(kinds, kind)]


def test_a_box_in_the_right_place_is_wrong_on_both_sides(kinds):
    """A loop of half the sides in a label's middle is not a loop without a label, but one with a wrong box."""
    labels, loops = classified(kinds, [[100, 100, 160, 160]], [([115, 115, 147, 147], 0.9)])
    assert (list(labels["kind"]), loops) == ([kinds.BOX_WRONG], [kinds.BOX_WRONG])


def test_one_loop_over_two_labels_is_merged(kinds):
    """Both labels and the loop are merged."""
    labels, loops = classified(kinds, [[100, 100, 130, 130], [140, 100, 170, 130]], [([95, 80, 175, 150], 0.9)])
    assert (list(labels["kind"]), loops) == ([kinds.MERGED] * 2, [kinds.MERGED])


def test_two_loops_in_one_label_are_split(kinds):
    """The label and both loops are split."""
    labels, loops = classified(
        kinds, [[100, 100, 180, 180]], [([100, 100, 138, 138], 0.9), ([142, 142, 180, 180], 0.7)]
    )
    assert (list(labels["kind"]), loops) == ([kinds.SPLIT], [kinds.SPLIT] * 2)


def test_a_neighbour_suppresses(kinds):
    """A second label over which the first one's loop lies could not have got a loop of its own."""
    labels, loops = classified(kinds, [[100, 100, 140, 140], [110, 100, 150, 140]], [([99, 100, 141, 140], 0.9)])
    assert (list(labels["kind"]), loops) == ([kinds.FOUND, kinds.SUPPRESSED], [kinds.TRUE])


def test_false_loops(kinds):
    """Without a label in their place: by the score, the border, and whether a found label is there."""
    _, loops = classified(
        kinds,
        [[100, 100, 140, 140]],
        [
            ([100, 100, 140, 140], 0.95),
            ([300, 100, 340, 140], 0.9),
            ([300, 200, 340, 240], 0.7),
            ([118, 118, 142, 142], 0.65),
            ([10, 200, 50, 240], 0.6),
        ],
    )
    assert loops == [kinds.TRUE, kinds.UNLABELLED_HIGH, kinds.UNLABELLED_LOW, kinds.DUPLICATE, kinds.NEAR_BORDER]


def test_the_border_counts_neither_way(kinds):
    """A label and a loop that the border cuts are neither missed nor false."""
    labels, loops = classified(kinds, [[0, 100, 40, 140]], [([570, 300, 599, 340], 0.9)])
    assert (list(labels["kind"]), loops) == ([kinds.UNCOUNTED], [kinds.UNCOUNTED])


def fields(at: list[tuple[int, int]], seed: int) -> list[TrainingImage]:
    """Fields of 320 × 400 px of one random texture, top left corners (x, y) at `at`."""
    noise = np.random.default_rng(seed).normal(size=(700, 900))
    texture = cv2.GaussianBlur(noise, (0, 0), 4.0)
    grey = np.clip(128 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    return [
        TrainingImage(Micrograph(grey[y : y + 320, x : x + 400], f"{seed}-{k}.tif"), pd.DataFrame(), "family", 0)
        for k, (x, y) in enumerate(at)
    ]


def test_overlapping_fields_are_found_with_their_shift(kinds):
    """Of three fields two overlap; one of another texture overlaps with none."""
    import error_repeats

    images = [*fields([(0, 0), (153, 61), (450, 350)], seed=1), *fields([(0, 0)], seed=2)]
    [pair] = error_repeats.overlapping(images)
    assert (pair.first, pair.second) == ("1-0.tif", "1-1.tif")
    assert (pair.dx_px, pair.dy_px) == pytest.approx((-153, -61), abs=1)
    assert pair.share == pytest.approx(247 * 259 / (320 * 400), abs=0.02)


def test_labels_again_and_false_loops_that_the_other_field_has_labelled(kinds):
    """Two labels of two fields are the same, one of three objects is labelled in one field only: a false loop there."""
    import error_repeats

    images = fields([(0, 0), (153, 61)], seed=1)
    on_texture = np.array([[220, 120, 250, 150], [300, 200, 340, 230], [260, 250, 290, 280]], float)

    def rows(image: int, which: list[int], kind: list[str]) -> pd.DataFrame:
        boxes = on_texture[which] - np.tile([(0, 0), (153, 61)][image], 2)
        name = images[image].micrograph.image
        return pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(image=name, kind=kind)

    labels = pd.concat([rows(0, [0, 1, 2], [kinds.FOUND] * 3), rows(1, [0, 1], [kinds.FOUND] * 2)])
    true = [kinds.TRUE] * 2
    loops = pd.concat([rows(0, [0, 1, 2], [*true, kinds.TRUE]), rows(1, [0, 1, 2], [*true, kinds.UNLABELLED_LOW])])
    found = error_repeats.repeats(images, labels, loops)
    assert found["labels_again"] == {"n_first": 3, "n_second": 2, "n_same": 2, "f1": 0.8}
    assert found["loops_again"]["f1"] == 1
    assert found["labelled_in_the_other_field"][kinds.UNLABELLED_LOW] == {"again": 1.0, "by_chance": 0.0, "n": 1.0}
    assert found["labelled_in_the_other_field"][kinds.FOUND]["again"] == 0.8
