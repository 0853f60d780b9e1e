"""What the readers of each format hand over: frames as decoded, and the pixel sizes that the file states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectpipe.errors import MicrographError
from defectpipe.greyscale import PixelSource


@dataclass(frozen=True)
class StatedSize:
    """A pixel size that a file states, in nm, along y and x.

    Parameters
    ----------
    source : str
        Where in the file, for example ``"ImageJ"`` or ``"Zeiss tags"``.
    y_nm, x_nm : float
    """

    source: str
    y_nm: float
    x_nm: float


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as decoded.

    Parameters
    ----------
    samples : ndarray, shape (height, width) or (height, width, channels), or PixelSource
        Channels in the order red, green, blue, alpha, or grey, alpha. Very large grey frames may stay in the file.
    stated : tuple of StatedSize
    modality : str or None
    magnification : float or None
    notes : tuple of str
    voltage_kv : float or None
    tilt_deg : float or None
        Of a frame of a tilt series.
    """

    samples: np.ndarray | PixelSource
    stated: tuple[StatedSize, ...] = ()
    modality: str | None = None
    magnification: float | None = None
    notes: tuple[str, ...] = ()
    voltage_kv: float | None = None
    tilt_deg: float | None = None


@dataclass(frozen=True)
class Claim:
    """What a header says of frames of one size: nothing of their pixels is read.

    Parameters
    ----------
    n_frames, height, width : int
    stated : tuple of StatedSize
    """

    n_frames: int
    height: int
    width: int
    stated: tuple[StatedSize, ...] = ()


def check_claim(n_frames: int, height: int, width: int, max_pixels: int) -> None:
    """Refuse from the header what is empty, or would be too large to decode.

    Raises
    ------
    MicrographError
    """
    if min(n_frames, height, width) < 1:
        raise MicrographError(f"its header claims {height} × {width} px: there is no picture in it.")
    if n_frames * height * width > max_pixels:
        frames = f"{n_frames} frames of " if n_frames > 1 else ""
        raise MicrographError(
            f"its header claims {frames}{height} × {width} px, more than the {max_pixels} px that are read at once."
        )
