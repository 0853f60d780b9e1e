"""Multi-scale scan of an image with a cascade."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from defectpipe.boxes import shrink, suppress
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.judging import WINDOWS_A_BLOCK, judge_block
from defectpipe.detection.lbp import corner_offsets, take_apart

_MAX_HITS_PER_LEVEL = 200_000
_LEAST_LIMIT = 20


@dataclass(frozen=True)
class ScanRecipe:
    """How an image is scanned; part of the model, for training and use must agree.

    Parameters
    ----------
    context : float
        Side of the window over the long side of the loop's box.
    min_side_px, max_side_px : float
        Range of window sides in the image.
    level_factor : float
        Ratio of successive window sides.
    blur_sigma_px : float
        Gaussian blur of the image before any level is made.
    border_px : int
        Mirrored margin around the image, so that loops at the border can be found.
    coarse_step_below : float
        Levels whose pixels are smaller than this many image pixels are scanned at every second position.
    max_overlap : float
        Intersection over union at which the weaker of two hits is dropped.
    """

    context: float = 1.3
    min_side_px: float = 20.0
    max_side_px: float = 240.0
    level_factor: float = 1.2
    blur_sigma_px: float = 1.5
    border_px: int = 16
    coarse_step_below: float = 2.0
    max_overlap: float = 0.35


@dataclass(frozen=True)
class LevelPlan:
    """Size of one level, and how often the blurred image is halved before the level is resampled from it."""

    scale: float
    n_halvings: int
    height: int
    width: int
    step: int


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the pyramid: `scale` image pixels for each of its own."""

    scale: float
    pixels: np.ndarray
    step: int


def pyramid(image: np.ndarray, window_px: int, recipe: ScanRecipe) -> list[Level]:
    """Levels of an image for a scan, finest first.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)

    Returns
    -------
    list of Level
        Level pixel (u, v) lies at image position ((u + 0.5) scale − 0.5 − border, likewise v). Empty for images
        smaller than the smallest window.
    """
    border = min(recipe.border_px, min(image.shape) - 1)
    octave = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT_101)
    octave = cv2.GaussianBlur(octave, (0, 0), recipe.blur_sigma_px)
    levels, n_halvings = [], 0
    for plan in plan_levels((octave.shape[0], octave.shape[1]), window_px, recipe):
        while n_halvings < plan.n_halvings:
            octave = cv2.resize(octave, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            n_halvings += 1
        pixels = cv2.resize(octave, (plan.width, plan.height), interpolation=cv2.INTER_LINEAR_EXACT)
        levels.append(Level(plan.scale, pixels, plan.step))
    return levels


def plan_levels(size: tuple[int, int], window_px: int, recipe: ScanRecipe) -> list[LevelPlan]:
    """The levels of an image of `size` (height and width, border included), finest first."""
    plans = []
    side, n_halvings = recipe.min_side_px, 0
    while side <= min(recipe.max_side_px, *size):
        scale = side / window_px
        while scale / 2**n_halvings >= 2:
            n_halvings += 1
        width, height = round(size[1] / scale), round(size[0] / scale)
        if min(width, height) >= window_px:
            step = 2 if scale < recipe.coarse_step_below else 1
            plans.append(LevelPlan(scale, n_halvings, height, width, step))
        side *= recipe.level_factor
    return plans


def scan_level(cascade: Cascade, level: Level, step: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Windows of one level that pass the cascade.

    Returns
    -------
    corners : ndarray of int32, shape (n, 2)
        Top left corner x, y, in level pixels.
    margins : ndarray of float32, shape (n,)
        Mean over the stages of the sum less the threshold.
    """
    return scan_pixels(cascade, level.pixels, step or level.step)


def scan_pixels(cascade: Cascade, pixels: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scan_level`, of a level or a part of it, uint8; windows start at multiples of `step`."""
    packed = cascade.packed
    parts = _integral(pixels, step)
    height, width = (max(0, (n - cascade.window_px) // step + 1) for n in pixels.shape)
    offsets = corner_offsets(packed.features, parts.shape[1:], step)
    corners, margins = _scan(
        parts.ravel(), parts.shape[2], height, width, offsets, *packed.judged_by, _MAX_HITS_PER_LEVEL
    )
    return corners * step, margins


def _integral(pixels: np.ndarray, step: int) -> np.ndarray:
    return take_apart(cv2.integral(pixels), step)


def window_boxes(
    corners: np.ndarray, window_px: int, level: Level | LevelPlan, recipe: ScanRecipe, shape: tuple
) -> np.ndarray:
    """Square boxes of windows, in image px (`shape` is the image's height and width)."""
    border = min(recipe.border_px, min(shape) - 1)
    low = corners * level.scale - 0.5 - border
    return np.concatenate([low, low + window_px * level.scale], 1)


def most_candidates(shape: tuple[int, ...], per_megapixel: int) -> int:
    """How many candidates an image of this height and width is given at most; a small one is not starved."""
    return max(_LEAST_LIMIT, math.ceil(per_megapixel * shape[0] * shape[1] / 1e6))


def find_candidates(
    image: np.ndarray, cascade: Cascade, recipe: ScanRecipe, max_candidates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of an image, suppressed, best first.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width)
    max_candidates : int

    Returns
    -------
    boxes : ndarray, shape (n, 4)
        Square boxes whose side is the loop's long side (the context taken off), in image px.
    scores : ndarray, shape (n,)
        Between 0 and 1, higher is better; only their order has a meaning.
    """
    return best_hits(*raw_hits(image, cascade, recipe), recipe, max_candidates)


def best_hits(
    boxes: np.ndarray, margins: np.ndarray, recipe: ScanRecipe, max_candidates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hits as `raw_hits` gives them, suppressed: what `find_candidates` returns."""
    kept = suppress(boxes, margins, recipe.max_overlap, max_candidates)
    return shrink(boxes[kept], recipe.context), 1 / (1 + np.exp(-margins[kept].astype(float)))


def raw_hits(image: np.ndarray, cascade: Cascade, recipe: ScanRecipe) -> tuple[np.ndarray, np.ndarray]:
    """Every window that passes, before suppression: boxes with context, margins."""
    boxes, margins = [np.zeros((0, 4))], [np.zeros(0, np.float32)]
    for level in pyramid(image, cascade.window_px, recipe):
        corners, margin = scan_level(cascade, level)
        boxes.append(window_boxes(corners, cascade.window_px, level, recipe, image.shape))
        margins.append(margin)
    return np.concatenate(boxes), np.concatenate(margins)


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    integral, stride, height, width, offsets, first_stump, tables, thresholds, max_hits
):
    corners = np.empty((max_hits, 2), np.int32)
    margins = np.empty(max_hits, np.float32)
    n_stages = len(thresholds)
    passed, sums = np.empty(WINDOWS_A_BLOCK, np.int32), np.empty(WINDOWS_A_BLOCK)
    places = np.empty(WINDOWS_A_BLOCK, np.uint64)
    found = 0
    end = (height - 1) * stride + width if height and width else 0
    for start in range(0, end, WINDOWS_A_BLOCK):
        n = min(WINDOWS_A_BLOCK, end - start)
        m = 0
        for i in range(n):
            if (start + i) % stride < width:
                places[m] = i
                m += 1
        judge_block(integral[start:], n, places[:m], offsets, first_stump, tables, thresholds, passed, sums)
        for i in range(n):
            if passed[i] == n_stages and found < max_hits:
                corners[found, 0] = (start + i) % stride
                corners[found, 1] = (start + i) // stride
                margins[found] = sums[i] / n_stages
                found += 1
    return corners[:found].copy(), margins[:found].copy()
