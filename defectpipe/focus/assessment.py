"""The focus of one micrograph: a score from 0 to 10 with its uncertainty, where it is sharp, and how blurred it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from defectpipe.focus.model import FocusModel
from defectpipe.focus.structure import has_structure
from defectpipe.micrograph import Micrograph
from defectpipe.resolution import binning, reduce

# Raised when a score changes, so that results of an older version are computed again.
FOCUS_VERSION = 2

SCORED, CANNOT_BE_JUDGED, NOT_CALIBRATED = "scored", "cannot_be_judged", "not_calibrated"
# Of larger images so many tiles are looked at, spread evenly: memory and time are bounded.
_MOST_TILES = 64
# A tile with more than this share left out of the picture, or without data, says nothing.
_MOST_HIDDEN = 0.1


@dataclass(frozen=True, eq=False)
class FocusAssessment:
    """How sharp a micrograph is.

    Parameters
    ----------
    state : str
        ``scored``; ``cannot_be_judged``: there is nothing but noise, or nothing at all, in the field;
        ``not_calibrated``: the model was not trained on images of this kind.
    score : float or None
        0 (nothing to see) to 10 (perfect focus): median of the tiles; 0 for a constant image, None without a score.
    score_std : float or None
        Standard deviation of the score: the model's own error between images, from its card, and the standard error of
        the tiles' median, from their spread.
    tiles : ndarray of float64, shape (n_rows, n_columns)
        Score of each tile; NaN where nothing can be judged.
    tile_boxes : ndarray of int64, shape (n_rows * n_columns, 4)
        ``x0, y0, x1, y1`` (ends excluded), in px of the whole picture, in the order of `tiles`.
    blur_px, blur_nm : float or None
        Total blur that the score stands for (RMS width along one direction), in px of the image; at scores of 10 and
        1 the scale ends, so that there it is the largest and the smallest. In nm None without a pixel size.
    reason : str
        Why there is no score; else what was assumed.
    """

    state: str
    score: float | None
    score_std: float | None
    tiles: np.ndarray
    tile_boxes: np.ndarray
    blur_px: float | None = None
    blur_nm: float | None = None
    reason: str = ""


def assess_focus(m: Micrograph, model: FocusModel) -> FocusAssessment:
    """Assess a micrograph.

    The image is looked at in tiles of the size that the model learned, at its working pixel size. What is left out of
    the picture (data bars, scale bars) is not looked at; pixels without data count as left out.

    Parameters
    ----------
    m : Micrograph
        Where it does not say its modality, it is taken to be of the model's.
    model : FocusModel

    Returns
    -------
    FocusAssessment
    """
    if m.modality and not model.knows(m.modality):
        return _unscored(NOT_CALIBRATED, f"the focus model {model.name} was not trained on {m.modality} images")
    magnification, problem = model.magnification_of(m.magnification, m.pixel_size_nm)
    if problem:
        return _unscored(NOT_CALIBRATED, problem)
    if m.is_constant:
        return _unscored(CANNOT_BE_JUDGED, "every pixel has the same value", 0.0)
    factor = binning(m.shape, m.pixel_size_nm, model.working_pixel_size_nm)
    height, width = model.patch_px
    rows, columns = (n // factor for n in m.analysed_shape)
    if rows < height or columns < width:
        return _unscored(CANNOT_BE_JUDGED, f"smaller than {height * factor} × {width * factor} px")
    y_starts, x_starts = _grid((rows, columns), (height, width))
    boxes, patches, judged = [], [], []
    for y in y_starts:
        for x in x_starts:
            patch, box, seen = _tile(m, y, x, factor, (height, width))
            boxes.append(box)
            patches.append(patch)
            judged.append(seen and has_structure(patch))
    tiles = np.full(len(boxes), np.nan)
    if any(judged):
        chosen = np.flatnonzero(judged)
        tiles[chosen] = model.scores(np.stack([patches[i] for i in chosen]), magnification)
    grid, places = tiles.reshape(len(y_starts), len(x_starts)), np.array(boxes, np.int64)
    known = tiles[np.isfinite(tiles)]
    # A stray tile of noise that passes for structure is no ground to judge a whole field by.
    if len(known) < max(1, math.ceil(0.1 * len(tiles))):
        nothing = "nothing but noise in the field to judge the focus by"
        return FocusAssessment(CANNOT_BE_JUDGED, None, None, grid, places, reason=nothing)
    score = float(np.clip(np.median(known), 0, 10))
    spread = 1.2533 * float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else 0.0
    blur = model.blur_px(score, magnification)
    blur_px = None if blur is None else blur * factor
    size = m.pixel_size_nm
    return FocusAssessment(
        SCORED,
        score,
        math.hypot(spread, model.error_std),
        grid,
        places,
        blur_px,
        None if blur_px is None or size is None else blur_px * size,
        "" if m.modality else f"taken for {model.modality}, which the file does not say",
    )


def _unscored(state: str, reason: str, score: float | None = None) -> FocusAssessment:
    nothing = np.zeros((0, 0)), np.zeros((0, 4), np.int64)
    return FocusAssessment(state, score, 0.0 if score is not None else None, *nothing, reason=reason)


def _grid(shape: tuple[int, int], patch: tuple[int, int]) -> tuple[list[int], list[int]]:
    """First rows and columns of tiles that do not overlap, spread evenly; at most `_MOST_TILES`."""
    counts = [n // p for n, p in zip(shape, patch, strict=True)]
    if counts[0] * counts[1] > _MOST_TILES:
        share = math.sqrt(_MOST_TILES / (counts[0] * counts[1]))
        counts = [min(max(1, int(n * share)), _MOST_TILES) for n in counts]
    ends = [n - p for n, p in zip(shape, patch, strict=True)]
    rows, columns = (
        [end // 2] if n == 1 else [round(end * i / (n - 1)) for i in range(n)]
        for n, end in zip(counts, ends, strict=True)
    )
    return rows, columns


def _tile(
    m: Micrograph, y: int, x: int, factor: int, patch: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int, int, int], bool]:
    """Pixels of a tile at the working resolution, its box in the picture, and whether enough of it can be seen."""
    y0, x0 = m.analysed_rows[0] + y * factor, x * factor
    y1, x1 = y0 + patch[0] * factor, x0 + patch[1] * factor
    grey = reduce(m.grey8_region(y0, y1, x0, x1), factor)
    hidden = sum(
        max(0, min(y1, bottom) - max(y0, top)) * max(0, min(x1, right) - max(x0, left))
        for top, bottom, left, right in m.left_out
    )
    if m.pixels.dtype.kind == "f":
        values = m.pixels[y0:y1, x0:x1] if isinstance(m.pixels, np.ndarray) else m.pixels.region(y0, y1, x0, x1)
        hidden = max(hidden, int(np.count_nonzero(~np.isfinite(values))))
    return grey, (x0, y0, x1, y1), hidden <= _MOST_HIDDEN * (y1 - y0) * (x1 - x0)
