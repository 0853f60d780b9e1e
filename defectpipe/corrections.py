"""Loops that a person has corrected: which are as they were found, which were moved, added or deleted.

A correction is the full list of a frame's loops. What is as it was found keeps its measurement to the bit; what was
moved or added is measured anew from where the person put it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from defectpipe.boxes import convert, ellipse_bounds
from defectpipe.classes import DefectClasses
from defectpipe.io.tables import LOOP_COLUMNS, loops_table
from defectpipe.statistics.matching import match_one_to_one

MOVED, ADDED, CLASSED = "human-moved", "human-added", "human-classed"
SAME_PX = 0.5
"""How far each side of an ellipse may lie from where it was found for the loop to be untouched: formats round."""

SAME_LOOP_IOU = 0.2
"""Overlap from which a loop without a number is taken for the one found there, moved."""

_ELLIPSE = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]
_BOX = ["x0_px", "y0_px", "x1_px", "y1_px"]
_NEIGHBOURS = 4


@dataclass(frozen=True, eq=False)
class Corrected:
    """Loops of a frame after its correction, by number, and how many were moved, added and deleted."""

    loops: pd.DataFrame
    n_moved: int
    n_added: int
    n_deleted: int


def correct_loops(
    found: pd.DataFrame,
    wanted: pd.DataFrame,
    shape: tuple[int, int],
    box_convention: str,
    measure: Callable[[pd.DataFrame], pd.DataFrame],
    classes: DefectClasses | None = None,
) -> Corrected:
    """The loops of a frame as a person wants them.

    Each wanted loop is paired with the loop found at the same place (`SAME_PX`), else with the one of its number, else
    with one that it overlaps (`SAME_LOOP_IOU`). Those paired keep the number and, when moved, the scores of the loop
    that was found; those added have no scores, and numbers after the last one found, in reading order.

    Parameters
    ----------
    found : DataFrame
        Rows of ``loops.csv`` of one frame, as the program measured them.
    wanted : DataFrame
        Columns `io.tables.LABEL_COLUMNS` (boxes tight) and ``loop_id`` (missing where not known).
    shape : (int, int)
        Height and width of the frame, in px.
    box_convention : str
        Of the boxes of `found`.
    measure : callable
        Screened loops to measured ones, as `analysis.measure_loops` for this frame: boxes stay as they are given.
    classes : DefectClasses, optional
        Those of the model. Where they are several, a loop has the class that its label names; without one, that of the
        loop found there, or the first. Of a loop that only its class changed of, the measurement stays. Default: one.

    Returns
    -------
    Corrected
        Where the flood fails on a moved or added loop, it keeps the ellipse that the person gave it, with a fit
        quality of 0.
    """
    found = loops_table(found)
    wanted = wanted.reset_index(drop=True)
    pair, is_same = pair_loops(found, wanted, shape)
    changed = np.flatnonzero(~is_same)
    of_class = None if classes is None or not classes.several else _classes(found, wanted, pair, classes)
    tables = [_classed(found.iloc[pair[is_same]], None if of_class is None else of_class[is_same])]
    if len(changed):
        named = None if of_class is None else of_class[changed]
        tables.append(_measured(found, wanted.iloc[changed], pair[changed], shape, box_convention, measure, named))
    loops = loops_table(pd.concat(tables, ignore_index=True)) if any(map(len, tables)) else found.iloc[:0]
    is_added = (pair < 0) & ~is_same
    return Corrected(
        loops.sort_values("loop_id", kind="stable", ignore_index=True)[LOOP_COLUMNS],
        n_moved=int(np.count_nonzero((pair >= 0) & ~is_same)),
        n_added=int(np.count_nonzero(is_added)),
        n_deleted=len(found) - len(np.unique(pair[pair >= 0])),
    )


def _classes(found: pd.DataFrame, wanted: pd.DataFrame, pair: np.ndarray, classes: DefectClasses) -> np.ndarray:
    """Name of the class of each wanted loop."""
    named = classes.known(wanted["label"]).to_numpy(object)
    before = np.full(len(wanted), classes.names[0], object)
    before[pair >= 0] = found["class"].to_numpy(object)[pair[pair >= 0]]
    return np.where(named == "", before, named)


def _classed(loops: pd.DataFrame, of_class: np.ndarray | None) -> pd.DataFrame:
    """Loops that are where they were found, of the class that they are wanted to be."""
    if of_class is None:
        return loops
    same = loops["class"].to_numpy(object) == of_class
    changed = loops.assign(origin=loops["origin"].where(same, CLASSED))
    changed["class"] = of_class
    return changed


def pair_loops(found: pd.DataFrame, wanted: pd.DataFrame, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which loop found each wanted one is.

    Returns
    -------
    pair : ndarray of int, shape (n wanted,)
        Row of `found`; −1: none.
    is_same : ndarray of bool
        Whether it is where, and as large as, it was found.
    """
    pair, is_same = np.full(len(wanted), -1), np.zeros(len(wanted), bool)
    if not len(found) or not len(wanted):
        return pair, is_same
    free = np.ones(len(found), bool)
    for i, k in _same(found, wanted, shape):
        if free[k] and pair[i] < 0:
            pair[i], is_same[i], free[k] = k, True, False
    row_of = {int(loop_id): k for k, loop_id in enumerate(found["loop_id"])}
    for i, loop_id in enumerate(wanted["loop_id"]):
        k = row_of.get(int(loop_id), -1) if pair[i] < 0 and pd.notna(loop_id) else -1
        if k >= 0 and free[k]:
            pair[i], free[k] = k, False
    rest, left = np.flatnonzero(pair < 0), np.flatnonzero(free)
    bounds = ellipse_bounds(*found[_ELLIPSE].to_numpy(float).T)
    for i, k in match_one_to_one(wanted[_BOX].to_numpy(float)[rest], bounds[left], SAME_LOOP_IOU):
        pair[rest[i]] = left[k]
    return pair, is_same


