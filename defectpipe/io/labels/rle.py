"""COCO's run lengths: a mask as alternating counts of 0 and 1 down the columns, plain or packed into text."""

from __future__ import annotations

from typing import Any

import numpy as np

from defectpipe.errors import LabelError


def decode(where: str, segmentation: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """The mask of a run-length segmentation.

    Parameters
    ----------
    where : str
        For error messages.
    segmentation : dict
        ``size`` (height, width) and ``counts``.
    shape : tuple of int
        What the size must be: nothing is allocated before it is.

    Returns
    -------
    ndarray of bool, shape `shape`
    """
    counts = segmentation.get("counts")
    if segmentation.get("size") != list(shape):
        raise LabelError(f"{where}: the mask's size {segmentation.get('size')} is not its image's {list(shape)}.")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise LabelError(f"{where}: the run lengths of the mask are broken.")
    if sum(runs) != shape[0] * shape[1]:
        raise LabelError(f"{where}: the run lengths of the mask add up to {sum(runs)} px.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(shape, order="F")


def _unpacked(text: str) -> list[int]:
    # Five bits a character from '0' on, the sixth says that more follow; from the fourth on, differences to the run
    # two before (maskApi.c of the COCO tools).
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20 and shift < 60:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
