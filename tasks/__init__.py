"""The pipeline as Luigi tasks: parameters, requirements, fingerprints, engines. The algorithms are in `defectpipe`."""

# The package's face registers the tasks; whichever of the two is imported first, it comes before any of them.
import defectpipe  # noqa: F401
