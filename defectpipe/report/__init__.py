"""Pictures and reports of a run."""
