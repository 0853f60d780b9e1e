"""What the image files themselves say, and the embedding of each: computed once, kept beside the results.

``.defectpipe/catalogue/NAME.parquet`` in the output folder holds them, `NAME` being the embedder's. Where that cannot
be written, they are in the catalogue alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from defectpipe.catalogue.descriptor import SIZE, Embedder
from defectpipe.catalogue.folders import PICTURES_FOLDER, OutputFolder, locate
from defectpipe.errors import MicrographError
from defectpipe.io.files import write_atomic
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.run_files import STATE_FOLDER
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.workers import begin_worker

_TYPES = pa.schema(
    [
        ("sha256", pa.string()),
        ("frame", pa.int64()),
        # Of the results; what the embedding was made with.
        ("used_pixel_size_nm", pa.float64()),
        ("height_px", pa.int64()),
        ("width_px", pa.int64()),
        ("pixel_size_nm", pa.float64()),
        ("pixel_size_source", pa.string()),
        ("magnification", pa.float64()),
        ("modality", pa.string()),
        ("voltage_kv", pa.float64()),
        ("notes", pa.string()),
        ("vector", pa.list_(pa.float32(), SIZE)),
    ]
)
# From which size on a picture stays in its file, where the format allows it.
_IN_FILE_ABOVE_PX = 2**26
_IMAGES_A_PROCESS = 20
Key = tuple[str, int, float | None]


@dataclass(frozen=True)
class Wanted:
    """An image file and the pixel sizes that its results were made with, by frame; no frame: whatever it holds."""

    image: str
    sha256: str
    pixel_sizes_nm: Mapping[int, float | None]


def pictures_of(
    folder: OutputFolder,
    wanted: Iterable[Wanted],
    embedder: Embedder,
    n_jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> list[dict[str, Any]]:
    """Facts and embeddings of images, from what is kept, else from the files, which are then read once.

    A file that is gone, or is another one by now, has none.

    Returns
    -------
    list of dict
        ``sha256``, ``frame``, ``used_pixel_size_nm``, what the file says, ``vector``; in the order of `wanted`.
    """
    path = folder.path / STATE_FOLDER / PICTURES_FOLDER / f"{embedder.name}.parquet"
    kept = _read(path)
    by_file: dict[str, list[Key]] = {}
    for key in kept:
        by_file.setdefault(key[0], []).append(key)
    found: dict[Key, dict[str, Any]] = {}
    missing = []
    for item in wanted:
        keys = [(item.sha256, frame, size) for frame, size in item.pixel_sizes_nm.items()] or [
            key for key in by_file.get(item.sha256, []) if key[2] is None
        ]
        if keys and all(key in kept for key in keys):
            found |= {key: kept[key] for key in keys}
        elif item.sha256:
            missing.append(item)
    for rows in _map(partial(_look_at, folder.images_dir, embedder), missing, n_jobs):
        found |= {_key(row): row for row in rows}
        if progress is not None:
            progress(1)
    if found.keys() != kept.keys():
        # A folder that cannot be written keeps nothing; the catalogue still does.
        with contextlib.suppress(OSError):
            write_atomic(path, lambda temporary: pq.write_table(_table(found), temporary, compression="zstd"))
    return list(found.values())


def _look_at(images_dir: Path, embedder: Embedder, item: Wanted) -> list[dict[str, Any]]:
    """Rows of one file, a frame each; none where it is gone, changed or cannot be read."""
    path = locate(images_dir, item.image)
    if path is None:
        return []
    try:
        frames = read_micrographs(
            path, image=item.image, colour="luminance", in_file_above_px=_IN_FILE_ABOVE_PX, data_bar="leave_out"
        )
    except MicrographError:
        return []
    if frames[0].sha256 != item.sha256:
        return []
    return [
        _row(frame, item.pixel_sizes_nm.get(frame.frame), embedder)
        for frame in frames
        if not item.pixel_sizes_nm or frame.frame in item.pixel_sizes_nm
    ]


def _row(micrograph: Micrograph, used_nm: float | None, embedder: Embedder) -> dict[str, Any]:
    height, width = micrograph.shape
    stated = micrograph.calibration
    seen = micrograph if used_nm is None else replace(micrograph, calibration=Calibration(used_nm, "results"))
    return {
        "sha256": micrograph.sha256,
        "frame": micrograph.frame,
        "used_pixel_size_nm": used_nm,
        "height_px": height,
        "width_px": width,
        "pixel_size_nm": None if stated is None else stated.pixel_size_nm,
        "pixel_size_source": None if stated is None else stated.source,
        "magnification": micrograph.magnification,
        "modality": micrograph.modality,
        "voltage_kv": micrograph.voltage_kv,
        "notes": "; ".join(micrograph.notes),
        "vector": np.asarray(embedder.embed(seen), np.float32),
    }


def _map(
    look: Callable[[Wanted], list[dict[str, Any]]], items: list[Wanted], n_jobs: int
) -> Iterable[list[dict[str, Any]]]:
    # A process takes a second to start: as long as some twenty images.
    n_jobs = min(n_jobs, len(items) // _IMAGES_A_PROCESS)
    if n_jobs <= 1:
        yield from map(look, items)
        return
    with multiprocessing.get_context("spawn").Pool(n_jobs, begin_worker) as pool:
        yield from pool.imap(look, items)


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    """What is kept; nothing where there is nothing that can be understood."""
    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
        if table.schema.names != _TYPES.names:
            return {}
        vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, SIZE)
        rows = table.drop_columns(["vector"]).to_pylist()
        return {_key(row): row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)}
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        return {}


def _key(row: Mapping[str, Any]) -> Key:
    return row["sha256"], row["frame"], row["used_pixel_size_nm"]


def _table(rows: Mapping[Key, dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row | {"vector": row["vector"].tolist()} for row in rows.values()], schema=_TYPES)
