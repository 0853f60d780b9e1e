"""Where the CPU time of the whole chain goes, what a whole run reads and loads, and how it uses two cores.

    python benchmarks/throughput.py PUBLISHED_CASCADE_XML [--every 12]

1. The chain image by image, in turn with the published cascade alone in OpenCV: CPU seconds a megapixel of each piece.
2. `RunAll` in processes of its own, as a user runs it, that count how often each image is decoded and each model
   loaded, and the CPU time of each kind of job.
3. `RunAll` with one worker and with two: wall time, CPU time, peak memory of parent and workers.

One thread a process; the FeCrAl set. Results: results/throughput.json.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LOG = "DEFECTPIPE_THROUGHPUT_LOG"
# What a run does for one image, by where the function is: the stages have one function for all.
JOBS = {
    "tasks.jobs.read_frames": "decode",
    "tasks.jobs.run_job": None,
    "tasks.overlays.draw": "overlays",
    "tasks.exports.export": "exports",
    "tasks.pictures.draw_pictures": "report's pictures",
    "tasks.tables.collect": "statistics",
}
LOADS = {"defectpipe.model.LoopModel.load": "loop model", "defectpipe.focus.model.FocusModel.load": "focus model"}
DECODER = "defectpipe.io.micrographs.read_micrographs"
# Pieces of the chain: name, and where the function is that is timed.
PIECES = {
    "levels": "defectpipe.detection.scan.pyramid",
    "integral images": "defectpipe.detection.scan._integral",
    "windows judged": "defectpipe.detection.scan._scan",
    "hits suppressed": "defectpipe.detection.scan.best_hits",
    "normalised": "defectpipe.screening.crops.normalise",
    "first look": "defectpipe.screening.screener._answers",
    "second look": "defectpipe.screening.screener._mirrored_answers",
    "floods": "defectpipe.measurement.loops.flood_polar",
    "contours": "defectpipe.measurement.loops.contour_polar",
    "ellipses": "defectpipe.measurement.loops.fit_ellipse",
}


def wrap(place: str, make: Callable[[Any], Any]) -> None:
    """Put `make(function)` in the place of a function of a module or class."""
    owner, name = place.rsplit(".", 1)
    try:
        holder: Any = importlib.import_module(owner)
    except ModuleNotFoundError:
        module, kind = owner.rsplit(".", 1)
        holder = getattr(importlib.import_module(module), kind)
    setattr(holder, name, make(getattr(holder, name)))


def count_in_this_process(folder: Path) -> None:
    """Count and time what this process of a run does; written to `folder` when it ends."""
    counts: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)

    def counted(what: str, of: Callable[..., str]) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            @functools.wraps(function)
            def call(*given: Any, **named: Any) -> Any:
                counts[f"{what}: {of(*given, **named)}"] += 1
                return function(*given, **named)

            return call

        return make

    def timed(kind: str | None) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            @functools.wraps(function)
            def call(job: Any, *more: Any) -> Any:
                began, within = time.process_time(), sum(seconds.values())
                try:
                    return function(job, *more)
                finally:
                    # What is timed within it, the decoding, is not counted twice.
                    inner = sum(seconds.values()) - within
                    seconds[kind or job.stage] += time.process_time() - began - inner
                    write()

            return call

        return make

    def write() -> None:
        found = {"counts": counts, "seconds": seconds, "process_s": time.process_time()}
        (folder / f"{os.getpid()}.json").write_text(json.dumps(found))

    wrap(DECODER, counted("decode", lambda file, **named: named["image"]))
    for place, name in LOADS.items():
        # a class method: bound once here, so the class is not among what it is given
        wrap(place, counted("load", lambda *_given, name=name, **_named: name))
    for place, kind in JOBS.items():
        wrap(place, timed(kind))
    # Those who have its name already get what counts, too.
    import tasks.jobs
    import tasks.overlays
    import tasks.pictures

    for user in (tasks.overlays, tasks.pictures):
        user.read_frames = tasks.jobs.read_frames
    tasks.overlays.draw_pictures = tasks.pictures.draw_pictures
    atexit.register(write)


if LOG in os.environ:
    # In the run and, since they begin with this file, in its workers.
    count_in_this_process(Path(os.environ[LOG]))


def main() -> None:
    """Measure all three, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="the cascade in OpenCV's format to compare with")
    parser.add_argument("--every", type=int, default=12, help="one of so many images")
    given = parser.parse_args()
    import cv2
    from fecral_data import RESULTS
    from focus_cost import few_images
    from provenance import provenance

    from defectpipe.io.tables import write_json

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        n_images, megapixels = few_images(folder / "in", given.every)
        found = provenance("", threads="one thread a process") | {
            # The place of the cascade is this machine's.
            "command": f"python benchmarks/throughput.py PUBLISHED_CASCADE_XML --every {given.every}",
            "load_average": round(os.getloadavg()[1], 1),
            "n_images": n_images,
            "megapixels": round(megapixels, 2),
            "chain": chain(folder / "in", given.published),
            "run": counted_run(folder, n_images, megapixels),
            "workers": {str(n): whole_run(folder, n, n_images) for n in (1, 2)},
        }
    write_json(found, RESULTS / "throughput.json")
    print(json.dumps(found, indent=1))


