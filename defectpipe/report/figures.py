"""The figures of the report, from the tables of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from defectpipe.report import text
from defectpipe.report.plots import Plot, ticks

MOST_LINKED_POINTS = 300
"""Of more images the points of a figure are one shape, without links of their own."""

_MOST_BINS = 32
_MOST_STEPS = 400


def histogram_edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins of a round width near Freedman and Diaconis' (1981), at most 32 of them.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Finite, at least one.

    Returns
    -------
    ndarray, shape (n_bins + 1,)
        Multiples of the width; the first at or below the smallest value, the last above the largest.
    """
    low, high = float(values.min()), float(values.max())
    quarter, three_quarters = np.percentile(values, [25, 75])
    width = 2 * (three_quarters - quarter) / len(values) ** (1 / 3)
    width = max(width, (high - low) / (_MOST_BINS - 2))
    if not width > 0:
        width = max(abs(high), 1.0) / 10
    decade = 10.0 ** math.floor(math.log10(width))
    width = next(m * decade for m in (1, 2, 2.5, 5, 10) if m * decade >= width * (1 - 1e-9))
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return np.arange(first, last + 1) * width


def diameter_histogram(
    loops: np.ndarray, labels: np.ndarray | None, unit: str, name: str
) -> tuple[Markup, list[dict[str, Any]]]:
    """Number of loops by diameter, with the labels' outlined over it; and its bars, for the lists of their loops.

    Parameters
    ----------
    loops, labels : ndarray, shape (n,)
        Diameters of uncut loops and labels; at least one of all of them. None: no labels.
    unit : str
    name : str
        What the names of the bars' lists begin with.

    Returns
    -------
    svg : Markup
    bars : list of dict
        Of each bar with loops: ``id``, ``low``, ``high`` (edges; `high` belongs to the next one), ``n``, ``said``.
    """
    edges = histogram_edges(loops if labels is None else np.concatenate([loops, labels]))
    heights = np.histogram(loops, edges)[0]
    others = None if labels is None else np.histogram(labels, edges)[0]
    top = max(1, heights.max(initial=0), 0 if others is None else others.max(initial=0))
    plot = Plot(
        "Histogram of the diameters", f"diameter ({unit})", "number of loops", (edges[0], edges[-1]), (0, 1.08 * top)
    )
    titles = [
        f"{text.figure(a)} to {text.figure(b)} {unit}: {n} {'loop' if n == 1 else 'loops'}"
        for a, b, n in zip(edges[:-1], edges[1:], heights, strict=True)
    ]
    names = [f"{name}-{k}" for k in range(len(heights))]
    plot.bars("loops", edges, heights, titles, [f"#{one}" for one in names])
    bars = [
        {"id": names[k], "low": float(edges[k]), "high": float(edges[k + 1]), "n": int(heights[k]), "said": titles[k]}
        for k in np.flatnonzero(heights)
    ]
    plot.legend("loops", f"loops, n = {len(loops)}", "bar")
    if labels is not None and others is not None:
        plot.outline("labels", edges, others)
        plot.legend("labels", f"labels, n = {len(labels)}")
    return plot.svg(), bars


def cumulative_curve(loops: np.ndarray, labels: np.ndarray | None, unit: str) -> Markup:
    """Part of the loops up to a diameter; parameters as in `diameter_histogram`."""
    together = loops if labels is None else np.concatenate([loops, labels])
    low, high = float(together.min()), float(together.max())
    margin = 0.03 * (high - low) or 0.5
    plot = Plot(
        "Cumulative curve of the diameters",
        f"diameter ({unit})",
        "cumulative fraction",
        (low - margin, high + margin),
        (0, 1.04),
    )
    for series, values in (("loops", loops), ("labels", labels)):
        if values is not None and len(values):
            xs, ys = _steps(np.sort(values))
            plot.line(series, [low - margin, *xs, high + margin], [0, *ys, 1])
            plot.legend(series, f"{series}, n = {len(values)}")
    return plot.svg()


