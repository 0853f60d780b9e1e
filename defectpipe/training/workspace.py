"""The scratch folder of a training: images as arrays, one folder for each part, so that a killed training resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_json
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from defectpipe.training.start import StartModel


@dataclass(frozen=True, eq=False)
class StoredImage:
    """One labelled image on disk: 8-bit pixels, and boxes in the model's convention, in px of the image.

    `classes` holds the number of each box's class; None: all are of one.
    """

    pixels: Path
    image: str
    pixel_size_nm: float | None
    fold: int
    boxes: np.ndarray
    classes: np.ndarray | None = None

    def micrograph(self) -> Micrograph:
        """The image, as the analysis takes it."""
        size = self.pixel_size_nm
        calibration = None if size is None else Calibration(size, "training")
        return Micrograph(np.load(self.pixels), self.image, calibration=calibration)


@dataclass(frozen=True, eq=False)
class PartJob:
    """One model of a training: of all images but one fold, or of all (`held_out` None).

    `start` is the model that it begins from; None: from scratch.
    """

    folder: Path
    images: tuple[StoredImage, ...]
    held_out: int | None
    working_pixel_size_nm: float | None
    recipe: TrainingRecipe
    seed: int
    start: StartModel | None = None

    @property
    def training_images(self) -> list[StoredImage]:
        """Images that it learns from."""
        return [image for image in self.images if image.fold != self.held_out]

    @property
    def held_out_images(self) -> list[StoredImage]:
        """Images that it never sees."""
        return [image for image in self.images if image.fold == self.held_out]

    @property
    def title(self) -> str:
        """For progress lines."""
        return "all images" if self.held_out is None else f"without fold {self.held_out}"


def fingerprint(
    images: Sequence[tuple[Micrograph, np.ndarray, int]],
    recipe: TrainingRecipe,
    seed: int,
    classes: Sequence[np.ndarray] = (),
    start_sha256: str = "",
) -> str:
    """Hash of everything that a training depends on: what stands under another one is not taken up."""
    total = hashlib.sha256(json.dumps([dataclasses.asdict(recipe), seed, start_sha256], sort_keys=True).encode())
    for numbers in classes:
        total.update(np.ascontiguousarray(numbers, np.int64).tobytes())
    for m, boxes, fold in images:
        grey = m.grey8()
        total.update(json.dumps([m.image, m.pixel_size_nm, fold, grey.shape]).encode())
        total.update(grey.tobytes())
        total.update(np.ascontiguousarray(boxes, np.float64).tobytes())
    return total.hexdigest()


def store_images(
    folder: Path, images: Sequence[tuple[Micrograph, np.ndarray, int]], classes: Sequence[np.ndarray] = ()
) -> tuple[StoredImage, ...]:
    """Write the images' 8-bit pixels where every process can read them.

    Parameters
    ----------
    folder : Path
    images : sequence of (Micrograph, ndarray, int)
        With boxes and fold.
    classes : sequence of ndarray
        Of each image the numbers of its boxes' classes; none: all are of one.
    """
    stored = []
    for i, (m, boxes, fold) in enumerate(images):
        path = folder / "images" / f"{i:05d}.npy"
        if not path.exists():
            grey = m.grey8()
            write_atomic(path, lambda target, grey=grey: np.save(target, grey))  # type: ignore[misc]
        numbers = classes[i] if len(classes) else None
        stored.append(StoredImage(path, m.image, m.pixel_size_nm, fold, boxes, numbers))
    return tuple(stored)


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write a card; it is the last file of a model, so that a card means a whole model."""
    write_json(card, path)
