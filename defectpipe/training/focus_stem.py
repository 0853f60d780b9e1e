"""Patches of loop images with a known focus: real and simulated fields, defocused, their noise put back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defectpipe.focus_scale import STEM_LIMITS, FocusLimits, defocus_of_blur, score_of_blur
from defectpipe.simulation.defocused import defocus

PATCH_PX = 256
# What lies around a patch blurs into it.
_MARGIN_PX = 64
# Total blurs up to this factor beyond the scale's end: there is more than one way to be lost.
_BEYOND = 1.25
_GAUSSIAN_SHARE = 0.3
_NOISIER_SHARE = 0.3
_MOST_NOISE = 20.0  # grey levels


@dataclass(frozen=True, eq=False)
class FocusField:
    """A field in focus, at the resolution that the focus model works at.

    Parameters
    ----------
    grey : ndarray of uint8, shape (height, width)
    group : str
    fold : int
    """

    grey: np.ndarray
    group: str
    fold: int


@dataclass(frozen=True, eq=False)
class FocusPatches:
    """Patches with their scores.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, `PATCH_PX`, `PATCH_PX`)
    scores : ndarray of float64, shape (n,)
    fields : ndarray of int64, shape (n,)
        Index of the field that each is from.
    """

    pixels: np.ndarray
    scores: np.ndarray
    fields: np.ndarray


def defocused_patches(
    fields: Sequence[FocusField],
    n_per_field: int,
    seed: int,
    limits: FocusLimits = STEM_LIMITS,
    scores: Sequence[float] | None = None,
) -> FocusPatches:
    """Cut patches out of fields, each blurred to a score drawn evenly from 1 to 10, and a little beyond 1.

    A field as it is counts as blurred by ``limits.perfect_px``: what it really was is not known of real ones, so a
    field that was softer than that is worse than its score says, most of all near 10.

    Parameters
    ----------
    fields : sequence of FocusField
        At least `PATCH_PX` a side.
    n_per_field : int
    seed : int
    limits : FocusLimits
    scores : sequence of float, optional
        Instead of drawn ones, these, in turn, without the additional noise that training has.

    Returns
    -------
    FocusPatches
    """
    pixels, found, origin = [], [], []
    least = 10 - 9 * np.log(_BEYOND * limits.lost_px / limits.perfect_px) / np.log(limits.lost_px / limits.perfect_px)
    for index, field in enumerate(fields):
        rng = np.random.default_rng([seed, index])
        for k in range(n_per_field):
            asked = rng.uniform(least, 10.4) if scores is None else scores[k % len(scores)]
            total = limits.perfect_px * (limits.lost_px / limits.perfect_px) ** ((10 - min(asked, 10.0)) / 9)
            patch = _defocused(field.grey, defocus_of_blur(total, limits.perfect_px), rng)
            if scores is None and rng.random() < _NOISIER_SHARE:
                patch = np.clip(patch + rng.normal(0, rng.uniform(0, _MOST_NOISE), patch.shape), 0, 255)
            pixels.append(np.rint(patch).astype(np.uint8))
            found.append(score_of_blur(float(total), limits))
            origin.append(index)
    return FocusPatches(np.stack(pixels), np.array(found), np.array(origin))


def _defocused(grey: np.ndarray, added_px: float, rng: np.random.Generator) -> np.ndarray:
    y, x = (int(rng.integers(0, n - PATCH_PX, endpoint=True)) for n in grey.shape)
    top, left = max(y - _MARGIN_PX, 0), max(x - _MARGIN_PX, 0)
    around = grey[top : y + PATCH_PX + _MARGIN_PX, left : x + PATCH_PX + _MARGIN_PX]
    kind = "gaussian" if rng.random() < _GAUSSIAN_SHARE else "disc"
    patch = defocus(around, added_px, rng, kind)[y - top : y - top + PATCH_PX, x - left : x - left + PATCH_PX]
    turned = np.rot90(patch, int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def train_focus_stem(
    fields: Sequence[FocusField],
    folder: Path,
    working_pixel_size_nm: float,
    describe: Mapping[str, Any],
    *,
    n_per_field: int = 16,
    n_steps: int = 2000,
    seed: int = 0,
) -> Path:
    """Train a focus model for loop images, cross-validated by fold, and write its folder.

    Parameters
    ----------
    fields : sequence of FocusField
        Groups are never on both sides of a fold.
    folder : Path
    working_pixel_size_nm : float
        Of the fields; images are reduced to it before they are scored.
    describe : mapping
        For the card: data, licence.
    n_per_field, n_steps, seed : int

    Returns
    -------
    Path
        `folder`: network, ONNX, and a card with figures of groups that the network in question never saw.
    """
    from defectpipe.focus.backbones import prepare
    from defectpipe.networks.export import export_onnx, save_weights
    from defectpipe.networks.training import use_threads
    from defectpipe.training.focus_model import FOCUS_ONNX, FOCUS_WEIGHTS, write_focus_card

    use_threads(1)
    patches = defocused_patches(fields, n_per_field, seed)
    features = prepare("spectral", patches.pixels, None)["features"]
    folds = np.array([field.fold for field in fields])[patches.fields]
    groups = np.array([field.group for field in fields])[patches.fields]
    found = np.empty(len(folds))
    for fold in np.unique(folds):
        network = _fit(features[folds != fold], patches.scores[folds != fold], n_steps, seed)
        found[folds == fold] = np.clip(network.predict_on_batch(features[folds == fold])[:, 0], 0, 10)
    network = _fit(features, patches.scores, n_steps, seed)
    save_weights(network, folder / FOCUS_WEIGHTS)
    export_onnx(network, folder / FOCUS_ONNX)
    figures = held_out_focus_figures(found, patches.scores, groups, np.array([f.group for f in fields]))
    card = {
        "backbone": "spectral",
        "patch_shape_px": [PATCH_PX, PATCH_PX],
        "uses_magnification": False,
        "modality": "STEM",
        "working_pixel_size_nm": working_pixel_size_nm,
        "score_scale": dataclasses.asdict(STEM_LIMITS),
        "score_formula": "10 - 9 ln(sigma / perfect_px) / ln(lost_px / perfect_px), sigma in px of the working size",
        "error_std": figures["between_groups_std"],
        "held_out": figures,
        "recipe": {"n_steps": n_steps, "n_patches_per_field": n_per_field},
        "seed": seed,
        "n_images": len(fields),
        "n_patches": len(folds),
        "n_parameters": int(network.count_params()),
    }
    write_focus_card(folder, card | dict(describe))
    return folder


def held_out_focus_figures(
    found: np.ndarray, scores: np.ndarray, groups: np.ndarray, field_groups: np.ndarray
) -> dict[str, Any]:
    """Errors of held-out patches: root mean square over patches, that of always saying the mean, and group by group.

    Returns
    -------
    dict
        ``rmse``, ``rmse_of_the_mean``; ``between_groups_std``, the root mean square of the groups' mean errors, over
        all scores or over those above 8, whichever is larger: an image's median over tiles does not average it out;
        ``groups``.
    """
    errors = found - scores
    names = sorted(set(groups))
    by_group = {
        name: {
            "n_fields": int((field_groups == name).sum()),
            "rmse": _rounded(np.sqrt((errors[groups == name] ** 2).mean())),
            "bias": _rounded(errors[groups == name].mean()),
            "bias_above_8": _rounded(errors[(groups == name) & (scores > 8)].mean()),
        }
        for name in names
    }
    return {
        "rmse": _rounded(np.sqrt((errors**2).mean())),
        "rmse_of_the_mean": _rounded(scores.std()),
        "between_groups_std": _rounded(
            max(np.sqrt(np.mean([of[part] ** 2 for of in by_group.values()])) for part in ("bias", "bias_above_8"))
        ),
        "groups": by_group,
    }


def _fit(features: np.ndarray, scores: np.ndarray, n_steps: int, seed: int) -> Any:
    import keras

    from defectpipe.focus.backbones import find_backbone
    from defectpipe.focus.training import mean_squared_error
    from defectpipe.networks.training import fit

    keras.utils.set_random_seed(seed)
    network = find_backbone("spectral").build((PATCH_PX, PATCH_PX), False)
    rng, wanted = np.random.default_rng(seed), scores.astype(np.float32)[:, None]

    def batch() -> tuple[np.ndarray, np.ndarray]:
        rows = rng.choice(len(features), min(256, len(features)), replace=False)
        return features[rows], wanted[rows]

    fit(network, batch, mean_squared_error, n_steps=n_steps, peak_learning_rate=3e-3, weight_decay=2e-2)
    return network


def _rounded(value: float) -> float:
    return round(float(value), 3)
