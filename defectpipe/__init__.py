"""Dislocation loops in electron micrographs: found, measured in nanometres, counted with their uncertainty."""
