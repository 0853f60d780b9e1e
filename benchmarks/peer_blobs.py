"""Blob detectors as rivals: scikit-image's `blob_log`, `blob_dog`, `blob_doh`, and `trackpy.locate`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from peer import Found, Peer
from skimage.feature import blob_dog, blob_doh, blob_log

REDUCTION = 4
# Of the reduced image, in its px.
_BACKGROUND_PX = 16.0
_SIDES = np.arange(1.5, 5.01, 0.5)


def flattened(grey: np.ndarray, polarity: str) -> np.ndarray:
    """The image reduced by `REDUCTION`, its background taken off, in standard deviations; loops bright."""
    small = cv2.resize(grey, None, fx=1 / REDUCTION, fy=1 / REDUCTION, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= cv2.GaussianBlur(small, (0, 0), _BACKGROUND_PX)
    return small / max(float(small.std()), 1e-6) * (-1 if polarity == "dark" else 1)


def skimage_blobs(
    detector: Callable[..., np.ndarray], grey: np.ndarray, fold: int, *, polarity: str, **parameters: Any
) -> Found:
    """Boxes of side sigma around the blobs; scikit-image gives no scores."""
    del fold
    blobs = detector(flattened(grey, polarity), **parameters)
    return _squares(blobs[:, 1], blobs[:, 0], blobs[:, 2]), np.ones(len(blobs))


def trackpy_features(grey: np.ndarray, fold: int, *, polarity: str, **parameters: Any) -> Found:
    """Boxes of side "size" (radius of gyration) around the features; their score is their mass."""
    import trackpy

    del fold
    trackpy.quiet()
    # It works on integers.
    picture = np.clip(np.rint(128 + 32 * flattened(grey, polarity)), 0, 255).astype(np.uint8)
    features = trackpy.locate(picture, **parameters)
    columns = (features[name].to_numpy(float) for name in ("x", "y", "size"))
    return _squares(*columns), features["mass"].to_numpy(float)


def _squares(x: np.ndarray, y: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Boxes in px of the working image from centres and sides in those of the reduced one."""
    x, y = ((v + 0.5) * REDUCTION - 0.5 for v in (x, y))
    half = REDUCTION * side / 2
    return np.stack([x - half, y - half, x + half, y + half], 1)


def _grid(**choices: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


_POLARITIES = ["dark", "bright"]
BLOBS: dict[str, Peer] = {
    "scikit-image blob_log": Peer(
        partial(skimage_blobs, blob_log),
        _grid(
            polarity=_POLARITIES,
            min_sigma=[2.0, 3.5, 5.0],
            max_sigma=[9.0],
            num_sigma=[8],
            log_scale=[True],
            threshold=[0.8, 1.2, 1.8],
        ),
        _SIDES,
    ),
    "scikit-image blob_dog": Peer(
        partial(skimage_blobs, blob_dog),
        _grid(
            polarity=_POLARITIES,
            min_sigma=[2.0, 3.5, 5.0],
            max_sigma=[9.0],
            threshold=[0.35, 0.6, 0.9, 1.3],
        ),
        _SIDES,
    ),
    "scikit-image blob_doh": Peer(
        # The determinant does not tell dark from bright.
        partial(skimage_blobs, blob_doh),
        _grid(
            polarity=["dark"],
            min_sigma=[3.5, 5.0, 7.0],
            max_sigma=[12.0],
            num_sigma=[8],
            log_scale=[True],
            threshold=[0.1, 0.2, 0.4],
        ),
        _SIDES / 2,
    ),
    "trackpy locate": Peer(
        trackpy_features,
        _grid(polarity=_POLARITIES, diameter=[11, 15, 21], percentile=[64]),
        _SIDES + 0.5,
        needs="trackpy",
    ),
}
