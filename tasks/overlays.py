"""A picture of every image with what was found on it."""

from __future__ import annotations

import contextlib
import hashlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from defectpipe.errors import DefectpipeError
from tasks.corrections import awaits_corrections, loops_parts, loops_result
from tasks.jobs import LONGEST_REASON, Outcome, StageJob, make_job, read_frames
from tasks.labels import read_labels
from tasks.logs import logger
from tasks.pictures import PictureJob, all_frames, draw_pictures, stale_picture
from tasks.plan import Plan, ResultFiles
from tasks.session import Session
from tasks.stages import ALL_SHARDS, MeasureLoops, ShardTask, stale_images
from tasks.stamps import UPSTREAM_CHANGED, Inputs, Stamp, read_stamp, stale_because, write_stamp

if TYPE_CHECKING:
    import pandas as pd

    from defectpipe.micrograph import Micrograph

OVERLAY_VERSION = 1
# File systems take 255 bytes; the rest is for the frame's number and the extension.
LONGEST_NAME = 230


@dataclass(frozen=True)
class OverlayJob:
    """Everything that a process needs to draw one image: its measurement, and where the pictures go.

    `small` are those that the report will show: made of the same pixels, where they are not there yet.
    """

    measured: StageJob
    loops: ResultFiles
    labels: pd.DataFrame | None
    labelled_frame: int
    box_convention: str
    classes: Sequence[str]
    inputs: Inputs
    stamp: Path
    folder: Path
    small: PictureJob | None


class DrawOverlays(ShardTask):
    """Pictures of the images of one part of the folder."""

    requirement = MeasureLoops
    bar = "overlays"
    priority = 5
    takes_corrections = True

    def stale(self, session: Session) -> dict[str, str]:
        """The images whose picture is absent, or shows something else than was measured."""
        plan, current, stale = session.plan, session.agenda.current[self.bar], {}
        images = plan.shards[self.shard]
        # Labels are matched with the measured images: until all are measured, there is nothing to compare.
        unmeasured = any(stale_images(session, "measurement", images if plan.labels_dir is None else plan.images))
        if unmeasured or awaits_corrections(session):
            return dict.fromkeys(images, UPSTREAM_CHANGED)
        for image in images:
            if image in current:
                continue
            if reason := self._reason(plan, image):
                stale[image] = reason
            else:
                current.add(image)
        return stale

    def work(self, session: Session) -> None:
        """Draw what is stale. Only now, with all images measured, can be told how much that is."""
        if self.shard != ALL_SHARDS:
            self.note_all(session)
        super().work(session)

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Draw on the run's engine. A picture that cannot be drawn is left out, and said."""
        from defectpipe.report.gallery import MOST_PICTURES

        plan = session.plan
        in_report = all_frames(plan, MOST_PICTURES)
        jobs = [make_overlay_job(plan, image, in_report.get(image, ())) for image in stale]
        for job, outcome in session.compute(self.bar, draw, jobs):
            if outcome.reason:
                logger.warning("%s: no picture of it (%s)", job.measured.image, outcome.reason)
                logger.debug("%s", outcome.surprise)

    @staticmethod
    def _reason(plan: Plan, image: str) -> str:
        measured = read_stamp(plan.result("measurement", image).stamp)
        frames = len(measured.frames) if measured is not None else 0
        pictures = overlay_paths(plan.output_dir / "overlays", image, frames)
        return stale_because(overlay_stamp(plan, image), overlay_inputs(plan, image), *pictures)


def overlay_paths(folder: Path, image: str, n_frames: int) -> list[Path]:
    """One path a frame: the input's tree is mirrored and the extension kept, so that no two images share a picture."""
    if n_frames == 1:
        return [mirrored(folder, image, ".jpg")]
    return [mirrored(folder, image, f".{frame:04d}.jpg") for frame in range(n_frames)]


