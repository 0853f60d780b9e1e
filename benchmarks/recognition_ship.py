"""Write models/solids from the networks that `recognition_train.py` trained and the figures of `recognition.py`.

python benchmarks/recognition_ship.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from recognition import RESULTS
from recognition_data import DATA
from recognition_train import CACHE, RUN, answer, load_fusion, load_pixelwise, load_recogniser

from defectpipe.networks.training import use_threads
from defectpipe.recognition.familiarity import Familiarity, fit_familiarity
from defectpipe.recognition.recogniser import Layout
from defectpipe.training.recognition_data import read_images
from defectpipe.training.recognition_model import TrainedSolids, write_solid_model
from defectpipe.training.recognition_sets import SETS
from defectpipe.training.recognition_targets import targets_of

SOURCE = "simulated by defectpipe (benchmarks/recognition_data.py)"
MODEL = Path(__file__).parents[1] / "models" / "solids"


def familiarity_of(network: Any, layout: Layout) -> Familiarity:
    """From views that the recogniser has not learned from."""
    images = read_images("views-fusion", DATA, maps=False)
    features = answer(network, images)[..., layout.slices["features"]]
    return fit_familiarity(features.reshape(-1, layout.n_features), targets_of(images, layout)["label"])


def thickness_range_nm() -> list[float]:
    """Largest thickness of the bodies trained on: the first and the 99th hundredth of them."""
    images = read_images("views-train", DATA, 6_000, maps=False)
    return [float(f"{v:.3g}") for v in np.percentile(images.column("max_thickness_nm"), (1, 99))]


def card_figures(results: dict[str, Any]) -> dict[str, Any]:
    """What of the benchmark stands in the card: test sets that no training has seen."""
    recogniser, pixelwise = results["recogniser"], results["pixelwise"]
    named = {"random orientations": "views-test", "dose 30": "views-test-dose-30", "tilt series": "views-test-tilt"}
    return {
        "views": {
            title: {
                "learned fusion": recogniser[name]["learned_fusion"],
                "summed log-probabilities": recogniser[name]["views"],
                "summed log-probabilities, ten classes": recogniser[name]["views_of_ten_classes"],
            }
            for title, name in named.items()
        },
        "per_class": recogniser["views-test"]["per_class"],
        "per_dose": recogniser["views-test"]["per_dose"],
        "per_deformation": recogniser["views-test"]["per_deformation"],
        "pixelwise": {
            name: {key: value for key, value in values.items() if key not in ("per_dose", "per_class")}
            for name, values in pixelwise.items()
            if name != "training"
        },
        "unseen_classes": {name: values for name, values in results["transfer"].items() if name.startswith("ours")},
    }


def card_data() -> dict[str, Any]:
    """The simulated sets: number of scenes and views, seed, hash of all that decides their content."""
    return {
        name: {"n_scenes": plan.n_scenes, "n_views": plan.n_views, "seed": plan.seed, "plan_sha256": plan.sha256()}
        for name, plan in SETS.items()
    }


if __name__ == "__main__":
    use_threads(1)
    layout, recogniser, run = load_recogniser()
    fusion, fusion_run = load_fusion(layout)
    recipes = {part: json.loads((CACHE / part / RUN).read_text()) for part in ("recogniser", "fusion", "pixelwise")}
    describe = {
        "data": {"source": SOURCE, "licence": "BSD-3-Clause", "sets": card_data()},
        "trained_thickness_nm": thickness_range_nm(),
        "figures": card_figures(json.loads(RESULTS.read_text())),
        "recipes": {part: {**of["recipe"], "seed": of.get("seed", 1)} for part, of in recipes.items()},
    }
    trained = TrainedSolids(
        layout,
        recogniser,
        load_pixelwise(),
        fusion,
        familiarity_of(recogniser, layout),
        {int(n): float(np.asarray(t)) for n, t in fusion_run["temperatures"].items()},
    )
    print(write_solid_model(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL, trained, describe))
