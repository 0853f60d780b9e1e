"""A cascade's training that is ended: it goes on at the stage where it stood, to the same file."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from cascade_helpers import SCAN, fields

from defectpipe.detection import training
from defectpipe.detection.boosting import Stage
from defectpipe.detection.checkpoint import StageReport, Standing
from defectpipe.detection.opencv_xml import cascade_to_xml
from defectpipe.detection.training import CascadeRecipe, LabelledImage, train_cascade
from defectpipe.model import CASCADE
from defectpipe.training import TrainingRecipe, part
from defectpipe.training.cascades import train_cascade_of_part
from defectpipe.training.progress import PartProgress
from defectpipe.training.workspace import PartJob, store_images

QUICK = CascadeRecipe(
    n_stages=4, n_positives=300, n_negatives=400, copies=4, feature_share=0.05, max_stumps=12, negatives_per_image=200
)


class EndedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def images() -> list[LabelledImage]:
    return [LabelledImage(m.pixels, boxes) for m, boxes in fields(3)]


def test_a_training_goes_on_to_the_same_cascade(images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []

    def keep(reached: Standing) -> None:
        kept.append(reached.to_json())
        if len(kept) == 2:
            raise EndedError

    whole, reports = train_cascade(images, QUICK, SCAN, seed=1)
    with pytest.raises(EndedError):
        train_cascade(images, QUICK, SCAN, seed=1, keep=keep)
    trained, plain = [], training.train_stage

    def counted(codes: np.ndarray, is_loop: np.ndarray, **given: object) -> tuple[Stage, float]:
        trained.append(codes.shape)
        return plain(codes, is_loop, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train_stage", counted)
    told: list[StageReport] = []
    begun = Standing.of_json(kept[-1])
    assert begun is not None
    assert len(begun.stages) == 2
    again, all_reports = train_cascade(images, QUICK, SCAN, 1, told.append, begun=begun)
    assert len(trained) == len(reports) - 2 >= 1
    assert all_reports == reports == told
    assert xml(again) == xml(whole)


def xml(cascade: training.Cascade) -> str:
    return cascade_to_xml(cascade, hit_rate=QUICK.hit_rate, false_alarm_rate=QUICK.false_alarm_rate)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"stages": [{"stumps": 3}]}', b'{"stages": [], "reports": [1]}'])
def test_what_is_no_standing_is_not_taken_up(data: bytes) -> None:
    assert Standing.of_json(data) is None


def test_a_part_that_was_killed_goes_on_where_it_stood(tmp_path: Path) -> None:
    stored = store_images(tmp_path, [(m, boxes, i % 2) for i, (m, boxes) in enumerate(fields(3))])
    recipe = TrainingRecipe(cascade=QUICK)
    jobs = [PartJob(tmp_path / name, stored, None, None, recipe, 1) for name in ("killed", "whole")]
    for job in jobs:
        job.folder.mkdir()
    child = multiprocessing.get_context("spawn").Process(target=train, args=(jobs[0], 2))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    assert not (jobs[0].folder / CASCADE).exists()
    begun = Standing.of_json((jobs[0].folder / "cascade-so-far.json").read_bytes())
    assert begun is not None
    assert len(begun.stages) == 2
    for job in jobs:
        train(job)
        assert not (job.folder / "cascade-so-far.json").exists()
    files = [(job.folder / CASCADE).read_bytes() for job in jobs]
    assert files[0] == files[1]


def train(job: PartJob, kill_after: int = 0) -> None:
    """Train the cascade of a part; the process kills itself when so many stages are told."""

    class Killing(PartProgress):
        def stage(self, report: StageReport) -> None:
            super().stage(report)
            if report.stage == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    with Killing("part") as progress:
        images = [part.working_copy(image, job) for image in job.training_images]
        train_cascade_of_part(job, images, SCAN, progress)
