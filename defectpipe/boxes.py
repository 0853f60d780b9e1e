"""Axis-aligned boxes ``x0, y0, x1, y1`` in px: overlap, suppression, and the two conventions of labels.

A *tight* box bounds the loop's ellipse. A *padded* one is that of Li, Field & Morgan 2018: each side L of the tight box
enlarged by min(max(5, round(0.3 L)), 15) px in all.
"""

from __future__ import annotations

import numpy as np

CONVENTIONS = ("tight", "padded")
# From so many boxes on, comparing neighbours only is worth the loading of a compiler.
_CROWD = 5_000


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair.

    Parameters
    ----------
    a, b : ndarray, shape (n, 4) and (m, 4)

    Returns
    -------
    ndarray, shape (n, m)
        0 where either box is empty.
    """
    a, b = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.clip(size, 0, None).prod(-1)
    area_a = np.clip(a[..., 2:] - a[..., :2], 0, None).prod(-1)
    area_b = np.clip(b[..., 2:] - b[..., :2], 0, None).prod(-1)
    union = area_a + area_b - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, max_overlap: float, limit: int | None = None) -> np.ndarray:
    """Greedy non-maximum suppression; ties go to the earlier box.

    Returns
    -------
    ndarray of int
        Indices of the boxes that are kept, best first, at most `limit`.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    b = np.asarray(boxes, float).reshape(-1, 4)[order]
    if len(b) >= _CROWD:
        from defectpipe.greedy import suppress_crowd

        return order[suppress_crowd(np.ascontiguousarray(b), max_overlap, len(b) if limit is None else max(1, limit))]
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    alive = np.ones(len(b), bool)
    kept: list[int] = []
    for i in range(len(b)):
        if not alive[i]:
            continue
        kept.append(i)
        if limit is not None and len(kept) >= limit:
            break
        later = slice(i + 1, None)
        w = np.minimum(b[i, 2], b[later, 2]) - np.maximum(b[i, 0], b[later, 0])
        h = np.minimum(b[i, 3], b[later, 3]) - np.maximum(b[i, 1], b[later, 1])
        inter = np.clip(w, 0, None) * np.clip(h, 0, None)
        alive[later] &= inter <= max_overlap * (area[i] + area[later] - inter)
    return order[np.asarray(kept, int)]


def pad(boxes: np.ndarray) -> np.ndarray:
    """Tight boxes to padded ones (Li, Field & Morgan 2018)."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    side = boxes[:, 2:] - boxes[:, :2]
    extra = np.clip(np.rint(0.3 * side), 5, 15)
    return _resized(boxes, side + extra)


def unpad(boxes: np.ndarray) -> np.ndarray:
    """Padded boxes to tight ones: the inverse of `pad`, within its rounding.

    Boxes that the image border cut cannot be undone exactly; they are treated like the others.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    side = boxes[:, 2:] - boxes[:, :2]
    tight = np.where(side < 21.5, side - 5, np.where(side > 65, side - 15, side / 1.3))
    return _resized(boxes, np.maximum(tight, 1.0))


def convert(boxes: np.ndarray, source: str, target: str) -> np.ndarray:
    """Boxes from one of `CONVENTIONS` to another."""
    if source == target:
        return np.asarray(boxes, float).reshape(-1, 4)
    return pad(boxes) if target == "padded" else unpad(boxes)


def tighten(boxes: np.ndarray, source: str, scale: float | None) -> np.ndarray:
    """Tight boxes from those of a model: their sides times `scale`; None: by the rule of their convention `source`."""
    return convert(boxes, source, "tight") if scale is None else shrink(boxes, 1 / scale)


def touches_border(boxes: np.ndarray, shape: tuple[int, int], margin_px: float = 2.0) -> np.ndarray:
    """Whether each box comes within `margin_px` of the border of an image of `shape` (height, width)."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    low = (boxes[:, :2] <= margin_px - 0.5).any(1)
    return low | (boxes[:, 2] >= shape[1] - 0.5 - margin_px) | (boxes[:, 3] >= shape[0] - 0.5 - margin_px)


def ellipse_bounds(
    x: np.ndarray, y: np.ndarray, major: np.ndarray, minor: np.ndarray, angle_deg: np.ndarray
) -> np.ndarray:
    """Bounding boxes of ellipses given by centre, full axes and angle (from +x, counter-clockwise as seen).

    Returns
    -------
    ndarray, shape (n, 4)
    """
    x, y, major, minor, angle = (np.atleast_1d(np.asarray(v, float)) for v in (x, y, major, minor, angle_deg))
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    half_w = 0.5 * np.hypot(major * c, minor * s)
    half_h = 0.5 * np.hypot(major * s, minor * c)
    return np.stack([x - half_w, y - half_h, x + half_w, y + half_h], 1)


def ellipse_points(ellipse: np.ndarray, count: int) -> np.ndarray:
    """Points on an ellipse, evenly by its parameter, counter-clockwise as seen from the end of the major axis.

    Parameters
    ----------
    ellipse : ndarray, shape (5,)
        Centre x and y, full axes major and minor, angle in degrees (from +x, counter-clockwise as seen).
    count : int

    Returns
    -------
    ndarray, shape (count, 2)
        x, y, in the unit of the ellipse; y points down.
    """
    x, y, major, minor, angle_deg = ellipse
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    along, across = 0.5 * major * np.cos(t), 0.5 * minor * np.sin(t)
    return np.stack([x + along * c - across * s, y - along * s - across * c], 1)


def shrink(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Boxes about the same centres with sides divided by `factor`."""
    return _resized(boxes, (boxes[:, 2:] - boxes[:, :2]) / factor)


def group_by_tile(boxes: np.ndarray, tile_px: int, offset_px: int = 0, most: int | None = None) -> list[np.ndarray]:
    """Boxes by the tile that their centre lies in.

    Parameters
    ----------
    boxes : ndarray, shape (n, 4)
    tile_px : int
        Side of the tiles.
    offset_px : int
        Shift of their grid along both axes.
    most : int, optional
        Groups of more boxes are split.

    Returns
    -------
    list of ndarray of int
        Indices of the boxes of each tile that has any, tiles in reading order.
    """
    if not len(boxes):
        return []
    tiles = np.floor(((boxes[:, :2] + boxes[:, 2:]) / 2 - offset_px) / tile_px).astype(np.int64)
    order = np.lexsort((tiles[:, 0], tiles[:, 1]))
    changes = np.flatnonzero((np.diff(tiles[order], axis=0) != 0).any(1)) + 1
    groups = np.split(order, changes)
    if most is None:
        return groups
    return [group[start : start + most] for group in groups for start in range(0, len(group), most)]


def _resized(boxes: np.ndarray, side: np.ndarray) -> np.ndarray:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre - side / 2, centre + side / 2], 1)
