"""Gentle AdaBoost over LBP codes: one stage of a cascade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

N_CODES = 256
_STUMPS_SPLIT_EXACTLY = 8
# OpenCV passes a stage when its sum reaches the stored threshold less this.
PASS_MARGIN = np.float32(1e-5)


@dataclass(frozen=True, eq=False)
class Stump:
    """One weak classifier: the codes in `subset` answer `inside`, the others `outside`."""

    feature: int
    subset: np.ndarray
    inside: np.float32
    outside: np.float32

    def table(self) -> np.ndarray:
        """Answer for each of the 256 codes, float32."""
        return np.where(self.subset, self.inside, self.outside).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stage:
    """A sum of stumps that a window passes at `threshold` or above."""

    stumps: tuple[Stump, ...]
    threshold: np.float32


@njit(cache=True, fastmath=True)
def _rank_features(
    codes: np.ndarray,
    chosen: np.ndarray,
    positives: np.ndarray,
    positive_weights: np.ndarray,
    negatives: np.ndarray,
    negative_weights: np.ndarray,
) -> np.ndarray:
    """Quality of an approximate best two-way split of each chosen feature's codes, ordered by mean response."""
    quality = np.empty(len(chosen), np.float32)
    hist_p = np.empty((4, 256), np.float32)
    hist_n = np.empty((4, 256), np.float32)
    for k in range(0, len(chosen), 4):
        # Four features at once: a sum waits for the one before it in its own histogram only.
        rows = chosen[np.minimum(np.arange(k, k + 4), len(chosen) - 1)]
        hist_p[:] = 0
        hist_n[:] = 0
        _add_up(codes[rows[0]], codes[rows[1]], codes[rows[2]], codes[rows[3]], positives, positive_weights, hist_p)
        _add_up(codes[rows[0]], codes[rows[1]], codes[rows[2]], codes[rows[3]], negatives, negative_weights, hist_n)
        for j in range(min(4, len(chosen) - k)):
            quality[k + j] = _split_quality(hist_p[j], hist_n[j])
    return quality


@njit(cache=True)
def _add_up(  # type: ignore[no-untyped-def]
    first, second, third, fourth, samples, weights, hist
):
    """Add the samples' weights to the histograms of four features' codes."""
    for i in range(len(samples)):
        sample, weight = samples[i], weights[i]
        hist[0, first[sample]] += weight
        hist[1, second[sample]] += weight
        hist[2, third[sample]] += weight
        hist[3, fourth[sample]] += weight


@njit(cache=True, fastmath=True)
def _split_quality(hist_p: np.ndarray, hist_n: np.ndarray) -> np.float32:
    bin_p = np.zeros(64, np.float32)
    bin_n = np.zeros(64, np.float32)
    total_p = np.float32(0)
    total_n = np.float32(0)
    for j in range(256):
        weight = hist_p[j] + hist_n[j]
        if weight > 0:
            b = int(hist_p[j] / weight * np.float32(63) + np.float32(0.5))
            bin_p[b] += hist_p[j]
            bin_n[b] += hist_n[j]
            total_p += hist_p[j]
            total_n += hist_n[j]
    left_p = np.float32(0)
    left_n = np.float32(0)
    best = np.float32(0)
    for b in range(63):
        left_p += bin_p[b]
        left_n += bin_n[b]
        left = left_p + left_n
        right = total_p + total_n - left
        if left > 1e-7 and right > 1e-7:
            left_sum = left_p - left_n
            right_sum = total_p - total_n - left_sum
            value = left_sum * left_sum / left + right_sum * right_sum / right
            best = max(best, value)
    return best


