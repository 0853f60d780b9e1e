"""From an output folder to rows for the catalogue: images, acquisition, focus, loops, objects, embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from defectpipe.catalogue.descriptor import SIZE, Embedder
from defectpipe.catalogue.folders import (
    IMAGES_TABLE,
    LOOPS_TABLE,
    MANIFEST,
    OBJECTS_TABLE,
    RECOGNITION,
    SIMULATION,
    TRUTH_TABLE,
    OutputFolder,
    loop_shards,
)
from defectpipe.catalogue.pictures import Wanted, pictures_of
from defectpipe.catalogue.query import searchable
from defectpipe.catalogue.schema import FOUND, TABLES, TRUTH
from defectpipe.errors import CatalogueError
from defectpipe.io.tables import loops_table, read_csv

_KEY = ["image", "frame"]
# In a catalogue the origin is that of the image: simulated or experimental.
_RENAMED = {"origin": "found_by"}
# Where a column of an image goes; all others stay with the images.
_ACQUISITION = {*TABLES["acquisition"], "noise", "charging", "scan_distortion", "contrast", "brightness"}
_FOCUS = {*TABLES["focus"], "blur_sigma_px", "astigmatism", "astigmatism_deg"}
# Columns of a body's truth that are of its image.
_OF_ITS_IMAGE = ("pixel_size_nm", "dose_per_px", "defocus_sigma_px")


@dataclass(frozen=True, eq=False)
class FolderTables:
    """What one folder adds to a catalogue.

    Attributes
    ----------
    images : DataFrame
        A row for each image and frame, sorted, with everything that is known of it as a whole.
    acquisition, focus : DataFrame
        Rows in the same order.
    loops, objects, embeddings : DataFrame or Arrow table
        Rows of ``image`` and ``frame``, any number.
    n_without_picture : int
        Images that did not fail, and have no embedding: their file is gone, or another one by now.
    """

    images: pd.DataFrame
    acquisition: pd.DataFrame
    focus: pd.DataFrame
    loops: pd.DataFrame | pa.Table
    objects: pd.DataFrame
    embeddings: pa.Table
    n_without_picture: int


def read_folder(
    folder: OutputFolder,
    embedder: Embedder,
    n_jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> FolderTables:
    """Read the tables of a folder, and embed those of its images that have no embedding yet.

    Raises
    ------
    CatalogueError
        A table cannot be understood.
    """
    try:
        images, loops, objects = _simulation(folder) if folder.kind == SIMULATION else _run(folder)
        wanted = _wanted(images)
        pictures = pictures_of(folder, wanted, embedder, n_jobs, progress)
        images = _with_facts(images, pictures).sort_values(_KEY, kind="stable", ignore_index=True)
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise CatalogueError(f"{folder.path}: its tables cannot be understood ({error!r}).") from error
    embeddings = _embeddings(images, pictures, embedder.name)
    good = images["status"] != "failed" if "status" in images else np.ones(len(images), bool)
    acquisition = [name for name in images if name in _ACQUISITION]
    focus = [name for name in images if name in _FOCUS or str(name).startswith("focus_")]
    images["words"] = _words(images, folder.made_with)
    return FolderTables(
        images=images.drop(columns=[*acquisition, *focus]),
        acquisition=images[acquisition],
        focus=images[focus],
        loops=loops,
        objects=objects,
        embeddings=embeddings,
        n_without_picture=int(np.count_nonzero(good)) - embeddings.num_rows,
    )


def _run(folder: OutputFolder) -> tuple[pd.DataFrame, Any, pd.DataFrame]:
    images = read_csv(folder.path / IMAGES_TABLE)
    if not {"image", "frame", "sha256"} <= set(images):
        raise ValueError(f"{IMAGES_TABLE} lacks image, frame or sha256")
    simulated = _simulated_beside(folder.images_dir)
    kind = "solids" if folder.kind == RECOGNITION else "loops"
    images = images.assign(kind=kind, beside_simulation=images["sha256"].isin(simulated))
    objects = folder.path / OBJECTS_TABLE
    found = read_csv(objects).assign(source=FOUND) if objects.is_file() else pd.DataFrame(columns=_KEY)
    loops = pd.DataFrame(columns=_KEY) if folder.kind == RECOGNITION else _loops_of_run(folder, images)
    return images, loops, found if "frame" in found else found.assign(frame=0)


def _loops_of_run(folder: OutputFolder, images: pd.DataFrame) -> Any:
    """The loops at full precision, if they are those of ``images.csv``; else those of ``loops.csv``."""
    parts = []
    for path in loop_shards(folder.path):
        with path.open("rb") as file:
            parts.append(pq.read_table(file))
    if parts:
        loops = pa.concat_tables(parts, promote_options="permissive")
        counted = loops.group_by(_KEY).aggregate([("loop_id", "count")]).to_pandas()
        stated = images[images["n_loops"].fillna(0) > 0]
        seen = dict(zip(zip(counted["image"], counted["frame"], strict=True), counted["loop_id_count"], strict=True))
        said = dict(zip(zip(stated["image"], stated["frame"], strict=True), stated["n_loops"], strict=True))
        if seen == said:
            names = [_RENAMED.get(name, name) for name in loops.column_names]
            return loops.rename_columns(names).append_column("source", pa.array([FOUND] * len(loops), pa.string()))
    return loops_table(read_csv(folder.path / LOOPS_TABLE)).rename(columns=_RENAMED).assign(source=FOUND)


def _simulation(folder: OutputFolder) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    kind = str(folder.facts["kind"])
    entries = pd.DataFrame(folder.facts["images"])[["image", "condition", "n_labels", "sha256"]]
    images = entries.assign(frame=0, kind=kind, beside_simulation=True, status="ok")
    truth = read_csv(folder.path / TRUTH_TABLE)
    rows = truth.assign(frame=0, source=TRUTH)
    none = pd.DataFrame(columns=_KEY)
    if "loop_id" in truth:
        return images, rows, none
    if "object_id" in truth:
        of_image = [name for name in _OF_ITS_IMAGE if name in truth]
        first = truth.groupby("image", as_index=False)[of_image].first()
        return images.merge(first, on="image", how="left"), none, rows.drop(columns=of_image)
    # SEM: the truth is of the image as a whole, and there is nothing to label.
    return images.drop(columns="n_labels").merge(truth, on="image", how="left"), none, none


def _simulated_beside(images_dir: Path) -> set[str]:
    """Hashes of the images that `SimulateDataset` has made in this folder."""
    try:
        facts = json.loads((images_dir.parent / MANIFEST).read_text(encoding="utf-8"))
        return {str(entry["sha256"]) for entry in facts["images"]} if "simulation_version" in facts else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _wanted(images: pd.DataFrame) -> list[Wanted]:
    good = images[images["status"] != "failed"] if "status" in images else images
    if "pixel_size_source" not in good:
        # Of simulated images the file itself says the size.
        return [Wanted(image, sha, {}) for image, sha in zip(good["image"], good["sha256"], strict=True)]
    by_image: dict[tuple[str, str], dict[int, float | None]] = {}
    sizes = good["pixel_size_nm"].astype(object).where(good["pixel_size_nm"].notna(), None)
    for image, sha, frame, size in zip(good["image"], good["sha256"], good["frame"], sizes, strict=True):
        by_image.setdefault((image, sha), {})[int(frame)] = size
    return [Wanted(image, sha, frames) for (image, sha), frames in by_image.items()]


def _with_facts(images: pd.DataFrame, pictures: list[dict[str, Any]]) -> pd.DataFrame:
    """The images with what their files say, where the tables do not say it."""
    numbers, texts = (
        ("height_px", "width_px", "pixel_size_nm", "magnification", "voltage_kv"),
        ("pixel_size_source", "modality"),
    )
    names = [*numbers, *texts, *(["notes"] if "reason" not in images else [])]
    facts = pd.DataFrame(pictures, columns=["sha256", "frame", *names]).drop_duplicates(["sha256", "frame"])
    facts = facts.astype({"sha256": images["sha256"].dtype, "frame": "int64"})
    merged = images.merge(facts, on=["sha256", "frame"], how="left", suffixes=("", " of file"))
    for name in numbers:
        column = pd.to_numeric(merged[name]).astype("Float64")
        stated = merged.get(f"{name} of file")
        merged[name] = column if stated is None else column.fillna(pd.to_numeric(stated).astype("Float64"))
    for name in texts:
        column = merged[name].astype(object).where(merged[name].notna(), "")
        stated = merged.get(f"{name} of file")
        merged[name] = column if stated is None else column.where(column != "", stated)
    return merged[[name for name in merged if not str(name).endswith(" of file")]].rename(columns={"notes": "reason"})


def _embeddings(images: pd.DataFrame, pictures: list[dict[str, Any]], descriptor: str) -> pa.Table:
    place = {(p["sha256"], p["frame"]): i for i, p in enumerate(pictures)}
    rows = [place.get(key, -1) for key in zip(images["sha256"], images["frame"], strict=True)]
    has = np.array([row >= 0 for row in rows], bool)
    vectors = np.array([pictures[row]["vector"] for row in rows if row >= 0], np.float32).reshape(-1, SIZE)
    return pa.table(
        {
            "image": pa.array(images["image"][has].tolist(), pa.string()),
            "frame": pa.array(images["frame"][has].tolist(), pa.int64()),
            "descriptor": pa.array([descriptor] * len(vectors), pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), SIZE),
        }
    )


def _words(images: pd.DataFrame, made_with: str) -> pd.Series:
    """All text that is known of an image, as it is looked for."""
    texts = pd.Series("", index=images.index, dtype=object)
    for name in images:
        column = images[name]
        if name != "sha256" and not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            texts = texts + column.astype(object).where(column.notna(), "").astype(str) + "\n"
    return (texts + made_with).map(searchable)
