"""The images, labels and groups that a model is trained on."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defectpipe.errors import DefectpipeError, LabelError
from defectpipe.settings import Settings

if TYPE_CHECKING:
    from defectpipe.io.folder import ImageFile
    from defectpipe.training import TrainingImage

_LONGEST_LIST = 10


@dataclass(frozen=True)
class TrainingFolder:
    """Image files by name, where the labels are, and the group and fold of each image."""

    images: Mapping[str, ImageFile]
    root: Path
    labels: Path
    groups: Mapping[str, tuple[str, int | None]]

    def files(self) -> list[Path]:
        """Every file that training reads."""
        labels = [self.labels] if self.labels.is_file() else [p for p in self.labels.rglob("*") if p.is_file()]
        return sorted({file.path for file in self.images.values()} | set(labels))


def find_training_folder(images_dir: str, labels_dir: str, groups: str) -> TrainingFolder:
    """List the images of a folder, with their groups.

    Raises
    ------
    DefectpipeError
        A folder is missing or empty, or the groups do not cover the images.
    """
    from defectpipe.io.folder import list_images

    root, labels = Path(images_dir).expanduser().resolve(), Path(labels_dir).expanduser().resolve()
    if not root.is_dir():
        raise DefectpipeError(f"--images-dir {images_dir}: there is no such folder.")
    if not labels.exists():
        raise DefectpipeError(f"--labels-dir {labels_dir}: there is no such folder or file.")
    images = {file.image: file for file in list_images(root, [labels])}
    if not images:
        raise DefectpipeError(f"{root}: no file in this folder looks like a micrograph.")
    return TrainingFolder(images, root, labels, _read_groups(Path(groups), images) if groups else {})


def read_training_images(folder: TrainingFolder, label_format: str | None, settings: Settings) -> list[TrainingImage]:
    """Read everything that training needs. Training takes no chances: every image must be readable and labelled.

    Returns
    -------
    list of TrainingImage
        First frames, with their labels; an image that the groups do not name is a group of its own.

    Raises
    ------
    DefectpipeError
        An image cannot be read, labels cannot, or either has no counterpart; names them.
    """
    from defectpipe.io.labels import read_label_folder
    from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes
    from defectpipe.training import TrainingImage

    sizes = read_pixel_sizes(folder.root)
    reading = settings.reading
    frames = {
        image: read_micrographs(
            file, image=image, pixel_sizes=sizes, colour=reading.colour, max_pixels=reading.max_pixels
        )[0]
        for image, file in folder.images.items()
    }
    found = read_label_folder(
        folder.labels,
        [(image, m.shape) for image, m in frames.items()],
        label_format=label_format,
        box_convention=settings.labels.box_convention,
        clip=settings.labels.clip,
    )
    for what, names in (
        ("label files cannot be read", [f"{name} ({error})" for name, error in found.errors.items()]),
        ("labels have no image", found.unmatched_labels),
        ("images have no labels (an empty label file says that there are no loops)", found.unlabelled_images),
    ):
        if names:
            rest = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
            raise LabelError(f"{folder.labels}: {len(names)} {what}: {', '.join(names[:_LONGEST_LIST])}{rest}.")
    if len(found.experts) > 1:
        raise LabelError(f"{folder.labels}: labels of several experts ({', '.join(found.experts)}); give one's folder.")
    [labels] = found.experts.values()
    groups = {image: folder.groups.get(image, (image, None)) for image in frames}
    return [TrainingImage(m, labels[image], *groups[image]) for image, m in frames.items()]


def _read_groups(path: Path, images: Mapping[str, ImageFile]) -> dict[str, tuple[str, int | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise DefectpipeError(f"--groups {path}: cannot be read ({error}).") from error
    if not rows or not {"image", "group"} <= set(rows[0]):
        raise DefectpipeError(f"--groups {path}: needs the columns image and group (and may have fold).")
    try:
        given = {row["image"]: (row["group"], int(row["fold"]) if row.get("fold") else None) for row in rows}
    except (ValueError, TypeError) as error:
        raise DefectpipeError(f"--groups {path}: a fold is a whole number ({error}).") from error
    names = {image.rsplit("/", 1)[-1]: image for image in images}
    groups = {name if name in images else names.get(name, name): value for name, value in given.items()}
    if missing := sorted(set(images) - set(groups)):
        raise DefectpipeError(f"--groups {path}: {len(missing)} images have no group, {missing[0]} for one.")
    return groups
