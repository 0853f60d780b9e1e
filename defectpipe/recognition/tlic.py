"""The transfer-learnt image classifier: a pretrained backbone that stays as it is, and a last layer of one's own.

From one picture: class probabilities. Any classes can be learned from a few pictures each: only the last layer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.recognition.backbones import features_of, load_backbone
from defectpipe.recognition.calibration import log_softmax
from defectpipe.recognition.last_layer import LastLayer, fit_last_layer
from defectpipe.recognition.views import turned

if TYPE_CHECKING:
    import keras

# Below this number of pictures, each is shown in all 8 ways in which it can lie.
_FEW = 2_000
_WAYS = 8


@dataclass(frozen=True, eq=False)
class Tlic:
    """A transfer-learnt image classifier.

    Parameters
    ----------
    backbone : str
        A name in `backbones.BACKBONES`.
    network : keras.Model
        Of that architecture, with its weights.
    last_layer : LastLayer
    """

    backbone: str
    network: keras.Model
    last_layer: LastLayer

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart."""
        return self.last_layer.classes

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Pictures (n, height, width) to (n, classes): means over the 8 ways in which a picture can lie."""
        ways = [
            self.last_layer.logits(features_of(self.network, self.backbone, turned(pixels, w))) for w in range(_WAYS)
        ]
        return np.mean(ways, 0)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Pictures (n, height, width) to (n, classes)."""
        return np.exp(log_softmax(self.logits(pixels)))


def train_tlic(
    pixels: np.ndarray,
    label: np.ndarray,
    classes: tuple[str, ...],
    *,
    backbone: str = "ours",
    weights: str = "builtin",
    sha256: str | None = None,
    builtin: bytes | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Tlic:
    """Retrain the last layer of a pretrained backbone.

    Parameters
    ----------
    pixels : ndarray, shape (n, height, width)
        Pictures of one object each, grey values in any unit.
    label : ndarray of int, shape (n,)
        Indices in `classes`.
    classes : tuple of str
    backbone, weights, sha256, builtin, seed
        See `backbones.load_backbone`.
    groups : ndarray of int, shape (n,), optional
        Pictures of the same object have the same number.

    Returns
    -------
    Tlic
    """
    network = load_backbone(backbone, weights, sha256, builtin, seed)
    return train_last_layer(network, backbone, pixels, label, classes, groups, seed)


def train_last_layer(
    network: keras.Model,
    backbone: str,
    pixels: np.ndarray,
    label: np.ndarray,
    classes: tuple[str, ...],
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Tlic:
    """The same with a backbone that is loaded already."""
    label = np.asarray(label)
    groups = np.arange(len(label)) if groups is None else np.asarray(groups)
    ways = range(_WAYS) if len(pixels) < _FEW else range(1)
    features = np.concatenate([features_of(network, backbone, turned(pixels, way)) for way in ways])
    label, groups = np.tile(label, len(ways)), np.tile(groups, len(ways))
    return Tlic(backbone, network, fit_last_layer(features, label, classes, groups, seed))
