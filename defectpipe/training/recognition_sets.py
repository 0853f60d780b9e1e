"""The simulated sets of images that recognition is trained and judged on: settings, seeds, sizes.

A view is a picture of 64 × 64 px of one body, as `recognition` cuts it from a micrograph; a field shows one body
larger, or several. Everything that a microscope varies is drawn anew for each view: orientation, place, dose from 30 to
30,000 electrons a px (the full beam's; the detector collects what the body scatters), scan distortion up to 5 %,
drift, movement of the body, flyback, defocus, probe, noise of detector and lines, brightness and contrast. Material,
dimensions and deformation are the body's, and half of the bodies are deformed.

The bodies are of titanium to gold, 60 to 270 nm across in the views: thinner or lighter ones scatter less than an
electron a px at the lowest dose. Deformations are strong: a weak one is no more than what scan distortion and drift do
to an ideal body.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from defectpipe.simulation.dataset import SIMULATION_VERSION
from defectpipe.simulation.solids.deformation import DeformationRanges
from defectpipe.simulation.solids.presets import PRESETS, SolidPreset
from defectpipe.simulation.solids.rays import BODIES, CLASSES

VIEW_PX = 64
# Known to no trained network: what a last layer is retrained on.
UNSEEN = BODIES[len(CLASSES) :]
LOWEST_DOSE = 30.0
_DOSES = (LOWEST_DOSE, 30_000.0)
_MATERIALS = (22, 26, 28, 29, 30, 42, 46, 47, 50, 58, 74, 78, 79)
_FIELD_NM = (100.0, 300.0)
_WIDE_FIELD_NM = (300.0, 900.0)
_STRONG = DeformationRanges(
    twist_deg=(60.0, 120.0),
    bend_deg=(30.0, 50.0),
    taper=(0.25, 0.45),
    shear=(0.25, 0.45),
    dent_depth=(0.2, 0.3),
    dent_width=(0.2, 0.35),
    n_dents=(1, 2),
    kept_share=0.6,
)

# Of every set.
_BODIES_AND_DOSES: dict[str, Any] = {"atomic_numbers": _MATERIALS, "deformations": _STRONG, "dose_per_px": _DOSES}

# The solids' movements and defocus in px belong to 256 px; where one body fills fewer, they are as strong for its size.
VIEWS = dataclasses.replace(
    PRESETS["solids"],
    **_BODIES_AND_DOSES,
    name="views",
    shape=(VIEW_PX, VIEW_PX),
    field_nm=_FIELD_NM,
    size_share=(0.6, 0.9),
    shift_px=(0.5, 3.0),
    drift_px=1.0,
    flyback_px=(0.0, 0.5),
    probe_sigma_px=(0.3, 0.9),
    defocus_sigma_px=(0.5, 1.5),
)
FAINT_VIEWS = dataclasses.replace(VIEWS, name="views-dose-30", dose_per_px=(LOWEST_DOSE, LOWEST_DOSE))
UNSEEN_VIEWS = dataclasses.replace(VIEWS, name="views-unseen", classes=UNSEEN)
SINGLE = dataclasses.replace(
    PRESETS["solids"],
    **_BODIES_AND_DOSES,
    name="single",
    shape=(128, 128),
    field_nm=_FIELD_NM,
    shift_px=(1.0, 6.0),
    drift_px=1.5,
    defocus_sigma_px=(0.4, 1.75),
)
SEVERAL = dataclasses.replace(
    PRESETS["several"],
    **_BODIES_AND_DOSES,
    name="several",
    shape=(256, 256),
    field_nm=_WIDE_FIELD_NM,
    shift_px=(1.0, 6.0),
)
OVERLAPPING = dataclasses.replace(
    PRESETS["overlapping"],
    **_BODIES_AND_DOSES,
    name="overlapping",
    shape=(256, 256),
    field_nm=_WIDE_FIELD_NM,
    n_objects=(2, 6),
    shift_px=(1.0, 6.0),
)


@dataclass(frozen=True)
class SetPlan:
    """A set of simulated images; a larger one begins with a smaller one.

    Parameters
    ----------
    preset : SolidPreset
    n_scenes : int
        Bodies of a set of views, else fields. Classes take turns.
    n_views : int
        Of each scene.
    seed : int
        Of its own, so that no body is in two sets.
    tilts_deg : tuple of float
        Views are a tilt series about one axis instead of random orientations.
    """

    preset: SolidPreset
    n_scenes: int
    n_views: int
    seed: int
    tilts_deg: tuple[float, ...] = ()

    @property
    def one_body(self) -> bool:
        """Whether each image shows exactly one."""
        return self.preset.n_objects == (1, 1)

    def sha256(self) -> str:
        """Hash of all that decides the content of an image, the number of scenes aside."""
        values = {
            "settings": self.preset.to_dict(),
            "n_views": self.n_views,
            "seed": self.seed,
            "tilts_deg": list(self.tilts_deg),
            "simulation_version": SIMULATION_VERSION,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_TILTS = (-70.0, -50.0, -30.0, -10.0, 10.0, 30.0, 50.0, 70.0)
SETS: dict[str, SetPlan] = {
    "views-train": SetPlan(VIEWS, 30_000, 2, 61_000),
    "views-fusion": SetPlan(VIEWS, 2_400, 8, 61_500),
    "views-validation": SetPlan(VIEWS, 600, 8, 62_000),
    "views-test": SetPlan(VIEWS, 2_400, 8, 63_000),
    "views-test-dose-30": SetPlan(FAINT_VIEWS, 600, 8, 63_001),
    "views-test-tilt": SetPlan(VIEWS, 1_200, 8, 63_002, _TILTS),
    "unseen-train": SetPlan(UNSEEN_VIEWS, 2_000, 2, 64_000),
    "unseen-test": SetPlan(UNSEEN_VIEWS, 1_000, 2, 65_000),
    "single-train": SetPlan(SINGLE, 3_000, 1, 66_000),
    "single-validation": SetPlan(SINGLE, 240, 1, 67_000),
    "single-test": SetPlan(SINGLE, 600, 1, 68_000),
    "several-train": SetPlan(SEVERAL, 1_500, 1, 66_001),
    "several-validation": SetPlan(SEVERAL, 80, 1, 67_001),
    "several-test": SetPlan(SEVERAL, 240, 1, 68_001),
    "overlapping-train": SetPlan(OVERLAPPING, 800, 1, 66_002),
    "overlapping-validation": SetPlan(OVERLAPPING, 40, 1, 67_002),
    "overlapping-test": SetPlan(OVERLAPPING, 160, 1, 68_002),
}
