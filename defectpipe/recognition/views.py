"""What the recognisers see: one object in a small picture, whatever its brightness and contrast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from defectpipe.networks.pictures import normalise

VIEW_PX = 64
_BATCH = 64


def standardise(pixels: np.ndarray) -> np.ndarray:
    """Each picture with zero mean and unit deviation, so that the detector's settings do not show.

    Parameters
    ----------
    pixels : ndarray, shape (n, height, width)
        Grey values in any unit.

    Returns
    -------
    ndarray of float32, shape (n, height, width, 1)
        One without any contrast is all zeros.
    """
    return normalise(pixels)[..., None]


def turned(pictures: np.ndarray, way: int) -> np.ndarray:
    """Pictures in one of the 8 ways in which a square can lie: `way` % 4 quarter turns, then from 4 on mirrored.

    Parameters
    ----------
    pictures : ndarray, shape (n, height, width, ...)
    way : int
        0 to 7; 0 changes nothing.
    """
    made = np.rot90(pictures, way % 4, (1, 2))
    return made[:, :, ::-1] if way >= 4 else made


def answer_all_ways(network: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, n_answers: int) -> np.ndarray:
    """What a recogniser says of views, the mean of its answers to all 8 ways in which each can lie.

    Parameters
    ----------
    network : callable
        From standardised pictures (m, side, side, 1), m at most 64, to rows (m, n_answers).
    pixels : ndarray, shape (n, side, side)
        Grey values in any unit.
    n_answers : int

    Returns
    -------
    ndarray of float32, shape (n, n_answers)
    """
    rows = np.zeros((len(pixels), n_answers), np.float32)
    for start in range(0, len(pixels), _BATCH):
        part = standardise(pixels[start : start + _BATCH])
        for way in range(8):
            rows[start : start + _BATCH] += np.asarray(network(np.ascontiguousarray(turned(part, way)))) / 8
    return rows


def lying_anyhow(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Square pictures (n, side, side, ...), each in one of the 8 ways at random."""
    made = pictures.copy()
    ways = rng.integers(8, size=len(made))
    for way in range(1, 8):
        made[ways == way] = turned(pictures[ways == way], way)
    return made


def augment(pixels: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Standardised pictures, each lying in a random way, half of them with more noise.

    Parameters
    ----------
    pixels : ndarray, shape (n, side, side)
    rng : Generator
    noise : float
        Largest standard deviation of the noise, in that of the picture.

    Returns
    -------
    ndarray of float32, shape (n, side, side, 1)
    """
    made = lying_anyhow(standardise(pixels), rng)
    level = rng.uniform(0, noise, len(made)) * (rng.random(len(made)) < 0.5)
    return made + level[:, None, None, None].astype(np.float32) * rng.standard_normal(made.shape, np.float32)
