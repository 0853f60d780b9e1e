"""Which images a model was trained on: names, groups, folds, and hashes of their pixels; no pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from defectpipe.io.tables import read_parquet, write_parquet
from defectpipe.micrograph import Micrograph

IMAGE_LIST = "held-out/images.parquet"
"""Of a model's folder."""

NO_FOLD = -1
"""Fold of an image that every part of a training learns from, and that no figure is of."""

_COLUMNS = ["image", "group", "fold", "pixels_sha256"]


def write_image_list(
    folder: Path, images: Sequence[tuple[str, str, Micrograph]], folds: Sequence[int], start: Path | None = None
) -> Path:
    """List in a model's folder which images it was trained on.

    Parameters
    ----------
    folder : Path
        Of the model.
    images : sequence of (str, str, Micrograph)
        Name, group, and the image itself.
    folds : sequence of int
        Of each image.
    start : Path, optional
        Folder of the model that this one was started from: the images of its list join this one, in no fold.

    Returns
    -------
    Path
        `IMAGE_LIST` in the folder: ``image``, ``group``, ``fold`` (−1: none), ``pixels_sha256``.
    """
    rows = [(name, group, fold, pixel_sha256(m.grey8())) for (name, group, m), fold in zip(images, folds, strict=True)]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    if start is not None:
        theirs = read_parquet(start / IMAGE_LIST)[_COLUMNS].assign(fold=NO_FOLD)
        theirs = theirs[~theirs["pixels_sha256"].isin(table["pixels_sha256"])]
        table = pd.concat([table, theirs], ignore_index=True) if len(theirs) else table
    write_parquet(table, folder / IMAGE_LIST)
    return folder / IMAGE_LIST


def pixels_known_to(model: Path) -> set[str] | None:
    """Hashes of the pixels of the images that a model, or one that it was started from, learned from.

    None: its folder has no list of them.
    """
    try:
        return set(read_parquet(model / IMAGE_LIST)["pixels_sha256"])
    except (OSError, KeyError, ValueError):
        return None


def pixel_sha256(grey: np.ndarray) -> str:
    """Hash of an image's 8-bit pixels and shape, whatever its name and format."""
    total = hashlib.sha256(json.dumps(grey.shape).encode())
    total.update(np.ascontiguousarray(grey, np.uint8).tobytes())
    return total.hexdigest()
