"""The images, labels and groups that a model is trained on."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectpipe.errors import DefectpipeError, LabelError
from defectpipe.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from defectpipe.io.folder import ImageFile
    from defectpipe.micrograph import Micrograph
    from defectpipe.training import TrainingImage
    from defectpipe.training.model_before import ModelBefore

_LONGEST_LIST = 10


@dataclass(frozen=True)
class TrainingFolder:
    """Image files by name, where the labels are, and the group and fold of each image.

    Parameters
    ----------
    images : mapping of str to ImageFile
    root : Path
    labels : Path or None
        None: only corrected images are learned from.
    groups : mapping of str to (str, int or None)
    corrections : CorrectedRun or None
    """

    images: Mapping[str, ImageFile]
    root: Path
    labels: Path | None
    groups: Mapping[str, tuple[str, int | None]]
    corrections: CorrectedRun | None = None

    def files(self) -> list[Path]:
        """Every file that training reads."""
        found = {file.path for file in self.images.values()}
        for folder in (self.labels, self.corrections.folder if self.corrections else None):
            if folder is not None:
                found |= {folder} if folder.is_file() else {p for p in folder.rglob("*") if p.is_file()}
        if self.corrections is not None:
            found |= {file.path for file in self.corrections.images.values()}
        return sorted(found)


@dataclass(frozen=True)
class CorrectedRun:
    """The corrections of a run, the images that it was over, and its ``summary.json`` (empty: there is none)."""

    folder: Path
    root: Path
    images: Mapping[str, ImageFile]
    summary: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> list[str]:
        """Name and hash of the run's model, as far as its summary says them."""
        said = self.summary.get("model")
        return [str(said.get(name, "")) for name in ("name", "sha256")] if isinstance(said, dict) else ["", ""]

    def model_before(self, models_dir: Path) -> ModelBefore:
        """The run's model, whose loops were corrected."""
        from defectpipe.training.model_before import ModelBefore

        return ModelBefore.of_run(self.summary, [models_dir, Path.cwd() / "models"])


def find_training_folder(images_dir: str, labels_dir: str, groups: str, corrections: str = "") -> TrainingFolder:
    """List the images of a folder, with their groups, and those of a run whose loops were corrected.

    Raises
    ------
    DefectpipeError
        A folder is missing or empty, or the groups do not cover the images.
    """
    from defectpipe.io.folder import list_images

    root = Path(images_dir).expanduser().resolve()
    labels = Path(labels_dir).expanduser().resolve() if labels_dir else None
    if not root.is_dir():
        raise DefectpipeError(f"--images-dir {images_dir}: there is no such folder.")
    if labels is not None and not labels.exists():
        raise DefectpipeError(f"--labels-dir {labels_dir}: there is no such folder or file.")
    images = {file.image: file for file in list_images(root, [labels] if labels else [])}
    if not images:
        raise DefectpipeError(f"{root}: no file in this folder looks like a micrograph.")
    known = _read_groups(Path(groups), images) if groups else {}
    return TrainingFolder(images, root, labels, known, _find_corrections(corrections, root) if corrections else None)


def read_training_images(folder: TrainingFolder, label_format: str | None, settings: Settings) -> list[TrainingImage]:
    """Read everything that training needs. Training takes no chances: every image must be readable and labelled.

    Returns
    -------
    list of TrainingImage
        First frames, with their labels, or with their corrections where there are any; images of a corrected run that
        are not in the folder join it. An image that the groups do not name is a group of its own.

    Raises
    ------
    DefectpipeError
        An image cannot be read, labels cannot, or either has no counterpart; names them.
    """
    from defectpipe.training import TrainingImage

    run = folder.corrections
    corrected = {} if run is None else _read_corrected(run, settings)
    if folder.labels is None:
        return [
            TrainingImage(m, table, *folder.groups.get(image, (image, None)), corrected=True)
            for image, (m, table) in corrected.items()
        ]
    frames = _first_frames(folder.images, folder.root, settings)
    by_path = {file.path.resolve(): image for image, file in folder.images.items()}
    instead, more = {}, []
    for image, (m, table) in corrected.items() if run is not None else ():
        own = by_path.get(run.images[image].path.resolve())
        if own is not None:
            instead[own] = table
            continue
        name = image if image not in frames else f"{run.root.name}/{image}"
        joined = dataclasses.replace(m, image=name)
        more.append(TrainingImage(joined, table, *folder.groups.get(image, (name, None)), corrected=True))
    frames_to_label = {image: m for image, m in frames.items() if image not in instead}
    labels = _read_labels(folder.labels, frames, frames_to_label, label_format, settings)
    of_folder = [
        TrainingImage(
            m,
            instead.get(image, labels.get(image)),
            *folder.groups.get(image, (image, None)),
            corrected=image in instead,
        )
        for image, m in frames.items()
    ]
    return of_folder + more


