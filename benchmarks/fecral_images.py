"""List in models/fecral-loops which images it was trained on: names, families, folds, hashes of the pixels.

A training writes this list itself; this writes it for a model whose training did not, and only if the images here are
those of its held-out tables.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from fecral_data import MODELS, NAME, training_images

from defectpipe.io.tables import read_parquet
from defectpipe.training.folds import assign_folds
from defectpipe.training.image_list import write_image_list
from defectpipe.training.loop_model import HELD_OUT_FOLDER

if __name__ == "__main__":
    images, folder = training_images(), MODELS / NAME
    folds = assign_folds([i.group for i in images], [len(i.labels) for i in images], [i.fold for i in images], 5)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    here = dict(zip((i.micrograph.image for i in images), folds, strict=True))
    known = read_parquet(folder / HELD_OUT_FOLDER / "candidates.parquet")[["image", "fold"]].drop_duplicates()
    if {str(fold): n for fold, n in Counter(folds).items()} != card["folds"]:
        sys.exit(f"The folds of these images are not those of {folder / 'card.json'}.")
    if any(here.get(image) != fold for image, fold in zip(known["image"], known["fold"], strict=True)):
        sys.exit(f"These images are not those that {folder} was judged on.")
    rows = [(i.micrograph.image, i.group, i.micrograph) for i in images]
    print(f"{write_image_list(folder, rows, folds)}: {len(images)} images")
