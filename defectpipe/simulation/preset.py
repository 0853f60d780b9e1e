"""What the named settings of every simulator have in common."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

Range = tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """Settings of a series of simulated images.

    Parameters
    ----------
    name : str
        As on the command line.
    """

    name: str

    @property
    def categories(self) -> tuple[str, ...]:
        """Classes that are labelled; none: the series has no labels."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def sha256(self) -> str:
        """Hash of all settings."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
