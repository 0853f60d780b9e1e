"""Distributions, densities and agreement with labels."""
