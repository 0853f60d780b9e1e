"""Processor time for one patch of each backbone, in one run: as ONNX on one thread, preparation included.

    python benchmarks/focus_speed.py [BACKBONE ...]

From random weights, which change no speed. The backbones take turns, so that whatever else the machine does meets all
of them. Writes ``results/focus-speed.json``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from provenance import provenance

from defectpipe.focus.backbones import BACKBONES, find_backbone
from defectpipe.focus.scorer import FocusScorer
from defectpipe.io.tables import write_json
from defectpipe.networks.export import export_onnx
from defectpipe.networks.training import use_threads
from defectpipe.training.focus_data import PATCH_SHAPE

RESULTS = Path(__file__).parent / "results" / "focus-speed.json"
SLOWEST = "resnet50"
N_ROUNDS = 30


def main(names: list[str]) -> None:
    """Time and write."""
    use_threads(1)
    scorers, rows = {}, {}
    for name in names:
        network = find_backbone(name).build(PATCH_SHAPE, True)
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(network, Path(folder) / "network.onnx")
            scorers[name] = FocusScorer(Path(folder) / "network.onnx", name, True)
        rows[name] = {"n_parameters": network.count_params()}
    patches = np.random.default_rng(0).integers(0, 255, (N_ROUNDS + 1, 1, *PATCH_SHAPE)).astype(np.uint8)
    times: dict[str, list[float]] = {name: [] for name in names}
    for patch in patches:
        for name, scorer in scorers.items():
            start = time.process_time()
            scorer(patch, np.array([2000.0]))
            times[name].append(1e3 * (time.process_time() - start))
    for name in names:
        low, middle, high = (float(q) for q in np.quantile(times[name][1:], [0.1, 0.5, 0.9]))
        rows[name] |= {"ms_per_image": round(middle, 2), "ms_10_to_90_percent": [round(low, 2), round(high, 2)]}
    for name in names:
        if SLOWEST in names:
            rows[name][f"times_faster_than_{SLOWEST}"] = round(
                rows[SLOWEST]["ms_per_image"] / rows[name]["ms_per_image"], 1
            )
        print(name, rows[name])
    found = provenance("python benchmarks/focus_speed.py", threads="one thread") | {
        "patch_px": PATCH_SHAPE,
        "n_images": N_ROUNDS,
        "backbones": rows,
    }
    write_json(found, RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:] or list(BACKBONES))
