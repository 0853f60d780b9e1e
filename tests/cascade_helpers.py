"""Small simulated fields with labels, and the scan over them: what the tests of a cascade's training share."""

from __future__ import annotations

import numpy as np

from defectpipe.detection.scan import ScanRecipe
from defectpipe.micrograph import Micrograph
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics.scoring import BOX_COLUMNS

SCAN = ScanRecipe(min_side_px=18, max_side_px=90)


def fields(n: int) -> list[tuple[Micrograph, np.ndarray]]:
    """Micrographs of the demonstration's kind with the boxes of their loops."""
    made = [simulate_field(PRESETS["demo"], 3, i) for i in range(n)]
    return [(f.micrograph, f.labels[BOX_COLUMNS].to_numpy(float)) for f in made]
