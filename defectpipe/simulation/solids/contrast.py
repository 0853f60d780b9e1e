"""What an annular dark-field detector collects of the beam behind a body of a given thickness.

The mean free path of scattering to the detector falls with the atomic number as Z^-γ: Rutherford's γ = 2 is lowered to
1.5 to 1.8 by the screening of the nucleus (Pennycook & Jesson, Ultramicroscopy 37:14, 1991; Krivanek et al., Nature
464:571, 2010).
"""

from __future__ import annotations

import numpy as np

GOLD = 79


def mean_free_path_nm(atomic_number: float, gamma: float, gold_path_nm: float) -> float:
    """Mean free path of scattering to the detector, scaled from that in gold by Z^-γ."""
    return gold_path_nm * (GOLD / atomic_number) ** gamma


def adf_signal(attenuation: np.ndarray, saturating: bool) -> np.ndarray:
    """Share of the beam that reaches the detector.

    Parameters
    ----------
    attenuation : ndarray
        Thickness over mean free path, summed over all bodies that the beam meets.
    saturating : bool
        1 - exp(-t/λ): what was scattered once cannot be scattered again out of the beam. Else t/λ, single scattering,
        which holds for thin bodies.
    """
    return -np.expm1(-attenuation) if saturating else np.asarray(attenuation)
