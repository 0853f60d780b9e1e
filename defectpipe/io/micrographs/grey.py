"""From decoded samples to one grey frame: channels, byte order, pixels without data."""

from __future__ import annotations

import numpy as np

from defectpipe.errors import MicrographError

# Chroma of a grey JPEG rounds by that much when it is stored in colour.
_CHROMA_ROUNDING = 2
_LUMINANCE = (0.299, 0.587, 0.114)


def to_grey(samples: np.ndarray, colour: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """One grey frame of real numbers in native byte order, at the depth of the file.

    Parameters
    ----------
    samples : ndarray, shape (height, width) or (height, width, channels)
    colour : {"refuse", "luminance"}
        What becomes of a picture whose channels differ: an error, or 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Returns
    -------
    pixels : ndarray, shape (height, width)
        Native dtype; 1-bit images become 0 and 255.
    notes : tuple of str
        What was dropped or converted; how many pixels have no data (NaN, infinite); whether all are equal.

    Raises
    ------
    MicrographError
        Colour that is refused, complex numbers, no finite pixel.
    """
    notes: list[str] = []
    if samples.ndim == 3:
        samples = _one_channel(samples, colour, notes)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind not in "uif":
        what = "complex numbers (a Fourier transform or wave)" if samples.dtype.kind == "c" else str(samples.dtype)
        raise MicrographError(f"its pixels are {what}, not grey values.")
    if samples.dtype == np.float16:
        samples = samples.astype(np.float32)
    pixels = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("="))
    return pixels, (*notes, *_value_notes(pixels))


def _one_channel(samples: np.ndarray, colour: str, notes: list[str]) -> np.ndarray:
    channels = samples.shape[2]
    if channels in (2, 4):
        notes.append("alpha channel dropped")
        channels -= 1
    if channels == 1:
        return samples[..., 0]
    if channels != 3:
        raise MicrographError(f"its pixels have {channels} channels; a micrograph has one.")
    red, green, blue = (samples[..., i] for i in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        notes.append("colour channels are equal: read as grey")
        return green
    spread = max(_largest_difference(red, green), _largest_difference(green, blue), _largest_difference(red, blue))
    if samples.dtype == np.uint8 and spread <= _CHROMA_ROUNDING:
        notes.append(f"colour channels differ by at most {spread:g} of 255: green read as grey")
        return green
    if colour != "luminance":
        raise MicrographError(
            f"it is a colour picture (channels differ by up to {spread:g}), a micrograph is grey; "
            "take the microscope's original, or save it in grey."
        )
    notes.append("colour converted to luminance (BT.601)")
    grey = sum(weight * band.astype(np.float64) for weight, band in zip(_LUMINANCE, (red, green, blue), strict=True))
    grey = np.asarray(grey)
    return grey.astype(samples.dtype) if samples.dtype.kind == "f" else np.rint(grey).astype(samples.dtype)


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.maximum(a, b) - np.minimum(a, b), initial=0))


def _value_notes(pixels: np.ndarray) -> list[str]:
    low, high = pixels.min(), pixels.max()
    notes = []
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(pixels)
        n_missing = pixels.size - int(finite.sum())
        if n_missing == pixels.size:
            raise MicrographError("no pixel holds a finite value.")
        notes.append(missing_note(n_missing))
        low, high = pixels[finite].min(), pixels[finite].max()
    if low == high:
        notes.append(constant_note(low))
    return notes


def missing_note(n_missing: int) -> str:
    """What is said of pixels without data."""
    return f"{n_missing} pixels without data (NaN or infinite) are masked"


def constant_note(value: float) -> str:
    """What is said of an image whose pixels are all equal."""
    return f"constant image: every pixel is {value:g}"
