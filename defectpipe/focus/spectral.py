"""Power spectrum and edges of a patch as some 150 numbers, and the small network that reads the score from them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from defectpipe.networks.residual import MOMENTUM

if TYPE_CHECKING:
    import keras

TILE_PX = 64
_STEP_PX = 44
_N_BANDS = 18
_N_SECTORS = 4
_EDGE_SIGMAS_PX = (0.7, 1.4, 2.8, 5.6)
_EDGE_SHARES = (0.5, 0.9, 0.98, 0.998)
_GREY_SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)
# what is left of the power where nothing is: rounding to 8 bit adds 1/12 to a grey level's variance
_FLOOR = 1e-6
N_FEATURES = _N_BANDS * (_N_SECTORS + 3) + 5 + len(_EDGE_SIGMAS_PX) * (len(_EDGE_SHARES) + 1) + len(_GREY_SHARES)


def spectral_features(patch: np.ndarray) -> np.ndarray:
    """What blur changes in a patch, whatever its brightness and contrast.

    The logarithm of the power in rings and sectors of spatial frequency, as the mean over tiles (Welch 1967, IEEE
    Transactions on Audio and Electroacoustics 15:70-73), less its mean over the rings; the spread of the tiles around
    it; the coarsest rings of the patch as a whole; quantiles of the gradient at four scales; quantiles of the grey
    values. Sectors are counted from the one with the most fine detail, mirrored so that the greater neighbour comes
    first: turning and mirroring the patch changes little.

    Parameters
    ----------
    patch : ndarray of float32, shape (height, width)
        Of zero mean and unit deviation, at least `TILE_PX` a side.

    Returns
    -------
    ndarray of float32, shape (`N_FEATURES`,)
    """
    patch = np.asarray(patch, np.float32)
    tiles = _tiles(patch)
    window, cells, counts = _cells()
    spectra = np.fft.rfft2((tiles - tiles.mean((1, 2), keepdims=True)) * window)
    power = (spectra.real**2 + spectra.imag**2).reshape(len(tiles), -1) @ cells / counts + _FLOOR
    polar = power.reshape(len(tiles), _N_BANDS, _N_SECTORS)
    mean = np.log(polar.mean(0))
    mean = mean[:, _sector_order(mean)]
    rings = np.log(polar.mean(2))
    overall = np.log(np.exp(mean).mean(1))
    level = overall.mean()
    parts = [(mean - overall[:, None]).ravel(), overall - level, rings.std(0)]
    parts.append(np.quantile(rings, 0.9, axis=0) - overall)
    parts += [_coarse(patch) - level, *_edges(patch), np.quantile(patch[::2, ::2], _GREY_SHARES)]
    return np.concatenate(parts).astype(np.float32)


def build_spectral(with_magnification: bool, widths: tuple[int, ...] = (192, 96, 48)) -> keras.Model:
    """Keras model: features (n, `N_FEATURES`), and the magnification (n, 1) where it is used, to the score (n, 1).

    The output is the probability of there being a sample times its score from 1 to 10.
    """
    import keras
    from keras import layers

    features = layers.Input((N_FEATURES,), name="features")
    inputs = [features]
    x = layers.BatchNormalization(momentum=MOMENTUM, center=False, scale=False)(features)
    if with_magnification:
        magnification = layers.Input((1,), name="magnification")
        inputs.append(magnification)
        x = layers.Concatenate()([x, layers.Rescaling(4.0, -2.0)(magnification)])
    for width in widths:
        x = layers.Dropout(0.05)(layers.Dense(width, activation="silu")(x))
    return keras.Model(inputs if with_magnification else inputs[0], score_head(x), name="spectral")


def score_head(x: Any) -> Any:
    """From features to the score (n, 1): the probability that there is anything to judge, times 1 to 10."""
    from keras import layers

    focus = layers.Dense(1, bias_initializer="zeros", name="focus")(x)
    there = layers.Dense(1, activation="sigmoid", bias_initializer="ones", name="sample")(x)
    # centred on the middle of the scale; not bounded, so that the ends are not flat
    return layers.Multiply(name="score")([there, layers.Rescaling(3.0, 5.5)(focus)])


def _tiles(patch: np.ndarray) -> np.ndarray:
    starts = [np.linspace(0, n - TILE_PX, max(1, round((n - TILE_PX) / _STEP_PX) + 1)).astype(int) for n in patch.shape]
    return np.stack([patch[y : y + TILE_PX, x : x + TILE_PX] for y in starts[0] for x in starts[1]])


@lru_cache(1)
def _cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Window of a tile; which frequency lies in which ring and sector (n_frequencies, n_cells); numbers of them."""
    window = np.outer(*(np.hanning(TILE_PX + 2)[1:-1],) * 2).astype(np.float32)
    down, across = np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None]
    frequency = np.hypot(down, across).ravel()
    # two frequencies wide at least where they lie apart, even steps of the logarithm beyond
    edges = np.concatenate([np.array([1.5, 2.5, 3.5, 4.5]) / TILE_PX, np.geomspace(5.6 / TILE_PX, 0.5, _N_BANDS - 3)])
    ring = np.digitize(frequency, edges) - 1
    sector = np.floor((np.arctan2(down, across).ravel() / np.pi + 1 / (2 * _N_SECTORS)) * _N_SECTORS).astype(int)
    cell = ring * _N_SECTORS + sector % _N_SECTORS
    # of a pair of opposite frequencies rfft gives one; where it gives both, each counts half
    weight = np.where(np.broadcast_to((across == 0) | (across == 0.5), (TILE_PX, across.size)).ravel(), 0.5, 1.0)
    known = (ring >= 0) & (ring < _N_BANDS)
    cells = np.zeros((frequency.size, _N_BANDS * _N_SECTORS), np.float32)
    cells[np.flatnonzero(known), cell[known]] = weight[known]
    return window, cells, cells.sum(0) * np.float32((window**2).sum())


