"""Results for other programs: of each image ROIs and a label image; of the folder tables, COCO, Excel and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from tasks.base import FolderTask
from tasks.corrections import awaits_corrections, folder_parts, loops_parts, loops_result
from tasks.labels import read_labels
from tasks.logs import logger
from tasks.overlays import mirrored, remove_pictures
from tasks.plan import Plan, ResultFiles
from tasks.session import Session
from tasks.stages import MeasureLoops, ShardTask
from tasks.stamps import UPSTREAM_CHANGED, Inputs, Stamp, digest, read_stamp, stale_because, write_stamp
from tasks.tables import WriteTables, folder_classes, folder_tables

if TYPE_CHECKING:
    import pandas as pd

EXPORT_VERSION = 2
ROIS, LABEL_IMAGES = "rois", "label_images"


@dataclass(frozen=True)
class ExportJob:
    """Everything that a process needs to write the files of one image."""

    image: str
    loops: ResultFiles
    inputs: Inputs
    stamp: Path
    folder: Path


class ExportImages(ShardTask):
    """ROIs and label images of one part of the folder."""

    requirement = MeasureLoops
    bar = "exports"
    priority = 4
    takes_corrections = True

    def stale(self, session: Session) -> dict[str, str]:
        """The images whose files are absent, or hold other loops than were measured."""
        plan, current, stale = session.plan, session.agenda.current[self.bar], {}
        if awaits_corrections(session):
            return dict.fromkeys(plan.shards[self.shard], UPSTREAM_CHANGED)
        for image in plan.shards[self.shard]:
            if image in current:
                continue
            if reason := stale_because(export_stamp(plan, image), export_inputs(plan, image), *_listed(plan, image)):
                stale[image] = reason
            else:
                current.add(image)
        return stale

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Write on the run's engine."""
        for _done in session.compute(self.bar, export, [make_export_job(session.plan, image) for image in stale]):
            pass


class ExportFolder(FolderTask):
    """ImageJ results, COCO, Excel workbook and figure of the whole folder."""

    def needs(self, session: Session) -> list[luigi.Task]:
        """The tables, with the agreement in them."""
        return [self.child(WriteTables)]

    def is_current(self, session: Session) -> bool:
        """Whether the files are there as they were written, and the tables have not changed since."""
        return not awaits_corrections(session) and not _stale(session.plan)

    def work(self, session: Session) -> None:
        """Write them all: each needs the whole tables."""
        from defectpipe.export.coco import write_coco
        from defectpipe.export.imagejtable import imagej_results, write_imagej_results
        from defectpipe.export.workbook import write_workbook
        from defectpipe.io.tables import read_csv

        plan = session.plan
        out = plan.output_dir
        if reason := _stale(plan):
            session.agenda.say("folder exports: %s", reason.replace(UPSTREAM_CHANGED, "loops changed"))
        folder_stamp(plan).unlink(missing_ok=True)
        images, loops = folder_tables(plan)
        write_imagej_results(imagej_results(loops, images), out / "imagej_results.csv")
        classes = plan.model.class_names
        write_coco(loops, images, out / "loops.coco.json", f"Found by defectpipe, model {plan.model.name}", classes)
        sheets = {"images": read_csv(out / "images.csv"), "loops": loops}
        if classes:
            sheets["classes"] = folder_classes(plan)
        left_out = write_workbook(sheets, out / "results.xlsx")
        for sheet, n_rows in left_out.items():
            logger.warning("results.xlsx: %d rows of %s are more than Excel can hold; the CSV has them", n_rows, sheet)
        _draw_diameters(plan, images, loops)
        written = [{"file": path.relative_to(out).as_posix(), "hash": _hash(path)} for path in _files(plan)]
        write_stamp(folder_stamp(plan), Stamp(_inputs(plan).parts, frames=written))


def export_stamp(plan: Plan, image: str) -> Path:
    """Where the stamp of an image's files is."""
    return plan.result("exports", image).stamp


def export_inputs(plan: Plan, image: str) -> Inputs:
    """What the files of an image depend on."""
    return Inputs({"export": EXPORT_VERSION} | loops_parts(plan, image))


