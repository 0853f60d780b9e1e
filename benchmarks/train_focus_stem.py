"""models/focus-stem: the focus of loop images, from the FeCrAl fields and simulated ones, defocused by known blurs.

    python benchmarks/train_focus_stem.py

About three minutes on one core. The real fields keep the folds of the loop model: a family is on one side only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from fecral_data import MODELS, training_images

from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import read_micrographs
from defectpipe.micrograph import Micrograph
from defectpipe.resolution import binning, reduce
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.training.focus_stem import FocusField, train_focus_stem

PRESETS = ("fecral", "316l", "fcc", "bcc-adf", "demo")
N_SIMULATED = 8
SEED = 100


def main() -> None:
    """Train, and print the figures."""
    cv2.setNumThreads(1)
    images = training_images()
    size = float(np.median([i.micrograph.pixel_size_nm for i in images if i.micrograph.pixel_size_nm is not None]))
    fields = [FocusField(working(i.micrograph, size), i.group, i.fold or 0) for i in images]
    for k, preset in enumerate(PRESETS):
        with tempfile.TemporaryDirectory() as folder:
            simulate_dataset("loops", N_SIMULATED, SEED + k, preset, folder, n_jobs=1)
            for n, file in enumerate(list_images(Path(folder) / "images")):
                [m] = read_micrographs(file, image=file.image)
                # a field of its own each, so that they are in every fold
                fields.append(FocusField(working(m, size), f"simulated: {preset}", n % 5))
    describe = {
        "description": "Focus of loop images (STEM, bright and annular dark field)",
        "data": {
            "source": "242 training fields of Li, Field & Morgan 2018 (uw-cmg/Multitype-Defect-Detection at 059075fd), "
            f"and {N_SIMULATED} simulated fields of each of {', '.join(PRESETS)} (seeds {SEED} to "
            f"{SEED + len(PRESETS) - 1}), defocused by known blurs, noise restored after the blur",
            "licence": "MIT",
        },
    }
    folder = train_focus_stem(fields, MODELS / "focus-stem", size, describe)
    print((folder / "card.json").read_text())


def working(m: Micrograph, size_nm: float) -> np.ndarray:
    """The micrograph as the model sees it."""
    return reduce(m.grey8(), binning(m.shape, m.pixel_size_nm, size_nm))


if __name__ == "__main__":
    main()
