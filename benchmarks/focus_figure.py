"""Figure 2 of Yang et al. again: simulated examples with the truth and every trained network's score.

    python benchmarks/focus_figure.py

Two images of each magnification from the frozen test set, its first sharp one and its first blurred one, so that nobody
chose them; networks and scores from ``FOCUS_CACHE`` (`focus_train.py`). Writes docs/focus-examples.png.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import focus_sets
import matplotlib.pyplot as plt
import numpy as np
from focus_train import ENTRIES, N_TESTED

from defectpipe.io.files import write_atomic
from defectpipe.training.focus_data import FocusSamples

SHEET = Path(__file__).parents[1] / "docs" / "focus-examples.png"
SHARP_FROM, BLURRED = 7.0, (2.0, 5.5)
_SHOWN_PX = (200, 150)
_GREY_LEVELS = 64


def draw(test: FocusSamples, scores: dict[str, np.ndarray], path: Path = SHEET) -> None:
    """The sheet: columns are magnifications; under each image the truth, a simulated expert, each network."""
    magnifications = np.unique(test.magnification)
    drawing, axes = plt.subplots(2, len(magnifications), figsize=(11.5, 7.6))
    for column, magnification in zip(axes.T, magnifications, strict=True):
        for axis, row in zip(column, chosen(test, magnification), strict=True):
            patch = np.ascontiguousarray(test.patches()[row])
            axis.imshow(cv2.resize(patch, _SHOWN_PX, interpolation=cv2.INTER_AREA), cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
            axis.set_title(f"{magnification:,.0f} ×, {test.kind[row]}", fontsize=9)
            lines = [("truth", f"{test.score[row]:.2f}"), ("simulated expert", f"{test.expert[row]:.0f}")]
            lines += [(shown(name), f"{score[row]:.2f}") for name, score in scores.items()]
            for side, at, place in ((0, 0.02, "left"), (1, 0.98, "right")):
                told = "\n".join(line[side] for line in lines)
                axis.text(at, -0.05, told, transform=axis.transAxes, ha=place, va="top", fontsize=7.5)
    drawing.subplots_adjust(0.005, 0.19, 0.995, 0.965, 0.06, 0.85)
    held = io.BytesIO()
    drawing.savefig(held, dpi=100)
    plt.close(drawing)
    grey = cv2.imdecode(np.frombuffer(held.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)
    step = 255 / (_GREY_LEVELS - 1)
    few = np.rint(np.rint(grey / step) * step).astype(np.uint8)  # noise packs badly otherwise
    write_atomic(path, cv2.imencode(".png", few, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def chosen(test: FocusSamples, magnification: float) -> tuple[int, int]:
    """The first sharp and the first blurred image of a magnification, among those that every network has scored."""
    score, here = test.score[:N_TESTED], test.magnification[:N_TESTED] == magnification
    sharp = here & (score >= SHARP_FROM)
    blurred = here & (score >= BLURRED[0]) & (score <= BLURRED[1])
    return int(np.flatnonzero(sharp)[0]), int(np.flatnonzero(blurred)[0])


def shown(name: str) -> str:
    """A network's name, short."""
    return name.replace("-without-magnification", ", no magn.").replace("-1500", ", 1,500 im.")


def trained_scores() -> dict[str, np.ndarray]:
    """What each trained network says of the test set, or of its beginning."""
    files = {name: focus_sets.CACHE / "networks" / name / "scores.npz" for name in ENTRIES}
    return {name: np.load(file)["test"] for name, file in files.items() if file.exists()}


if __name__ == "__main__":
    draw(focus_sets.load("new", "test"), trained_scores())
