"""How well the catalogue's descriptor finds images of the same kind, on simulated images and on real families.

``--fit`` writes the descriptor's means and deviations anew, from simulated images of another seed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
from fecral_data import RESULTS, ROOT, training_images
from provenance import provenance

from defectpipe.catalogue.descriptor import DESCRIPTOR, raw_numbers
from defectpipe.io.tables import write_json
from defectpipe.micrograph import Micrograph
from defectpipe.simulation.kinds import KINDS, find_preset

FIT_SEED, TEST_SEED = 11, 12
SETS = (
    *(("loops", name, 12) for name in ("demo", "fecral", "316l", "fcc", "bcc-adf")),
    *(("solids", "solids", 60), ("solids", "several", 12), ("solids", "overlapping", 6), ("sem", "focus", 60)),
)
NEIGHBOURS = 5
# The descriptor was made while looking at the other two.
REPORTED_FOLDS = (2, 3, 4)


def simulated(seed: int) -> tuple[list[Micrograph], list[str], list[str]]:
    """Images of every preset, with their kinds and presets."""
    images, kinds, presets = [], [], []
    for kind, name, n in SETS:
        for index in range(n):
            images.append(KINDS[kind].simulate(find_preset(kind, name), seed, index).micrograph)
            kinds.append(kind)
            presets.append(f"{kind}: {name}")
    return images, kinds, presets


def precision(vectors: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Mean share of the nearest neighbours that have the query's label, and what chance would give.

    Of a label with fewer images as many neighbours are taken as it has others; one that stands alone is no query.
    """
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    own, count = np.array(labels), Counter(labels)
    shares, chance = [], []
    for row, label in zip(likeness, labels, strict=True):
        if n := min(NEIGHBOURS, count[label] - 1):
            nearest = np.argsort(-row)[:n]
            shares.append(float((own[nearest] == label).mean()))
            chance.append((count[label] - 1) / (len(labels) - 1))
    return {
        "n_images": len(labels),
        "n_labels": len(count),
        f"precision_at_{NEIGHBOURS}": round(float(np.mean(shares)), 3),
        "by_chance": round(float(np.mean(chance)), 3),
    }


def embedded(images: list[Micrograph]) -> np.ndarray:
    """Descriptors, shape (images, 64)."""
    return np.array([DESCRIPTOR.embed(image) for image in images])


def without_size(images: list[Micrograph]) -> list[Micrograph]:
    """The same images, their pixel size unknown."""
    return [replace(image, calibration=None) for image in images]


def fit() -> None:
    """Write ``descriptor_scale.py``."""
    raw = np.array([raw_numbers(image) for image in simulated(FIT_SEED)[0]])
    values = {"MEAN": raw.mean(0), "STD": np.maximum(raw.std(0), 1e-3)}
    lines = [
        f'"""Means and deviations of the numbers of {len(raw)} simulated images, by which the descriptor standardises.',
        "",
        "Written by ``benchmarks/catalogue_likeness.py --fit``; other values are another descriptor.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import numpy as np",
        "",
        "# fmt: off",
    ]
    for name, numbers in values.items():
        texts = [f"{number:.5g}" for number in numbers]
        rows = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
        lines += [f"{name} = np.array([", *(f"    {row}," for row in rows), "])"]
    path = ROOT / "defectpipe" / "catalogue" / "descriptor_scale.py"
    path.write_text("\n".join([*lines, "# fmt: on", ""]), encoding="utf-8")


def evaluate() -> dict[str, object]:
    """Precision on simulated images, and on the FeCrAl set where it is."""
    images, kinds, presets = simulated(TEST_SEED)
    vectors, bare = embedded(images), embedded(without_size(images))
    results: dict[str, object] = {
        "descriptor": DESCRIPTOR.name,
        "seed": TEST_SEED,
        "simulated, kind": precision(vectors, kinds),
        "simulated, kind, pixel size unknown": precision(bare, kinds),
        "simulated, preset": precision(vectors, presets),
        "simulated, preset, pixel size unknown": precision(bare, presets),
    }
    real = [image for image in training_images() if image.fold in REPORTED_FOLDS]
    micrographs = [image.micrograph for image in real]
    families = [image.group for image in real]
    begin = time.process_time()
    vectors = embedded(micrographs)
    seconds = (time.process_time() - begin) / len(real)
    return results | {
        "FeCrAl, family": precision(vectors, families),
        "FeCrAl, family, pixel size unknown": precision(embedded(without_size(micrographs)), families),
        "FeCrAl, folds": list(REPORTED_FOLDS),
        "cpu_seconds_an_image": round(seconds, 3),
    }


if __name__ == "__main__":
    cv2.setNumThreads(1)
    if "--fit" in sys.argv:
        fit()
    else:
        found = provenance("make bench-catalogue-likeness", threads="one thread") | evaluate()
        write_json(found, RESULTS / "catalogue-likeness.json")
        print(found)
