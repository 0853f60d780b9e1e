"""The cascades of one model of a training: its own, and those that only propose what its screener learns from."""

from __future__ import annotations

from pathlib import Path

from defectpipe.detection.cascade import Cascade
from defectpipe.detection.checkpoint import Standing
from defectpipe.detection.opencv_xml import cascade_to_xml, read_cascade
from defectpipe.detection.scan import ScanRecipe
from defectpipe.detection.training import LabelledImage, train_cascade
from defectpipe.io.files import write_atomic
from defectpipe.model import CASCADE
from defectpipe.training.progress import PartProgress
from defectpipe.training.workspace import PartJob


def train_cascade_of_part(job: PartJob, images: list[LabelledImage], scan: ScanRecipe, progress: PartProgress) -> None:
    """Train the cascade of a part, or keep that of the model that it starts from; nothing where it is there."""
    if (job.folder / CASCADE).exists():
        return
    if not job.recipe.train_cascade:
        assert job.start is not None
        write_atomic(job.folder / CASCADE, job.start.load().files.content(CASCADE))
        return
    _cascade_of(images, job, scan, progress, job.folder / CASCADE)


def _cascade_of(
    images: list[LabelledImage], job: PartJob, scan: ScanRecipe, progress: PartProgress, file: Path
) -> Cascade:
    """A cascade that learns from these images; taken from its file where it is there, gone on with where it stands."""
    if not file.exists():
        recipe = job.recipe.cascade
        progress.begin(file.stem, recipe.n_stages)
        standing = file.with_name(f"{file.stem}-so-far.json")
        begun = Standing.of_json(standing.read_bytes()) if standing.exists() else None
        cascade, _ = train_cascade(
            *(images, recipe, scan, job.seed, progress.stage),
            begun=begun,
            keep=lambda reached: write_atomic(standing, reached.to_json()),
        )
        xml = cascade_to_xml(cascade, hit_rate=recipe.hit_rate, false_alarm_rate=recipe.false_alarm_rate)
        write_atomic(file, xml.encode())
        standing.unlink(missing_ok=True)
    return read_cascade(file)


def proposing_cascades(
    job: PartJob, images: list[LabelledImage], scan: ScanRecipe, progress: PartProgress
) -> list[Cascade]:
    """For each training image the cascade whose candidates the screener learns from.

    The part's own; with `TrainingRecipe.unseen_candidates` one that has learned from the other folds only, if there are
    two and it is not kept.
    """
    whole = read_cascade(job.folder / CASCADE)
    folds = [stored.fold for stored in job.training_images]
    judged = sorted({fold for fold in folds if fold >= 0})
    if not (job.recipe.unseen_candidates and job.recipe.train_cascade) or len(judged) < 2:
        return [whole] * len(images)
    without: dict[int, Cascade] = {}
    for fold in judged:
        others = [image for image, its in zip(images, folds, strict=True) if its != fold]
        file = job.folder / f"cascade-without-{fold}.xml"
        without[fold] = _cascade_of(others, job, scan, progress, file)
    return [without.get(fold, whole) for fold in folds]
