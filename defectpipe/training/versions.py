"""What a model was trained with, for its card."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of these packages, by name."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
