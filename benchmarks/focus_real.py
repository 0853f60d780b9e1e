"""The focus score on real images: is the order right where it is known?

    python benchmarks/focus_real.py [--model models/focus] [--loop-model models/focus-stem] [--only PART ...]

1. sem-defocus: one field at three settings; the order comes with it (+5 µm sharpest, then base, then -5 µm).
2. sem-textures: the middle 480 × 640 px of six fields in focus, defocused by known blurs, noise added after: Spearman's
   coefficient in each field.
3. fecral-loops: a field of each family, defocused likewise. The model has seen other blurs of these fields; what
   it reaches on families that it never saw is in its card.

Nothing is chosen by these images. Results: results/focus_real.json; with --only, the other parts stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fecral_data import MODELS, RESULTS, ROOT, training_images
from provenance import provenance
from scipy.stats import spearmanr

from defectpipe.focus.assessment import assess_focus
from defectpipe.focus.measures import MEASURES
from defectpipe.focus.model import FocusModel
from defectpipe.focus_scale import pixel_size_nm
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.tables import write_json
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.simulation.defocused import defocus

DATA = Path(os.environ.get("DEFECTPIPE_DATA", ROOT.parent / "shared" / "data"))
SIGMAS_PX = (0.0, 1.0, 1.7, 2.6, 3.8, 5.5, 8.0)
# No file of these sets states a magnification; the order is asked at each.
MAGNIFICATIONS = (1000, 5000)
PARTS = ("sem_defocus", "sem_textures", "fecral")
EXPECTED = ("pert5000", "base", "pert-5000")


def main() -> None:
    """Score, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / "focus")
    parser.add_argument("--loop-model", type=Path, default=MODELS / "focus-stem")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    place = RESULTS / "focus_real.json"
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    found |= provenance("make bench-focus-real", threads="one thread") | {"sigmas_px": SIGMAS_PX}
    models: dict[str, tuple[FocusModel, float | None]] = {}
    if (arguments.model / "card.json").is_file():
        sem = FocusModel.load(arguments.model)
        models |= {f"{sem.name} at {m:g} x": (sem, pixel_size_nm(m)) for m in MAGNIFICATIONS}
    loop_model = FocusModel.load(arguments.loop_model)
    # of another modality, so for the order only
    models[f"{loop_model.name} (not trained on SEM)"] = (loop_model, None)
    if "sem_defocus" in arguments.only:
        found["sem_defocus"] = {name: defocus_series(*known) for name, known in models.items()}
        found["sem_defocus"]["classical measures"] = classical_series()
    if "sem_textures" in arguments.only:
        found["sem_textures"] = textures(models)
    if "fecral" in arguments.only:
        found["fecral"] = fecral({loop_model.name: (loop_model, None)})
    write_json(found, place)
    for part in arguments.only:
        print(part, found[part])


def defocus_series(model: FocusModel, size_nm: float | None) -> dict[str, Any]:
    """Scores of the three settings, and whether they come in the published order."""
    scores, stds = {}, {}
    for setting, pixels in series().items():
        one = assess_focus(micrograph(pixels, size_nm), model)
        scores[setting], stds[setting] = rounded(one.score), rounded(one.score_std)
    return {"scores": scores, "std": stds, "in_order": in_order(scores)}


def classical_series() -> dict[str, Any]:
    """The classical measures on the same three images."""
    images = series()
    values = {name: {s: float(measure(p)) for s, p in images.items()} for name, measure in MEASURES.items()}
    return {name: {"values": v, "in_order": in_order(v)} for name, v in values.items()}


def textures(models: dict[str, tuple[FocusModel, float | None]]) -> dict[str, Any]:
    """Each model's scores of each texture, its data bar cut off as the reader finds it."""
    out = {}
    for index, file in enumerate(list_images(DATA / "sem-textures")):
        m = read_micrographs(file, image=file.image, colour="luminance")[0]
        pixels = m.grey8()[slice(*m.analysed_rows)]
        y, x = (pixels.shape[0] - 480) // 2, (pixels.shape[1] - 640) // 2
        out[file.image] = ranked(pixels[y : y + 480, x : x + 640], models, index)
    return out


def fecral(models: dict[str, tuple[FocusModel, float | None]]) -> dict[str, Any]:
    """The same in the first field of each family of loop images."""
    out: dict[str, Any] = {}
    for index, image in enumerate(training_images()):
        if image.group not in out:
            m = image.micrograph
            known = {name: (model, m.pixel_size_nm) for name, (model, _) in models.items()}
            out[image.group] = ranked(m.grey8(), known, index)
    return out


def ranked(pixels: np.ndarray, models: dict[str, tuple[FocusModel, float | None]], seed: int) -> dict[str, Any]:
    """Scores at each blur, and Spearman's coefficient of score and sharpness."""
    rng = np.random.default_rng(seed)
    images = [defocus(pixels, sigma, rng) for sigma in SIGMAS_PX]
    out = {}
    for name, (model, size_nm) in models.items():
        scores = [assess_focus(micrograph(image, size_nm), model).score for image in images]
        known = np.array([s is not None for s in scores])
        values = np.array([np.nan if s is None else s for s in scores])
        enough = known.sum() > 2
        coefficient = spearmanr(-np.array(SIGMAS_PX)[known], values[known]).statistic if enough else None
        out[name] = {"scores": [rounded(s) for s in scores], "spearman": rounded(coefficient)}
    return out


def series() -> dict[str, np.ndarray]:
    """The three images, by what their names say of the setting."""
    images = {}
    for path in sorted((DATA / "sem-defocus").glob("*.png")):
        images[path.stem.split("_")[-1]] = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return images


def micrograph(pixels: np.ndarray, size_nm: float | None) -> Micrograph:
    """An image of this pixel size, of no stated modality."""
    return Micrograph(pixels, "", calibration=None if size_nm is None else Calibration(size_nm, "assumed"))


def in_order(values: dict[str, float | None]) -> bool:
    """Whether the three settings come in the published order."""
    sharp, base, soft = (values[name] for name in EXPECTED)
    return sharp is not None and base is not None and soft is not None and sharp > base > soft


def rounded(value: float | None) -> float | None:
    """Three decimals."""
    return None if value is None else round(float(value), 3)


if __name__ == "__main__":
    main()