def make_export_job(plan: Plan, image: str) -> ExportJob:
    """The job that writes the files of one image."""
    loops = loops_result(plan, image)
    return ExportJob(image, loops, export_inputs(plan, image), export_stamp(plan, image), plan.output_dir)


def export(job: ExportJob) -> None:
    """Write ROIs and label image of an image that did not fail; a failed one has none."""
    from defectpipe.export.labelimage import write_label_image
    from defectpipe.export.rois import rois_zip
    from defectpipe.io.files import write_atomic
    from defectpipe.io.tables import loops_table, read_parquet

    measured, before = read_stamp(job.loops.stamp), read_stamp(job.stamp)
    good = measured is not None and not measured.failed
    rois, labels = (
        mirrored(job.folder / ROIS, job.image, ".zip"),
        mirrored(job.folder / LABEL_IMAGES, job.image, ".tif"),
    )
    files = [rois, labels] if good else []
    if before is not None:
        remove_pictures(before, job.folder, keep=files)
    listed = [{"picture": path.relative_to(job.folder).as_posix()} for path in files]
    # Vouches for nothing, but lists the files, so that they can be cleared away if this process is killed here.
    write_stamp(job.stamp, Stamp({}, failed=not good, frames=listed))
    if measured is not None and good:
        loops = loops_table(read_parquet(job.loops.table))
        shapes = [(facts["height_px"], facts["width_px"]) for facts in measured.frames]
        write_atomic(rois, rois_zip(loops, is_stack=len(shapes) > 1))
        write_label_image(shapes, loops, measured.frames[0]["pixel_size_nm"], labels)
    write_stamp(job.stamp, Stamp(job.inputs.parts, failed=not good, frames=listed))


def _listed(plan: Plan, image: str) -> list[Path]:
    stamp = read_stamp(export_stamp(plan, image))
    return [plan.output_dir / entry["picture"] for entry in stamp.frames] if stamp is not None else []


def _draw_diameters(plan: Plan, images: pd.DataFrame, loops: pd.DataFrame) -> None:
    from defectpipe.export.figure import write_diameter_figure
    from defectpipe.export.sources import diameters_found, diameters_of_labels

    unit = "nm" if images["pixel_size_nm"].notna().any() else "px"
    labels = read_labels(plan)
    marked = None
    if labels is not None:
        of_image = {image: table for image in plan.images if (table := labels.of(image)) is not None}
        margin_px = plan.settings.measurement.border_margin_px
        marked = diameters_of_labels(of_image, images, unit, plan.model.box_convention, margin_px)
    write_diameter_figure(diameters_found(loops, images, unit), marked, unit, plan.output_dir / "figures" / "diameters")


def _files(plan: Plan) -> list[Path]:
    names = ("imagej_results.csv", "loops.coco.json", "results.xlsx", "figures/diameters.svg", "figures/diameters.png")
    return [plan.output_dir / name for name in names]


def _hash(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _inputs(plan: Plan) -> Inputs:
    settings = plan.settings_of("statistics") | plan.settings_of("labels") | plan.settings_of("measurement")
    parts: dict[str, Any] = {"export": EXPORT_VERSION, "list of images": digest(list(plan.images))}
    parts |= folder_parts(plan) | plan.class_parts
    return Inputs(parts | {"labels": digest(dict(plan.label_hashes)), "label format": plan.label_format} | settings)


def _stale(plan: Plan) -> str:
    """Why the folder's files have to be written anew; empty: they have not."""
    if reason := stale_because(folder_stamp(plan), _inputs(plan), *_files(plan)):
        return reason
    # Somebody may have saved them from another program.
    stamp = read_stamp(folder_stamp(plan))
    known = {entry["file"]: entry["hash"] for entry in stamp.frames} if stamp is not None else {}
    changed = [name for name, seen in known.items() if _hash(plan.output_dir / name) != seen]
    return f"{', '.join(changed)} changed" if changed else ""


def folder_stamp(plan: Plan) -> Path:
    """Where the stamp of the folder's files is."""
    return plan.state_dir / "exports" / "stamp.json"
