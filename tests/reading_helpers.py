"""One micrograph read, or refused: what the tests of the readers share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs import count_frames, read_micrographs
from defectpipe.micrograph import Micrograph


def read_one(path: Path, **options: object) -> Micrograph:
    """The only frame of a file."""
    frames = read_micrographs(path, **options)  # type: ignore[arg-type]
    assert len(frames) == count_frames(path) == 1
    return frames[0]


def refused(path: Path, reason: str, **options: object) -> None:
    """The file is refused by the one exception type, in a sentence that starts with its name."""
    with pytest.raises(MicrographError, match=rf"^{re.escape(path.name)}: .*(?:{reason})") as caught:
        read_micrographs(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
