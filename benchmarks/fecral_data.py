"""The FeCrAl set as training images: where it is, its labels, pixel sizes, families and folds."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

from defectpipe.io.folder import list_images
from defectpipe.io.labels import read_label_folder
from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes
from defectpipe.training import TrainingImage

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
NAME = "fecral-loops"
RESULTS = Path(__file__).parent / "results"


def data_folder() -> Path:
    """Folder of the real micrographs: DEFECTPIPE_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("DEFECTPIPE_DATA", ROOT.parent / "shared" / "data")) / NAME
    if not folder.is_dir():
        sys.exit(f"The FeCrAl set is not in {folder}; set DEFECTPIPE_DATA to the folder that holds {NAME}/.")
    return folder


def training_images() -> list[TrainingImage]:
    """All 242 images with labels, family and fold; sorted by name."""
    folder = data_folder()
    sizes = read_pixel_sizes(folder)
    frames = {
        file.image: read_micrographs(file, image=file.image, pixel_sizes=sizes)[0]
        for file in list_images(folder / "images")
    }
    found = read_label_folder(folder / "boxes", [(i, m.shape) for i, m in frames.items()], label_format=None)
    [labels] = found.experts.values()
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    return [TrainingImage(m, labels[i], rows[i]["family"], int(rows[i]["fold"])) for i, m in frames.items()]
