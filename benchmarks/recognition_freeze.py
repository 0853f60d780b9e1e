"""Freeze the test sets of recognition: settings, seeds and first images in ``recognition-test.json``, before training.

python benchmarks/recognition_freeze.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from defectpipe.io.tables import write_json
from defectpipe.simulation.dataset import SIMULATION_VERSION
from defectpipe.training.recognition_data import simulate_images
from defectpipe.training.recognition_sets import SETS

MANIFEST = Path(__file__).parent / "recognition-test.json"
N_SCENES = 12


def manifest() -> dict:
    """What says which images the test sets have."""
    sets = {}
    for name, plan in SETS.items():
        if "test" in name:
            first = simulate_images(plan, 0, N_SCENES)
            sets[name] = {
                "preset": plan.preset.name,
                "plan_sha256": plan.sha256(),
                "seed": plan.seed,
                "n_scenes": plan.n_scenes,
                "n_views": plan.n_views,
                "tilts_deg": list(plan.tilts_deg),
                "settings": plan.preset.to_dict(),
                "pixels_of_first_scenes_sha256": hashlib.sha256(first.pixels.tobytes()).hexdigest(),
                "instances_of_first_scenes_sha256": hashlib.sha256(first.instances.tobytes()).hexdigest(),
            }
    return {"simulation_version": SIMULATION_VERSION, "n_first_scenes": N_SCENES, "sets": sets}


if __name__ == "__main__":
    if MANIFEST.exists():
        same = json.loads(MANIFEST.read_text()) == manifest()
        raise SystemExit(0 if same else "The test sets are not the frozen ones.")
    write_json(manifest(), MANIFEST)
