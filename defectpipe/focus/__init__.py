"""How sharp a micrograph is."""

from defectpipe.focus.measures import MEASURES, octave_spectrum

__all__ = ["MEASURES", "octave_spectrum"]
