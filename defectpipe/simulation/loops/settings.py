"""Settings of simulated fields of loops."""

from __future__ import annotations

from dataclasses import dataclass

from defectpipe.errors import SettingsError
from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.loops.crystal import HABITS, Miller
from defectpipe.simulation.loops.loop import CLASSES, CONTRASTS
from defectpipe.simulation.preset import Preset, Range


@dataclass(frozen=True)
class Condition:
    """One state of the specimen; the fields of a condition differ by chance alone.

    Parameters
    ----------
    name : str
        Goes into the file names.
    n_labelled : Range
        Smallest and largest number of loops of the preset's `loop_class` an image; with a habit, of all loops.
    median_diameter_nm, sigma_ln : float
        Log-normal distribution of their diameters.
    bits : int
        Depth of the images, 8 or 16.
    """

    name: str
    n_labelled: tuple[int, int]
    median_diameter_nm: float
    sigma_ln: float = 0.3
    bits: int = 8


@dataclass(frozen=True)
class Family:
    """Loops of one habit.

    Parameters
    ----------
    habit : str
        A name in `crystal.HABITS`.
    share : float
        Of all loops, in relation to the other families'; variants are equally frequent.
    contrasts : tuple of str
        ``"ring"``, ``"double_line"``, ``"solid"``, equally frequent.
    """

    habit: str
    share: float = 1.0
    contrasts: tuple[str, ...] = ("ring",)


@dataclass(frozen=True)
class CrystalHabit:
    """The crystal, and how it is looked at.

    Parameters
    ----------
    families : tuple of Family
    zone_axis : Miller indices
        Towards the viewer, before the tilt.
    rotation_deg, tilt_deg, tilt_axis_deg : Range
        As `crystal.view` takes them; drawn once an image.
    axis_ratio : Range
        Minor over major axis of a loop in its plane.
    g : Miller indices or None
        Reflection; loops with g·b = 0 keep `residual` of their contrast, and count as invisible. None: all are seen.
    residual : float
    edge_on_ratio : float
        Loops whose projected axes have a smaller ratio than this look like rods.
    """

    families: tuple[Family, ...]
    zone_axis: Miller = (0, 0, 1)
    rotation_deg: Range = (0.0, 360.0)
    tilt_deg: Range = (0.0, 0.0)
    tilt_axis_deg: Range = (0.0, 360.0)
    axis_ratio: Range = (1.0, 1.0)
    g: Miller | None = None
    residual: float = 0.1
    edge_on_ratio: float = 0.2

    def __post_init__(self) -> None:
        for family in self.families:
            if family.habit not in HABITS:
                raise SettingsError(f"There is no habit '{family.habit}'; known: {', '.join(HABITS)}.")
            for contrast in family.contrasts:
                if contrast not in CONTRASTS:
                    raise SettingsError(f"There is no contrast '{contrast}' of loops; known: {', '.join(CONTRASTS)}.")
        if not self.families or sum(family.share for family in self.families) <= 0:
            raise SettingsError("A crystal needs a family of loops with a share above 0.")


