"""Folds by group: fields of one specimen are never on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from defectpipe.errors import LabelError


def assign_folds(groups: Sequence[str], weights: Sequence[int], given: Sequence[int | None], n_folds: int) -> list[int]:
    """Fold of each image.

    Parameters
    ----------
    groups : sequence of str
        Group of each image.
    weights : sequence of int
        Loops of each image: the folds get about equally many.
    given : sequence of int or None
        Folds that the user gave, for all images or for none.
    n_folds : int

    Returns
    -------
    list of int
        From 0, without gaps.

    Raises
    ------
    LabelError
        Some images have a fold and some have none, a group lies in two folds, or there are fewer than two groups.
    """
    if any(fold is not None for fold in given):
        if None in given:
            raise LabelError("Some images have a fold and some have none: give all, or none.")
        homes: dict[str, set[int]] = {}
        for group, fold in zip(groups, given, strict=True):
            homes.setdefault(group, set()).add(int(fold or 0))
        if torn := sorted(group for group, folds in homes.items() if len(folds) > 1):
            raise LabelError(f"The group '{torn[0]}' lies in more than one fold: a group belongs to one.")
        order = {fold: i for i, fold in enumerate(sorted({int(fold or 0) for fold in given}))}
        if len(order) < 2:
            raise LabelError("All images are in one fold: the threshold needs at least two.")
        return [order[int(fold or 0)] for fold in given]
    total: Counter[str] = Counter()
    for group, weight in zip(groups, weights, strict=True):
        total[group] += weight + 1
    if len(total) < 2:
        raise LabelError("All images are in one group: the threshold needs at least two groups of fields.")
    load = [0] * min(n_folds, len(total))
    home = {}
    for group, weight in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        lightest = load.index(min(load))
        home[group] = lightest
        load[lightest] += weight
    return [home[group] for group in groups]
