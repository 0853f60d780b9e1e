"""Backbones of the transfer-learnt classifier: pretrained networks that turn a picture into features.

Ours, trained on simulated bodies, and two of keras.applications: Inception-v3 (Szegedy et al. 2016), and
InceptionResNetV2 (Szegedy et al. 2017) for Inception-v4, which Keras lacks. TensorFlow is imported when called.
"""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import urlsplit

import cv2
import numpy as np

from defectpipe.errors import ModelError, SettingsError
from defectpipe.networks.weights import load_weights
from defectpipe.recognition.recogniser import build_trunk
from defectpipe.recognition.views import VIEW_PX, standardise

if TYPE_CHECKING:
    import keras

BUILTIN_WEIGHTS = "trunk.weights.h5"
_MAX_WEIGHTS_BYTES = 2**29
_BATCH = 64
# Standard deviations of a picture that fill the range of -1 to 1 in which the Inceptions were trained.
_SPAN = 3.0
_INCEPTION_PX = 139


@dataclass(frozen=True)
class Backbone:
    """A kind of network.

    Parameters
    ----------
    build : callable
        Gives the network with random weights, without its own last layer.
    prepare : callable
        From pictures (n, height, width) to what the network takes.
    imagenet : callable, optional
        Gives the network with ImageNet's weights, which Keras fetches; None: there are none.
    """

    build: Callable[[], keras.Model]
    prepare: Callable[[np.ndarray], np.ndarray]
    imagenet: Callable[[], keras.Model] | None = None


def load_backbone(
    name: str = "ours", weights: str = "builtin", sha256: str | None = None, builtin: bytes | None = None, seed: int = 0
) -> keras.Model:
    """A backbone with its weights, not to be trained.

    Parameters
    ----------
    name : str
        A name in `BACKBONES`.
    weights : str
        ``builtin``: those that the project ships, of `ours`. ``none``: random ones. ``imagenet``: Keras fetches them
        from the internet, or takes them from its own folder. Else a path, or an ``https://`` address with `sha256`:
        an HDF5 file of weights for that very architecture without its last layer.
    sha256 : str, optional
        Hash that the file must have; an address needs one.
    builtin : bytes, optional
        Content of the file for ``builtin``.
    seed : int
        Of random weights.

    Raises
    ------
    SettingsError
        There is no such backbone, or it has no such weights.
    ModelError
        The weights cannot be had, or are not those of that architecture.
    """
    import keras

    backbone = find_backbone(name)
    if weights == "imagenet":
        return _imagenet(name, backbone)
    keras.utils.set_random_seed(seed)
    network = backbone.build()
    network.trainable = False
    if weights == "none":
        return network
    if weights == "builtin":
        if name != "ours" or builtin is None:
            raise SettingsError(f"Backbone '{name}' has no built-in weights; 'ours' has, where its model is installed.")
        content, source = builtin, BUILTIN_WEIGHTS
    else:
        content, source = _content(weights, sha256), weights
    load_weights(network, content, source, "no weights of this architecture without its last layer")
    return network


def features_of(network: keras.Model, name: str, pixels: np.ndarray) -> np.ndarray:
    """Features (n, k), float32, of pictures (n, height, width) with grey values in any unit."""
    prepare = find_backbone(name).prepare
    parts = [
        np.asarray(network.predict_on_batch(prepare(pixels[i : i + _BATCH]))) for i in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty((0, network.output.shape[-1]), np.float32)


def find_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises
    ------
    SettingsError
        There is none.
    """
    if name not in BACKBONES:
        raise SettingsError(f"There is no backbone '{name}' for recognition; known: {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def _ours(pixels: np.ndarray) -> np.ndarray:
    return standardise(_resized(pixels, VIEW_PX))


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    grey = np.clip(standardise(_resized(pixels, _INCEPTION_PX)) / _SPAN, -1, 1)
    return np.repeat(grey, 3, -1)


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    if pixels.shape[1:] == (side, side):
        return pixels
    method = cv2.INTER_AREA if min(pixels.shape[1:]) > side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(np.asarray(p, np.float32), (side, side), interpolation=method) for p in pixels])


def _build_application(name: str, weights: str | None = None) -> keras.Model:
    import keras

    shape = (_INCEPTION_PX, _INCEPTION_PX, 3)
    make = getattr(keras.applications, name)
    return make(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def _imagenet(name: str, backbone: Backbone) -> keras.Model:
    if backbone.imagenet is None:
        raise SettingsError(f"There are no ImageNet weights of backbone '{name}'; inception_v3 has some.")
    try:
        network = backbone.imagenet()
    except Exception as error:  # Keras raises plain Exception where a download fails, and OSError
        raise ModelError(
            f"The ImageNet weights of {name} cannot be fetched: they need the internet once ({error}). Download them "
            "on another machine into ~/.keras/models, or give weights=PATH."
        ) from error
    network.trainable = False
    return network


def _content(weights: str, sha256: str | None) -> bytes:
    """A file of weights, which must have the hash if one is given."""
    scheme = urlsplit(weights).scheme
    if scheme in ("http", "https", "ftp", "file"):
        if scheme != "https":
            raise SettingsError(f"Weights come from a path or an https:// address, not {weights}.")
        if sha256 is None:
            raise SettingsError(f"Weights from {weights} need sha256=, the hash that the file must have.")
        try:
            with urllib.request.urlopen(weights, timeout=60) as answer:
                content = answer.read(_MAX_WEIGHTS_BYTES + 1)
        except (URLError, OSError, ValueError) as error:
            raise ModelError(f"The weights at {weights} cannot be fetched ({error}).") from error
    else:
        try:
            with Path(weights).expanduser().open("rb") as file:
                content = file.read(_MAX_WEIGHTS_BYTES + 1)
        except OSError as error:
            raise ModelError(
                f"There is no file of weights {weights} ({error}); weights= takes builtin, none, imagenet, a path, or "
                "an address with sha256=."
            ) from error
    if len(content) > _MAX_WEIGHTS_BYTES:
        raise ModelError(f"{weights}: larger than {_MAX_WEIGHTS_BYTES >> 20} MiB, which no backbone needs.")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.lower():
        raise ModelError(f"{weights}: its SHA-256 is {hashlib.sha256(content).hexdigest()}, not {sha256}.")
    return content


BACKBONES: dict[str, Backbone] = {
    "ours": Backbone(lambda: build_trunk(VIEW_PX), _ours),
    "inception_v3": Backbone(
        lambda: _build_application("InceptionV3"),
        _three_channels,
        lambda: _build_application("InceptionV3", "imagenet"),
    ),
    "inception_resnet_v2": Backbone(
        lambda: _build_application("InceptionResNetV2"),
        _three_channels,
        lambda: _build_application("InceptionResNetV2", "imagenet"),
    ),
}
