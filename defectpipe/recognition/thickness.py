"""Thickness in nm from a calibrated detector and a known mean free path."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def scaled_by_signal(
    thickness: np.ndarray, signal: np.ndarray, mean_free_path_nm: float, support: float = 0.0
) -> float:
    """What a thickness map has to be multiplied by for its signal to be the measured one.

    The signal of a body is 1 - exp(-(t/λ + support)), of thin and of thick ones (see `simulation.solids.contrast`).
    The map gives the shape, which is less noisy than a logarithm of single pixels; the signal gives the scale.

    Parameters
    ----------
    thickness : ndarray
        Of one object's pixels, in any unit.
    signal : ndarray, same shape
        Share of the beam that the detector collects there: grey value less black level, over the full beam's.
    mean_free_path_nm : float
        Of scattering to the detector, in the object's material.
    support : float
        Attenuation of the support, -ln(1 - signal) beside the object.

    Returns
    -------
    float
        nm for each unit of `thickness`; NaN where the map is empty.
    """
    shape = np.asarray(thickness, float).ravel()
    measured = np.asarray(signal, float).ravel()
    largest = float(shape.max(initial=0.0))
    if largest <= 0:
        return float("nan")

    def error(log_scale: float) -> float:
        attenuation = shape / largest * np.exp(log_scale) + support
        return float(np.mean((measured + np.expm1(-attenuation)) ** 2))

    # from a thousandth of a mean free path to ten
    found = minimize_scalar(error, bounds=(np.log(1e-3), np.log(10.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) * mean_free_path_nm / largest
