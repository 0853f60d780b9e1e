"""Simulated images for each second of CPU time on one core, and where the time goes."""

from __future__ import annotations

import cProfile
import pstats
import time

import cv2
from fecral_data import RESULTS
from provenance import provenance

from defectpipe.io.tables import write_json
from defectpipe.simulation.kinds import KINDS, find_preset

CASES = (("loops", "fecral", 8), ("solids", "solids", 36), ("sem", "focus", 100))
SEED, ROUNDS, LISTED = 4, 3, 10


def speed(kind: str, name: str, n: int) -> float:
    """Images a CPU second, the best of some rounds: other programs on the machine slow the rest down."""
    preset, simulate = find_preset(kind, name), KINDS[kind].simulate
    best = 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        for index in range(n):
            simulate(preset, SEED, index)
        best = max(best, n / (time.process_time() - start))
    return best


def shares(kind: str, name: str, n: int) -> dict[str, float]:
    """Share of the time that the costliest functions take by themselves."""
    preset, simulate = find_preset(kind, name), KINDS[kind].simulate
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for index in range(n):
        simulate(preset, SEED, index)
    profile.disable()
    rows = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    own = sorted(((row[2], f"{key[0].rpartition('/')[2]}: {key[2]}") for key, row in rows), reverse=True)
    total = sum(seconds for seconds, _ in own)
    return {function: round(seconds / total, 3) for seconds, function in own[:LISTED]}


if __name__ == "__main__":
    cv2.setNumThreads(1)
    results = provenance("make bench-simulation", threads="one thread")
    for kind, name, n in CASES:
        for index in range(3):  # compiles, fills caches
            KINDS[kind].simulate(find_preset(kind, name), SEED, index)
        shape = KINDS[kind].simulate(find_preset(kind, name), SEED, 0).micrograph.shape
        results[kind] = {
            "preset": name,
            "shape_px": list(shape),
            "images_per_cpu_second": round(speed(kind, name, n), 1),
            "share_of_time": shares(kind, name, n),
        }
        print(kind, results[kind])
    write_json(results, RESULTS / "simulation-speed.json")