def image_by_image(
    title: str,
    y_label: str,
    values: np.ndarray,
    intervals: tuple[np.ndarray, np.ndarray],
    pooled: tuple[float | None, float | None, float | None],
    names: Sequence[str],
    links: Sequence[str],
) -> Markup:
    """One figure of each image, with its interval, over the image's number; the pooled one behind.

    Parameters
    ----------
    title, y_label : str
    values : ndarray, shape (n,)
        NaN: unknown.
    intervals : pair of ndarray, shape (n,)
        Lower and upper ends.
    pooled : (float, float, float)
        The figure of the folder, and its interval; None: unknown.
    names, links : sequence of str
        Of the points.
    """
    lows, highs = intervals
    every = np.concatenate([values, lows, highs, [v for v in pooled if v is not None]])
    every = every[np.isfinite(every)]
    top = 1.06 * every.max() if len(every) else 1.0
    plot = _over_images(title, y_label, len(values), (0, top or 1.0))
    centre, low, high = pooled
    if low is not None and high is not None:
        plot.band("pooled", low, high)
    if centre is not None:
        plot.level("pooled", centre)
        plot.legend("pooled", "pooled, with its interval" if low is not None else "pooled", "line")
    xs = np.arange(1, len(values) + 1)
    plot.intervals("loops", xs, lows, highs)
    _add_points(plot, "loops", values, names, links)
    plot.legend("loops", "image", "point")
    return plot.svg()


def agreement_by_image(recall: np.ndarray, precision: np.ndarray, names: Sequence[str], links: Sequence[str]) -> Markup:
    """Recall and precision of each image over its number; NaN where undefined."""
    plot = _over_images("Recall and precision of each image", "recall, precision", len(recall), (0, 1.05))
    _add_points(plot, "recall", recall, names, links, "recall ")
    _add_points(plot, "precision", precision, names, links, "precision ")
    plot.legend("recall", "recall", "point")
    plot.legend("precision", "precision", "point")
    return plot.svg()


def precision_recall(curve: Mapping[str, Any], here: tuple[float | None, float | None]) -> Markup:
    """The precision-recall curve, with the point at which the run worked.

    Parameters
    ----------
    curve : mapping
        ``recall`` and ``precision``, lists of one length.
    here : (float, float)
        Recall and precision of the run.
    """
    plot = Plot("Precision-recall curve", "recall", "precision", (0, 1), (0, 1.05))
    plot.line("loops", curve["recall"], curve["precision"])
    plot.legend("loops", "threshold of the screener varied")
    recall, precision = here
    if recall is not None and precision is not None:
        plot.points("here", np.array([recall]), np.array([precision]), ["this run"], ["#agreement"])
        plot.legend("here", "this run", "point")
    return plot.svg()


def focus_by_density(
    focus: np.ndarray, values: np.ndarray, y_label: str, names: Sequence[str], links: Sequence[str]
) -> Markup:
    """Loops found beside the focus score of each image: whether blur hides some."""
    known = np.isfinite(focus) & np.isfinite(values)
    top = 1.06 * values[known].max() if known.any() else 1.0
    plot = Plot("Focus score beside loops", "focus score", y_label, (0, 10), (0, top or 1.0))
    kept = np.flatnonzero(known).tolist()
    if len(kept) <= MOST_LINKED_POINTS:
        titles = [f"{names[k]}: focus {text.figure(focus[k], 3)}" for k in kept]
        plot.points("loops", focus[kept], values[kept], titles, [links[k] for k in kept])
    else:
        plot.points("loops", focus[kept], values[kept])
    return plot.svg()


def _over_images(title: str, y_label: str, n: int, y_range: tuple[float, float]) -> Plot:
    marks = [k for k in ticks(1, max(n, 2), at_most=10) if k == int(k) and 1 <= k <= n] or [1]
    return Plot(title, "image (its number in the table)", y_label, (0.4, n + 0.6), y_range, marks)


def _add_points(
    plot: Plot, series: str, values: np.ndarray, names: Sequence[str], links: Sequence[str], before: str = ""
) -> None:
    xs = np.arange(1, len(values) + 1)
    if len(values) > MOST_LINKED_POINTS:
        plot.points(series, xs, values)
        return
    titles = [f"{name}: {before}{text.figure(value, 3)}" for name, value in zip(names, values, strict=True)]
    plot.points(series, xs, values, titles, links)


def _steps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the empirical distribution function of sorted values, thinned where there are very many."""
    n = len(values)
    keep = np.unique(np.linspace(0, n - 1, min(n, _MOST_STEPS)).round().astype(int))
    heights = (keep + 1) / n
    before = np.concatenate([[0.0], heights[:-1]])
    return np.repeat(values[keep], 2), np.stack([before, heights], 1).ravel()
