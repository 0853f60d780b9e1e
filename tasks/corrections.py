"""What people have corrected: read from their corrections folder, and put in the place of what was found.

The loops of an image with a correction are those of the stage ``correction``; everything that comes after measurement
asks here for the loops of an image, and for what they depend on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import luigi

from tasks.base import FolderTask
from tasks.jobs import StageJob, make_job, read_frames, stage_function
from tasks.labels import first_shapes, measured_frames
from tasks.logs import logger
from tasks.plan import Plan, ResultFiles
from tasks.session import Session
from tasks.stages import MeasureLoops, stale_images
from tasks.stamps import Inputs, Stamp, digest, read_stamp, stale_because, write_stamp

if TYPE_CHECKING:
    import pandas as pd

    from defectpipe.classes import DefectClasses

CORRECTION_VERSION = 1
STAGE = "correction"


@dataclass(frozen=True, eq=False)
class Corrections:
    """The corrections of a folder.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Image to its wanted loops: columns of labels, ``frame``, ``loop_id``.
    whole : mapping of str to bool
        Image to whether its file speaks of all frames, or only of the first.
    errors : mapping of str to str
        File to why it cannot be used.
    refused : mapping of str to str
        Image to the same, where it costs an image its correction.
    unmatched : sequence of str
        Files, or entries of one, that are of no image.
    """

    tables: Mapping[str, pd.DataFrame]
    whole: Mapping[str, bool]
    errors: Mapping[str, str]
    refused: Mapping[str, str]
    unmatched: Sequence[str]

    @cached_property
    def digests(self) -> dict[str, str]:
        """Image to hash of what is wanted of it."""
        return {image: digest([table.to_csv(index=False), self.whole[image]]) for image, table in self.tables.items()}


@dataclass(frozen=True)
class CorrectionJob:
    """Everything that a process needs to correct one image."""

    measured: StageJob
    wanted: pd.DataFrame
    whole: bool
    box_convention: str
    classes: DefectClasses | None
    inputs: Inputs
    result: ResultFiles


class CorrectLoops(FolderTask):
    """The loops of the images that somebody has corrected."""

    def needs(self, session: Session) -> list[luigi.Task]:
        """All loops measured: only then is it known which file is of which image."""
        return [self.child(MeasureLoops, shard=i) for i in range(len(session.plan.shards))]

    def is_current(self, session: Session) -> bool:
        """Whether every correction is in place."""
        return not awaits_corrections(session)

    def work(self, session: Session) -> None:
        """Correct what is stale, on the run's engine."""
        plan = session.plan
        corrections = read_corrections(plan)
        if corrections is None:
            return
        stale = _stale(session, corrections)
        session.agenda.say("corrections: %s", _said(corrections, stale))
        for name, sentence in corrections.errors.items():
            logger.warning("corrections: %s (%s)", sentence, name)
        for name in corrections.unmatched:
            logger.warning("corrections: %s is of no image of this folder", name)
        session.progress.expect(STAGE, len(stale))
        for _done in session.compute(STAGE, correct, [make_correction_job(plan, corrections, i) for i in stale]):
            session.agenda.stages_done[STAGE] += 1


@lru_cache(maxsize=1)
def read_corrections(plan: Plan) -> Corrections | None:
    """The corrections of the plan's images, all of them measured; None where there is no folder of corrections."""
    if plan.corrections_dir is None:
        return None
    from defectpipe.errors import LabelError
    from defectpipe.io.labels import read_label_folder

    frames = measured_frames(plan)
    try:
        found = read_label_folder(plan.corrections_dir, first_shapes(frames), marks=True)
    except LabelError as error:
        return Corrections({}, {}, {plan.corrections_dir.name: str(error)}, {}, [])
    tables = {}
    refused = dict(found.refused_images)
    errors = dict(found.errors)
    if len(found.experts) > 1:
        names = ", ".join(sorted(found.experts))
        errors[plan.corrections_dir.name] = f"corrections of several people ({names}): leave those of one."
    else:
        for image, table in next(iter(found.experts.values()), {}).items():
            marks = found.marks[image]
            n_frames = len(frames[image])
            if max(marks.frames, default=0) >= n_frames:
                name = found.files[next(iter(found.experts))][image].name
                sentence = f"{name}: it has loops in frame {max(marks.frames)}, the image has {n_frames} from 0."
                errors[name] = refused[image] = sentence
                continue
            tables[image] = table.assign(frame=list(marks.frames), loop_id=_numbers(marks.loop_ids))
    whole = {image: found.marks[image].knows_frames for image in tables}
    return Corrections(tables, whole, errors, refused, found.unmatched_labels)


