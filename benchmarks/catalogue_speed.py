"""Building and searching a catalogue of synthetic tables: make bench-catalogue ARGS="100000 1000000".

The tables are drawn at random, in the layout of finished runs; there are no image files, and the embeddings are random
directions around a hundred centres.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fecral_data import RESULTS
from provenance import provenance

from defectpipe.catalogue import DESCRIPTOR, Catalogue, index_folders
from defectpipe.io.tables import images_table, loops_table, write_json

LOOPS_AN_IMAGE, IMAGES_A_FOLDER = 10, 5000
SIZE = 64
ROUNDS = 7
STEELS = ("FeCrAl", "316L", "Eurofer97", "T91", "Zircaloy")


def write_run(folder: Path, n: int, rng: np.random.Generator, centres: np.ndarray) -> None:
    """A folder as a finished run leaves it, of `n` images."""
    number = int(folder.name.split("-")[1])
    steel = STEELS[number % len(STEELS)]
    names = [f"{steel}/dose {i % 7} dpa/field_{i:05d}.tif" for i in range(n)]
    shas = [hashlib.sha256(f"{folder.name}/{name}".encode()).hexdigest() for name in names]
    counts = rng.poisson(LOOPS_AN_IMAGE, n)
    size_nm = rng.choice([0.2, 0.4, 0.5, 1.0], n)
    means = rng.lognormal(2.5, 0.4, n)
    images = images_table(
        pd.DataFrame(
            {
                "image": names,
                "frame": 0,
                "sha256": shas,
                "status": np.where(rng.random(n) < 0.1, "review", "ok"),
                "reason": np.where(rng.random(n) < 0.2, "a data bar at the bottom is left out", ""),
                "height_px": 1024,
                "width_px": 1280,
                "analysed_area_px2": 1024.0 * 1280,
                "pixel_size_nm": size_nm,
                "pixel_size_source": "metadata: ImageJ",
                "magnification": rng.choice([50e3, 100e3, 200e3], n),
                "focus_score": rng.uniform(0, 10, n).round(3),
                "n_loops": counts,
                "n_on_edge": 0,
                "mean_diameter_nm": means.round(3),
                "std_diameter_nm": (0.3 * means).round(3),
                "areal_density_per_m2": rng.lognormal(48, 1, n),
            }
        )
    )
    of = np.repeat(np.arange(n), counts)
    diameter = rng.lognormal(np.log(means[of]), 0.3)
    loops = loops_table(
        pd.DataFrame(
            {
                "image": np.array(names, object)[of],
                "frame": 0,
                "loop_id": np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + 1,
                "x_px": rng.uniform(0, 1280, len(of)),
                "y_px": rng.uniform(0, 1024, len(of)),
                "diameter_px": diameter / size_nm[of],
                "minor_px": 0.7 * diameter / size_nm[of],
                "angle_deg": rng.uniform(0, 180, len(of)),
                "diameter_nm": diameter,
                "minor_nm": 0.7 * diameter,
                "on_edge": False,
                "screening_score": rng.uniform(0.5, 1, len(of)),
                "fit_quality": rng.uniform(0, 1, len(of)),
            }
        )
    )
    vectors = centres[rng.integers(0, len(centres), n)] + rng.normal(0, 0.05, (n, SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    state = folder / ".defectpipe"
    for below in ("tables", "catalogue"):
        (state / below).mkdir(parents=True)
    images.to_csv(folder / "images.csv", index=False)
    loops.to_csv(folder / "loops.csv", index=False, float_format="%.6g")
    pq.write_table(
        pa.Table.from_pandas(loops, preserve_index=False),
        state / "tables" / "loops-000-of-001.parquet",
        compression="zstd",
    )
    kept = {
        "sha256": pa.array(shas),
        "frame": pa.array(np.zeros(n, np.int64)),
        "used_pixel_size_nm": pa.array(size_nm),
        "height_px": pa.array(np.full(n, 1024)),
        "width_px": pa.array(np.full(n, 1280)),
        "pixel_size_nm": pa.array(size_nm),
        "pixel_size_source": pa.array(["metadata: ImageJ"] * n),
        "magnification": pa.array(images["magnification"]),
        "modality": pa.array(["STEM"] * n),
        "voltage_kv": pa.array(rng.choice([200.0, 300.0], n)),
        "notes": pa.array([""] * n),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), SIZE),
    }
    pq.write_table(pa.table(kept), state / "catalogue" / f"{DESCRIPTOR.name}.parquet", compression="zstd")
    run = {"input_dir": f"/data/{folder.name}", "output_dir": f"/data/{folder.name}-defects"}
    (folder / "summary.json").write_text(json.dumps({"run": run, "model": {"name": "fecral-loops"}}))


def seconds(job: Callable[[], object]) -> float:
    """Wall-clock seconds of one go."""
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def measure(n_images: int) -> dict[str, object]:
    """Build, update and search; seconds of the build, milliseconds of the searches."""
    rng = np.random.default_rng(5)
    centres = rng.normal(0, 1, (100, SIZE)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as place:
        root, path = Path(place) / "runs", Path(place) / "catalogue.duckdb"
        n_folders = max(1, n_images // IMAGES_A_FOLDER)
        for i in range(n_folders):
            write_run(root / f"run-{i:04d}-defects", min(n_images, IMAGES_A_FOLDER), rng, centres)
        cpu = time.process_time()
        report = None

        def build() -> None:
            nonlocal report
            report = index_folders(path, [root])

        results: dict[str, object] = {"build_s": round(seconds(build), 2)}
        results["build_cpu_s"] = round(time.process_time() - cpu, 2)
        results |= {"images": report.n_images, "loops": report.n_loops, "folders": len(report.read)}
        results["file_mb"] = round(path.stat().st_size / 1e6, 1)
        results["nothing_changed_s"] = round(seconds(lambda: index_folders(path)), 2)
        write_run(root / f"run-{n_folders:04d}-defects", min(n_images, IMAGES_A_FOLDER), rng, centres)
        results["one_folder_more_s"] = round(seconds(lambda: index_folders(path, [root])), 2)
        with Catalogue.open(path) as catalogue:
            results["search_ms"] = {name: timed(job) for name, job in searches(catalogue).items()}
    return results


def searches(catalogue: Catalogue) -> dict[str, Callable[[], object]]:
    """Every kind of search, 100 rows of answer."""
    search = catalogue.search
    some = catalogue.search(where={"status": "ok"}, limit=1)
    some_id = int(some["image_id"].iloc[0])
    return {
        "range of an image's figure": lambda: search(mean_diameter_nm=(10, 12)),
        "ordered by a figure": lambda: search(order_by="-areal_density_per_m2"),
        "words": lambda: search("zircaloy 00123"),
        "words that nothing has": lambda: search("no such words"),
        "text of a column": lambda: search(where={"status": "review"}),
        "images that hold such a loop": lambda: search(where={"loops.diameter_nm": (60, None)}),
        "loops in a range": lambda: search(of="loops", where={"loops.diameter_nm": (30, 31), "pixel_size_nm": 0.5}),
        "class": lambda: search(class_name="open"),
        "likeness": lambda: search(like=some_id),
        "likeness among a range and words": lambda: search("316l", mean_diameter_nm=(10, 12), like=some_id),
        "count": lambda: catalogue.count(where={"loops.diameter_nm": (30, None)}),
    }


def timed(job: Callable[[], object]) -> dict[str, float]:
    """The first go, and the median and slowest of the next, in ms."""
    first, *rest = (1e3 * seconds(job) for _ in range(ROUNDS + 1))
    return {"first": round(first, 1), "median": round(statistics.median(rest), 1), "slowest": round(max(rest), 1)}


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]] or [100_000]
    place = RESULTS / "catalogue-speed.json"
    found = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    found |= provenance("make bench-catalogue-speed", "duckdb", "pyarrow") | {"tables": "synthetic"}
    for n in sizes:
        found[f"{n} images"] = measure(n) | {"date": found["date"]}
        print(json.dumps(found[f"{n} images"], indent=2))
        write_json(found, place)
