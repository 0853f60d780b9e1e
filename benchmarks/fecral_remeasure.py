"""Measure the held-out loops of models/fecral-loops anew, in the boxes that they have; tables and card follow.

For a change of the measurement alone: the candidates, boxes and scores of each fold's model stay. What the card says of
defocused images (``focus_gate``) stays as well: it needs the folds' models.
"""

from __future__ import annotations

import dataclasses
import json

import cv2
import pandas as pd
from fecral_data import MODELS, NAME, training_images
from fecral_figures import held_out as read_held_out

from defectpipe.analysis import measure_loops
from defectpipe.io.tables import write_json, write_parquet
from defectpipe.model import LoopModel
from defectpipe.model_files import CARD
from defectpipe.settings import Settings
from defectpipe.training.box_scale import BoxScales, choose_box_scales
from defectpipe.training.figures import held_out_figures
from defectpipe.training.loop_model import HELD_OUT_FOLDER


def main() -> None:
    """Choose what makes boxes tight (of each fold as the others say), measure, write tables and card."""
    cv2.setNumThreads(1)
    folder = MODELS / NAME
    model, before = LoopModel.load(folder), read_held_out()
    # The boxes of the tables were scaled to their convention when the model was trained: only the rest is left.
    whole, by_fold = choose_box_scales(before)
    tables = []
    for image in training_images():
        m, fold = image.micrograph, before.folds[image.micrograph.image]
        rows = before.loops[before.loops["image"] == m.image]
        scaled = dataclasses.replace(model, card=model.card | {"tight_scale": _tight(by_fold[fold])})
        measured = measure_loops(m, rows.assign(kept=True), scaled, Settings()).assign(fold=fold)
        tables.append(measured)
    # In the order of the table before: by fold, then by image.
    loops = pd.concat(tables, ignore_index=True).sort_values("fold", kind="stable", ignore_index=True)
    assert len(loops) == len(before.loops)
    tight = {fold: _tight(scales) for fold, scales in by_fold.items()}
    figures = held_out_figures(dataclasses.replace(before, loops=loops, tight_scales=tight))
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    kept = {name: card["held_out"][name] for name in ("box_scale", "box_scale_by_fold")}
    card["tight_scale"] = _tight(whole)
    by_name = {str(fold): scale for fold, scale in tight.items()}
    card["held_out"] = kept | {"tight_scale": _tight(whole), "tight_scale_by_fold": by_name} | figures
    write_parquet(loops, folder / HELD_OUT_FOLDER / "loops.parquet")
    write_json(card, folder / CARD)
    print("tight scale:", _tight(whole), tight)
    print("long side:", figures["long_side"])
    print("sizes:", {k: v for k, v in figures["chain"]["sizes"].items() if "_ci_" not in k})


def _tight(scales: BoxScales) -> float | None:
    return None if scales.tight is None else round(scales.box * scales.tight, 3)


if __name__ == "__main__":
    main()