def _first_frames(images: Mapping[str, ImageFile], root: Path, settings: Settings) -> dict[str, Micrograph]:
    from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes

    sizes = read_pixel_sizes(root)
    reading = settings.reading
    return {
        image: read_micrographs(
            file, image=image, pixel_sizes=sizes, colour=reading.colour, max_pixels=reading.max_pixels
        )[0]
        for image, file in images.items()
    }


def _read_labels(
    path: Path,
    frames: Mapping[str, Micrograph],
    needed: Mapping[str, Micrograph],
    label_format: str | None,
    settings: Settings,
) -> Mapping[str, pd.DataFrame]:
    """Labels of images: all those needed must have them."""
    from defectpipe.io.labels import read_label_folder

    found = read_label_folder(
        path,
        [(image, m.shape) for image, m in frames.items()],
        label_format=label_format,
        box_convention=settings.labels.box_convention,
        clip=settings.labels.clip,
    )
    for what, names in (
        ("label files cannot be read", [f"{name} ({error})" for name, error in found.errors.items()]),
        ("labels have no image", found.unmatched_labels),
        (
            "images have no labels (an empty label file says that there are no loops)",
            [image for image in found.unlabelled_images if image in needed],
        ),
    ):
        _refuse(path, what, names)
    if len(found.experts) > 1:
        raise LabelError(f"{path}: labels of several experts ({', '.join(found.experts)}); give one's folder.")
    return next(iter(found.experts.values()), {})


def _read_corrected(run: CorrectedRun, settings: Settings) -> dict[str, tuple[Micrograph, pd.DataFrame]]:
    """The corrected images of a run, with their loops as labels."""
    from defectpipe.io.labels import read_label_folder

    found = read_label_folder(run.folder, _shapes(run, settings), marks=True)
    _refuse(run.folder, "corrections cannot be read", [f"{name} ({error})" for name, error in found.errors.items()])
    _refuse(run.folder, f"corrections have no image in {run.root}", found.unmatched_labels)
    if len(found.experts) != 1:
        raise LabelError(f"{run.folder}: there are no corrections of one person in it.")
    [tables] = found.experts.values()
    # A run may be over thousands of images of which a few were corrected: only those are read and kept.
    frames = _first_frames({image: run.images[image] for image in tables}, run.root, settings)
    return {
        image: (frames[image], table[[frame == 0 for frame in found.marks[image].frames]].reset_index(drop=True))
        for image, table in sorted(tables.items())
    }


def _shapes(run: CorrectedRun, settings: Settings) -> list[tuple[str, tuple[int, int]]]:
    """Height and width of the run's images: as its table says, or, without one, read from each."""
    from defectpipe.io.tables import read_csv

    table = run.folder.parent / "images.csv"
    if not table.is_file():
        return [
            (image, _first_frames({image: file}, run.root, settings)[image].shape) for image, file in run.images.items()
        ]
    rows = read_csv(table)
    rows = rows[(rows["frame"] == 0) & rows["height_px"].notna() & rows["image"].isin(list(run.images))]
    return [
        (str(i), (int(h), int(w))) for i, h, w in zip(rows["image"], rows["height_px"], rows["width_px"], strict=True)
    ]


def _find_corrections(corrections: str, root: Path) -> CorrectedRun:
    """The corrections, with the images of the run whose summary lies beside their folder, else with those of `root`."""
    from defectpipe.io.folder import list_images

    folder = Path(corrections).expanduser().resolve()
    if not folder.is_dir():
        raise DefectpipeError(f"--corrections {corrections}: there is no such folder.")
    summary = _read_summary(folder.parent / "summary.json")
    source = Path(summary["run"]["input_dir"]) if summary else root
    if not source.is_dir():
        raise DefectpipeError(f"--corrections {corrections}: the images of the run, {source}, are gone.")
    images = {file.image: file for file in list_images(source, [folder, folder.parent])}
    return CorrectedRun(folder, source, images, summary)


def _read_summary(path: Path) -> dict[str, Any]:
    """A run's summary; empty where there is none that says what the run was over."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        Path(summary["run"]["input_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(summary)


def _refuse(path: Path, what: str, names: list[str]) -> None:
    if names:
        rest = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
        raise LabelError(f"{path}: {len(names)} {what}: {', '.join(names[:_LONGEST_LIST])}{rest}.")


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
