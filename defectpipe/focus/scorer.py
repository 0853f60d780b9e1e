"""Scores from a trained network, by ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from defectpipe.errors import ModelError
from defectpipe.focus.backbones import Inputs, prepare
from defectpipe.networks.session import open_session

_AT_ONCE = 32


class FocusScorer:
    """A focus network in an ONNX file, on one thread.

    Parameters
    ----------
    onnx : bytes or Path
    backbone : str
        Of `backbones.BACKBONES`.
    with_magnification : bool

    Raises
    ------
    ModelError
        The network cannot be loaded, or takes other inputs.
    """

    def __init__(self, onnx: bytes | Path, backbone: str, with_magnification: bool) -> None:
        try:
            data = onnx.read_bytes() if isinstance(onnx, Path) else onnx
        except OSError as error:
            raise ModelError(f"The focus network cannot be read ({error}).") from error
        self._session = open_session(data, "The focus network")
        self.backbone, self.with_magnification = backbone, with_magnification
        self._names = [value.name for value in self._session.get_inputs()]
        if len(self._names) != 1 + with_magnification:
            raise ModelError(f"The focus network takes {', '.join(self._names)}, which is not what its card says.")

    def __call__(self, patches: np.ndarray, magnification: np.ndarray | None = None) -> np.ndarray:
        """Focus scores from 0 to 10.

        Parameters
        ----------
        patches : ndarray, shape (n, height, width)
            Grey values in any unit; of the card's shape.
        magnification : ndarray, shape (n,), optional
            Needed where the network uses it, ignored where not.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        ModelError
            The network needs the magnification.
        """
        if self.with_magnification and magnification is None:
            raise ModelError("This focus network needs the magnification.")
        scores = [np.empty(0)]
        for i in range(0, len(patches), _AT_ONCE):
            part = slice(i, i + _AT_ONCE)
            known = magnification[part] if self.with_magnification and magnification is not None else None
            scores.append(self.score_inputs(prepare(self.backbone, patches[part], known)))
        return np.concatenate(scores)

    def score_inputs(self, inputs: Inputs) -> np.ndarray:
        """Scores (n,) of what `backbones.prepare` gave, where several networks look at the same."""
        # a single input has lost its name
        named = inputs if self.with_magnification else {self._names[0]: next(iter(inputs.values()))}
        return np.clip(self._session.run(None, named)[0][:, 0].astype(np.float64), 0.0, 10.0)
