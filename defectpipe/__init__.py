"""Dislocation loops in electron micrographs: found, measured in nanometres, counted with their uncertainty."""

from tasks.register import register

__version__ = "0.1.0"

# So that `luigi --module defectpipe RunAll` finds its defaults and its tasks in any folder.
register()
