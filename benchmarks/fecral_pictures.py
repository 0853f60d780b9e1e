"""Pictures of where models/fecral-loops fails, on held-out families: each family's worst image. For the eye only."""

from __future__ import annotations

from fecral_data import RESULTS, training_images
from fecral_figures import held_out

from defectpipe.report.overlays import write_overlay
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import Objects, f1_of, score
from defectpipe.training.figures import choose_thresholds

if __name__ == "__main__":
    known = held_out()
    _, by_fold = choose_thresholds(known)
    worst: dict[str, tuple[float, str]] = {}
    kept = {}
    for image, fold in known.folds.items():
        part = known.loops[(known.loops["image"] == image) & (known.loops["screening_score"] >= by_fold[fold])]
        kept[image] = part.reset_index(drop=True)
        counts = score(known.marked(image), Objects.from_loops(part), Settings().statistics)["one_to_one"]
        group = known.groups[image]
        worst[group] = min(worst.get(group, (2.0, "")), (float(f1_of(counts.astype(float))), image))
    micrographs = {i.micrograph.image: i.micrograph for i in training_images()}
    folder = RESULTS / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for group, (f1, image) in sorted(worst.items()):
        path = folder / f"{group}.jpg"
        write_overlay(path, micrographs[image], kept[image], known.labels[image], box_convention=known.box_convention)
        print(f"{group:32s} F1 {f1:.2f}  {image} -> {path}")
