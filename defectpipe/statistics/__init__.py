"""Distributions, densities and agreement with labels, with confidence intervals."""

from defectpipe.statistics.agreement import agreement, evaluate, reference_expert
from defectpipe.statistics.images import image_statistics
from defectpipe.statistics.summary import pooled_summary

__all__ = ["agreement", "evaluate", "image_statistics", "pooled_summary", "reference_expert"]
