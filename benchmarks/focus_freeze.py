"""Freeze the test set of the focus benchmark: settings and hashes in ``focus-test.json``, before any training.

python benchmarks/focus_freeze.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import focus_sets

from defectpipe.io.tables import write_json
from defectpipe.simulation.dataset import SIMULATION_VERSION
from defectpipe.simulation.sem.presets import PRESETS
from defectpipe.training.focus_data import DATASETS, FocusSamples

MANIFEST = Path(__file__).parent / "focus-test.json"
N_LISTED = 10


def manifest(samples: FocusSamples, name: str = "new") -> dict:
    """What says which images the test set has."""
    dataset, preset = DATASETS[name], PRESETS[DATASETS[name].preset]
    return {
        "preset": dataset.preset,
        "settings": preset.to_dict(),
        "settings_sha256": preset.sha256(),
        "simulation_version": SIMULATION_VERSION,
        "seed": dataset.test_seed,
        "n": dataset.n_test,
        "pixels_sha256": hashlib.sha256(samples.pixels.tobytes()).hexdigest(),
        "scores_sha256": hashlib.sha256(samples.score.astype("<f4").tobytes()).hexdigest(),
        "first_images": [
            {
                "sample": str(samples.kind[i]),
                "magnification": float(samples.magnification[i]),
                "score": round(float(samples.score[i]), 5),
                "mean_grey": round(float(samples.pixels[i].mean()), 3),
            }
            for i in range(N_LISTED)
        ],
    }


if __name__ == "__main__":
    if MANIFEST.exists():
        same = json.loads(MANIFEST.read_text()) == manifest(focus_sets.load("new", "test"))
        raise SystemExit(0 if same else "The test set is not the frozen one.")
    write_json(manifest(focus_sets.load("new", "test")), MANIFEST)
