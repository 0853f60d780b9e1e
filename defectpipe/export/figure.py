"""The distribution of the diameters, ready for a paper: one column wide, 8 pt, as SVG and PNG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from defectpipe.io.files import write_atomic

WIDTH_MM, HEIGHT_MM = 85.0, 60.0
DOTS_PER_INCH = 400
# Left, bottom, width, height as fractions: above them there is room for a legend of two lines.
_AXES = (0.13, 0.17, 0.84, 0.62)
_STYLE: Any = {
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Text stays text: an editor of the journal can change it.
    "svg.fonttype": "none",
    "svg.hashsalt": "defectpipe",
}
# Okabe & Ito: told apart by colour-blind eyes, and in grey by their line.
_FOUND, _LABELS = "#E69F00", "#0072B2"
_MOST_BINS = 60


@dataclass(frozen=True, eq=False)
class Diameters:
    """Diameters of uncut loops from one source.

    Parameters
    ----------
    name : str
        As the legend calls it, such as ``found``.
    values : ndarray, shape (n,)
    n_images : int
    """

    name: str
    values: np.ndarray
    n_images: int

    @property
    def legend(self) -> str:
        """What the legend says: name, number of loops, number of images, mean."""
        where = f"{self.n_images} image{'s' * (self.n_images != 1)}"
        return f"{self.name}: {len(self.values)} in {where}"


def write_diameter_figure(found: Diameters, labels: Diameters | None, unit: str, stem: Path) -> list[Path]:
    """Draw the distributions over common bins (`bin_edges`) and write ``STEM.svg``, ``STEM.png``.

    The height is the share of the source's loops in a bin: sources of different size can be compared.

    Parameters
    ----------
    found : Diameters
    labels : Diameters or None
        Of experts, where there are any.
    unit : str
        ``nm`` or ``px``.
    stem : Path
        Without extension.

    Returns
    -------
    list of Path
        The files written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    sources = [found] + ([labels] if labels is not None else [])
    written = []
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_MM / 25.4, HEIGHT_MM / 25.4))
        FigureCanvasAgg(figure)
        axes = figure.add_axes(_AXES)
        _draw(axes, sources, bin_edges(np.concatenate([source.values for source in sources])))
        axes.set_xlabel(f"loop diameter ({unit})")
        axes.set_ylabel("share of the loops (%)")
        axes.set_ylim(bottom=0)
        figure.legend(loc="upper left")
        for suffix, canvas, options in (
            (".svg", FigureCanvasSVG, {"metadata": {"Date": None, "Creator": None}}),
            (".png", FigureCanvasAgg, {"metadata": {"Software": None}, "dpi": DOTS_PER_INCH}),
        ):
            path = stem.with_name(stem.name + suffix)
            write_atomic(path, partial(canvas(figure).print_figure, **options))
            written.append(path)
    return written


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of histogram bins of a round width (1, 2, 5 times a power of ten), near Freedman & Diaconis 1981.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Positive; none, or all the same, give one bin or few.

    Returns
    -------
    ndarray
        Increasing; the first bin starts at a multiple of the width at or below the smallest value.
    """
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    quarter, three_quarters = np.percentile(values, [25, 75])
    wanted = max(2 * (three_quarters - quarter) / np.cbrt(len(values)), (high - low) / _MOST_BINS, 1e-3 * high)
    decade = 10.0 ** np.floor(np.log10(wanted))
    width = float(min((m * decade for m in (1, 2, 5, 10)), key=lambda w: abs(np.log(w / wanted))))
    first, end = np.floor(low / width), np.floor(high / width) + 1
    return np.arange(first, end + 1) * width


def _draw(axes: Any, sources: list[Diameters], edges: np.ndarray) -> None:
    for source, colour, filled in zip(sources, (_FOUND, _LABELS), (True, False), strict=False):
        counts, _ = np.histogram(source.values, edges)
        shares = 100 * counts / max(1, len(source.values))
        if filled:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.55, label=source.legend)
            axes.stairs(shares, edges, color=colour)
        else:
            axes.stairs(shares, edges, color=colour, linestyle="--", linewidth=1.2, label=source.legend)
