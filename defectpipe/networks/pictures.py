"""Pictures as every network sees them: whatever their brightness and contrast."""

from __future__ import annotations

import numpy as np


def normalise(pictures: np.ndarray) -> np.ndarray:
    """Each picture with zero mean and unit deviation; one without any contrast is all zeros.

    Parameters
    ----------
    pictures : ndarray, shape (n, height, width)
        Grey values in any unit.

    Returns
    -------
    ndarray of float32, same shape
    """
    pictures = np.asarray(pictures, np.float32)
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    spread = centred.std((1, 2), keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6)