def chain(folder: Path, published: str) -> dict[str, Any]:
    """CPU seconds a megapixel of the published cascade alone and of each piece of the chain, image by image in turn."""
    import cv2
    from fecral_data import MODELS, NAME

    from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates, working_image
    from defectpipe.io.folder import list_images
    from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes
    from defectpipe.model import LoopModel
    from defectpipe.settings import Settings

    sizes, files = read_pixel_sizes(folder), list_images(folder)
    peer, model, settings = cv2.CascadeClassifier(published), LoopModel.load(MODELS / NAME), Settings()
    seconds: defaultdict[str, float] = defaultdict(float)
    megapixels = 0.0
    for name, place in PIECES.items():
        wrap(place, functools.partial(_timed, name=name, seconds=seconds))
    for i, file in enumerate([files[0], *files]):
        if i == 1:
            seconds.clear()  # the first image also compiles and loads
        with clock("decode", seconds):
            [m] = read_micrographs(file, image=file.image, pixel_sizes=sizes)
        with clock("published cascade", seconds):
            peer.detectMultiScale(m.grey8(), scaleFactor=1.1, minNeighbors=0)
        with clock("reduce", seconds):
            working_image(m, model)
        with clock("candidates", seconds):
            candidates = detect_candidates(m, model, settings)
        with clock("screening", seconds):
            screened = screen_candidates(m, candidates, model, settings)
        with clock("measurement", seconds):
            measure_loops(m, screened, model, settings)
        megapixels += (i > 0) * m.pixels.size / 1e6
    whole = sum(seconds[name] for name in ("candidates", "screening", "measurement"))
    return {
        "cpu_s_per_megapixel": {name: round(s / megapixels, 4) for name, s in seconds.items()},
        "whole_chain_cpu_s_per_megapixel": round(whole / megapixels, 4),
        "whole_chain_over_published_cascade": round(whole / seconds["published cascade"], 4),
    }


def _timed(function: Any, name: str, seconds: dict[str, float]) -> Any:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        with clock(name, seconds):
            return function(*given, **named)

    return call


@contextlib.contextmanager
def clock(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the CPU time of what is within."""
    began = time.process_time()
    yield
    seconds[name] += time.process_time() - began


def counted_run(folder: Path, n_images: int, megapixels: float) -> dict[str, Any]:
    """A run with one worker, every process of which counts."""
    log = folder / "log"
    log.mkdir()
    arguments = [sys.executable, __file__, *_run(folder, "counted", 1)]
    subprocess.run(arguments, check=True, capture_output=True, env=_environment() | {LOG: str(log)})
    processes = [json.loads(path.read_text()) for path in log.iterdir()]
    decodes: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for process in processes:
        decodes.update({k: n for k, n in process["counts"].items() if k.startswith("decode: ")})
        seconds.update(process["seconds"])
    loads = [process["counts"].get(f"load: {model}", 0) for process in processes for model in LOADS.values()]
    total = sum(process["process_s"] for process in processes)
    return {
        "decodes_of_an_image": {"least": min(decodes.values()), "most": max(decodes.values())},
        "images_decoded": len(decodes),
        "most_loads_of_a_model_in_a_process": max(loads),
        "processes": len(processes),
        "cpu_s": round(total, 2),
        "cpu_s_per_megapixel": round(total / megapixels, 4),
        "cpu_s_per_image_by_job": {name: round(s / n_images, 4) for name, s in sorted(seconds.items())},
        "cpu_s_besides_jobs": round(total - sum(seconds.values()), 2),
    }


def whole_run(folder: Path, n_jobs: int, n_images: int) -> dict[str, Any]:
    """A run as a user starts it: wall and CPU time, peak memory."""
    from children import children_cpu_s
    from many_images import measure

    before = children_cpu_s()
    luigi = str(Path(sys.executable).with_name("luigi"))
    measured = measure([luigi, *_run(folder, f"out-{n_jobs}", n_jobs)], n_images, _environment())
    cpu = children_cpu_s() - before
    if measured.status:
        raise SystemExit("The run failed.")
    return {
        "wall_s": round(measured.seconds, 1),
        "cpu_s": round(cpu, 1),
        "cores_busy": round(cpu / measured.seconds, 2),
        "peak_parent_mib": round(measured.parent_mib),
        "peak_worker_mib": round(measured.worker_mib),
    }


def _run(folder: Path, name: str, n_jobs: int) -> list[str]:
    given = {"--input-dir": str(folder / "in"), "--output-dir": str(folder / name), "--n-jobs": str(n_jobs)}
    return ["--module", "defectpipe", "RunAll", *(text for pair in given.items() for text in pair)]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


if __name__ == "__main__":
    if LOG in os.environ:
        from luigi.cmdline import luigi_run

        luigi_run(sys.argv[1:])
    else:
        main()
