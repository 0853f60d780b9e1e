"""The stages of the analysis as tasks, one for each part of the folder; inside a part each image has its own result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import luigi

from tasks.base import FolderTask
from tasks.engine import WorkerLostError
from tasks.jobs import ImageJob, Outcome, StageJob, fail, make_job, run_stages
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
        session.agenda.note_stale(self.bar, self.shard, stale)
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
            session.agenda.note_stale(self.bar, self.shard, stale)
            session.agenda.begin(self.bar)
            self.work_on(session, stale)

    def note_all(self, session: Session) -> None:
        """Note what is stale in every part, before the first begins: only now can be told how much that is."""
        if not session.agenda.has_begun(self.bar):
            for shard in range(len(session.plan.shards)):
                part = self if shard == self.shard else self.child(type(self), shard=shard)
                session.agenda.note_stale(self.bar, shard, part.stale(session))

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Compute these images."""


class StageTask(ShardTask):
    """One stage of the analysis of each image."""

    def stale(self, session: Session) -> dict[str, str]:
        """The images whose result of this stage is absent, or made from something else."""
        return dict(stale_images(session, self.bar, session.plan.shards[self.shard]))

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Compute the stage for these images on the run's engine, and at once the later ones that wait for it."""
        plan = session.plan
        chains = [(image, session.agenda.chain(self.bar, self.shard, image)) for image in stale]
        jobs = [ImageJob(tuple(make_job(plan, stage, image) for stage in stages)) for image, stages in chains]
        for job, outcomes in session.engine.map(run_stages, jobs):
            settle(session, job, outcomes)
            session.progress.step(self.bar)


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
    plan, current = session.plan, session.agenda.current[stage]
    for image in images:
        if image not in current:
            result = plan.result(stage, image)
            if reason := stale_because(result.stamp, plan.inputs(stage, image), result.table):
                yield image, reason
            else:
                current.add(image)


def settle(session: Session, job: ImageJob, outcomes: list[Outcome] | BaseException) -> None:
    """Count what a job finished, and log its failures. An error that is not the image's stops the task."""
    if isinstance(outcomes, WorkerLostError):
        outcomes = [_lost(stage, str(outcomes)) for stage in job.stages]
    if isinstance(outcomes, BaseException):
        raise outcomes
    for stage, outcome in zip(job.stages, outcomes, strict=True):
        session.agenda.note_done(stage.stage, stage.image)
        if outcome.surprise:
            logger.debug("%s: %s\n%s", stage.image, outcome.reason, outcome.surprise)


def _lost(job: StageJob, reason: str) -> Outcome:
    """The outcome of one of the stages that a lost process was at: what it finished stands."""
    if not stale_because(job.result.stamp, job.inputs, job.result.table):
        return Outcome()
    return fail(job, reason)
