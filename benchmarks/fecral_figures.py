"""Figures of models/fecral-loops on families that each fold's model never saw, beside what the project asks for."""

from __future__ import annotations

import json

from fecral_data import MODELS, NAME, RESULTS, training_images
from provenance import provenance

from defectpipe.io.tables import read_parquet, write_json
from defectpipe.training import TrainingImage
from defectpipe.training.figures import HeldOut, held_out_figures
from defectpipe.training.loop_model import HELD_OUT_FOLDER


def held_out(images: list[TrainingImage] | None = None) -> HeldOut:
    """Labels, and what each fold's model found; `images` where they have been read already."""
    images = training_images() if images is None else images
    card = json.loads((MODELS / NAME / "card.json").read_text(encoding="utf-8"))
    folder = MODELS / NAME / HELD_OUT_FOLDER
    return HeldOut(
        {i.micrograph.image: i.micrograph.shape for i in images},
        {i.micrograph.image: i.labels for i in images},
        {i.micrograph.image: i.group for i in images},
        {i.micrograph.image: int(i.fold or 0) for i in images},
        read_parquet(folder / "loops.parquet"),
        read_parquet(folder / "candidates.parquet"),
        card["box_convention"],
        {int(fold): scale for fold, scale in card["held_out"].get("tight_scale_by_fold", {}).items()},
    )


def rows(figures: dict) -> list[tuple[str, float, float, float]]:
    """What is asked for: name, figure, at least (at most for errors), worth reaching."""
    chain, small, large = figures["chain"], *figures["cascade"]
    error = figures["long_side"]["measured_median_absolute_relative_error"]
    return [
        (f"cascade recall at {large['candidates_per_image']} candidates an image", large["recall_20px"], 0.97, 0.985),
        (f"cascade recall at {small['candidates_per_image']} candidates an image", small["recall_20px"], 0.93, 0.955),
        ("chain recall, 20 px rule", chain["li2018"]["recall"], 0.76, 0.80),
        ("chain precision, 20 px rule", chain["li2018"]["precision"], 0.76, 0.80),
        ("chain F1, one-to-one at IoU 0.4", chain["iou_0.4"]["f1"], 0.77, 0.82),
        ("long side, median error (at most)", error, 0.08, 0.05),
    ]


if __name__ == "__main__":
    result = held_out_figures(held_out())
    RESULTS.mkdir(exist_ok=True)
    write_json(provenance("make bench-fecral") | result, RESULTS / "fecral-figures.json")
    for name, value, floor, goal in rows(result):
        print(f"{name:55s} {value:.3f}   asked {floor}, worth reaching {goal}")
    before = result["chain_without_box_correction"]["iou_0.4"]["f1"]
    print(f"{'F1 with the candidates boxes instead of the corrected':55s} {before:.3f}")
    print("thresholds:", result["threshold_by_fold"], "all:", result["threshold"])
    print("shuffled candidates:", [row["recall_20px_of_shuffled_candidates"] for row in result["cascade"]])
    print("sizes:", {k: v for k, v in result["chain"]["sizes"].items() if "_ci_" not in k})
    print("long side:", result["long_side"])
    for group, scores in result["groups"].items():
        print(f"{group:32s}", scores)