def _sector_order(mean: np.ndarray) -> np.ndarray:
    detail = mean[_N_BANDS // 2 :].mean(0)
    first = int(detail.argmax())
    step = 1 if detail[(first + 1) % _N_SECTORS] >= detail[first - 1] else -1
    return (first + step * np.arange(_N_SECTORS)) % _N_SECTORS


def _coarse(patch: np.ndarray) -> np.ndarray:
    """Rings of the whole patch below those of the tiles, two to a few periods over its shorter side."""
    small = cv2.resize(patch, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in small.shape)).astype(np.float32)
    power = np.abs(np.fft.rfft2((small - small.mean()) * window)) ** 2 / (window**2).sum() * 16
    frequency = np.hypot(np.fft.fftfreq(small.shape[0])[:, None], np.fft.rfftfreq(small.shape[1])[None]) / 4
    edges = np.geomspace(1.5 / min(patch.shape), 2.5 / TILE_PX, 6)
    ring = np.digitize(frequency.ravel(), edges) - 1
    known = (ring >= 0) & (ring < 5)
    total = np.bincount(ring[known], power.ravel()[known], 5)
    return np.log(total / np.maximum(np.bincount(ring[known], minlength=5), 1) + _FLOOR)


def _edges(patch: np.ndarray) -> list[np.ndarray]:
    """For each scale the logarithm of the mean square gradient, and quantiles of the gradient in units of its root."""
    parts = []
    smooth, done = patch, 0.0
    for sigma in _EDGE_SIGMAS_PX:
        smooth = cv2.GaussianBlur(smooth, (0, 0), float(np.sqrt(sigma**2 - done**2)), borderType=cv2.BORDER_REFLECT)
        done = sigma
        along, down = smooth[1:-1, 2:] - smooth[1:-1, :-2], smooth[2:, 1:-1] - smooth[:-2, 1:-1]
        squared = along * along + down * down
        mean = float(squared.mean()) + _FLOOR * 1e-3
        ordered = np.quantile(squared[::2, ::2] / mean, _EDGE_SHARES)
        parts.append(np.concatenate([[np.log(mean)], 0.5 * np.log(ordered + 1e-3)]))
    return parts
