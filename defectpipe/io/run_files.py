"""Where a run keeps what it found, stage by stage and image by image, below its output folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".defectpipe"


@dataclass(frozen=True)
class ResultFiles:
    """Where one stage keeps the result of one image: its table, and the stamp that is written last."""

    table: Path
    stamp: Path


def result_files(output_dir: Path, stage: str, image: str) -> ResultFiles:
    """Where the result of one image is; independent of the other images and of how the names sort or look."""
    key = image_key(image)
    folder = output_dir / STATE_FOLDER / stage / key[:2]
    return ResultFiles(folder / f"{key}.parquet", folder / f"{key}.json")


def image_key(image: str) -> str:
    """A file name for whatever is kept of an image: fixed length, and different for any two images."""
    return hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
