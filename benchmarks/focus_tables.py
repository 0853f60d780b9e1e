"""Tables 1 and 2 of the focus benchmark as Markdown, from ``results/focus.json``.

python benchmarks/focus_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "focus.json"
# name in the results: as the tables show it
ROWS = {
    "spectral": "spectral network (ships as `models/focus`)",
    "spectral-without-magnification": "the same without the magnification",
    "resnet-mini": "`resnet-mini`",
    "resnet18": "ResNet18 with the magnification",
    "resnet18-without-magnification": "ResNet18 without it",
    "resnet50": "ResNet50, without it",
    "absolute-variance": "absolute variance and magnification, small network",
}
OLD_AND_NEW = {
    "the same network, 1,350 images of each set": ("spectral-new-1500", "spectral-old-1500"),
}
PUBLISHED = {
    "absolute_variance": "published: absolute variance",
    "resnet50": "published: ResNet50",
    "resnet18": "published: ResNet18 with the magnification",
}


def table_1(found: dict[str, Any]) -> list[str]:
    """Total RMSE of networks trained on the new and on the old data set."""
    lines = ["| | new data set | old data set | new, empty frames left out | old, the same |", "|---|---|---|---|---|"]
    rows, published = found["rows"], found["published"]
    for title, (new, old) in OLD_AND_NEW.items():
        if new in rows and old in rows:
            values = [rows[name][key] for key in ("total", "with_a_sample") for name in (new, old)]
            lines.append(f"| {title} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    for name, title in (("resnet18", "published: ResNet18"), ("resnet50", "published: ResNet50")):
        new, old = (published[key]["total"] for key in (name, f"{name}, old data set"))
        lines.append(f"| {title} | {new:.3f} | {old:.3f} | | |")
    return lines


def table_2(found: dict[str, Any]) -> list[str]:
    """RMSE at each magnification and in total, with what it cost."""
    heads = ["", *(f"{int(m):,}×" for m in ("500", "1000", "2000", "5000", "10000")), "total"]
    heads += ["test images", "crops seen in training", "CPU min", "parameters", "ms an image"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    names = {
        **ROWS,
        **{
            name: name.replace("_", " ")
            for name in found["rows"]
            if "calibrated_by_magnification" in found["rows"][name]
        },
    }
    for name, title in names.items():
        made = found["rows"].get(name)
        if made is None:
            lines.append(f"| {title} | not trained |" + " |" * (len(heads) - 2))
            continue
        cells = [f"{v:.2f}" for v in (*made["rmse"].values(), made["total"])] + [f"{made['n_test']:,}"]
        if "cpu_s_training" in made:
            cells += [f"{made['n_images_seen']:,}", f"{made['cpu_s_training'] / 60:.1f}", f"{made['n_parameters']:,}"]
        else:
            cells += [f"{made['n_train']:,} images", "", ""]
        lines.append(f"| {title} | " + " | ".join([*cells, f"{made['ms_per_image']:.1f}"]) + " |")
    for name, title in PUBLISHED.items():
        lines.append(f"| {title} | " + " | ".join(f"{v:.2f}" for v in found["published"][name].values()) + " |" * 6)
    return lines


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    print("\n".join([*table_2(results), "", *table_1(results)]))
