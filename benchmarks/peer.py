"""What a rival detector is to the benchmark `peers.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from peer_networks import FOLDS, trained_folds

Found = tuple[np.ndarray, np.ndarray]
"""Square or other boxes (n, 4) in px of the working image, and scores (n,)."""


@dataclass(frozen=True)
class Peer:
    """A detector, and what is chosen for it on the other folds.

    Parameters
    ----------
    find : callable
        ``find(grey, fold, **parameters)``: `Found` in the working image (uint8: what the model of this project sees,
        reduced to its pixel size) of an image in this fold; a network takes there the weights that never saw the fold.
        Scores all equal: nothing is chosen by them.
    parameters : list of dict
        What `find` may be called with.
    sides : array_like
        Factors for the sides of the boxes.
    convention : str
        Of the boxes: `boxes.CONVENTIONS`.
    network : str, optional
        In `peer_networks.MODULES`; its score is chosen on all images of the other folds instead of on some.
    needs : str, optional
        A package that the project does not install.
    """

    find: Callable[..., Found]
    parameters: list[dict[str, Any]]
    sides: Any = (1.0,)
    convention: str = "padded"
    network: str | None = None
    needs: str | None = None

    def folds(self) -> tuple[int, ...]:
        """Folds that it can look at."""
        return FOLDS if self.network is None else trained_folds(self.network)
