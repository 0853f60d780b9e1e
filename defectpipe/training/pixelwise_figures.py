"""Figures of the pixel-wise maps on simulated fields: outlines, thickness, objects told apart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from defectpipe.recognition.pixelwise import OUTLINE, THICKNESS
from defectpipe.recognition.separation import separate
from defectpipe.recognition.thickness import scaled_by_signal
from defectpipe.simulation.solids.rays import BODIES
from defectpipe.training.recognition_data import SolidImages
from defectpipe.training.recognition_figures import DOSE_EDGES

# A found object is the true one from this overlap on.
_MATCH_IOU = 0.5


def outline_iou(maps: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Overlap of outlines over their union in each picture, shape (n,); NaN where neither holds anything."""
    found, truth = maps[..., OUTLINE] > 0.5, instances > 0
    either = (found | truth).sum((1, 2))
    both = (found & truth).sum((1, 2))
    return np.divide(both, either, out=np.full(len(maps), np.nan), where=either > 0)


def thickness_error(thickness_nm: np.ndarray, truth_nm: np.ndarray, inside: np.ndarray) -> float:
    """Root mean square error over the pixels of `inside`, over the largest true thickness there."""
    error = thickness_nm[inside] - truth_nm[inside]
    return float(np.sqrt(np.mean(error**2)) / truth_nm[inside].max())


def single_figures(maps: np.ndarray, images: SolidImages) -> dict[str, Any]:
    """Of pictures of one object each: IoU, thickness RMSE over the largest, volume error; per dose, class and focus.

    ``thickness_rmse``: as the network says, from the picture and the pixel size alone. ``_of_shape``: with the scale
    that fits best, which leaves the map's shape to be judged. ``_calibrated``: with the scale from the signal of a
    calibrated detector and a known mean free path.
    """
    iou, size = outline_iou(maps, images.instances), images.column("pixel_size_nm")
    truth_nm = images.thickness_nm.astype(float)
    columns = {
        name: images.column(name)
        for name in ("black_level", "gain", "mean_free_path_nm", "dose_per_px", "defocus_sigma_px")
    }
    rows = []
    for i in range(len(images)):
        inside = images.instances[i] > 0
        if not inside.any():
            continue
        given = maps[i, ..., THICKNESS] * size[i]
        signal = (images.pixels[i] / 255 - columns["black_level"][i]) / columns["gain"][i]
        beside = float(np.clip(np.median(signal[(images.instances[i] == 0) & (maps[i, ..., OUTLINE] < 0.5)]), 0, 0.9))
        scale = scaled_by_signal(
            given[inside], signal[inside], columns["mean_free_path_nm"][i], -float(np.log1p(-beside))
        )
        best = float((given * truth_nm[i])[inside].sum() / max(float((given[inside] ** 2).sum()), 1e-9))
        rows.append(
            (
                iou[i],
                thickness_error(given, truth_nm[i], inside),
                thickness_error(best * given, truth_nm[i], inside),
                thickness_error(np.nan_to_num(scale) * given, truth_nm[i], inside),
                given.sum() * size[i] ** 2 / images.column("volume_nm3")[i] - 1,
                columns["dose_per_px"][i],
                images.label[i],
                columns["defocus_sigma_px"][i],
            )
        )
    table = np.array(rows)
    return _summary(table) | {
        "per_dose": {
            f"{low:g} to {high:g}": _summary(table[(table[:, 5] >= low) & (table[:, 5] <= high)])
            for low, high in pairwise(DOSE_EDGES)
            if ((table[:, 5] >= low) & (table[:, 5] <= high)).any()
        },
        "per_class": {BODIES[int(label)]: _summary(table[table[:, 6] == label]) for label in np.unique(table[:, 6])},
        "per_focus": {
            name: _summary(table[rows])
            for name, rows in (("in focus", table[:, 7] == 0), ("out of focus", table[:, 7] > 0))
            if rows.any()
        },
    }


def _summary(table: np.ndarray) -> dict[str, float]:
    return {
        "outline_iou": float(np.nanmean(table[:, 0])),
        "outline_iou_median": float(np.nanmedian(table[:, 0])),
        "thickness_rmse": float(table[:, 1].mean()),
        "thickness_rmse_of_shape": float(table[:, 2].mean()),
        "thickness_rmse_calibrated": float(table[:, 3].mean()),
        "volume_relative_error_median": float(np.median(np.abs(table[:, 4]))),
        "n": len(table),
    }


def several_figures(maps: np.ndarray, images: SolidImages) -> dict[str, float]:
    """Of fields of several objects: how many are found as one object each, and with which overlap."""
    n_truth = n_found = n_matched = 0
    overlaps = []
    for i in range(len(images)):
        found = separate(maps[i])
        truth = images.instances[i]
        n_found += int(found.max())
        for number in np.unique(truth[truth > 0]):
            here = truth == number
            if here.sum() < 30:
                continue
            n_truth += 1
            numbers, counts = np.unique(found[here], return_counts=True)
            best = max(
                (count / (here | (found == k)).sum() for k, count in zip(numbers, counts, strict=True) if k > 0),
                default=0.0,
            )
            n_matched += best >= _MATCH_IOU
            overlaps.append(best)
    return {
        "recall": n_matched / max(n_truth, 1),
        "precision": n_matched / max(n_found, 1),
        "mean_iou_of_matched": float(np.mean([o for o in overlaps if o >= _MATCH_IOU] or [np.nan])),
        "n_objects": n_truth,
        "outline_iou": float(np.nanmean(outline_iou(maps, images.instances))),
    }
