"""Focusing by itself on simulated samples: frames until the best focus, by the score and by a golden section.

    python benchmarks/focus_loop.py [--n 20] [--model models/focus] [--loop-model models/focus-stem]

Every frame of a specimen is taken anew, with its own noise. The control is the defocus in px, from -R to R, the best
focus somewhere in the middle four fifths; neither knows where. The score is the controller's only eye: it takes frames
where the parabola of the squared blurs says (`focus.closed_loop`). The golden section maximises the classical measure
that follows defocus best on four other specimens. Both aim for half a px. A search counts as good if it ends with less
than `GOOD_PX` of defocus. Results: results/focus_loop.json.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fecral_data import MODELS, RESULTS
from provenance import provenance
from scipy.stats import spearmanr

from defectpipe.focus.assessment import assess_focus
from defectpipe.focus.closed_loop import Search, focus_by_blur, golden_section
from defectpipe.focus.measures import MEASURES
from defectpipe.focus.model import FocusModel
from defectpipe.focus_scale import STEM_LIMITS, focus_limits, score_of_blur
from defectpipe.io.tables import write_json
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.acquisition import detect, digitise
from defectpipe.simulation.defocused import defocus
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS as LOOP_PRESETS
from defectpipe.simulation.sem.frames import simulate_sem
from defectpipe.simulation.sem.presets import PRESETS as SEM_PRESETS

TOLERANCE_PX, GOOD_PX = 0.5, 1.0
SEED = 900
Frame = Callable[[float], Micrograph]


def main() -> None:
    """Run all samples, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--model", type=Path, default=MODELS / "focus")
    parser.add_argument("--loop-model", type=Path, default=MODELS / "focus-stem")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    said = provenance("make bench-focus-loop", threads="one thread")
    found: dict[str, Any] = said | {"n_samples": arguments.n}
    kinds: dict[str, tuple[Path, Callable[[int], tuple[Frame, float]]]] = {
        "sem": (arguments.model, sem_sample),
        "stem": (arguments.loop_model, stem_sample),
    }
    for kind, (folder, sample) in kinds.items():
        if (folder / "card.json").is_file():
            found[kind] = compare(FocusModel.load(folder), sample, arguments.n)
            print(kind, found[kind], flush=True)
    write_json(found, RESULTS / "focus_loop.json")


def compare(model: FocusModel, sample: Callable[[int], tuple[Frame, float]], n: int) -> dict[str, Any]:
    """Both controllers on `n` specimens."""
    measure = best_measure(sample)
    by_score: list[tuple[Search, float]] = []
    by_measure: list[tuple[Search, float]] = []
    for i in range(n):
        frame, reach = sample(i)
        rng = np.random.default_rng([SEED, i])
        best, start = rng.uniform(-0.8, 0.8) * reach, rng.uniform(-0.8, 0.8) * reach
        limits = model.limits(frame(0.0).magnification)

        def blur_at(z: float, frame: Frame = frame, best: float = best, lost: float = limits.lost_px) -> float:
            one = assess_focus(frame(abs(z - best)), model)
            return lost if one.blur_px is None else one.blur_px

        def sharpness_at(z: float, frame: Frame = frame, best: float = best) -> float:
            return MEASURES[measure](frame(abs(z - best)).grey8())

        step = limits.lost_px / 3
        by_score.append((focus_by_blur(blur_at, start, step, TOLERANCE_PX, limits.lost_px), best))
        by_measure.append((golden_section(sharpness_at, -reach, reach, TOLERANCE_PX), best))
    return {"score": figures(by_score), "golden_section": figures(by_measure) | {"measure": measure}}


def figures(searches: list[tuple[Search, float]]) -> dict[str, Any]:
    """Frames taken, defocus left, share of good ends."""
    counts = np.array([search.n_evaluations for search, _ in searches])
    left = np.array([abs(search.best - best) for search, best in searches])
    return {
        "mean_frames": round(float(counts.mean()), 2),
        "most_frames": int(counts.max()),
        "median_defocus_left_px": round(float(np.median(left)), 3),
        "largest_defocus_left_px": round(float(left.max()), 3),
        "share_good": round(float((left < GOOD_PX).mean()), 3),
    }


def best_measure(sample: Callable[[int], tuple[Frame, float]]) -> str:
    """The classical measure that follows defocus best within a specimen, over four that are not searched."""
    scores: dict[str, list[float]] = {name: [] for name in MEASURES}
    for i in range(4):
        frame, reach = sample(10_000 + i)
        defocus_px = np.linspace(0, reach, 9)
        images = [frame(float(d)).grey8() for d in defocus_px]
        for name, measure in MEASURES.items():
            scores[name].append(float(spearmanr(-defocus_px, [measure(p) for p in images]).statistic))
    return max(scores, key=lambda name: float(np.nanmean(scores[name])))


def sem_sample(i: int) -> tuple[Frame, float]:
    """Tin balls or a grid, at each magnification in turn."""
    base = dataclasses.replace(SEM_PRESETS["focus"], zero_share=0.0)
    limits = focus_limits(base.magnifications[i % len(base.magnifications)])
    rng = np.random.default_rng([SEED, i, 1])

    def frame(defocus_px: float) -> Micrograph:
        score = score_of_blur(float(np.hypot(limits.perfect_px, defocus_px)), limits)
        made = simulate_sem(dataclasses.replace(base, focus_score=(score, score)), SEED, i)
        pixels = digitise(detect(made.clean, made.acquisition, rng), made.acquisition)
        return dataclasses.replace(made.micrograph, pixels=pixels)

    return frame, limits.lost_px


def stem_sample(i: int) -> tuple[Frame, float]:
    """A field of loops, with noise of its own in each frame."""
    grey = simulate_field(LOOP_PRESETS["fecral"], SEED, i).micrograph.grey8()[:512, :512]
    rng = np.random.default_rng([SEED, i, 2])

    def frame(defocus_px: float) -> Micrograph:
        # a little blur in any case, so that noise is drawn anew
        pixels = defocus(grey, max(defocus_px, 0.3), rng)
        return Micrograph(pixels, "", calibration=Calibration(0.2832, "simulation"), modality="STEM")

    return frame, STEM_LIMITS.lost_px


if __name__ == "__main__":
    main()
