"""Watershed flood, closed contour, ellipse fit and uncertainty of each loop."""

from defectpipe.measurement.loops import MEASUREMENT_COLUMNS, FloodSettings, measure
from defectpipe.measurement.uncertainty import UncertaintySettings

__all__ = ["MEASUREMENT_COLUMNS", "FloodSettings", "UncertaintySettings", "measure"]
