"""Processor time for one patch of each backbone, as ONNX on one thread; from random weights, which change no speed.

    python benchmarks/focus_speed.py [BACKBONE ...]

Adds to ``results/focus-speed.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from defectpipe.focus.backbones import BACKBONES, find_backbone
from defectpipe.focus.scorer import FocusScorer
from defectpipe.io.tables import write_json
from defectpipe.networks.export import export_onnx
from defectpipe.networks.training import use_threads
from defectpipe.training.focus_data import PATCH_SHAPE

RESULTS = Path(__file__).parent / "results" / "focus-speed.json"
N_TIMED = 5

if __name__ == "__main__":
    use_threads(1)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or BACKBONES:
        network = find_backbone(name).build(PATCH_SHAPE, True)
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(network, Path(folder) / "network.onnx")
            scorer = FocusScorer(Path(folder) / "network.onnx", name, True)
        patches = np.random.default_rng(0).integers(0, 255, (1, *PATCH_SHAPE)).astype(np.uint8)
        times = []
        for _ in range(N_TIMED + 1):
            start = time.process_time()
            scorer(patches, np.array([2000.0]))
            times.append(time.process_time() - start)
        rows[name] = {
            "ms_per_image": round(1e3 * float(np.median(times[1:])), 2),
            "n_parameters": network.count_params(),
        }
        print(name, rows[name], flush=True)
        write_json(rows, RESULTS)
