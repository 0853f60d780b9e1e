"""Means, standard deviations and their confidence intervals, all seeded.

Every pooled figure of the project is a function of sums over independent groups (loops of an image, fields, families):
a recall is found over labelled, a mean is sum over count. One function, `grouped_interval`, therefore serves them all:
a bootstrap over the groups, or Student's t on jackknife pseudo-values below eight groups, where the bootstrap is too
narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special  # scipy.stats costs half a second at every start

from defectpipe.settings import StatisticsSettings

FEWEST_FOR_BOOTSTRAP = 8
"""Below this number of groups an interval is Student's t."""

_CHUNK = 2_000_000

Interval = tuple[float | None, float | None]
Statistic = Callable[[np.ndarray], np.ndarray]


def mean_and_std(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean, and standard deviation with ddof 1.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN entries (not measured) are left out.

    Returns
    -------
    mean, std : float or None
        The mean is None without values, the standard deviation with fewer than two.
    """
    values = _finite(values)
    mean = float(values.mean()) if len(values) else None
    return mean, float(values.std(ddof=1)) if len(values) > 1 else None


def mean_interval(
    values: np.ndarray, settings: StatisticsSettings, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """Confidence interval of the mean of independent values: bootstrap, Student's t below eight values.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN entries are left out.
    settings : StatisticsSettings
        Confidence, number of resamples, seed.
    bounds : tuple of float
        What the mean can be at least and at most; the interval is cut there.

    Returns
    -------
    low, high : float or None
        In the unit of `values`; None with fewer than two values.
    """
    values = _finite(values)
    return grouped_interval(np.stack([values, np.ones_like(values)], 1), ratio, settings, bounds)


def grouped_interval(
    sums: np.ndarray,
    statistic: Statistic,
    settings: StatisticsSettings,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Confidence interval of a statistic of sums over independent groups.

    From eight groups on: percentile bootstrap over the groups, its percentiles widened by what plain ones miss in small
    samples (the expanded percentile interval of Hesterberg 2015, The American Statistician 69, 371).
    Below eight: Student's t on the pseudo-values of the jackknife over groups; for a mean of equal groups this is the
    classical interval.

    Parameters
    ----------
    sums : ndarray, shape (n_groups, k)
        What each group adds to each of the k sums.
    statistic : callable
        Takes sums of shape (..., k), gives the statistic of shape (...), NaN where undefined (see `ratio`).
    settings : StatisticsSettings
        Confidence, number of resamples, seed.
    bounds : tuple of float
        Range of the statistic; an interval never leaves it.

    Returns
    -------
    low, high : float or None
        None with fewer than two groups, or where the statistic is undefined for the data or too many resamples.
    """
    sums = np.asarray(sums, float)
    n = len(sums)
    if n < 2 or not np.isfinite(statistic(sums.sum(0))):
        return None, None
    t = float(special.stdtrit(n - 1, 0.5 + settings.confidence / 2))
    if n < FEWEST_FOR_BOOTSTRAP:
        low, high = _jackknife(sums, statistic, t)
    else:
        tail = float(special.ndtr(-t * np.sqrt(n / (n - 1))))
        low, high = _bootstrap(sums, statistic, tail, settings)
    if not (np.isfinite(low) and np.isfinite(high)):
        return None, None
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def ratio(sums: np.ndarray) -> np.ndarray:
    """First of two sums over the second, NaN where the second is 0."""
    sums = np.asarray(sums, float)
    top, bottom = sums[..., 0], sums[..., 1]
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def std_of_sums(sums: np.ndarray) -> np.ndarray:
    """Standard deviation (ddof 1) from the sums of values, of their squares, and their number; NaN below two."""
    sums = np.asarray(sums, float)
    total, squares, n = sums[..., 0], sums[..., 1], sums[..., 2]
    mean_square = np.divide(total * total, n, out=np.zeros(n.shape), where=n > 0)
    variance = np.divide(squares - mean_square, n - 1, out=np.full(n.shape, np.nan), where=n > 1)
    return np.sqrt(np.clip(variance, 0, None))


def sum_by_group(sums: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Rows added up by group, in the order of the sorted group names.

    Parameters
    ----------
    sums : ndarray, shape (n, k)
    groups : sequence of str
        The group of each row.

    Returns
    -------
    ndarray, shape (n_groups, k)
    """
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    out = np.zeros((len(names), np.shape(sums)[1]))
    np.add.at(out, index, np.asarray(sums, float))
    return out


def interval_name(n_groups: int, unit: str) -> str:
    """How an interval over `n_groups` groups was made, in words, for the tables."""
    if n_groups < 2:
        return f"none: {n_groups or 'no'} {unit}"
    method = "Student's t" if n_groups < FEWEST_FOR_BOOTSTRAP else "bootstrap"
    return f"{method} over {n_groups} {unit}s"


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]


def _jackknife(sums: np.ndarray, statistic: Statistic, t: float) -> tuple[float, float]:
    n, total = len(sums), sums.sum(0)
    pseudo = n * statistic(total) - (n - 1) * statistic(total - sums)
    half = t * pseudo.std(ddof=1) / np.sqrt(n)
    # Centred on the estimate itself rather than on the pseudo-values' mean: the interval holds the reported figure.
    centre = float(statistic(total))
    return centre - half, centre + half


def _bootstrap(
    sums: np.ndarray, statistic: Statistic, tail: float, settings: StatisticsSettings
) -> tuple[float, float]:
    n = len(sums)
    rng = np.random.default_rng(settings.seed)
    step = max(1, _CHUNK // n)
    resampled = np.empty((settings.n_resamples, sums.shape[1]))
    for start in range(0, settings.n_resamples, step):
        drawn = rng.integers(0, n, (min(step, settings.n_resamples - start), n), dtype=np.int64)
        # No matrix product: the order of a BLAS sum depends on its threads, and tables must not.
        for k in range(sums.shape[1]):
            resampled[start : start + len(drawn), k] = sums[:, k][drawn].sum(1)
    values = statistic(resampled)
    values = values[np.isfinite(values)]
    if len(values) < settings.n_resamples / 2:
        return np.nan, np.nan
    low, high = np.percentile(values, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)
