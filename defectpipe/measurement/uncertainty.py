"""Standard uncertainty of a measured diameter: what its image leaves open, and how an expert's own marks scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from defectpipe.settings import MeasurementSettings


@dataclass(frozen=True)
class UncertaintySettings:
    """What makes up the uncertainty; all but the last two as shares of the diameter.

    `rim` and `departure` were fitted to the held-out loops of folds 0 to 2 of the FeCrAl set (largest likelihood of
    Student's t about the labels, the expert's scatter held), `expert` and `expert_px` to 256 loops that the expert
    labelled twice, in neighbouring fields that overlap: ``make bench-diameters`` repeats both, and checks the coverage
    on folds 3 and 4 and on simulated loops. How far flood and contour disagree had no weight in that fit.

    Attributes
    ----------
    rim : float
        Over the significance of the rim (its contrast along the ellipse over the contrast's standard error).
    departure : float
        Of the logarithm of the ellipse's long side over the box's: box and image are independent witnesses.
    expert : float
        Scatter of one expert's marks of the same loop. 0, as `expert_px`: the measurement alone.
    expert_px : float
        The part of it that does not grow with the loop.
    """

    rim: float = 0.31
    departure: float = 0.49
    expert: float = MeasurementSettings.expert_scatter
    expert_px: float = MeasurementSettings.expert_scatter_px


def diameter_uncertainty(
    diameter_px: float, significance: float, departure: float, settings: UncertaintySettings
) -> float:
    """Standard uncertainty of a diameter, px.

    Parameters
    ----------
    diameter_px : float
    significance : float
        Of the rim, positive.
    departure : float
        Logarithm of the long side of the ellipse's bounding box over that of the screener's box (tight).
    settings : UncertaintySettings

    Returns
    -------
    float
        Root of the sum of the squares of all parts.
    """
    relative = math.hypot(
        settings.rim / max(significance, 1.0),
        settings.departure * departure,
        settings.expert,
    )
    return math.hypot(relative * diameter_px, settings.expert_px)