def split_codes(row: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float, float, float] | None:
    """Best two-way split of one feature's codes by weighted least squares, as OpenCV's `find_split_cat_reg` makes it.

    Parameters
    ----------
    row : ndarray of uint8, shape (n,)
        Codes of the samples.
    y : ndarray, shape (n,)
        +1 or −1.
    weights : ndarray, shape (n,)

    Returns
    -------
    (subset, inside, outside, quality) or None
        Which of the 256 codes go to the first leaf, both leaves' answers, and the quality; None if nothing splits.
    """
    total = np.bincount(row, weights=weights, minlength=N_CODES)
    signed = np.bincount(row, weights=weights * y, minlength=N_CODES)
    mean = np.divide(signed, total, out=np.zeros(N_CODES), where=total > 0)
    order = np.argsort(mean, kind="stable")
    order = order[total[order] > np.finfo(np.float32).eps]
    if len(order) < 2:
        return None
    left, left_sum = np.cumsum(total[order])[:-1], np.cumsum(signed[order])[:-1]
    right, right_sum = total[order].sum() - left, signed[order].sum() - left_sum
    usable = (left > 1e-7) & (right > 1e-7)
    if not usable.any():
        return None
    quality = np.full(len(left), -1.0)
    quality[usable] = left_sum[usable] ** 2 / left[usable] + right_sum[usable] ** 2 / right[usable]
    k = int(quality.argmax())
    subset = mean <= mean[order[k]]
    subset[order[k + 1 :]] = False
    return subset, float(left_sum[k] / left[k]), float(right_sum[k] / right[k]), float(quality[k])


def train_stage(
    codes: np.ndarray,
    is_loop: np.ndarray,
    *,
    hit_rate: float,
    false_alarm_rate: float,
    max_stumps: int,
    rng: np.random.Generator,
    weight_trim: float = 0.95,
    feature_share: float = 0.3,
) -> tuple[Stage, float]:
    """Boost stumps until the stage lets at most `false_alarm_rate` of the negatives through.

    Parameters
    ----------
    codes : ndarray of uint8, shape (features, samples)
    is_loop : ndarray of bool, shape (samples,)
    hit_rate : float
        Share of the positives that the stage's threshold keeps.
    false_alarm_rate : float
        Share of the negatives at which it stops.
    max_stumps : int
        It stops there too, whatever the false alarms.
    rng : Generator
        Draws `feature_share` of the features in each round.
    weight_trim : float
        Samples that hold the smallest weights, 1 − `weight_trim` in all, sit out the next round.

    Returns
    -------
    (stage, float)
        The stage, and its false-alarm rate on these samples.
    """
    n_features, n_samples = codes.shape
    y = np.where(is_loop, 1.0, -1.0)
    weights = np.full(n_samples, 1.0 / n_samples)
    active = np.ones(n_samples, bool)
    sums = np.zeros(n_samples)
    stumps: list[Stump] = []
    threshold, false_alarms = np.float32(0), 1.0
    while len(stumps) < max_stumps:
        drawn = np.sort(rng.choice(n_features, max(64, int(n_features * feature_share)), replace=False))
        positives, negatives = (np.flatnonzero(active & side).astype(np.uint32) for side in (is_loop, ~is_loop))
        quality = _rank_features(
            codes,
            drawn,
            positives,
            weights[positives].astype(np.float32),
            negatives,
            weights[negatives].astype(np.float32),
        )
        stump = _best_stump(
            codes, drawn[np.argsort(-quality, kind="stable")[:_STUMPS_SPLIT_EXACTLY]], y, weights, active
        )
        if stump is None:
            break
        stumps.append(stump)
        answer = stump.table()[codes[stump.feature]].astype(np.float64)
        sums += answer
        weights = weights * np.exp(-y * answer)
        weights /= weights.sum()
        rising = np.sort(weights)
        active = weights >= rising[min(int(np.searchsorted(np.cumsum(rising), 1 - weight_trim)), n_samples - 1)]
        loop_sums = np.sort(sums[is_loop])
        threshold = np.float32(loop_sums[int((1 - hit_rate) * len(loop_sums))])
        false_alarms = float((sums[~is_loop] >= threshold - PASS_MARGIN).mean())
        if false_alarms <= false_alarm_rate:
            break
    return Stage(tuple(stumps), threshold), false_alarms


def _best_stump(
    codes: np.ndarray, features: np.ndarray, y: np.ndarray, weights: np.ndarray, active: np.ndarray
) -> Stump | None:
    samples = np.flatnonzero(active)
    best, best_quality = None, -np.inf
    for feature in features:
        split = split_codes(codes[feature, samples], y[samples], weights[samples])
        if split is not None and split[3] > best_quality:
            best_quality = split[3]
            best = Stump(int(feature), split[0], np.float32(split[1]), np.float32(split[2]))
    return best
