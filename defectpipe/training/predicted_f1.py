"""The predicted F1 of a model: made from, and judged on, images that each fold's model never saw."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from defectpipe.settings import Settings
from defectpipe.statistics.predicted_f1 import FEATURES, LOWEST_SCORE, F1Predictor, logits, score_features
from defectpipe.statistics.scoring import Objects, f1_of, matched_pairs, score
from defectpipe.training.figures import HeldOut

DEGRADED_FILE = "degraded.parquet"
"""Held-out images defocused on purpose, beside the other held-out tables of a model."""

LEAST_IMAGES = 20
"""Of fewer judged images, or of fewer than three folds, no prediction is made."""

COVERAGE = 0.9
"""Part of the errors that the interval holds."""

# Ridge on standardised features; from 10 to 100 the held-out error of models/fecral-loops is the same within 0.0005.
_PENALTY = 30.0
_CALIBRATION_PENALTY = 0.01
_N_RESAMPLES = 500
_SEED = 0


@dataclass(frozen=True, eq=False)
class JudgedImages:
    """Images with what the model that never saw them found, and how right that was.

    Parameters
    ----------
    rows : DataFrame
        ``image``, ``group``, ``fold``, ``degraded`` (defocused on purpose), ``threshold``, ``pixel_size_ratio`` (NaN:
        unknown), ``n_labels``, ``n_found``, ``n_loops``, ``n_true``, ``f1``; only images with a label or a loop.
    scores : sequence of ndarray
        Of each row, the screening scores of all that was listed and that the border does not cut.
    loops : DataFrame
        Loops to calibrate on, of images that are not degraded: ``fold``, ``screening_score``, ``is_true``.
    """

    rows: pd.DataFrame
    scores: list[np.ndarray]
    loops: pd.DataFrame

    def subset(self, wanted: np.ndarray) -> JudgedImages:
        """Some of the images, with all of the loops."""
        chosen = [scores for scores, is_wanted in zip(self.scores, wanted, strict=True) if is_wanted]
        return JudgedImages(self.rows[wanted].reset_index(drop=True), chosen, self.loops)

    @property
    def f1(self) -> np.ndarray:
        """F1 of each image, one to one."""
        return self.rows["f1"].to_numpy(float)

    @property
    def folds(self) -> np.ndarray:
        """Fold of each image."""
        return self.rows["fold"].to_numpy(int)


def judge_images(
    held_out: HeldOut,
    thresholds: Mapping[int, float],
    pixel_sizes_nm: Mapping[str, float | None],
    working_pixel_size_nm: float | None,
    degraded: pd.DataFrame | None = None,
) -> JudgedImages:
    """Score every held-out image at the threshold that the other folds choose.

    Parameters
    ----------
    held_out : HeldOut
    thresholds : mapping of int to float
        By fold.
    pixel_sizes_nm : mapping of str to float or None
    working_pixel_size_nm : float or None
    degraded : DataFrame, optional
        Rows of held-out images that were defocused on purpose: ``image``, ``n_labels``, ``n_found``, ``n_loops``,
        ``n_true``, ``screening_scores`` (a list a row, as `JudgedImages.scores`), ``added_sigma_px``; those of which
        nothing was added are the plain images again, and left out.
    """
    settings = Settings().statistics
    by_image = {str(image): part for image, part in held_out.loops.groupby("image")}
    rows: list[dict[str, Any]] = []
    scores: list[np.ndarray] = []
    calibrated = []
    for image in held_out.shapes:
        fold = held_out.folds[image]
        loops = by_image.get(image, held_out.loops.iloc[:0])
        marked = held_out.marked(image)
        kept = loops[loops["screening_score"] >= thresholds[fold]]
        counts = score(marked, Objects.from_loops(kept), settings)["one_to_one"]
        rows.append({"image": image, "degraded": False, "counts": counts})
        listed = loops[(loops["screening_score"] >= LOWEST_SCORE) & ~loops["on_edge"].to_numpy(bool)]
        scores.append(listed["screening_score"].to_numpy(float))
        pairs = matched_pairs(marked, Objects.from_loops(listed), settings.match_iou)
        is_true = np.isin(np.arange(len(listed)), pairs[:, 1])
        calibrated.append(listed.assign(is_true=is_true, fold=fold)[["fold", "screening_score", "is_true"]])
    if degraded is not None and "screening_scores" in degraded:
        for row in degraded[degraded["added_sigma_px"] > 0].to_dict("records"):
            counts = np.array([row[name] for name in ("n_labels", "n_found", "n_loops", "n_true")])
            rows.append({"image": str(row["image"]), "degraded": True, "counts": counts})
            scores.append(np.asarray(row["screening_scores"], float))
    table = pd.DataFrame(rows)
    counts = np.stack(table.pop("counts").to_list())
    table = table.assign(
        group=table["image"].map(dict(held_out.groups)),
        fold=table["image"].map(dict(held_out.folds)),
        **{name: counts[:, i] for i, name in enumerate(("n_labels", "n_found", "n_loops", "n_true"))},
        f1=f1_of(counts),
    )
    ratios = {i: (s or np.nan) / (working_pixel_size_nm or np.nan) for i, s in pixel_sizes_nm.items()}
    table = table.assign(
        threshold=table["fold"].map(dict(thresholds)), pixel_size_ratio=table["image"].map(ratios).astype(float)
    )
    judged = JudgedImages(table, scores, pd.concat(calibrated, ignore_index=True))
    return judged.subset(table["f1"].notna().to_numpy(bool))


def predicted_f1_card(judged: JudgedImages) -> dict[str, Any]:
    """What the card says of it: the predictor, and how far it was right; or why there is none.

    Returns
    -------
    dict
        `F1Predictor.to_card` with ``n_images``, ``n_degraded_images``, ``validation`` (`leave_fold_out_figures` of the
        plain images, of those and the degraded ones, each where there are any); else ``skipped``: the reason.
    """
    n_folds = len(set(judged.folds.tolist()))
    plain = ~judged.rows["degraded"].to_numpy(bool)
    if plain.sum() < LEAST_IMAGES or n_folds < 3:
        return {
            "skipped": f"{int(plain.sum())} images in {n_folds} folds can be judged; a prediction needs "
            f"{LEAST_IMAGES} in 3 folds"
        }
    if judged.loops["is_true"].nunique() < 2:
        return {"skipped": "all of the loops found are true, or none is: there is nothing to learn from"}
    validation = {"plain": leave_fold_out_figures(judged, plain)}
    if not plain.all():
        validation["plain_and_degraded"] = leave_fold_out_figures(judged, np.ones(len(plain), bool))
    return fit_predictor(judged).to_card() | {
        "n_images": int(plain.sum()),
        "n_degraded_images": int((~plain).sum()),
        "validation": validation,
    }


def fit_predictor(judged: JudgedImages) -> F1Predictor:
    """The predictor made from all images; its interval from the errors on folds that were left out."""
    errors = judged.f1 - leave_fold_out(judged)
    variance, per_loop, width = fit_spread(errors, judged.rows["n_loops"].to_numpy(float))
    return _fit(judged, set(judged.folds.tolist()), (variance, per_loop, width))


def leave_fold_out(judged: JudgedImages) -> np.ndarray:
    """Predicted F1 of each image from a calibration and a line that the other folds make."""
    folds = judged.folds
    predicted = np.zeros(len(folds))
    for fold in sorted(set(folds.tolist())):
        others = set(folds.tolist()) - {fold}
        predictor = _fit(judged, others)
        here = folds == fold
        predicted[here] = predictor.line(_features(judged.subset(here), predictor))
    return predicted


def leave_fold_out_figures(judged: JudgedImages, counted: np.ndarray) -> dict[str, Any]:
    """How far the prediction is right on folds that it was not made from.

    Parameters
    ----------
    judged : JudgedImages
    counted : ndarray of bool, shape (n,)
        The images that it is made from and judged on.

    Returns
    -------
    dict
        ``n_images``; mean absolute errors: ``mae``, ``mae_of_the_mean`` (always predicting the mean of the other
        folds), ``gain`` (1 − their ratio), ``mae_of_counting`` (see `counting_error`), ``gain_at_most`` (1 − that over
        ``mae_of_the_mean``); ``correlation``; ``coverage`` of the interval, its width chosen on the other folds.
    """
    part = judged.subset(counted)
    folds, f1, predicted = part.folds, part.f1, leave_fold_out(part)
    of_mean = np.concatenate([np.abs(f1[folds == k] - f1[folds != k].mean()) for k in np.unique(folds)]).mean()
    mae, counting = float(np.abs(predicted - f1).mean()), counting_error(part.rows)
    n_loops, inside = part.rows["n_loops"].to_numpy(float), np.zeros(len(f1), bool)
    for fold in np.unique(folds):
        here = folds == fold
        variance, per_loop, width = fit_spread((f1 - predicted)[~here], n_loops[~here])
        inside[here] = np.abs(f1 - predicted)[here] <= width * np.sqrt(variance + per_loop / (n_loops[here] + 1))
    figures = {
        "mae": mae,
        "mae_of_the_mean": float(of_mean),
        "gain": float(1 - mae / of_mean),
        "mae_of_counting": counting,
        "gain_at_most": float(1 - counting / of_mean),
        "correlation": float(np.corrcoef(predicted, f1)[0, 1]) if predicted.std() > 0 and f1.std() > 0 else 0.0,
        "coverage": float(inside.mean()),
    }
    return {"n_images": len(f1)} | {name: round(value, 4) for name, value in figures.items()}


def counting_error(rows: pd.DataFrame) -> float:
    """Mean absolute error that counting alone brings: what is left if the true rates of an image were known.

    True, false and missed loops of an image are drawn anew, independently (Poisson), at the rates of the images of its
    group (those degraded, whose rates vary, at their own); the error is that of the F1 drawn against that of the rates.
    """
    rng = np.random.default_rng(_SEED)
    true = (rows["n_true"] + rows["n_found"]).to_numpy(float) / 2
    each = np.stack([true, rows["n_loops"] - true, rows["n_labels"] - true], 1).clip(0)
    rates = each.copy()
    plain = ~rows["degraded"].to_numpy(bool)
    for group in rows["group"].unique():
        here = plain & (rows["group"] == group).to_numpy(bool)
        share = each[here].sum(0) / max(each[here].sum(), 1e-9)
        rates[here] = each[here].sum(1, keepdims=True) * share
    drawn = rng.poisson(rates, (_N_RESAMPLES, *rates.shape))
    known, found = _f1_of_parts(rates), _f1_of_parts(drawn)
    return float(np.nanmean(np.abs(found - known)))


def fit_spread(errors: np.ndarray, n_loops: np.ndarray) -> tuple[float, float, float]:
    """Variance of the errors that stays, that per loop, and the standard deviations that hold `COVERAGE` of them."""
    design = np.stack([np.ones(len(errors)), 1 / (n_loops + 1)], 1)
    (variance, per_loop), _ = nnls(design, errors**2)
    sigma = np.sqrt(np.maximum(design @ np.array([variance, per_loop]), 1e-8))
    return float(variance), float(per_loop), float(np.quantile(np.abs(errors) / sigma, COVERAGE))


def _fit(
    judged: JudgedImages, folds: Collection[int], spread: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> F1Predictor:
    """Calibration and line from some folds."""
    loops = judged.loops[judged.loops["fold"].isin(list(folds))]
    calibration = _logistic(logits(loops["screening_score"].to_numpy(float)), loops["is_true"].to_numpy(float))
    n, ones = len(FEATURES), np.ones(len(FEATURES))
    draft = F1Predictor(calibration, np.zeros(n), ones, ones, 0.0, *spread, coverage=COVERAGE)
    part = judged.subset(np.isin(judged.folds, list(folds)))
    features, f1 = _features(part, draft), part.f1
    means, scales = features.mean(0), np.maximum(features.std(0), 1e-6)
    z = (features - means) / scales
    slopes = np.linalg.solve(z.T @ z + _PENALTY * np.eye(n), z.T @ (f1 - f1.mean()))
    return F1Predictor(calibration, means, scales, slopes, float(f1.mean()), *spread, coverage=COVERAGE)


def _features(judged: JudgedImages, predictor: F1Predictor) -> np.ndarray:
    rows = judged.rows
    return np.stack(
        [
            score_features(scores, threshold, predictor.probabilities(scores), ratio if ratio > 0 else None)
            for scores, threshold, ratio in zip(judged.scores, rows["threshold"], rows["pixel_size_ratio"], strict=True)
        ]
    )


def _logistic(z: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """Offset and slope of the logit of the probability, by Newton's method with a slight penalty."""
    design, values = np.stack([np.ones(len(z)), z], 1), np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-design @ values))
        slope = (design * (p * (1 - p))[:, None]).T @ design + _CALIBRATION_PENALTY * np.eye(2)
        values = values + np.linalg.solve(slope, design.T @ (is_true - p) - _CALIBRATION_PENALTY * values)
    return values


def _f1_of_parts(parts: np.ndarray) -> np.ndarray:
    """F1 from numbers of true, false and missed loops, shape (..., 3); NaN where there is none of all."""
    both = 2 * parts[..., 0] + parts[..., 1] + parts[..., 2]
    return np.divide(2 * parts[..., 0], both, out=np.full(both.shape, np.nan), where=both > 0)
