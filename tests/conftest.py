"""Shared fixtures: where the real micrographs are, if they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import defectpipe

# A loaded machine is slow, not wrong. CI draws the same examples each time; people's runs go on searching.
settings.register_profile("defectpipe", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("defectpipe")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real micrographs; tests that need it skip where it is absent."""
    place = Path(os.environ.get("DEFECTPIPE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"the real micrographs are not here ({place}); set DEFECTPIPE_DATA to their folder")
    return place


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The toy chain in place of the real one, in this process; gives the file that lists what it computes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toy"))
    import toy_chain

    for name in ("analysis", "model"):
        monkeypatch.setitem(sys.modules, f"defectpipe.{name}", toy_chain)
        monkeypatch.setattr(defectpipe, name, toy_chain, raising=False)
    log = tmp_path / "computed.log"
    monkeypatch.setenv("TOY_LOG", str(log))
    return log


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that of several processes none is left with it at the end."""
    slow = {item.path for item in items if item.path.suffix == ".ipynb" or item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
