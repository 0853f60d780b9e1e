"""Named kinds of simulated data sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.preset import Preset, Range


@dataclass(frozen=True)
class Condition:
    """One state of the specimen; the fields of a condition differ by chance alone.

    Parameters
    ----------
    name : str
        Goes into the file names.
    n_labelled : Range
        Smallest and largest number of loops of the labelled class an image.
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
class LoopPreset(Preset):
    """A kind of data set. A range (low, high) is drawn from uniformly, once an image or once a loop.

    Numbers of unlabelled objects are per megapixel; sizes in px are those of the image. `rim_share` is the standard
    deviation of an open loop's rim over the loop's diameter; at most 3.5 px.
    """

    shape: tuple[int, int]
    pixel_size_nm: tuple[float, ...]
    conditions: tuple[Condition, ...]
    labelled_class: str
    acquisition: Acquisition
    diameter_limits_px: Range = (16.0, 60.0)
    axis_ratio: Range = (0.6, 0.98)
    rim_share: Range = (0.055, 0.085)
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
    unevenness: Range = (0.7, 1.4)
    closed_per_megapixel: Range = (30.0, 60.0)
    closed_diameter_px: Range = (8.0, 24.0)
    closed_attenuation: Range = (0.4, 0.95)
    closed_softness_px: Range = (1.4, 3.0)
    edge_on_per_megapixel: Range = (8.0, 18.0)
    edge_on_length_px: Range = (20.0, 64.0)
    edge_on_attenuation: Range = (0.4, 0.9)
    lines_per_megapixel: Range = (5.0, 15.0)
    line_width_px: Range = (4.5, 9.0)
    line_attenuation: Range = (0.15, 0.45)
    pale_rings_per_megapixel: Range = (2.0, 7.0)
    black_dots_per_megapixel: Range = (20.0, 90.0)

    @property
    def categories(self) -> tuple[str, ...]:
        """The labelled class."""
        return (self.labelled_class,)


_SCAN = Acquisition(scan_distortion=0.03, flyback_px=1.0, detector_rms=0.012, line_rms=0.004)

PRESETS: dict[str, LoopPreset] = {
    "demo": LoopPreset(
        name="demo",
        shape=(768, 1024),
        pixel_size_nm=(0.4,),
        conditions=(
            Condition("fluence-1", (20, 26), 10.5, 0.25),
            Condition("fluence-2", (26, 34), 12.5, 0.3),
            Condition("fluence-3", (30, 40), 14.5, 0.3),
        ),
        labelled_class="open",
        acquisition=_SCAN,
    ),
    "fecral": LoopPreset(
        name="fecral",
        shape=(1024, 1024),
        pixel_size_nm=(0.2832, 0.47852, 0.86914),
        conditions=(
            Condition("sparse", (5, 25), 20.0, 0.4),
            Condition("dense", (30, 90), 15.0, 0.4),
        ),
        labelled_class="open",
        acquisition=_SCAN,
        diameter_limits_px=(11.0, 150.0),
        axis_ratio=(0.5, 0.98),
        rim_share=(0.04, 0.11),
        attenuation=(0.12, 0.6),
        interior=(0.0, 0.5),
        lobes=(0.0, 0.8),
        overlap=0.3,
        dose_per_px=(120.0, 900.0),
        noise_length_x_px=(0.3, 1.9),
        noise_length_y_px=(0.3, 1.4),
        grey_level=(0.45, 0.78),
        unevenness=(0.5, 2.5),
        closed_per_megapixel=(10.0, 160.0),
        closed_diameter_px=(7.0, 40.0),
        edge_on_per_megapixel=(3.0, 30.0),
        edge_on_length_px=(15.0, 90.0),
        lines_per_megapixel=(2.0, 45.0),
        line_width_px=(3.0, 10.0),
        line_attenuation=(0.12, 0.6),
        pale_rings_per_megapixel=(0.0, 20.0),
        black_dots_per_megapixel=(0.0, 300.0),
    ),
    "316l": LoopPreset(
        name="316l",
        shape=(512, 512),
        pixel_size_nm=(200 / 512,),
        conditions=(Condition("316l", (4, 16), 11.0, 0.35),),
        labelled_class="closed",
        acquisition=dataclasses.replace(_SCAN, scan_distortion=0.0, flyback_px=0.0, line_rms=0.0, gain=2.5),
        diameter_limits_px=(12.0, 70.0),
        attenuation=(0.12, 0.4),
        halo=(0.05, 0.3),
        overlap=0.15,
        dose_per_px=(110.0, 220.0),
        noise_length_x_px=(1.2, 1.8),
        noise_length_y_px=(1.2, 1.8),
        grey_level=(0.42, 0.56),
        unevenness=(0.8, 1.6),
        line_width_px=(6.0, 12.0),
        closed_softness_px=(3.0, 6.0),
        closed_per_megapixel=(0.0, 0.0),
        edge_on_per_megapixel=(0.0, 6.0),
        lines_per_megapixel=(0.0, 10.0),
        pale_rings_per_megapixel=(0.0, 4.0),
        black_dots_per_megapixel=(40.0, 200.0),
    ),
}
