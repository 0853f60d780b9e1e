"""Micrographs from files: pixels at their full depth, pixel size with its source, one error type."""

from defectpipe.io.micrographs.pixel_sizes import read_pixel_sizes
from defectpipe.io.micrographs.read import (
    MAX_PIXELS,
    MIN_SIDE_PX,
    Header,
    count_frames,
    read_header,
    read_micrographs,
    sha256_of,
)

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "Header",
    "count_frames",
    "read_header",
    "read_micrographs",
    "read_pixel_sizes",
    "sha256_of",
]
