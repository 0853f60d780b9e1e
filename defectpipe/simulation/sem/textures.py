"""Real SEM images in focus, defocused the way simulated ones are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from defectpipe.errors import SettingsError
from defectpipe.simulation.acquisition import Acquisition, blur, detect, digitise
from defectpipe.simulation.sem.scale import FocusLimits, blur_of_score, defocus_of_blur, focus_limits


@dataclass(frozen=True, eq=False)
class DefocusedTexture:
    """A part of a real image with a focus score.

    Parameters
    ----------
    pixels : ndarray of uint8 or uint16, shape (height, width)
    clean : ndarray of float32, same shape
        The signal before noise was added, relative to the mean of the whole texture.
    focus_score, blur_sigma_px : float
        As asked for, and the total blur that it stands for.
    acquisition : Acquisition
        With the defocus that was added.
    x_px, y_px : int
        Top left pixel of the part.
    """

    pixels: np.ndarray
    clean: np.ndarray
    focus_score: float
    blur_sigma_px: float
    acquisition: Acquisition
    x_px: int
    y_px: int


def defocus_texture(
    pixels: np.ndarray,
    magnification: float,
    score: float,
    acquisition: Acquisition,
    rng: np.random.Generator,
    shape: tuple[int, int] = (240, 320),
    limits: FocusLimits | None = None,
) -> DefocusedTexture:
    """Cut a part out of an image taken in focus, blur it to a focus score, then add noise.

    The texture counts as perfectly focused: as blurred by `limits.perfect_px`, to which the defocus is added. What that
    leaves out, and what the score therefore does not know: a texture that was softer than that, or resampled, is worse
    than its score says, most of all near 10. It brings noise of its own, which the defocus smooths as if it were
    structure; the noise added here should be the stronger one. Score 1 is where tin balls and grids are lost: a coarser
    texture can still be told there, unless `limits` says where it is lost. Data bars and burnt-in text are the caller's
    to cut off.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        Grey values of the texture, no darker than 0, which counts as no electrons at all.
    magnification : float
        Of the texture, at the pixel size of `scale.pixel_size_nm`; it gives the ends of the score.
    score : float
        From 1 to 10.
    acquisition : Acquisition
        Dose (electrons per px where the signal has the texture's mean), noise, contrast and brightness, astigmatism;
        probe and defocus are set here, and the scan is not distorted.
    rng : Generator
        Draws the place, then the noise.
    shape : tuple of int
        Height and width of the part.
    limits : FocusLimits, optional
        Ends of the score for textures that are known better; default: those of the magnification.

    Returns
    -------
    DefocusedTexture

    Raises
    ------
    SettingsError
        The texture is smaller than the part, or empty, or there is no such score.
    """
    height, width = shape
    if pixels.ndim != 2 or pixels.shape[0] < height or pixels.shape[1] < width:
        raise SettingsError(f"A texture of shape {pixels.shape} has no part of {height} × {width} px.")
    if not 1 <= score <= 10:
        raise SettingsError(f"A texture can be given a focus score from 1 to 10, not {score:g}.")
    mean = float(pixels.mean())
    if not mean > 0:
        raise SettingsError("A texture without signal cannot be defocused.")
    limits = limits or focus_limits(magnification)
    sigma = blur_of_score(score, limits)
    # the probe is in the texture already
    added = dataclasses.replace(
        acquisition, probe_sigma_px=0.0, defocus_sigma_px=defocus_of_blur(sigma, limits.perfect_px)
    )
    y = int(rng.integers(pixels.shape[0] - height, endpoint=True))
    x = int(rng.integers(pixels.shape[1] - width, endpoint=True))
    # what lies around the part blurs into it
    around = int(np.ceil(4 * sigma)) + 1
    top, left = max(y - around, 0), max(x - around, 0)
    signal = np.asarray(pixels[top : y + height + around, left : x + width + around], np.float32) / np.float32(mean)
    seen = blur(signal, added)[y - top : y - top + height, x - left : x - left + width]
    clean = np.ascontiguousarray(seen)
    grey = digitise(detect(clean, added, rng), added)
    return DefocusedTexture(grey, clean, float(score), sigma, added, x, y)