def awaits_corrections(session: Session) -> bool:
    """Whether it is not known yet which loops are corrected, or a correction is not in place."""
    plan = session.plan
    if plan.corrections_dir is None:
        return False
    if any(stale_images(session, "measurement", plan.images)):
        return True
    corrections = read_corrections(plan)
    return corrections is not None and bool(_stale(session, corrections))


def loops_result(plan: Plan, image: str) -> ResultFiles:
    """Where the loops of an image are: as measured, or as corrected."""
    corrections = read_corrections(plan)
    corrected = corrections is not None and image in corrections.tables
    return plan.result(STAGE if corrected else "measurement", image)


def loops_parts(plan: Plan, image: str) -> dict[str, Any]:
    """What the loops of an image depend on, as parts of what is made of them."""
    parts: dict[str, Any] = {"upstream": plan.inputs("measurement", image).fingerprint}
    corrections = read_corrections(plan)
    if corrections is not None and image in corrections.tables:
        parts["correction"] = corrections.digests[image]
    return parts


def shard_parts(plan: Plan, shard: int) -> dict[str, Any]:
    """The same for all images of a part of the folder, with what could not be corrected."""
    parts: dict[str, Any] = {"upstream": plan.shard_fingerprint(shard)}
    corrections = read_corrections(plan)
    if corrections is not None:
        images = plan.shards[shard]
        known = {image: corrections.digests[image] for image in images if image in corrections.tables}
        doubts = {image: corrections.refused[image] for image in images if image in corrections.refused}
        if known or doubts:
            parts["correction"] = digest([known, doubts])
    return parts


def folder_parts(plan: Plan) -> dict[str, Any]:
    """The same for the whole folder."""
    parts = [shard_parts(plan, shard) for shard in range(len(plan.shards))]
    found: dict[str, Any] = {"upstream": digest([part["upstream"] for part in parts])}
    if any("correction" in part for part in parts):
        found["correction"] = digest([part.get("correction", "") for part in parts])
    return found


def make_correction_job(plan: Plan, corrections: Corrections, image: str) -> CorrectionJob:
    """The job that corrects one image."""
    return CorrectionJob(
        measured=make_job(plan, "measurement", image),
        wanted=corrections.tables[image],
        whole=corrections.whole[image],
        box_convention=plan.model.box_convention,
        classes=plan.model.classes,
        inputs=_inputs(plan, image),
        result=plan.result(STAGE, image),
    )


def correct(job: CorrectionJob) -> None:
    """Correct the frames of one image, and write the table, then the stamp."""
    import pandas as pd

    from defectpipe.corrections import correct_loops
    from defectpipe.io.tables import CORRECTION_COUNTS, loops_table, read_parquet, write_parquet

    job.result.stamp.unlink(missing_ok=True)
    measured = read_stamp(job.measured.result.stamp)
    found = loops_table(read_parquet(job.measured.result.table))
    tables, facts = [], list(measured.frames if measured is not None else [])
    for k, m in enumerate(read_frames(job.measured)):
        own = found[found["frame"] == m.frame].reset_index(drop=True)
        wanted = job.wanted[job.wanted["frame"] == m.frame]
        if m.frame and not job.whole:
            tables.append(own)
            continue
        measure = stage_function(job.measured, m)
        corrected = correct_loops(own, wanted, m.shape, job.box_convention, measure, job.classes)
        tables.append(corrected.loops.assign(image=m.image, frame=m.frame))
        counts = {name: getattr(corrected, name) for name in CORRECTION_COUNTS}
        facts[k] = facts[k] | counts
    write_parquet(loops_table(pd.concat(tables, ignore_index=True)), job.result.table)
    write_stamp(job.result.stamp, Stamp(job.inputs.parts, frames=facts))


def _inputs(plan: Plan, image: str) -> Inputs:
    return Inputs({"stage": STAGE, "algorithm": CORRECTION_VERSION} | loops_parts(plan, image))


def _stale(session: Session, corrections: Corrections) -> dict[str, str]:
    plan, current, found = session.plan, session.agenda.current[STAGE], {}
    for image in sorted(set(corrections.tables) - current):
        result = plan.result(STAGE, image)
        if reason := stale_because(result.stamp, _inputs(plan, image), result.table):
            found[image] = reason
        else:
            current.add(image)
    return found


def _said(corrections: Corrections, stale: Mapping[str, str]) -> str:
    n = len(corrections.tables)
    return f"of {n} image{'s' * (n != 1)}; {len(stale)} new or changed"


def _numbers(loop_ids: Sequence[int | None]) -> pd.Series:
    import pandas as pd

    return pd.Series([pd.NA if loop_id is None else loop_id for loop_id in loop_ids], dtype="Int64")