def mirrored(folder: Path, image: str, ending: str) -> Path:
    """Path of what is made of an image: its own path and name below `folder`, with an ending that is added."""
    place, _slash, name = image.rpartition("/")
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        name = name[:40] + "-" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folder / place / f"{name}{ending}"


def overlay_stamp(plan: Plan, image: str) -> Path:
    """Where the stamp of an image's pictures is."""
    return plan.result("overlays", image).stamp


def overlay_inputs(plan: Plan, image: str) -> Inputs:
    """What the pictures of an image depend on."""
    labels = read_labels(plan)
    marked = "" if labels is None else labels.digest_of(image)
    return Inputs({"overlay": OVERLAY_VERSION, "labels": marked} | loops_parts(plan, image) | plan.class_parts)


def make_overlay_job(plan: Plan, image: str, in_report: Sequence[int] = ()) -> OverlayJob:
    """The job that draws one image of the plan, and the frames that the report will show."""
    labels = read_labels(plan)
    return OverlayJob(
        measured=make_job(plan, "measurement", image),
        loops=loops_result(plan, image),
        labels=None if labels is None else labels.of(image),
        labelled_frame=0 if labels is None else labels.frame,
        box_convention=plan.model.box_convention,
        classes=plan.model.class_names,
        inputs=overlay_inputs(plan, image),
        stamp=overlay_stamp(plan, image),
        folder=plan.output_dir / "overlays",
        small=stale_picture(plan, image, in_report) if in_report else None,
    )


def draw(job: OverlayJob) -> Outcome:
    """Draw every frame of an image that did not fail; a failed one has no picture."""
    measured, before = read_stamp(job.measured.result.stamp), read_stamp(job.stamp)
    n_frames = len(measured.frames) if measured is not None and not measured.failed else 0
    pictures = overlay_paths(job.folder, job.measured.image, n_frames) if n_frames else []
    if before is not None:
        remove_pictures(before, job.folder, keep=pictures)
    listed = [{"picture": path.relative_to(job.folder).as_posix()} for path in pictures]
    # Vouches for nothing, but lists the files, so that they can be cleared away if this process is killed here.
    write_stamp(job.stamp, Stamp({}, failed=not pictures, frames=listed))
    outcome = Outcome()
    frames = cache(lambda: read_frames(job.measured))
    try:
        _draw_frames(job, pictures, frames)
    except OSError:
        raise
    except Exception as error:
        surprise = "" if isinstance(error, DefectpipeError) else traceback.format_exc()
        outcome = Outcome(f"{type(error).__name__}: {error}"[:LONGEST_REASON], surprise)
    failed = bool(outcome.reason) or not pictures
    write_stamp(job.stamp, Stamp(job.inputs.parts, failed=failed, reason=outcome.reason, frames=listed))
    if job.small is None or failed:
        return outcome
    return draw_pictures(job.small, frames)


def remove_pictures(stamp: Stamp, folder: Path, keep: Sequence[Path] = ()) -> None:
    """Remove the pictures that a stamp lists, and the folders that this leaves empty."""
    for entry in stamp.frames:
        path = folder / entry["picture"]
        if path not in keep:
            path.unlink(missing_ok=True)
            for above in path.relative_to(folder).parents:
                with contextlib.suppress(OSError):
                    (folder / above).rmdir()


def _draw_frames(job: OverlayJob, pictures: Sequence[Path], frames: Callable[[], list[Micrograph]]) -> None:
    from defectpipe.io.tables import loops_table, read_parquet
    from defectpipe.report.overlays import write_overlay

    if not pictures:
        return
    loops = loops_table(read_parquet(job.loops.table))
    for m, path in zip(frames(), pictures, strict=True):
        write_overlay(
            path,
            m,
            loops[loops["frame"] == m.frame],
            labels=job.labels if m.frame == job.labelled_frame else None,
            box_convention=job.box_convention,
            classes=job.classes,
        )
