"""A finished run, read again: its tables, its pictures, and what its figures would be at other thresholds."""

from defectpipe.review.run_folder import RunFolder
from defectpipe.review.selection import Selection, agreement_of, at_threshold, sensitivity

__all__ = ["RunFolder", "Selection", "agreement_of", "at_threshold", "sensitivity"]
