"""The card of a model: what it was made from, how it is used, and what it reached on images it never saw."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from defectpipe.training.figures import HeldOut
from defectpipe.training.recipe import TrainingRecipe
from defectpipe.training.versions import versions

_PACKAGES = ("defectpipe", "numpy", "opencv-python-headless", "numba", "tensorflow", "keras", "onnxruntime")


def model_card(
    name: str,
    usage: dict[str, Any],
    figures: dict[str, Any],
    held_out: HeldOut,
    pixel_sizes_nm: list[float],
    recipe: TrainingRecipe,
    seed: int,
) -> dict[str, Any]:
    """Contents of ``card.json``.

    Parameters
    ----------
    usage : dict
        What the analysis needs to use the model (`part.part_card`).
    figures : dict
        See `figures.held_out_figures`.
    held_out : HeldOut
        Of all training images, also of those that are in no fold.
    pixel_sizes_nm : list of float
        Of the training images where they are known.
    """
    folds = Counter(fold for fold in held_out.folds.values() if fold >= 0)
    return usage | {
        "name": name,
        "description": recipe.description,
        "threshold": figures["threshold"],
        "box_scale": figures["box_scale"],
        "tight_scale": figures["tight_scale"],
        "box_convention_note": (
            "boxes padded as Li, Field & Morgan 2018 pad them: each side L of the tight box enlarged by "
            "min(max(5, round(0.3 L)), 15) px"
            if recipe.box_convention == "padded"
            else "boxes bound the loop tightly"
        ),
        "data": {
            "source": recipe.data_source,
            "licence": recipe.data_licence,
            "n_images": len(held_out.shapes),
            "n_labels": int(sum(len(table) for table in held_out.labels.values())),
            "n_groups": len(set(held_out.groups.values())),
            "pixel_size_nm": _range(pixel_sizes_nm),
            "n_images_without_pixel_size": len(held_out.shapes) - len(pixel_sizes_nm),
            "label_long_side_px": _range(
                [
                    side
                    for table in held_out.labels.values()
                    for side in np.maximum(table["x1_px"] - table["x0_px"], table["y1_px"] - table["y0_px"])
                ]
            ),
        },
        "folds": {str(fold): folds[fold] for fold in sorted(folds)},
        "held_out": figures,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "versions": versions(_PACKAGES),
        "reproducibility": (
            "The same seed gives the same cascade on any machine of one family, and the same screener on one machine "
            "with one version of TensorFlow: each part trains on one thread."
        ),
    }


def _range(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, [0, 50, 100])
    return {"min": round(float(low), 5), "median": round(float(middle), 5), "max": round(float(high), 5)}
