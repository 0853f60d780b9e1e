"""A very large image through a whole run: peak memory beyond the start-up, time, and the seams.

The image is a simulated field, doubled and repeated, in a TIFF of tiles. Without a pixel size it is halved before the
detection, as any large image. The seams: a part of it whole, and in two tilings, has to give the same loops. Results:
results/large-image.json; other sizes there stay.

Usage: large_image.py [SIDE_PX [BITS [FOLDER]]]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from provenance import provenance

from defectpipe.io.tables import write_json

RESULT = Path(__file__).parent / "results" / "large-image.json"
TILE_PX = 512
SEAM_SIDE_PX = 5120
LIMIT_GB = 2.0


def main(side_px: int, bits: int, folder: Path) -> None:
    """Write the image, run over it in a process of its own, compare tilings, and print what was measured."""
    field = doubled_field(bits)
    write_repeated(folder / "large" / "field.tif", field, side_px)
    print(f"{side_px} × {side_px} px, {bits} bit, {(folder / 'large' / 'field.tif').stat().st_size / 1e6:.0f} MB")
    said = subprocess.check_output([sys.executable, __file__, "--measure", str(folder)], text=True)
    found = json.loads(said.splitlines()[-1])
    print(f"{found['n_loops']} loops in {found['seconds']:.0f} s; status {found['status']}")
    print(
        f"peak memory beyond the start-up: {found['beyond_gb']:.2f} GB "
        f"(start-up, model and a first image: {found['start_gb']:.2f} GB; limit {LIMIT_GB:g} GB)"
    )
    seams = compare_tilings(field, min(side_px, SEAM_SIDE_PX))
    print(f"seams: {seams['n_loops']} loops whole; tiled twice, the largest difference is {seams['difference']:.1e}")
    said = provenance("python benchmarks/large_image.py", "tifffile", "luigi")
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    write_json(before | said | {f"{side_px} px, {bits} bit": {"date": said["date"], **found, "seams": seams}}, RESULT)
    if found["beyond_gb"] > LIMIT_GB or found["status"] != "ok" or seams["difference"] > 0.01:
        raise SystemExit("The promise is not kept.")


def doubled_field(bits: int) -> np.ndarray:
    """A simulated field with twice as many pixels along each side, so that halving gives it back."""
    from defectpipe.simulation.loops.fields import simulate_field
    from defectpipe.simulation.loops.presets import PRESETS

    pixels = simulate_field(PRESETS["demo"], 1).micrograph.pixels
    field = cv2.resize(pixels.astype(np.float32), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    low, high = float(field.min()), float(field.max())
    # Twelve of sixteen bits, as cameras give them.
    top = 255 if bits == 8 else 4095
    return np.rint((field - low) * (top / (high - low))).astype(np.uint8 if bits == 8 else np.uint16)


def write_repeated(path: Path, field: np.ndarray, side_px: int) -> None:
    """The field again and again, in a tiled and compressed TIFF, without holding it."""
    height, width = field.shape

    def tiles() -> Iterator[np.ndarray]:
        for y in range(0, side_px, TILE_PX):
            for x in range(0, side_px, TILE_PX):
                rows, columns = (np.arange(start, start + TILE_PX) for start in (y, x))
                yield field[np.ix_(rows % height, columns % width)]

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tile": (TILE_PX, TILE_PX), "compression": "zlib", "compressionargs": {"level": 1}, "photometric": 1}
    tifffile.imwrite(path, tiles(), shape=(side_px, side_px), dtype=field.dtype, **options)


def measure_run(folder: Path) -> dict[str, float | str]:
    """The run in this process, after one over a small image: what that needs is the start-up."""
    import luigi

    from defectpipe.io.tables import read_csv
    from tasks.runall import RunAll

    def run(name: str) -> None:
        source = str(folder / name)
        luigi.build([RunAll(input_dir=source, engine="inline")], local_scheduler=True, log_level="CRITICAL")

    write_repeated(folder / "small" / "field.tif", doubled_field(8)[:1024, :1024], 1024)
    run("small")
    start, began = peak_gb(), time.perf_counter()
    run("large")
    seconds = time.perf_counter() - began
    row = read_csv(folder / "large-defects" / "images.csv").iloc[0]
    return {
        "n_loops": int(row["n_loops"]),
        "status": str(row["status"]),
        "seconds": seconds,
        "start_gb": start,
        "beyond_gb": peak_gb() - start,
    }


def peak_gb() -> float:
    """Most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def compare_tilings(field: np.ndarray, side_px: int) -> dict[str, float]:
    """Loops of an image that is analysed whole, and in two tilings."""
    from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates
    from defectpipe.micrograph import Micrograph
    from defectpipe.model import LoopModel, find_model
    from defectpipe.settings import Settings

    repeats = -(-side_px // min(field.shape))
    m = Micrograph(np.tile(field, (repeats, repeats))[:side_px, :side_px], "field")
    model = LoopModel.load(find_model("fecral-loops"))
    tables = []
    for tiling in ({"above_megapixels": 1e6}, {"tile_px": 700}, {"tile_px": 1024, "offset_px": 300}):
        settings = Settings.from_dict({"tiling": {"above_megapixels": 0} | tiling})
        candidates = detect_candidates(m, model, settings)
        loops = measure_loops(m, screen_candidates(m, candidates, model, settings), model, settings)
        tables.append(loops.select_dtypes("number").dropna(axis=1).to_numpy(float))
    whole, *tiled = tables
    same = all(table.shape == whole.shape for table in tiled)
    difference = max(float(np.abs(table - whole).max(initial=0)) for table in tiled) if same else float("inf")
    return {"n_loops": len(whole), "difference": difference}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure_run(Path(sys.argv[2]))))
    else:
        given = dict(enumerate(sys.argv[1:]))
        with tempfile.TemporaryDirectory() as temporary:
            main(int(given.get(0, 30_000)), int(given.get(1, 8)), Path(given.get(2, temporary)))
