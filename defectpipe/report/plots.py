"""Axes and marks as SVG. Colours and fonts are the style sheet's: a plot suits light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 560.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 14.0, 34.0, 50.0


def ticks(low: float, high: float, at_most: int = 7) -> list[float]:
    """Round numbers (1, 2, 2.5, 5 times a power of ten) from `low` to `high`, at most so many."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    decade = 10.0 ** math.floor(math.log10(span / at_most))
    step = next(m * decade for m in (1, 2, 2.5, 5, 10, 20) if span / (m * decade) <= at_most - 1 + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


class Plot:
    """One plot: linear axes with ticks and labels, a legend above, marks as they are added.

    Parameters
    ----------
    title : str
        Read out by screen readers, and shown above.
    x_label, y_label : str
        With units.
    x_range, y_range : (float, float)
    x_ticks : sequence of float, optional
        Default: round numbers.
    """

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_ticks: Sequence[float] | None = None,
    ) -> None:
        self.title, self.x_label, self.y_label = title, x_label, y_label
        self.x_range, self.y_range = _widened(x_range), _widened(y_range)
        self.x_ticks = list(ticks(*self.x_range)) if x_ticks is None else list(x_ticks)
        self._marks: list[Markup] = []
        self._links_inside = False
        self._legend: list[tuple[str, str, str]] = []

    def x(self, value: float) -> float:
        """Position of a value, in units of the drawing."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Position of a value, in units of the drawing; rows run down."""
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def legend(self, series: str, text: str, mark: str = "line") -> None:
        """An entry of the legend: ``line``, ``bar``, ``band`` or ``point`` of a series' style."""
        self._legend.append((series, text, mark))

    def bars(
        self, series: str, edges: np.ndarray, heights: np.ndarray, titles: Sequence[str], links: Sequence[str]
    ) -> None:
        """Filled bars of a histogram, each a link with its title; the column above a bar belongs to the link."""
        self._links_inside = True
        for (left, right), height, title, link in zip(pairwise(edges), heights, titles, links, strict=True):
            if height:
                x, y, bottom = self.x(left), self.y(height), self.y(0)
                width = max(0.5, self.x(right) - x - 0.8)
                self._marks.append(
                    Markup(
                        '<a href="{}" aria-label="{}"><title>{}</title>'
                        '<rect class="column" x="{x}" y="{}" width="{width}" height="{}"/>'
                        '<rect class="bar {}" x="{x}" y="{}" width="{width}" height="{}"/></a>'
                    ).format(
                        *(link, title, title, _n(_TOP), _n(bottom - _TOP), series, _n(y), _n(bottom - y)),
                        x=_n(x),
                        width=_n(width),
                    )
                )

    def outline(self, series: str, edges: np.ndarray, heights: np.ndarray) -> None:
        """Outline of a histogram."""
        xs = np.repeat(edges, 2)
        ys = np.concatenate([[0], np.repeat(heights, 2), [0]])
        self.line(series, xs, ys)

    def line(self, series: str, xs: Iterable[float], ys: Iterable[float]) -> None:
        """A line through points."""
        points = " ".join(f"{_n(self.x(x))},{_n(self.y(y))}" for x, y in zip(xs, ys, strict=True))
        if points:
            self._marks.append(Markup('<polyline class="line {}" points="{}"/>').format(series, points))

    def level(self, series: str, value: float) -> None:
        """A level line over the whole width."""
        self.line(series, self.x_range, (value, value))

    def band(self, series: str, low: float, high: float) -> None:
        """A level band over the whole width, cut to the plot."""
        low, high = max(low, self.y_range[0]), min(high, self.y_range[1])
        if high > low:
            self._marks.append(
                Markup('<rect class="band {}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    series,
                    _n(_LEFT),
                    _n(self.y(high)),
                    _n(WIDTH - _LEFT - _RIGHT),
                    _n(self.y(low) - self.y(high)),
                )
            )

    def intervals(self, series: str, xs: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> None:
        """Vertical intervals; those that are unknown are left out."""
        d = "".join(
            f"M{_n(self.x(x))} {_n(self.y(low))}V{_n(self.y(high))}"
            for x, low, high in zip(xs, lows, highs, strict=True)
            if math.isfinite(low) and math.isfinite(high)
        )
        if d:
            self._marks.append(Markup('<path class="interval {}" d="{}"/>').format(series, d))

    def points(
        self,
        series: str,
        xs: np.ndarray,
        ys: np.ndarray,
        titles: Sequence[str] | None = None,
        links: Sequence[str] | None = None,
    ) -> None:
        """Points; with titles and links each is an anchor of its own, without them they are one shape."""
        shown = [k for k in range(len(xs)) if math.isfinite(ys[k])]
        if titles is None or links is None:
            d = "".join(f"M{_n(self.x(xs[k]))} {_n(self.y(ys[k]))}h0" for k in shown)
            if d:
                self._marks.append(Markup('<path class="dots {}" d="{}"/>').format(series, d))
            return
        for k in shown:
            place = {"x": self.x(xs[k]), "y": self.y(ys[k])}
            self._marks.append(
                Markup('<a href="{}" tabindex="-1"><{} class="point {}" {}><title>{}</title></{}></a>').format(
                    links[k], *_mark(series, **place), titles[k], _shape(series)
                )
            )

    def svg(self) -> Markup:
        """The plot."""
        parts = [
            # An image has no parts for a screen reader; links that the keyboard reaches are parts.
            Markup('<svg class="plot" viewBox="0 0 {} {}" role="{}" aria-label="{}">').format(
                _n(WIDTH), _n(HEIGHT), "group" if self._links_inside else "img", self.title
            ),
            *self._frame(),
            *self._marks,
            *self._legend_marks(),
            Markup("</svg>"),
        ]
        return Markup("").join(parts)

    def _frame(self) -> list[Markup]:
        left, right, bottom, top = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM, _TOP
        parts = []
        values = ticks(*self.y_range, at_most=6)
        for value, text in zip(values, _texts(values), strict=True):
            y = self.y(value)
            parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_n(left), _n(y), _n(right)))
            parts.append(_text(left - 7, y + 4, text, "end"))
        for value, text in zip(self.x_ticks, _texts(self.x_ticks), strict=True):
            x = self.x(value)
            parts.append(Markup('<path class="axis" d="M{} {}v5"/>').format(_n(x), _n(bottom)))
            parts.append(_text(x, bottom + 19, text, "middle"))
        parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_n(left), _n(top), _n(bottom), _n(right)))
        parts.append(_text((left + right) / 2, HEIGHT - 8, self.x_label, "middle", "label"))
        middle = (top + bottom) / 2
        parts.append(
            Markup(
                '<text class="label" text-anchor="middle" transform="translate(15 {}) rotate(-90)">{}</text>'
            ).format(_n(middle), self.y_label)
        )
        return parts

    def _legend_marks(self) -> list[Markup]:
        parts, x, y = [], _LEFT + 4, 15.0
        for series, text, mark in self._legend:
            if mark in ("bar", "band"):
                swatch = Markup('<rect class="{} {}" x="{}" y="{}" width="18" height="10"/>').format(
                    mark, series, _n(x), _n(y - 9)
                )
            elif mark == "point":
                swatch = Markup('<{} class="point {}" {}/>').format(*_mark(series, x + 9, y - 4))
            else:
                swatch = Markup('<path class="line {}" d="M{} {}h18"/>').format(series, _n(x), _n(y - 4))
            parts += [swatch, _text(x + 24, y, text, "start")]
            # Widths of letters are not known here; this is on the wide side for a font of 12 units.
            x += 24 + 6.6 * len(text) + 18
        return parts


def _shape(series: str) -> str:
    return "rect" if series in ("labels", "precision") else "circle"


def _mark(series: str, x: float, y: float) -> tuple[str, str, Markup]:
    """A square for labels and precision, else a circle: the shape tells them apart where colours do not."""
    if _shape(series) == "rect":
        place = Markup('x="{}" y="{}" width="7" height="7"').format(_n(x - 3.5), _n(y - 3.5))
    else:
        place = Markup('cx="{}" cy="{}" r="4"').format(_n(x), _n(y))
    return _shape(series), series, place


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, _n(x), _n(y), anchor, escape(text)
    )


def _texts(values: Sequence[float]) -> list[str]:
    """Numbers at ticks, with the decimals that tell them apart."""
    for decimals in range(7):
        texts = [f"{value:.{decimals}f}" for value in values]
        if all(abs(float(text) - value) <= 1e-9 + 1e-6 * abs(value) for text, value in zip(texts, values, strict=True)):
            break
    return [text.replace("-", "−") for text in texts]


def _n(value: float) -> str:
    """A coordinate, as short as a tenth of a unit needs."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (low, high) if high > low else (low - 0.5, low + 0.5)
