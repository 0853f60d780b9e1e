"""The predicted F1 of models/fecral-loops on folds that it was not made from, from the held-out tables alone.

With ``--write`` it goes into the card.
"""

from __future__ import annotations

import json
import sys

from fecral_data import MODELS, NAME, RESULTS, training_images
from fecral_figures import held_out
from provenance import provenance

from defectpipe.io.tables import read_parquet, write_json
from defectpipe.training.figures import choose_thresholds
from defectpipe.training.loop_model import HELD_OUT_FOLDER
from defectpipe.training.predicted_f1 import DEGRADED_FILE, judge_images, predicted_f1_card

if __name__ == "__main__":
    found = held_out()
    card = json.loads((MODELS / NAME / "card.json").read_text(encoding="utf-8"))
    sizes = {i.micrograph.image: i.micrograph.pixel_size_nm for i in training_images()}
    place = MODELS / NAME / HELD_OUT_FOLDER / DEGRADED_FILE
    degraded = read_parquet(place) if place.is_file() else None
    _, thresholds = choose_thresholds(found)
    result = predicted_f1_card(judge_images(found, thresholds, sizes, card["working_pixel_size_nm"], degraded))
    RESULTS.mkdir(exist_ok=True)
    write_json(provenance("make bench-predicted-f1") | result, RESULTS / "predicted-f1.json")
    for kind, figures in result["validation"].items():
        print(kind)
        for name, value in figures.items():
            print(f"  {name:20s} {value}")
    if degraded is None:
        print(f"{place} is not there: judged on plain images only")
    if "--write" in sys.argv:
        card["predicted_f1"] = result
        write_json(card, MODELS / NAME / "card.json")
    print("in the card as it is:", "yes" if card.get("predicted_f1") == result else "no, or another one")
