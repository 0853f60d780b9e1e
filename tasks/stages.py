"""The stages of the analysis as tasks, one for each part of the folder; inside a part each image has its own result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import luigi

from tasks.base import FolderTask
from tasks.engine import WorkerLostError
from tasks.jobs import Outcome, StageJob, fail, make_job, run_job
from tasks.logs import logger
from tasks.plan import FOCUS
from tasks.session import Session
from tasks.stamps import stale_because

ALL_SHARDS = -1


class ShardTask(FolderTask):
    """A task over one part of the folder, or over all parts when asked for by name."""

    shard = luigi.IntParameter(default=ALL_SHARDS, description="number of one part of the folder; -1: all of them")
    requirement: ClassVar[type[ShardTask] | None] = None
    bar: ClassVar[str]
    takes_corrections: ClassVar[bool] = False
    takes_focus: ClassVar[bool] = False

    def needs(self, session: Session) -> list[luigi.Task]:
        """The stage before, for the same images."""
        if self.shard == ALL_SHARDS:
            return [self.child(type(self), shard=i) for i in range(len(session.plan.shards))]
        before: list[luigi.Task] = [] if self.requirement is None else [self.child(self.requirement)]
        if self.takes_focus and session.plan.focus is not None:
            before.append(self.child(ScoreFocus))
        if self.takes_corrections and session.plan.corrections_dir is not None:
            from tasks.corrections import CorrectLoops

            # One for the folder: which file is of which image is only known when all are measured.
            before.append(self.child(CorrectLoops))
        return before

    def is_current(self, session: Session) -> bool:
        """Whether nothing of this part is stale."""
        stale = self.stale(session)
        session.note_stale(self.bar, self.shard, stale)
        return not stale

    def stale(self, session: Session) -> dict[str, str]:
        """The images of this part that have to be computed, each with the reason."""
        return {}

    def work(self, session: Session) -> None:
        """Compute what is stale."""
        if self.shard != ALL_SHARDS:
            if self.takes_corrections and session.plan.corrections_dir is not None:
                self.note_all(session)
            stale = self.stale(session)
            session.note_stale(self.bar, self.shard, stale)
            session.announce(self.bar)
            self.work_on(session, stale)

    def note_all(self, session: Session) -> None:
        """Note what is stale in every part, before the first begins: only now can be told how much that is."""
        if self.bar not in session.announced:
            for shard in range(len(session.plan.shards)):
                part = self if shard == self.shard else self.child(type(self), shard=shard)
                session.note_stale(self.bar, shard, part.stale(session))

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Compute these images."""


class StageTask(ShardTask):
    """One stage of the analysis of each image."""

    def stale(self, session: Session) -> dict[str, str]:
        """The images whose result of this stage is absent, or made from something else."""
        return dict(stale_images(session, self.bar, session.plan.shards[self.shard]))

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Compute the stage for these images on the run's engine."""
        for job, outcome in session.engine.map(run_job, [make_job(session.plan, self.bar, image) for image in stale]):
            settle(session, job, outcome)


class DetectCandidates(StageTask):
    """Candidates of the cascade."""

    bar = "candidates"
    priority = 40


class ScreenLoops(StageTask):
    """Candidates scored by the network, with their boxes corrected."""

    bar = "screening"
    requirement = DetectCandidates
    priority = 30


class MeasureLoops(StageTask):
    """Loops measured by the watershed flood."""

    bar = "measurement"
    requirement = ScreenLoops
    priority = 20


class ScoreFocus(StageTask):
    """How sharp each image is; the loops do not wait for it."""

    bar = FOCUS
    priority = 50


def stale_images(session: Session, stage: str, images: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the images whose result of a stage has to be computed, each with the reason."""
    plan, current = session.plan, session.current[stage]
    for image in images:
        if image not in current:
            result = plan.result(stage, image)
            if reason := stale_because(result.stamp, plan.inputs(stage, image), result.table):
                yield image, reason
            else:
                current.add(image)


def settle(session: Session, job: StageJob, outcome: Outcome | BaseException) -> None:
    """Count a finished job, and log its failure. An error that is not the image's stops the task."""
    if isinstance(outcome, WorkerLostError):
        outcome = fail(job, str(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    session.progress.step(job.stage)
    session.computed[job.stage] += 1
    session.images_computed.add(job.image)
    if outcome.surprise:
        logger.debug("%s: %s\n%s", job.image, outcome.reason, outcome.surprise)
