"""What a result was made from: kept beside it, compared before it is used again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from defectpipe.io.files import write_atomic

# The part that stands for everything the stage before it has made, and what is said when it alone has changed.
UPSTREAM = "upstream"
UPSTREAM_CHANGED = f"{UPSTREAM} changed"
_MOST_NAMES = 3


@dataclass(frozen=True)
class Inputs:
    """Everything that a result depends on, by name, so that a change can be named too.

    Parameters
    ----------
    parts : dict
        Plain JSON values: algorithm version, settings, hashes, the upstream fingerprint.
    reading : dict
        What only decides whether the file can be read at all; compared for failed results only.
    """

    parts: dict[str, Any]
    reading: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of the parts."""
        return digest(self.parts)


@dataclass(frozen=True)
class Stamp:
    """How a result came about: its inputs, whether it failed and why, what the file held, the seconds it took."""

    parts: dict[str, Any]
    reading: dict[str, Any] = field(default_factory=dict)
    failed: bool = False
    reason: str = ""
    frames: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def stale_because(self, inputs: Inputs) -> str:
        """What differs between these inputs and the result's, in a few words; empty when nothing does."""
        names = [name for name in {**self.parts, **inputs.parts} if self.parts.get(name) != inputs.parts.get(name)]
        # A change upstream is only worth naming when nothing else explains it.
        names = [name for name in names if name != UPSTREAM] or names
        if not names and self.failed and self.reading != inputs.reading:
            names = list(inputs.reading)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"{', '.join(names[:_MOST_NAMES])}{more} changed" if names else ""


def digest(value: Any) -> str:
    """Hash of a plain JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write a stamp in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(stamp), sort_keys=True).encode())


def read_stamp(path: Path) -> Stamp | None:
    """The stamp, or None where there is none that can be understood."""
    try:
        return Stamp(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def stale_because(path: Path, inputs: Inputs, *files: Path) -> str:
    """Why the result stamped at `path`, with its `files`, has to be made (again), in a few words; empty: it has not."""
    stamp = read_stamp(path)
    if stamp is None:
        return "new"
    if not stamp.failed and not all(file.is_file() for file in files):
        return "result gone"
    return stamp.stale_because(inputs)
