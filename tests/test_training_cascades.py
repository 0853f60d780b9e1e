"""Which cascade proposes the candidates that a screener learns from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cascade_helpers import SCAN, fields

from defectpipe.detection.cascade import Cascade
from defectpipe.detection.opencv_xml import cascade_to_xml, read_cascade
from defectpipe.detection.training import CascadeRecipe, train_cascade
from defectpipe.model import CASCADE
from defectpipe.training import TrainingRecipe
from defectpipe.training.cascades import proposing_cascades, train_cascade_of_part
from defectpipe.training.part import working_copy
from defectpipe.training.progress import PartProgress
from defectpipe.training.workspace import PartJob, store_images

QUICK = CascadeRecipe(
    n_stages=2, n_positives=200, n_negatives=200, copies=2, feature_share=0.03, max_stumps=8, negatives_per_image=100
)
# The last is one that the start of a training knows: it is learned from, and in no figure.
FOLDS = (0, 1, 1, 2, 3, -1)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PartJob:
    folder = tmp_path_factory.mktemp("training")
    images = [(m, boxes, fold) for (m, boxes), fold in zip(fields(len(FOLDS)), FOLDS, strict=True)]
    stored = store_images(folder, images)
    recipe = TrainingRecipe(cascade=QUICK, unseen_candidates=True)
    part = PartJob(folder / "part", stored, 0, None, recipe, 1)
    part.folder.mkdir()
    return part


def xml(cascade: Cascade) -> str:
    return cascade_to_xml(cascade, hit_rate=QUICK.hit_rate, false_alarm_rate=QUICK.false_alarm_rate)


def proposing(job: PartJob) -> list[str]:
    images = [working_copy(image, job) for image in job.training_images]
    with PartProgress("part") as progress:
        train_cascade_of_part(job, images, SCAN, progress)
        return [xml(cascade) for cascade in proposing_cascades(job, images, SCAN, progress)]


def test_candidates_come_from_a_cascade_that_never_saw_the_fold(job: PartJob) -> None:
    stored = job.training_images
    images = [working_copy(image, job) for image in stored]
    found = proposing(job)
    own = xml(read_cascade(job.folder / CASCADE))
    for image, proposed in zip(stored, found, strict=True):
        if image.fold < 0:
            assert proposed == own
            continue
        others = [one for one, its in zip(images, stored, strict=True) if its.fold != image.fold]
        assert len(others) < len(images)
        assert proposed == xml(train_cascade(others, QUICK, SCAN, job.seed)[0])
    assert len(set(found)) == 4
    # There already: read, not trained again.
    file = job.folder / "cascade-without-1.xml"
    before = file.stat().st_mtime_ns
    assert proposing(job) == found
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("changes", [{"unseen_candidates": False}, {"train_cascade": False}])
def test_else_they_come_from_its_own(job: PartJob, changes: dict[str, bool], tmp_path: Path) -> None:
    plain = dataclasses.replace(job, folder=tmp_path, recipe=dataclasses.replace(job.recipe, **changes))
    proposing(job)
    (tmp_path / CASCADE).write_bytes((job.folder / CASCADE).read_bytes())
    assert set(proposing(plain)) == {xml(read_cascade(tmp_path / CASCADE))}


def test_one_other_fold_is_too_few_to_leave_one_out(job: PartJob, tmp_path: Path) -> None:
    few = tuple(image for image in job.images if image.fold in (0, 1))
    alone = dataclasses.replace(job, folder=tmp_path, images=few)
    assert len(set(proposing(alone))) == 1
    assert not list(tmp_path.glob("cascade-without-*"))
