"""A model of solids with untrained networks: for what does not hang on what they learned."""

from __future__ import annotations

import numpy as np

from defectpipe.recognition.familiarity import fit_familiarity
from defectpipe.recognition.fusion import build_fusion
from defectpipe.recognition.pixelwise import build_pixelwise
from defectpipe.recognition.recogniser import Layout, build_recogniser
from defectpipe.recognition.views import VIEW_PX
from defectpipe.training.recognition_model import TrainedSolids

LAYOUT = Layout(("cube", "sphere"), ("deformed", "dents"), ("any.volume_diameter_nm", "cube.edge_nm"))


def untrained_solids() -> TrainedSolids:
    """The same one at every call."""
    import keras

    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    return TrainedSolids(
        LAYOUT,
        build_recogniser(LAYOUT, VIEW_PX),
        build_pixelwise(),
        build_fusion(LAYOUT),
        fit_familiarity(rng.normal(size=(400, LAYOUT.n_features)), np.arange(400) % 2),
        dict.fromkeys(range(1, 9), 1.5),
    )
