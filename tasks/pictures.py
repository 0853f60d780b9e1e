"""Small grey pictures of images, which the report and the focus page show."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defectpipe.errors import DefectpipeError
from tasks.jobs import LONGEST_REASON, Outcome, StageJob, make_job, read_frames
from tasks.logs import logger
from tasks.plan import Plan, ResultFiles
from tasks.session import Session
from tasks.stamps import Inputs, Stamp, read_stamp, stale_because, write_stamp

if TYPE_CHECKING:
    from defectpipe.micrograph import Micrograph

PICTURE_VERSION = 1


@dataclass(frozen=True)
class PictureJob:
    """Everything that a process needs to make the small pictures of some frames of an image."""

    measured: StageJob
    frames: Sequence[int]
    inputs: Inputs
    result: ResultFiles


def make_pictures(session: Session, frames: Mapping[str, Sequence[int]]) -> None:
    """Small pictures of these frames, where they are not there yet."""
    wanted = [stale_picture(session.plan, image, of_image) for image, of_image in frames.items()]
    jobs = [job for job in wanted if job is not None]
    session.progress.expect("report", len(jobs))
    for job, outcome in session.compute("report", draw_pictures, jobs):
        if outcome.reason:
            logger.warning("%s: no picture of it in the report (%s)", job.measured.image, outcome.reason)
            logger.debug("%s", outcome.surprise)


def all_frames(plan: Plan, most: int) -> dict[str, list[int]]:
    """The frames of each measured image, where they are no more than `most` altogether; else of none."""
    found: dict[str, list[int]] = {}
    for image in plan.images if len(plan.images) <= most else ():
        measured = read_stamp(plan.result("measurement", image).stamp)
        if measured is not None and not measured.failed:
            found[image] = [facts["frame"] for facts in measured.frames]
    return found if sum(map(len, found.values())) <= most else {}


def stale_picture(plan: Plan, image: str, frames: Sequence[int]) -> PictureJob | None:
    """The job that makes the pictures of some frames of an image; None where they are there."""
    result = plan.result("pictures", image)
    inputs = Inputs(
        {
            "picture": PICTURE_VERSION,
            "image": plan.hashes[image],
            "beside": plan.companion_hashes.get(image, ""),
            "frames": sorted(frames),
        }
        | plan.settings_of("reading")
        | plan.settings_of("tiling")
    )
    if not stale_because(result.stamp, inputs, result.table):
        return None
    return PictureJob(make_job(plan, "measurement", image), frames, inputs, result)


def draw_pictures(job: PictureJob, frames: Callable[[], list[Micrograph]] | None = None) -> Outcome:
    """Small pictures of some frames of an image, in one table; `frames` where somebody has read them already."""
    import pandas as pd

    from defectpipe.io.tables import write_parquet
    from defectpipe.report.gallery import jpeg_picture

    job.result.stamp.unlink(missing_ok=True)
    try:
        read = read_frames(job.measured) if frames is None else frames()
        made = [(m.frame, jpeg_picture(m)) for m in read if m.frame in job.frames]
    except OSError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
        write_stamp(job.result.stamp, Stamp(job.inputs.parts, failed=True, reason=reason))
        return Outcome(reason, "" if isinstance(error, DefectpipeError) else traceback.format_exc())
    write_parquet(pd.DataFrame(made, columns=["frame", "jpeg"]), job.result.table)
    write_stamp(job.result.stamp, Stamp(job.inputs.parts))
    return Outcome()
