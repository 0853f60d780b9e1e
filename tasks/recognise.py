"""Objects in three dimensions in a folder's images, for themselves: tables, label images, pictures, summary."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import luigi

from defectpipe.errors import DefectpipeError
from tasks.base import FolderTask
from tasks.engine import WorkerLostError
from tasks.logs import logger
from tasks.objects import AUTO, SERIES, SINGLE, ObjectsJob, frames_of, joined, lost, make_jobs, recognise, remove_files
from tasks.options import RunOptions
from tasks.plan import OBJECTS
from tasks.runall import refuse_failures, take_in
from tasks.session import Session
from tasks.stamps import read_stamp, stale_because
from tasks.summary import program_versions

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

SOLID_MODEL = "solids"
OBJECTS_FILE, OBJECTS_CSV, VIEWS_FILE = "objects.parquet", "objects.csv", "views.parquet"
_IMAGE_COLUMNS = (
    *("image", "frame", "sha256", "status", "reason", "height_px", "width_px", "pixel_size_nm", "pixel_size_source"),
    *("magnification", "modality", "tilt_deg", "series", "px_per_working_px", "n_objects", "n_on_edge", "n_unknown"),
)
_IMAGE_NUMBERS = ("height_px", "width_px", "pixel_size_nm", "magnification", "tilt_deg", "px_per_working_px")
_IMAGE_COUNTS = ("n_objects", "n_on_edge", "n_unknown")
_MOST_LINES = 6
_COUNT = re.compile(r": \d+( of \d+)?$")
_NUMBER = re.compile(r"\d+(\.\d+)?")


class RecogniseObjects(FolderTask):
    """The objects of dark-field images: outlined, measured in nm, named; with what of it is not to be trusted."""

    model = luigi.Parameter(default="", description=f"name or path of a model of solids; default: {SOLID_MODEL}")
    views = luigi.ChoiceParameter(
        default=AUTO,
        choices=[AUTO, SINGLE, SERIES],
        description="series: the frames of a file, and the files of a folder, show one object; single: each frame by "
        "itself; auto: single, but for stacks whose metadata tell tilts",
    )
    catalogue_file = luigi.Parameter(default="", description="catalogue that takes the results in; default: none")

    def options(self) -> RunOptions:
        """Those of a run, with a model of solids and an output folder of its own."""
        if not self.input_dir:
            raise DefectpipeError("--input-dir: give the folder of images.")
        options = super().options()
        if not self.output_dir:
            options = replace(options, output_dir=options.input_dir.with_name(options.input_dir.name + "-objects"))
        if (options.output_dir / "loops.csv").is_file():
            raise DefectpipeError(f"--output-dir {options.output_dir}: it holds a run's loops; give another folder.")
        return replace(options, model=self.model or SOLID_MODEL, of_solids=True)

    def work(self, session: Session) -> None:
        """Recognise what is not current, then write tables and summary."""
        from defectpipe.io.tables import write_csv, write_json, write_parquet

        jobs = make_jobs(session.plan, self.views)
        _compute(session, jobs)
        _sweep(session, jobs)
        out = session.plan.output_dir
        images, warnings = _images(jobs)
        objects, views = _table([job.result.table for job in jobs]), _table([job.views_table for job in jobs])
        write_parquet(objects, out / OBJECTS_FILE)
        write_csv(objects, out / OBJECTS_CSV)
        if len(views):
            write_parquet(views, out / VIEWS_FILE)
        else:
            (out / VIEWS_FILE).unlink(missing_ok=True)
        write_csv(images, out / "images.csv")
        summary = _summarise(session, images, objects, warnings, self.views)
        write_json(summary, out / "summary.json")
        for line in closing_lines(summary, out.as_posix()):
            logger.info("%s", line)
        refused = take_in(self.catalogue_file, out)
        refuse_failures(summary)
        if refused is not None:
            raise refused


def closing_lines(summary: dict[str, Any], folder: str) -> list[str]:
    """What a run ends with: what was found, and what of it is not to be trusted."""
    n, n_images, lines = summary["n_objects"], summary["n_images"], []
    classes = ", ".join(f"{count} {name}" for name, count in summary["classes"].items())
    images, objects = (f"{count} {noun}{'s' * (count != 1)}" for count, noun in ((n_images, "image"), (n, "object")))
    lines.append(f"{images}: {objects}{f' ({classes})' if classes else ''}")
    if n:
        lines.append(
            f"of them {summary['n_unknown']} unlike what the networks were trained on, {summary['n_on_edge']} cut by "
            f"the border, {summary['n_with_warnings']} with a warning of any kind"
        )
    said = list(summary["warnings"].items())
    lines += [f"warning, {count} image{'s' * (count != 1)}: {text}" for text, count in said[:_MOST_LINES]]
    if len(said) > _MOST_LINES:
        lines.append(f"and {len(said) - _MOST_LINES} more kinds of warnings: see summary.json")
    return [*lines, f"{OBJECTS_CSV}, overlays/ and label_images/ are in {folder}"]


def _compute(session: Session, jobs: list[ObjectsJob]) -> None:
    stale = [job for job in jobs if stale_because(job.result.stamp, job.inputs, job.result.table, job.views_table)]
    session.agenda.say("objects: %d of %d to compute", len(stale), len(jobs))
    session.progress.expect(OBJECTS, len(stale))
    for job, outcome in session.engine.map(recognise, stale):
        if isinstance(outcome, WorkerLostError):
            lost(job, str(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome.surprise:
            logger.debug("%s: %s\n%s", job.name, outcome.reason, outcome.surprise)
        session.progress.step(OBJECTS)
    session.progress.close()


def _sweep(session: Session, jobs: list[ObjectsJob]) -> None:
    """Remove the results of files and series that are gone, and half-written files."""
    from defectpipe.io.files import sweep_leftovers

    sweep_leftovers(session.plan.output_dir)
    keep = {path for job in jobs for path in (job.result.table, job.result.stamp, job.views_table)}
    written = [name for job in jobs for name in _files(job)]
    for path in sorted((session.plan.state_dir / OBJECTS).rglob("*")):
        if path.is_file() and path not in keep:
            if path.suffix == ".json":
                remove_files(read_stamp(path), session.plan.output_dir, keep=written)
            path.unlink()


def _files(job: ObjectsJob) -> list[str]:
    stamp = read_stamp(job.result.stamp)
    return [name for facts in ([] if stamp is None else stamp.frames) for name in facts.get("files", ())]


def _images(jobs: list[ObjectsJob]) -> tuple[pd.DataFrame, Counter[str]]:
    """A row for each image and frame, and how many of them each warning is of."""
    import pandas as pd

    rows, warnings = [], Counter[str]()
    for job in jobs:
        stamp = read_stamp(job.result.stamp)
        if stamp is None:
            raise RuntimeError(f"{job.name}: its result is gone.")
        for facts in frames_of(stamp):
            rows.append(facts)
            # what differs in a number only is of one kind
            warnings.update(_NUMBER.sub("N", _COUNT.sub("", line)) for line in facts.get("warnings", ()))
    table = pd.DataFrame(rows, columns=list(_IMAGE_COLUMNS))
    table = table.astype(dict.fromkeys(_IMAGE_NUMBERS, "float64") | dict.fromkeys(_IMAGE_COUNTS, "Int64"))
    for name in ("pixel_size_source", "modality", "series"):
        # where every image failed, a column of text holds no text
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype("str")
    return table.sort_values(["image", "frame"], kind="stable", ignore_index=True), warnings


def _table(paths: list[Path]) -> pd.DataFrame:
    """Objects of all files, sorted."""
    from defectpipe.io.tables import read_parquet

    table = joined([read_parquet(path) for path in paths])
    return table.sort_values(["image", "frame", "object_id"], kind="stable", ignore_index=True)


def _summarise(
    session: Session, images: pd.DataFrame, objects: pd.DataFrame, warnings: Counter[str], views: str
) -> dict[str, Any]:
    plan, options = session.plan, session.options
    failed = images[images["status"] == "failed"]
    good = images[images["status"] != "failed"]
    series = sorted(set(good["series"]) - {""})
    return {
        "n_images": len(images),
        "n_failed": len(failed),
        "n_review": int((images["status"] == "review").sum()),
        "n_objects": len(objects),
        "n_on_edge": int(objects["on_edge"].sum()),
        "n_unknown": int((~objects["is_known"]).sum()),
        "n_with_warnings": int((objects["warnings"] != "").sum()),
        "classes": {str(name): int(n) for name, n in objects["class"].value_counts().sort_index().items()},
        "series": series,
        "warnings": dict(warnings.most_common()),
        "without_pixel_size": sorted(set(good["image"][good["pixel_size_nm"].isna()])),
        "failed": dict(zip(failed["image"], failed["reason"], strict=True)),
        "skipped": dict(session.skipped),
        "settings": {"reading": plan.settings.to_dict()["reading"]},
        "model": {"name": plan.model.name, "sha256": plan.model.sha256},
        "run": {
            "input_dir": options.input_dir.as_posix(),
            "output_dir": options.output_dir.as_posix(),
            "model_dir": plan.model.path.as_posix(),
            "pixel_size_nm": plan.pixel_size_nm,
            "views": views,
            "engine": options.engine,
            "n_jobs": options.n_jobs,
        },
        "versions": program_versions(),
    }
