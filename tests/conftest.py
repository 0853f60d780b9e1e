"""Shared fixtures: where the real micrographs are, if they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real micrographs; tests that need it skip where it is absent."""
    place = Path(os.environ.get("DEFECTPIPE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"the real micrographs are not here ({place}); set DEFECTPIPE_DATA to their folder")
    return place
