"""The focus gate of models/fecral-loops beyond its training: on simulated fields, and on the real ones as they are.

    python benchmarks/focus_gate.py [--write]

1. Fields of the presets `fecral` (with all the distractors of the real ones) and `demo` (with few), defocused as the
   training's held-out fields are (same blurs, noise put back the same way), with the shipped model: F1 and diameter
   error over the focus score, as in the card, with 95 % intervals over fields. The loop model never saw a simulated
   field; the focus model saw others of these presets. A part of this benchmark and not of `TrainModel`, since only for
   this model there is a preset that is like its images.
2. All real fields as they are: how many does the gate not let pass? Needs the FeCrAl set. The focus model saw them.

Nothing is chosen by these figures. Results: results/focus-gate.json; with ``--write`` also in the card.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from fecral_data import MODELS, NAME, RESULTS, training_images
from provenance import provenance

from defectpipe.focus.gate import FocusGate
from defectpipe.focus.model import FocusModel
from defectpipe.io.tables import write_json
from defectpipe.model import LoopModel
from defectpipe.settings import Settings
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics.scoring import Objects
from defectpipe.training.degraded import BLUR_LEVELS_PX, degraded_rows
from defectpipe.training.focus_gate import focus_gate, judged_fields

# Number of fields of each preset.
N_FIELDS = {"fecral": 10, "demo": 8}
SEED = 7300
SHOWN = (10.0, 7.0, 5.0, 2.0)
# Simulated fields have no gate of their own.
_NOT_KEPT = ("focus_model", "reject_below", "ok_from")


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / NAME)
    parser.add_argument("--write", action="store_true", help="into the model's card, too; from the results if they fit")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    model, focus = LoopModel.load(arguments.model), FocusModel.load(MODELS / "focus-stem")
    place = RESULTS / "focus-gate.json"
    found = json.loads(place.read_text(encoding="utf-8")) if arguments.write and place.is_file() else {}
    if any(found.get(key) != value for key, value in made_from(model, focus).items()):
        found = measure(model, focus)
        write_json(found, place)
    show("real", found["real"])
    for preset, section in found["simulated"].items():
        show(f"simulated, {preset}", section)
    print("real fields as they are:", found["fields_as_they_are"])
    if arguments.write:
        card = json.loads((arguments.model / "card.json").read_text(encoding="utf-8"))
        card["focus_gate"] |= {key: found[key] for key in ("fields_as_they_are", "simulated")}
        write_json(card, arguments.model / "card.json")
        print(f"written into the card of {arguments.model.name}")


def made_from(model: LoopModel, focus: FocusModel) -> dict[str, Any]:
    """The models, and the gate, that the figures belong to."""
    added = ("simulated", "fields_as_they_are")
    return {
        "model": {"name": model.name, "sha256": model.card["sha256"]},
        "focus_model": {"name": focus.name, "sha256": focus.sha256},
        "real": {key: value for key, value in (model.focus_gate or {}).items() if key not in added},
    }


def measure(model: LoopModel, focus: FocusModel) -> dict[str, Any]:
    """Everything that results/focus-gate.json holds."""
    gate = FocusGate.of_card(model.card, focus.sha256)
    if gate is None:
        raise SystemExit(f"The card of {model.name} holds no gate measured with this {focus.name}.")
    start = time.process_time()
    simulated = {preset: simulated_curve(model, focus, preset, n) for preset, n in N_FIELDS.items()}
    middle = time.process_time()
    as_they_are = judged_fields(((i.group, i.micrograph) for i in training_images()), focus, gate)
    return {
        **provenance("make bench-focus-gate", threads="one thread"),
        **made_from(model, focus),
        "cpu_s": {"simulated": round(middle - start, 1), "as_they_are": round(time.process_time() - middle, 1)},
        "simulated": simulated,
        "fields_as_they_are": as_they_are,
    }


def simulated_curve(model: LoopModel, focus: FocusModel, preset: str, n: int) -> dict[str, Any]:
    """Runs of `n` simulated fields at each blur, and their curve."""
    rows: list[dict[str, Any]] = []
    for i in range(n):
        field = simulate_field(PRESETS[preset], SEED, i)
        m = field.micrograph
        margin_px = Settings().measurement.border_margin_px
        marked = Objects.from_labels(field.labels, m.shape, model.box_convention, margin_px)
        known = {"image": f"{i}", "group": f"{i}"}
        seen = degraded_rows(m, marked, model, focus, np.random.default_rng([SEED, i]))
        rows += [known | row for row in seen]
        print(m.image, " ".join(f"{r['focus_score'] or float('nan'):.1f}:{r['f1']:.2f}" for r in seen), flush=True)
    table = pd.DataFrame(rows)
    table["focus_score"] = table["focus_score"].astype(float)
    curve = {key: value for key, value in focus_gate(table, focus.name, focus.sha256).items() if key not in _NOT_KEPT}
    by_blur = table.groupby("working_sigma_px")
    counts = by_blur[["n_true", "n_labels", "n_loops"]].sum()
    return {
        "seed": SEED,
        "n_labels": int(table.drop_duplicates("image")["n_labels"].sum()),
        **curve,
        "by_blur": {
            "working_sigma_px": list(BLUR_LEVELS_PX),
            "mean_focus_score": [round(float(s), 2) for s in by_blur["focus_score"].mean()],
            "f1": [round(float(f), 4) for f in 2 * counts["n_true"] / (counts["n_labels"] + counts["n_loops"])],
        },
    }


def show(kind: str, section: dict[str, Any]) -> None:
    """A few points of a curve."""
    if "skipped" in section:
        print(f"{kind}: {section['skipped']}")
        return
    curve = pd.DataFrame(section["curve"]).set_index("score")
    low, high = section["lost_tenth_at_ci_low"], section["lost_tenth_at_ci_high"]
    print(f"{kind}: {section['n_images']} images; a tenth is lost at {section['lost_tenth_at']} ({low} to {high})")
    print(curve.loc[list(SHOWN)].to_string())


if __name__ == "__main__":
    main()
