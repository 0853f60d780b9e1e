"""What a recogniser is to answer about each simulated body."""

from __future__ import annotations

import numpy as np

from defectpipe.recognition.recogniser import Layout
from defectpipe.simulation.solids.rays import BODIES
from defectpipe.simulation.solids.shapes import DIMENSIONS_OF
from defectpipe.training.recognition_data import SolidImages

DEFORMED = ("deformed", "twist", "bend", "taper", "shear", "dents")
_AMPLITUDES = ("deformed", "twist_deg", "bend_deg", "taper", "shear", "dent_nm")
# Of every body: diameter of the ball of its volume.
BALL = "any.volume_diameter_nm"


def layout_of(classes: tuple[str, ...]) -> Layout:
    """The answers to give about bodies of these classes; the hand of a helix cannot be seen in a projection."""
    dimensions = [f"{label}.{name}" for label in classes for name in DIMENSIONS_OF[label] if name != "hand"]
    return Layout(classes, DEFORMED, (BALL, *dimensions))


def targets_of(images: SolidImages, layout: Layout) -> dict[str, np.ndarray]:
    """Answers for each row of truth, as `RecogniserLoss` takes them.

    Of an ellipsoid or cuboid the width is the longer of the two shorter sides: which is which, a body does not say.

    Returns
    -------
    dict of ndarray
        ``label`` int32 (rows,), ``deformations`` float32 (rows, 6), ``dimensions`` float32 (rows, m): logarithm of px,
        of `turns` of the number; NaN where a class has none.
    """
    label = np.array([layout.classes.index(BODIES[i]) for i in images.label], np.int32)
    deformations = np.stack([images.column(name) != 0 for name in _AMPLITUDES], 1).astype(np.float32)
    pixel_size = images.column("pixel_size_nm")
    dimensions = np.full((len(label), len(layout.dimensions)), np.nan)
    wide, high = images.column("width_nm"), images.column("height_nm")
    for place, full_name in enumerate(layout.dimensions):
        of, name = full_name.split(".")
        if full_name == BALL:
            values, rows = np.cbrt(6 / np.pi * images.column("volume_nm3")), np.full(len(label), True)
        else:
            values, rows = images.column(name), label == layout.classes.index(of)
            if of in ("ellipsoid", "cuboid") and name in ("width_nm", "height_nm"):
                values = np.maximum(wide, high) if name == "width_nm" else np.minimum(wide, high)
        unit = 1.0 if name == "turns" else pixel_size
        dimensions[rows, place] = np.log(values / unit)[rows]
    return {"label": label, "deformations": deformations, "dimensions": dimensions.astype(np.float32)}
