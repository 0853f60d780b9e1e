"""Named settings of simulated solids."""

from __future__ import annotations

from dataclasses import dataclass, field

from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.preset import Preset, Range
from defectpipe.simulation.solids.deformation import DeformationRanges
from defectpipe.simulation.solids.rays import CLASSES


@dataclass(frozen=True)
class SolidPreset(Preset):
    """A kind of data set. A range (low, high) is drawn from uniformly, once an image or once a body.

    Parameters
    ----------
    shape : tuple of int
        Height and width in px.
    classes : tuple of str
        Of `rays.BODIES`. With one body an image they take turns, else each body's is random.
    n_objects : tuple of int
        Smallest and largest number of bodies.
    overlap : bool
        Whether bodies may overlap in projection; where they may not, one without room is left out.
    whole : bool
        Whether bodies lie wholly inside the image, as far as they can; else their centres do.
    field_nm : Range
        Shorter side of the field of view; logarithmic.
    size_share : Range
        Diameter of the sphere around an undeformed body, over that side.
    deformations : DeformationRanges
    atomic_numbers : tuple of int
        Of the bodies.
    gamma, gold_path_nm : Range
        Exponent of the atomic number; mean free path in gold.
    saturating : bool
        Signal 1 - exp(-t/λ), else t/λ.
    film_nm, film_atomic_number : Range and int
        Thickness and material of the support.
    film_roughness : Range
        Relative standard deviation of its thickness.
    moving_share : float
        Of the bodies that move during the scan.
    shift_px, turn_deg : Range
        Of those, from the first line to the last: the distance, in any direction, and the turn, either way.
    probe_sigma_px, dose_per_px, scan_distortion, flyback_px, detector_rms, line_rms, noise_length_x_px : Range
        See `Acquisition`; the dose is logarithmic.
    drift_px : float
        Standard deviation of the drift along x and along y.
    defocus_share : float
        Of the images out of focus; of those, `defocus_sigma_px` and `astigmatism` (Range).
    black_level, white_level : Range
        Grey values of no signal and of the brightest of the field, as a share of the full scale. Where there is hardly
        any signal, the gain stops at `largest_gain`.
    acquisition : Acquisition
        All the rest.
    """

    shape: tuple[int, int] = (256, 256)
    classes: tuple[str, ...] = CLASSES
    n_objects: tuple[int, int] = (1, 1)
    overlap: bool = False
    whole: bool = True
    field_nm: Range = (50.0, 300.0)
    size_share: Range = (0.4, 0.75)
    deformations: DeformationRanges = field(default_factory=DeformationRanges)
    atomic_numbers: tuple[int, ...] = (13, 14, 22, 26, 28, 29, 30, 42, 46, 47, 50, 58, 74, 78, 79)
    gamma: Range = (1.5, 1.8)
    gold_path_nm: Range = (60.0, 150.0)
    saturating: bool = True
    film_nm: Range = (3.0, 25.0)
    film_atomic_number: int = 6
    film_roughness: Range = (0.02, 0.15)
    moving_share: float = 0.15
    shift_px: Range = (2.0, 12.0)
    turn_deg: Range = (0.0, 8.0)
    probe_sigma_px: Range = (0.5, 1.2)
    dose_per_px: Range = (300.0, 30000.0)
    scan_distortion: Range = (0.0, 0.05)
    flyback_px: Range = (0.0, 1.5)
    drift_px: float = 2.0
    detector_rms: Range = (0.0005, 0.004)
    line_rms: Range = (0.0, 0.001)
    noise_length_x_px: Range = (0.0, 0.7)
    defocus_share: float = 0.25
    defocus_sigma_px: Range = (0.8, 3.5)
    astigmatism: Range = (1.0, 1.4)
    black_level: Range = (0.02, 0.12)
    white_level: Range = (0.7, 0.98)
    largest_gain: float = 20.0
    acquisition: Acquisition = field(default_factory=Acquisition)

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes


PRESETS: dict[str, SolidPreset] = {
    "solids": SolidPreset("solids"),
    "several": SolidPreset("several", (512, 512), n_objects=(0, 8), whole=False, size_share=(0.15, 0.35)),
    "overlapping": SolidPreset(
        "overlapping", (512, 512), n_objects=(2, 8), overlap=True, whole=False, size_share=(0.2, 0.45)
    ),
}
