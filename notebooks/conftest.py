"""Notebooks as tests: those that show the demonstration's run share it, also where several are tried at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
DEMONSTRATION = HERE.parent / "demo-defects" / "summary.json"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Until the run is there, one notebook at a time: the first one makes it, and a second run at once is refused."""
    if "../demo-defects" not in item.path.read_text(encoding="utf-8"):
        return (yield)
    folder = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if DEMONSTRATION.is_file():
            fcntl.flock(folder, fcntl.LOCK_UN)
        return (yield)
    finally:
        os.close(folder)
