"""What every simulator gives: one image with exact truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from defectpipe.micrograph import Micrograph


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object as an expert would label it.

    Parameters
    ----------
    label : str
        Its class.
    outline : ndarray, shape (n, 2)
        x, y in px of the image, not closed; it may leave the image.
    """

    label: str
    outline: np.ndarray


@dataclass(frozen=True, eq=False)
class SimulatedImage:
    """One image and what is in it.

    Parameters
    ----------
    micrograph : Micrograph
        Calibrated; named ``CONDITION_field-NNN.tif``.
    condition : str
        Of the specimen or the series, the beginning of the name.
    truth : DataFrame
        One row an object (of an image without objects: one row the image); its first column is `image`.
    annotations : tuple of Annotation
        What an expert would label, for the COCO file.
    maps : mapping of str to ndarray
        Images of truth by their quantity and unit, as ``thickness_nm``: float32, shape (height, width).
    """

    micrograph: Micrograph
    condition: str
    truth: pd.DataFrame
    annotations: tuple[Annotation, ...] = ()
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
