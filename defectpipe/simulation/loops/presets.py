"""Named kinds of simulated data sets."""

from __future__ import annotations

import dataclasses

from defectpipe.simulation.acquisition import Acquisition
from defectpipe.simulation.loops.settings import Condition, CrystalHabit, Family, LoopPreset

__all__ = ["PRESETS", "Condition", "LoopPreset"]

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
        acquisition=_SCAN,
    ),
    "fecral": LoopPreset(
        name="fecral",
        shape=(1024, 1024),
        pixel_size_nm=(0.2832, 0.47852, 0.86914),
        conditions=(
            Condition("sparse", (5, 22), 15.0, 0.5),
            Condition("dense", (18, 60), 12.0, 0.5),
        ),
        acquisition=_SCAN,
        diameter_limits_px=(11.0, 150.0),
        axis_ratio=(0.5, 0.98),
        rim_share=(0.04, 0.11),
        attenuation=(0.08, 0.42),
        interior=(0.0, 0.5),
        lobes=(0.0, 0.8),
        overlap=0.3,
        probe_sigma_px=(0.9, 2.2),
        dose_per_px=(220.0, 900.0),
        noise_length_x_px=(0.6, 2.2),
        noise_length_y_px=(0.4, 1.7),
        grey_level=(0.4, 0.76),
        unevenness=(0.6, 3.0),
        closed_per_megapixel=(10.0, 160.0),
        closed_diameter_px=(7.0, 40.0),
        edge_on_per_megapixel=(3.0, 30.0),
        edge_on_length_px=(15.0, 90.0),
        lines_per_megapixel=(2.0, 45.0),
        line_width_px=(4.0, 14.0),
        line_attenuation=(0.12, 0.6),
        pale_rings_per_megapixel=(0.0, 20.0),
        black_dots_per_megapixel=(0.0, 300.0),
    ),
    "316l": LoopPreset(
        name="316l",
        shape=(512, 512),
        pixel_size_nm=(200 / 512,),
        conditions=(Condition("316l", (5, 18), 11.5, 0.42),),
        modality="TEM",
        loop_class="closed",
        labelled_classes=("closed",),
        acquisition=dataclasses.replace(
            _SCAN, scan_distortion=0.0, flyback_px=0.0, line_rms=0.0, detector_rms=0.0, noise_sigma_px=1.3
        ),
        diameter_limits_px=(12.0, 70.0),
        attenuation=(0.08, 0.35),
        halo=(0.05, 0.3),
        overlap=0.15,
        gain=(2.5, 2.5),
        dose_per_px=(330.0, 520.0),
        noise_length_x_px=(0.0, 0.0),
        noise_length_y_px=(0.0, 0.0),
        grey_level=(0.42, 0.56),
        unevenness=(0.8, 1.6),
        line_width_px=(8.0, 22.0),
        closed_softness_px=(4.0, 10.0),
        closed_per_megapixel=(0.0, 0.0),
        edge_on_per_megapixel=(0.0, 6.0),
        lines_per_megapixel=(0.0, 10.0),
        pale_rings_per_megapixel=(0.0, 4.0),
        black_dots_per_megapixel=(40.0, 200.0),
    ),
    "fcc": LoopPreset(
        name="fcc",
        shape=(1024, 1024),
        pixel_size_nm=(0.3,),
        conditions=(
            Condition("frank", (30, 60), 12.0, 0.4),
            Condition("coarse", (15, 30), 22.0, 0.35),
        ),
        labelled_classes=("open", "closed", "edge_on"),
        habit=CrystalHabit(
            families=(Family("fcc-frank", 0.7, ("ring", "solid")), Family("fcc-perfect", 0.3, ("ring", "double_line"))),
            zone_axis=(0, 1, 1),
            tilt_deg=(0.0, 8.0),
            axis_ratio=(0.9, 1.0),
            g=(2, 0, 0),
        ),
        acquisition=_SCAN,
        diameter_limits_px=(12.0, 150.0),
        closed_per_megapixel=(0.0, 0.0),
        edge_on_per_megapixel=(0.0, 0.0),
        cavities_per_megapixel=(0.0, 40.0),
        bend_contours=(0, 1),
        wedge=(0.0, 0.4),
        precipitates_per_megapixel=(0.0, 4.0),
        data_bar=0.06,
    ),
    "bcc-adf": LoopPreset(
        name="bcc-adf",
        shape=(1024, 1024),
        pixel_size_nm=(0.3, 0.5),
        conditions=(
            Condition("sparse", (15, 30), 22.0, 0.4),
            Condition("dense", (40, 80), 15.0, 0.4),
        ),
        contrast="adf",
        labelled_classes=("open", "closed", "edge_on"),
        habit=CrystalHabit(
            families=(Family("bcc-111", 0.6, ("ring", "double_line")), Family("bcc-100", 0.4, ("ring", "solid"))),
            tilt_deg=(0.0, 6.0),
            axis_ratio=(0.9, 1.0),
        ),
        acquisition=_SCAN,
        diameter_limits_px=(12.0, 150.0),
        dose_per_px=(400.0, 1200.0),
        grey_level=(0.28, 0.42),
        gain=(0.8, 1.0),
        closed_per_megapixel=(0.0, 0.0),
        edge_on_per_megapixel=(0.0, 0.0),
        thickness_fringes=(0.0, 0.2),
        grain_boundaries=(0, 1),
    ),
}
