"""How the microscope turns a specimen into an image: probe, scan, dose, detector. Shared by every simulator.

The order is that of the instrument. The probe blurs the specimen, the scan samples it at displaced places, and only
then electrons are counted: noise that is added before a blur would be smooth, and would give every edge away.
"""

from defectpipe.simulation.acquisition.detector import detect, digitise, noise_area_px, noise_std, stands_out
from defectpipe.simulation.acquisition.optics import blur
from defectpipe.simulation.acquisition.scan import distort, magnification_rms, moving, scan_field, to_image
from defectpipe.simulation.acquisition.settings import Acquisition

__all__ = [
    "Acquisition",
    "blur",
    "detect",
    "digitise",
    "distort",
    "magnification_rms",
    "moving",
    "noise_area_px",
    "noise_std",
    "scan_field",
    "stands_out",
    "to_image",
]
