"""Watershed flood and ellipse fit of each loop."""
