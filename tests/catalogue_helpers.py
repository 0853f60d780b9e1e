"""Small folders of results, as runs and simulations leave them, and a look into a catalogue as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import tifffile

from defectpipe.catalogue.schema import TABLES, attach
from defectpipe.io.tables import images_table, loops_table, write_csv, write_json
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.kinds import find_preset

# Not square, and as small as they may be.
SHAPE = (72, 104)


def picture(seed: int, grain_px: int = 3) -> np.ndarray:
    """A texture of grains of about `grain_px`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 210, [-(-n // grain_px) for n in SHAPE]).astype(np.uint8)
    fine = np.kron(coarse, np.ones((grain_px, grain_px), np.uint8))[: SHAPE[0], : SHAPE[1]]
    return (fine + rng.integers(0, 20, SHAPE)).astype(np.uint8)


def write_run(
    root: Path, name: str, images: Sequence[str], *, seed: int = 0, pixel_size_nm: float | None = 0.5, **extra: object
) -> Path:
    """Images in ``NAME``, and beside it ``NAME-defects`` with the tables of a run: image i holds i loops.

    `extra` are further columns of ``images.csv``. Gives the output folder.
    """
    source, output = root / name, root / f"{name}-defects"
    rows, loops = [], []
    for i, image in enumerate(images):
        path = source / image
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, picture(seed + i, 2 + i % 4))
        diameters_px = [10.0 + seed + k for k in range(i)]
        rows.append(
            {
                "image": image,
                "frame": 0,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "status": "ok",
                "reason": "",
                "height_px": SHAPE[0],
                "width_px": SHAPE[1],
                "pixel_size_nm": pixel_size_nm,
                "pixel_size_source": "argument" if pixel_size_nm else "",
                "n_loops": i,
                "mean_diameter_nm": float(np.mean(diameters_px)) * pixel_size_nm if i and pixel_size_nm else None,
                **{column: values[i] for column, values in extra.items()},
            }
        )
        for k, diameter_px in enumerate(diameters_px):
            nm = diameter_px * pixel_size_nm if pixel_size_nm else None
            loops.append({"image": image, "frame": 0, "loop_id": k + 1, "diameter_px": diameter_px, "diameter_nm": nm})
    write_tables(output, pd.DataFrame(rows), pd.DataFrame(loops))
    run = {"input_dir": source.as_posix(), "output_dir": output.as_posix()}
    write_json({"run": run, "model": {"name": "toy-model"}}, output / "summary.json")
    return output


def write_tables(output: Path, images: pd.DataFrame, loops: pd.DataFrame) -> None:
    """``images.csv`` and ``loops.csv``."""
    output.mkdir(parents=True, exist_ok=True)
    write_csv(images_table(images), output / "images.csv")
    write_csv(loops_table(loops), output / "loops.csv")


def simulate(kind: str, n: int, seed: int, folder: Path) -> Path:
    """A small simulated set, of small pictures."""
    preset = find_preset(kind, "")
    small = {"loops": (200, 280), "solids": (72, 104), "sem": (80, 112)}[kind]
    simulate_dataset(kind, n, seed, dataclasses.replace(preset, shape=small), folder)
    return folder


def contents(catalogue: Path) -> dict[str, list[str]]:
    """Every row of every table, with the columns in one order; what no row has a value for is left out."""
    with duckdb.connect() as con:
        attach(con, catalogue, "c", read_only=True)
        found = {}
        for table in TABLES:
            rows = con.execute(f"SELECT * FROM c.{table}").df().dropna(axis="columns", how="all")
            rows = rows.reindex(columns=sorted(rows.columns))
            found[table] = sorted(json.dumps(row, default=str) for row in rows.to_dict("records"))
    return found