def _same(found: pd.DataFrame, wanted: pd.DataFrame, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs of a wanted loop and one found at its place, nearest first."""
    ellipses, theirs = found[_ELLIPSE].to_numpy(float), wanted[_ELLIPSE].to_numpy(float)
    bounds, boxes = ellipse_bounds(*ellipses.T), wanted[_BOX].to_numpy(float)
    limits = np.array([shape[1], shape[0], shape[1], shape[0]]) - 0.5
    # Formats of outlines end at the border of the image, where an ellipse may reach on.
    cut = np.clip(bounds, -0.5, limits)
    reaches_over = (cut != bounds).any(1)
    slanted, theirs_slanted = _diagonals(ellipses), _diagonals(theirs)
    tree = cKDTree((np.concatenate([bounds, cut])[:, :2] + np.concatenate([bounds, cut])[:, 2:]) / 2)
    n, centres = len(found), (boxes[:, :2] + boxes[:, 2:]) / 2
    distances, near = tree.query(centres, k=_NEIGHBOURS, distance_upper_bound=2 * SAME_PX)
    pairs = []
    for i, j in zip(*np.nonzero(np.isfinite(distances)), strict=True):
        k = near[i, j] % n
        is_cut = near[i, j] >= n and reaches_over[k]
        fits = np.abs(boxes[i] - (cut if is_cut else bounds)[k]).max() <= SAME_PX
        # A box alone, or a part of an outline, says nothing of the angle.
        turned = not is_cut and np.isfinite(theirs[i]).all() and np.abs(slanted[k] - theirs_slanted[i]).max() > SAME_PX
        if fits and not turned:
            pairs.append((float(distances[i, j]), int(i), int(k)))
    return [(i, k) for _distance, i, k in sorted(pairs)]


def _diagonals(ellipses: np.ndarray) -> np.ndarray:
    """Half the extents of ellipses along the two diagonals, shape (n, 2)."""
    angles = np.deg2rad(np.array([45.0, 135.0]) - ellipses[:, 4:5])
    return 0.5 * np.hypot(ellipses[:, 2:3] * np.cos(angles), ellipses[:, 3:4] * np.sin(angles))


def _measured(
    found: pd.DataFrame,
    wanted: pd.DataFrame,
    pair: np.ndarray,
    shape: tuple[int, int],
    box_convention: str,
    measure: Callable[[pd.DataFrame], pd.DataFrame],
    of_class: np.ndarray | None,
) -> pd.DataFrame:
    """Moved and added loops, measured, with their numbers and origins, and their classes where there are several."""
    limits = np.array([shape[1], shape[0], shape[1], shape[0]]) - 0.5
    tight = np.clip(wanted[_BOX].to_numpy(float), -0.5, limits)
    boxes = convert(tight, "tight", box_convention)
    own = np.full((len(wanted), 2), np.nan)
    own[pair >= 0] = found[["detection_score", "screening_score"]].to_numpy(float)[pair[pair >= 0]]
    # The loops that were found are measured along: whether rims are dark or bright is decided by all together.
    screened = pd.DataFrame(np.concatenate([boxes, found[_BOX].to_numpy(float)]), columns=_BOX).assign(
        detection_score=0.0, screening_score=0.0, kept=True, drawn=np.arange(len(boxes) + len(found)) < len(boxes)
    )
    if of_class is not None:
        screened["class"] = np.concatenate([of_class, found["class"].to_numpy(object)])
    measured = measure(screened).drop_duplicates(_BOX).set_index(_BOX)
    table = measured.loc[[tuple(box) for box in boxes]].reset_index()
    table = table.assign(detection_score=own[:, 0], screening_score=own[:, 1], origin=np.where(pair >= 0, MOVED, ADDED))
    ids = found["loop_id"].to_numpy(np.int64)
    table["loop_id"] = np.where(pair >= 0, ids[np.maximum(pair, 0)] if len(ids) else 0, 0)
    added = np.flatnonzero(pair < 0)
    order = added[np.lexsort((table["x_px"].to_numpy()[added], table["y_px"].to_numpy()[added]))]
    first = int(ids.max()) + 1 if len(ids) else 1
    table.loc[order, "loop_id"] = np.arange(first, first + len(added))
    return _as_drawn(loops_table(table), wanted)


def _as_drawn(table: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """The person's own ellipse for the loops whose flood failed."""
    failed = (table["fit_quality"] == 0).to_numpy() & np.isfinite(wanted["angle_deg"].to_numpy(float))
    if not failed.any():
        return table
    drawn = wanted.reset_index(drop=True)
    size_nm = (table["diameter_nm"] / table["diameter_px"]).to_numpy(float)
    area = np.pi / 4 * drawn["diameter_px"] * drawn["minor_px"]
    values: dict[str, pd.Series | float] = {name: drawn[name] for name in _ELLIPSE}
    values |= {"area_px2": area, "feret_px": drawn["diameter_px"], "equivalent_diameter_px": 2 * np.sqrt(area / np.pi)}
    values |= {"diameter_nm": drawn["diameter_px"] * size_nm, "minor_nm": drawn["minor_px"] * size_nm}
    values |= {"area_nm2": area * size_nm**2}
    values |= dict.fromkeys(("diameter_uncertainty_px", "diameter_uncertainty_nm"), np.nan)
    return table.assign(**{name: table[name].where(~failed, value) for name, value in values.items()})
