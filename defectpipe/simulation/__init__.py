"""Simulated micrographs with exact truth, for the demonstration, the tests, and training."""
