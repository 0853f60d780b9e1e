"""The whole run: tables, agreement, pictures, report, summary; and an exit status that tells the truth."""

from __future__ import annotations

from pathlib import Path

import luigi

from defectpipe.errors import DefectpipeError
from tasks.base import FolderTask
from tasks.catalogue import index
from tasks.exports import ExportFolder, ExportImages
from tasks.logs import logger
from tasks.overlays import DrawOverlays
from tasks.report import Report, look_first
from tasks.session import Session
from tasks.summary import closing_lines, remarks, summarise
from tasks.sweep import sweep
from tasks.tables import WriteTables

_NAMED_FAILURES = 10


class FailedImagesError(DefectpipeError):
    """Every result is written, but some images have none."""


class RunAll(FolderTask):
    """A folder of micrographs in; loop statistics with their uncertainty, tables, pictures and a report out."""

    catalogue_file = luigi.Parameter(default="", description="catalogue that takes the results in; default: none")

    def needs(self, session: Session) -> list[luigi.Task]:
        """Tables, pictures, files for other programs, and the report."""
        shards = range(len(session.plan.shards))
        parts = [self.child(task, shard=i) for task in (DrawOverlays, ExportImages) for i in shards]
        return [self.child(WriteTables), *parts, self.child(ExportFolder), self.child(Report)]

    def work(self, session: Session) -> None:
        """Write the summary, clear away what is of no image, and fail if an image has failed."""
        from defectpipe.io.tables import read_csv, write_json

        session.progress.close()
        out = session.plan.output_dir
        images, loops = read_csv(out / "images.csv"), read_csv(out / "loops.csv")
        summary = summarise(session, images, loops)
        write_json(summary, out / "summary.json")
        sweep(session.plan)
        worst = look_first(session, images, loops)
        for line in [*remarks(session, summary), *closing_lines(session, summary, worst)]:
            logger.info("%s", line)
        refused = take_in(self.catalogue_file, out)
        refuse_failures(summary)
        if refused is not None:
            raise refused


def take_in(catalogue_file: str, output_dir: Path) -> DefectpipeError | None:
    """Bring the catalogue, if there is to be one, up to date; what it says if it cannot, for the end of the run."""
    if not catalogue_file:
        return None
    try:
        index(catalogue_file, [str(output_dir)])
    except DefectpipeError as error:
        logger.error("%s", error)
        return error
    return None


def refuse_failures(summary: dict[str, dict[str, dict[str, str]]]) -> None:
    """Raise what the run as a whole must end with when images or label files failed.

    Raises
    ------
    FailedImagesError
        Names how many, and the first of them with their reasons.
    """
    failed = dict(summary["failed"])
    broken = dict(summary["labels"]["errors"]) if "labels" in summary else {}
    wrong = summary["corrections"]["errors"] if "corrections" in summary else {}
    wrong = {name: reason.removeprefix(f"{name}: ") for name, reason in dict(wrong).items()}
    if not failed and not broken and not wrong:
        return
    counted = [f"{len(failed)} images failed"] * bool(failed) + [f"{len(broken)} label files failed"] * bool(broken)
    counted += [f"{len(wrong)} correction files failed"] * bool(wrong)
    lines = [f"  {name}: {reason}" for name, reason in {**failed, **broken, **wrong}.items()]
    more = len(lines) - _NAMED_FAILURES
    rest = [f"  and {more} more: images.csv and evaluation.json have them all"] if more > 0 else []
    said = "\n".join([*lines[:_NAMED_FAILURES], *rest])
    raise FailedImagesError(f"{' and '.join(counted)}; everything else is done and written.\n{said}")
