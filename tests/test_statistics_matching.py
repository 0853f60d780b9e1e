"""The two matching rules against exhaustive search."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectpipe import boxes as bx
from defectpipe.statistics import matching
from defectpipe.statistics.matching import close_pairs, match_one_to_one, near_any


def random_boxes(rng: np.random.Generator, n: int, extent: float = 30.0) -> np.ndarray:
    corner, size = rng.uniform(0, extent, (n, 2)), rng.uniform(5, 25, (n, 2))
    return np.concatenate([corner, corner + size], 1)


def best_by_search(overlap: np.ndarray, least: float) -> tuple[int, float]:
    """Largest number of pairs, and their largest total overlap, over all assignments."""
    if overlap.shape[0] > overlap.shape[1]:
        overlap = overlap.T
    best = (0, 0.0)
    for columns in permutations(range(overlap.shape[1]), overlap.shape[0]):
        chosen = overlap[np.arange(len(columns)), list(columns)]
        chosen = chosen[chosen >= least]
        best = max(best, (len(chosen), float(chosen.sum())))
    return best


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 5), m=st.integers(0, 6), least=st.sampled_from([0.05, 0.2, 0.4]))
def test_one_to_one_is_the_best_of_all_assignments(seed, n, m, least):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, n), random_boxes(rng, m)
    pairs = match_one_to_one(a, b, least)
    overlap = bx.overlaps(a, b)
    chosen = overlap[pairs[:, 0], pairs[:, 1]]
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert (chosen >= least).all()
    number, total = best_by_search(overlap, least)
    assert len(pairs) == number
    assert chosen.sum() == pytest.approx(total)


def test_number_of_pairs_comes_before_overlap():
    # The first label overlaps the first loop best, but only the other way round are both found.
    labels = np.array([[0, 0, 10, 10], [0, 5, 10, 15]])
    loops = np.array([[0, 1, 10, 11], [0, -4, 10, 6]])
    assert match_one_to_one(labels, loops, 0.4).tolist() == [[0, 1], [1, 0]]


def test_swapping_the_sides_swaps_the_pairs():
    rng = np.random.default_rng(4)
    a, b = random_boxes(rng, 60, 200), random_boxes(rng, 80, 200)
    there, back = match_one_to_one(a, b, 0.2), match_one_to_one(b, a, 0.2)
    assert len(there) > 10
    assert {tuple(p) for p in there} == {tuple(p[::-1]) for p in back}


def test_strips_find_the_same_pairs_as_the_whole_matrix(monkeypatch):
    rng = np.random.default_rng(8)
    a, b = random_boxes(rng, 90, 300), random_boxes(rng, 70, 300)
    monkeypatch.setattr(matching, "_CHUNK", 7)
    i, j, overlap = close_pairs(a, b, 0.1)
    full = bx.overlaps(a, b)
    expected = np.argwhere(full >= 0.1)
    assert np.stack([i, j], 1).tolist() == expected.tolist()
    assert overlap == pytest.approx(full[i, j])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 12), m=st.integers(0, 12))
def test_near_any_is_the_rule_written_out(seed, n, m):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that distances of exactly 20 px occur.
    a, b = rng.integers(0, 80, (n, 2)).astype(float), rng.integers(0, 80, (m, 2)).astype(float)
    expected = [any(abs(x - u) <= 20 and abs(y - v) <= 20 for u, v in b) for x, y in a]
    assert near_any(a, b, 20).tolist() == expected


def test_nearness_is_by_side_not_by_radius_and_includes_the_limit():
    assert near_any(np.array([[0, 0]]), np.array([[20, -20]]), 20).tolist() == [True]
    assert near_any(np.array([[0, 0]]), np.array([[20.01, 0]]), 20).tolist() == [False]
