"""Watershed flood and ellipse fit of each loop."""

from defectpipe.measurement.loops import MEASUREMENT_COLUMNS, FloodSettings, measure

__all__ = ["MEASUREMENT_COLUMNS", "FloodSettings", "measure"]
