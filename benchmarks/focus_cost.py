"""What the focus costs in a run: CPU time of each stage of `RunAll` on real fields, on one core.

    python benchmarks/focus_cost.py [--every 12]

Every so many of the FeCrAl images, in a folder of their own, engine `inline`. Of each stage the first image is left out
(it loads code and models). At most 15 % of the chain (candidates, screening, measurement) was the aim for the focus.
Results: results/focus-cost.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import luigi
from fecral_data import MODELS, NAME, RESULTS, data_folder
from provenance import provenance

import tasks.jobs
from defectpipe.io.tables import write_json
from defectpipe.micrograph import Micrograph
from tasks.jobs import Outcome, StageJob
from tasks.plan import FOCUS, STAGES
from tasks.runall import RunAll


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=12, help="one of so many images")
    every = parser.parse_args().every
    cv2.setNumThreads(1)
    spent: dict[str, list[float]] = defaultdict(list)
    plain = tasks.jobs.run_job

    def timed(job: StageJob, frames: Callable[[], list[Micrograph]]) -> Outcome:
        with contextlib.suppress(Exception):
            frames()  # decoding is no stage's cost
        began = time.process_time()
        outcome = plain(job, frames)
        spent[job.stage].append(time.process_time() - began)
        return outcome

    tasks.jobs.run_job = timed
    with tempfile.TemporaryDirectory() as folder:
        n_images, megapixels = few_images(Path(folder) / "in", every)
        began = time.process_time()
        task = RunAll(input_dir=f"{folder}/in", output_dir=f"{folder}/out", model=str(MODELS / NAME), engine="inline")
        if not luigi.build([task], local_scheduler=True, log_level="WARNING"):
            raise SystemExit("The run failed.")
        whole = time.process_time() - began
    used = {stage: sum(values[1:]) for stage, values in spent.items() if stage in (*STAGES, FOCUS)}
    chain = sum(used[stage] for stage in STAGES)
    found = provenance("make bench-focus-cost", threads="one thread") | {
        "every": every,
        "n_images": n_images,
        "megapixels": round(megapixels, 2),
        "cpu_s_per_image": {stage: round(value / (n_images - 1), 4) for stage, value in used.items()},
        "focus_over_chain": round(used[FOCUS] / chain, 4),
        "focus_over_all_stages": round(used[FOCUS] / (chain + used[FOCUS]), 4),
        "focus_over_whole_run": round(sum(spent[FOCUS]) / whole, 4),
        "cpu_s_whole_run": round(whole, 1),
    }
    write_json(found, RESULTS / "focus-cost.json")
    print(found)


def few_images(folder: Path, every: int) -> tuple[int, float]:
    """Copy some images with their pixel sizes; their number, and their megapixels."""
    folder.mkdir()
    source = data_folder()
    with (source / "pixel_sizes.csv").open(encoding="utf-8", newline="") as file:
        sizes = {row["image"]: row["pixel_size_nm"] for row in csv.DictReader(file)}
    chosen = sorted(p for p in (source / "images").iterdir() if p.is_file())[::every]
    megapixels = 0.0
    for path in chosen:
        shutil.copyfile(path, folder / path.name)
        megapixels += cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).size / 1e6
    with (folder / "pixel_sizes.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "pixel_size_nm"])
        rows.writerows([path.name, sizes[path.name]] for path in chosen if path.name in sizes)
    return len(chosen), megapixels


if __name__ == "__main__":
    main()