@dataclass(frozen=True)
class LoopPreset(Preset):
    """A kind of data set. A range (low, high) is drawn from uniformly, once an image or once an object.

    Numbers of objects are per megapixel; sizes in px are those of the image. Attenuations are natural logarithms of the
    transmitted share. What is 0 is switched off, and leaves the draws of all else as they are.

    Parameters
    ----------
    contrast : str
        ``"bf"``: defects dark on bright. ``"adf"``: the reverse, what the bright field lacks.
    foil_attenuation : float
        Of a plain foil, in ADF: what is scattered there is the grey of the background.
    loop_class : str
        Of the loops that a condition counts, without a habit: ``"open"`` or ``"closed"``.
    labelled_classes : tuple of str
        What an expert would label.
    habit : CrystalHabit or None
        None: ellipses of any ratio and direction.
    open_contrasts : tuple of str
        Of open loops without a habit: ``"ring"``, ``"double_line"``, equally frequent.
    rim_share : Range
        Standard deviation of an open loop's rim over the loop's diameter; at most `rim_sigma_limit_px`.
    line_gap : Range
        From rim to rim of a double line, in standard deviations of a rim.
    overlap : float
        Share of loops that may lie on others.
    wedge : Range
        Attenuation that the thickness adds across the image.
    thickness_fringes, bend_contour, grain_boundary : Range
        Peak attenuations; `bend_contours` and `grain_boundaries` are the numbers an image.
    grain_step : Range
        Attenuation of the one grain beyond that of the other; either is the darker.
    cavity_defocus_nm : Range
        Below 0 under-focus: bright discs with a dark fringe. Above: the reverse.
    data_bar : float
        Share of the height that a burnt-in strip takes at the bottom; 0 for none.
    """

    shape: tuple[int, int]
    pixel_size_nm: tuple[float, ...]
    conditions: tuple[Condition, ...]
    acquisition: Acquisition
    contrast: str = "bf"
    modality: str = "STEM"
    foil_attenuation: float = 0.3
    loop_class: str = "open"
    labelled_classes: tuple[str, ...] = ("open",)
    habit: CrystalHabit | None = None
    open_contrasts: tuple[str, ...] = ("ring",)
    diameter_limits_px: Range = (16.0, 60.0)
    axis_ratio: Range = (0.6, 0.98)
    rim_share: Range = (0.055, 0.085)
    rim_sigma_limit_px: float = 3.5
    line_gap: Range = (3.0, 4.5)
    attenuation: Range = (0.34, 0.6)
    interior: Range = (0.05, 0.4)
    lobes: Range = (0.0, 0.5)
    halo: Range = (0.02, 0.18)
    overlap: float = 0.15
    probe_sigma_px: Range = (0.8, 1.2)
    dose_per_px: Range = (250.0, 600.0)
    noise_length_x_px: Range = (0.9, 1.7)
    noise_length_y_px: Range = (0.5, 1.0)
    grey_level: Range = (0.56, 0.7)
    gain: Range = (1.0, 1.0)
    unevenness: Range = (0.7, 1.4)
    closed_per_megapixel: Range = (30.0, 60.0)
    closed_diameter_px: Range = (8.0, 24.0)
    closed_attenuation: Range = (0.4, 0.95)
    closed_softness_px: Range = (1.4, 3.0)
    closed_ratio: Range = (0.55, 1.0)
    edge_on_per_megapixel: Range = (8.0, 18.0)
    edge_on_length_px: Range = (20.0, 64.0)
    edge_on_width_px: Range = (4.0, 7.5)
    edge_on_attenuation: Range = (0.4, 0.9)
    black_dots_per_megapixel: Range = (20.0, 90.0)
    black_dot_diameter_px: Range = (2.1, 5.2)
    black_dot_attenuation: Range = (0.12, 0.4)
    cavities_per_megapixel: Range = (0.0, 0.0)
    cavity_diameter_nm: Range = (3.0, 9.0)
    cavity_attenuation: Range = (0.12, 0.3)
    cavity_defocus_nm: Range = (-1500.0, -500.0)
    beam_kv: float = 200.0
    lines_per_megapixel: Range = (5.0, 15.0)
    line_width_px: Range = (4.5, 9.0)
    line_attenuation: Range = (0.15, 0.45)
    pale_rings_per_megapixel: Range = (2.0, 7.0)
    precipitates_per_megapixel: Range = (0.0, 0.0)
    precipitate_diameter_nm: Range = (8.0, 30.0)
    precipitate_attenuation: Range = (-0.3, 0.4)
    bend_contours: tuple[int, int] = (0, 0)
    bend_contour: Range = (0.1, 0.35)
    wedge: Range = (0.0, 0.0)
    thickness_fringes: Range = (0.0, 0.0)
    thickness_fringe_px: Range = (60.0, 200.0)
    grain_boundaries: tuple[int, int] = (0, 0)
    grain_boundary: Range = (0.1, 0.4)
    grain_step: Range = (0.1, 0.4)
    data_bar: float = 0.0

    def __post_init__(self) -> None:
        if self.contrast not in ("bf", "adf"):
            raise SettingsError(f"The contrast is 'bf' or 'adf', not '{self.contrast}'.")
        if self.loop_class not in ("open", "closed"):
            raise SettingsError(f"The class of the loops is 'open' or 'closed', not '{self.loop_class}'.")
        for label in self.labelled_classes:
            if label not in CLASSES:
                raise SettingsError(f"There is no class '{label}' in simulated fields; known: {', '.join(CLASSES)}.")

    @property
    def categories(self) -> tuple[str, ...]:
        """The labelled classes."""
        return self.labelled_classes
