"""Training of a cascade: positives from labels, negatives mined with the stages that stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from defectpipe.boxes import overlaps, shrink, touches_border
from defectpipe.detection.boosting import train_stage
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.checkpoint import StageReport, Standing
from defectpipe.detection.lbp import code_matrix, feature_grid
from defectpipe.detection.scan import Level, ScanRecipe, pyramid, scan_level, window_boxes
from defectpipe.errors import LabelError


@dataclass(frozen=True)
class CascadeRecipe:
    """Training of the cascade. The rates are those of each stage on its own samples.

    A threshold that keeps 0.996 of the positives at hand keeps fewer of others, the fewer there are to learn from:
    with 5000 positives of FeCrAl each stage lost 1.1 % of the rest, with 13,500 0.4 %.
    """

    window_px: int = 24
    n_stages: int = 11
    hit_rate: float = 0.996
    false_alarm_rate: float = 0.4
    max_stumps: int = 100
    n_positives: int = 15000
    n_negatives: int = 12000
    copies: int = 3
    feature_share: float = 0.25
    max_overlap_of_negatives: float = 0.25
    negatives_per_image: int = 300


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """Image (uint8, height × width) at the working resolution, with loops' boxes (n, 4) in the model's convention."""

    pixels: np.ndarray
    boxes: np.ndarray


def squares(boxes: np.ndarray, scan: ScanRecipe) -> np.ndarray:
    """Square windows with context about loop boxes."""
    side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) * scan.context, scan.min_side_px)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], 1)


def train_cascade(
    images: Sequence[LabelledImage],
    recipe: CascadeRecipe,
    scan: ScanRecipe,
    seed: int,
    progress: Callable[[StageReport], None] | None = None,
    *,
    begun: Standing | None = None,
    keep: Callable[[Standing], None] | None = None,
) -> tuple[Cascade, list[StageReport]]:
    """Train a cascade stage by stage.

    Stops early when the images hold too few windows that the standing stages still take for loops.

    Parameters
    ----------
    images : sequence of LabelledImage
    recipe : CascadeRecipe
    scan : ScanRecipe
    seed : int
    progress : callable, optional
        Is told what each stage did, those of `begun` too.
    begun : Standing, optional
        Where the same training stood when it was ended: it goes on there, to the same cascade.
    keep : callable, optional
        Takes how the training stands after each stage.

    Raises
    ------
    LabelError
        The images hold no loop that a window can cover.
    """
    rng = np.random.default_rng(seed)
    positives = np.concatenate(
        [cut_positives(image, recipe, scan, rng) for image in images]
        or [np.zeros((0, recipe.window_px, recipe.window_px), np.uint8)]
    )
    if len(positives) < 20:
        raise LabelError(f"Only {len(positives)} loop windows could be cut from the labelled images: label more loops.")
    positives = positives[rng.permutation(len(positives))]
    return train_stages(positives, images, recipe, scan, rng, progress, begun=begun, keep=keep)


def train_stages(
    positives: np.ndarray,
    images: Sequence[LabelledImage],
    recipe: CascadeRecipe,
    scan: ScanRecipe,
    rng: np.random.Generator,
    progress: Callable[[StageReport], None] | None = None,
    *,
    begun: Standing | None = None,
    keep: Callable[[Standing], None] | None = None,
) -> tuple[Cascade, list[StageReport]]:
    """As `train_cascade`, from windows about loops (n, side, side), uint8; `images` give the negatives."""
    cascade = Cascade(recipe.window_px, feature_grid(recipe.window_px))
    reports: list[StageReport] = []
    if begun is not None:
        cascade, reports = dataclasses.replace(cascade, stages=begun.stages), list(begun.reports)
        rng.bit_generator.state = begun.random_state
        if progress is not None:
            for report in reports:
                progress(report)
    judged = cascade.judge(positives)
    for number in range(len(reports), recipe.n_stages):
        kept = positives[judged == number][: recipe.n_positives]
        negatives, acceptance = mine_negatives(cascade, images, recipe, scan, rng)
        if len(negatives) < max(100, recipe.n_negatives // 20):
            break
        codes = code_matrix(np.concatenate([kept, negatives]), cascade.features)
        is_loop = np.arange(len(kept) + len(negatives)) < len(kept)
        stage, false_alarms = train_stage(
            codes,
            is_loop,
            hit_rate=recipe.hit_rate,
            false_alarm_rate=recipe.false_alarm_rate,
            max_stumps=recipe.max_stumps,
            rng=rng,
            feature_share=recipe.feature_share,
        )
        cascade = dataclasses.replace(cascade, stages=(*cascade.stages, stage))
        judged = cascade.judge(positives)
        hit_rate = float((judged == number + 1).mean())
        reports.append(
            StageReport(number + 1, len(kept), len(negatives), len(stage.stumps), hit_rate, false_alarms, acceptance)
        )
        if keep is not None:
            keep(Standing(cascade.stages, tuple(reports), dict(rng.bit_generator.state)))
        if progress is not None:
            progress(reports[-1])
    return cascade, reports


def cut_positives(
    image: LabelledImage, recipe: CascadeRecipe, scan: ScanRecipe, rng: np.random.Generator
) -> np.ndarray:
    """Windows (n, side, side) about the loops, from the levels of the scan, shifted, turned and mirrored a little."""
    side = recipe.window_px
    levels = pyramid(image.pixels, side, scan)
    if not levels or not len(image.boxes):
        return np.zeros((0, side, side), np.uint8)
    border = min(scan.border_px, min(image.pixels.shape) - 1)
    scales = np.array([level.scale for level in levels])
    inside = image.boxes[~touches_border(image.boxes, image.pixels.shape)]
    windows = []
    for x0, y0, x1, y1 in np.repeat(squares(inside, scan), recipe.copies, axis=0):
        wanted = (x1 - x0) * np.exp(rng.uniform(-0.08, 0.08)) / side
        level = levels[int(np.abs(np.log(scales / wanted)).argmin())]
        shift = rng.uniform(-0.05, 0.05, 2) * (x1 - x0)
        centre = (np.array([x0 + x1, y0 + y1]) / 2 + shift + 0.5 + border) / level.scale
        u, v = np.rint(centre - side / 2).astype(int)
        height, width = level.pixels.shape
        if u < 0 or v < 0 or u + side > width or v + side > height:
            continue
        window = np.rot90(level.pixels[v : v + side, u : u + side], int(rng.integers(4)))
        windows.append(window[:, ::-1] if rng.integers(2) else window)
    return np.array(windows, np.uint8).reshape(-1, side, side)


def mine_negatives(
    cascade: Cascade,
    images: Sequence[LabelledImage],
    recipe: CascadeRecipe,
    scan: ScanRecipe,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Windows away from every loop that the standing stages pass, at most so many from an image.

    Windows whose core touches the border are left out: loops there are often not labelled.

    Returns
    -------
    (ndarray of uint8 (n, side, side), float)
        The windows, and the share of the windows looked at that passed.
    """
    side = recipe.window_px
    pool: list[np.ndarray] = []
    seen, accepted = 0, 0
    for i in rng.permutation(len(images)):
        image = images[i]
        found: list[tuple[np.ndarray, int, int]] = []
        for level in pyramid(image.pixels, side, scan):
            corners, looked_at = _passing_corners(cascade, level, rng)
            seen += looked_at
            if not len(corners):
                continue
            if len(corners) > 20 * recipe.negatives_per_image:
                corners = corners[rng.choice(len(corners), 20 * recipe.negatives_per_image, replace=False)]
            boxes = window_boxes(corners, side, level, scan, image.pixels.shape)
            free = ~touches_border(shrink(boxes, scan.context), image.pixels.shape)
            if len(image.boxes):
                free &= overlaps(boxes, squares(image.boxes, scan)).max(1) < recipe.max_overlap_of_negatives
            corners = corners[free]
            accepted += len(corners)
            drawn = rng.permutation(len(corners))[: recipe.negatives_per_image]
            found += [(level.pixels, u, v) for u, v in corners[drawn].tolist()]
        for j in rng.permutation(len(found))[: recipe.negatives_per_image]:
            pixels, u, v = found[j]
            pool.append(pixels[v : v + side, u : u + side])
        if len(pool) >= recipe.n_negatives:
            break
    windows = np.array(pool, np.uint8).reshape(-1, side, side)[: recipe.n_negatives]
    return windows, accepted / max(seen, 1)


def _passing_corners(cascade: Cascade, level: Level, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = (n - cascade.window_px + 1 for n in level.pixels.shape)
    if cascade.stages:
        # many windows still pass an early stage: a coarser grid finds enough of them
        step = 4 if len(cascade.stages) < 4 else 3 if len(cascade.stages) < 7 else level.step
        corners, _ = scan_level(cascade, level, step)
        return corners, -(-height // step) * -(-width // step)
    n = max(2, height * width // 500)
    return np.stack([rng.integers(0, width, n), rng.integers(0, height, n)], 1), n
