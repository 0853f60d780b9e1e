"""Dislocation loops in irradiated alloys, among what else a real foil shows."""
