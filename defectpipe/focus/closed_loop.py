"""Focusing by itself: a controller that sees nothing but the focus of one frame after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The step to a new place is at most so many times the range looked at so far: a parabola of noisy points can lie.
_FARTHEST = 2.0
_GOLDEN = (math.sqrt(5) - 1) / 2
# Beyond this share of the largest blur that the score can tell, one blur looks like the other.
_SATURATED = 0.9
_ALIKE = 1.05


@dataclass(frozen=True, eq=False)
class Search:
    """A search for the best focus.

    Parameters
    ----------
    best : float
        Where the focus is taken to be best, in the unit of the control.
    places : ndarray of float64, shape (n_evaluations,)
        Where frames were taken, in turn.
    """

    best: float
    places: np.ndarray

    @property
    def n_evaluations(self) -> int:
        """Frames that it took."""
        return len(self.places)


def focus_by_blur(
    blur_at: Callable[[float], float],
    start: float,
    step: float,
    tolerance: float,
    largest_blur: float = math.inf,
    max_evaluations: int = 20,
) -> Search:
    """Find the best focus from the blur that a calibrated score stands for.

    Out of focus the square of the blur grows as that of the distance: three frames give the parabola, and its vertex is
    where to look next. A measure that is not calibrated has only "more" and "less", and needs a bracket. Each point
    counts by its relative error, which for a score, a logarithm of the blur, is the same everywhere.

    Parameters
    ----------
    blur_at : callable
        Takes a frame at a place of the control and gives its blur, in any unit of length.
    start, step : float
        The first frame is taken at `start`, the second a `step` beside it.
    tolerance : float
        It ends when the next frame would be no further than this from the best so far.
    largest_blur : float
        The blur at which the scale of the score ends; there the parabola does not hold.
    max_evaluations : int

    Returns
    -------
    Search
    """
    places, blurs = [start], [blur_at(start)]
    at, best = start + step, start
    while len(places) < max_evaluations:
        places.append(at)
        blurs.append(blur_at(at))
        sharpest = int(np.argmin(blurs))
        told = [k for k, blur in enumerate(blurs) if blur < _SATURATED * largest_blur]
        vertex = _vertex(np.array([places[k] for k in told]), np.array([blurs[k] for k in told]))
        span = max(places) - min(places)
        if vertex is None:
            best = places[sharpest]
            # downhill, with longer strides; from the second frame on it is known where that is
            at = _downhill(places, blurs, span)
            continue
        best = float(np.clip(vertex, min(places) - _FARTHEST * span, max(places) + _FARTHEST * span))
        if min(abs(best - place) for place in places) <= tolerance:
            break
        at = best
    return Search(best, np.array(places))


def golden_section(measure_at: Callable[[float], float], low: float, high: float, tolerance: float) -> Search:
    """Find the largest value of a measure with one maximum, by golden section.

    Source: Kiefer 1953, Proceedings of the American Mathematical Society 4:502-506.

    Parameters
    ----------
    measure_at : callable
        Takes a frame at a place of the control and measures it: the larger, the sharper.
    low, high : float
        The maximum lies between.
    tolerance : float
        It ends when the maximum is known to this distance either way.

    Returns
    -------
    Search
    """
    first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    places, values = [first, second], [measure_at(first), measure_at(second)]
    left, right = values
    while high - low > 2 * tolerance:
        if left > right:
            high, second, right = second, first, left
            first = high - _GOLDEN * (high - low)
            left = measure_at(first)
            places.append(first)
        else:
            low, first, left = first, second, right
            second = low + _GOLDEN * (high - low)
            right = measure_at(second)
            places.append(second)
    return Search((low + high) / 2, np.array(places))


def _vertex(places: np.ndarray, blurs: np.ndarray) -> float | None:
    """Where the parabola of the squared blurs is lowest; None where the points do not give one that opens upwards."""
    if len(np.unique(places)) < 3:
        return None
    squares = blurs**2
    centre, scale = places.mean(), max(np.ptp(places) / 2, 1e-12)
    u = (places - centre) / scale
    # relative errors: each row over its own square
    rows = np.stack([np.ones_like(u), u, u**2], 1) / squares[:, None]
    (_, slope, bend), *_ = np.linalg.lstsq(rows, np.ones_like(u), rcond=None)
    return float(centre - slope / (2 * bend) * scale) if bend > 1e-9 else None


def _downhill(places: list[float], blurs: list[float], span: float) -> float:
    if max(blurs) < _ALIKE * min(blurs):
        # nothing tells where to go: to either side in turn
        return min(places) - span if places[-1] == max(places) else max(places) + span
    best = places[int(np.argmin(blurs))]
    if best == max(places):
        return best + span
    if best == min(places):
        return best - span
    # the sharpest lies inside, yet no parabola: into the wider gap beside it
    below, above = max(p for p in places if p < best), min(p for p in places if p > best)
    return (best + below) / 2 if best - below > above - best else (best + above) / 2
