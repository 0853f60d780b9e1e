"""Annular dark-field STEM images of 3-D objects, by integration of their thickness along the beam."""
