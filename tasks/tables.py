"""From the measured loops of each image to the tables of the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from defectpipe.settings import Settings
from tasks.base import FolderTask
from tasks.corrections import awaits_corrections, loops_result, read_corrections, shard_parts
from tasks.plan import FOCUS, Plan, ResultFiles
from tasks.predictions import PredictionJob, predict, prediction_jobs
from tasks.session import Session
from tasks.stages import MeasureLoops, ShardTask
from tasks.stamps import UPSTREAM_CHANGED, Inputs, Stamp, digest, read_stamp, stale_because, write_stamp

if TYPE_CHECKING:
    import pandas as pd

    from defectpipe.classes import DefectClasses
    from defectpipe.focus.gate import FocusGate

CLASSES_FILE = "classes.csv"
TABLES_VERSION = 5


@dataclass(frozen=True)
class ShardTables:
    """Where the tables of one part of the folder are."""

    images: Path
    loops: Path
    classes: Path
    stamp: Path


@dataclass(frozen=True)
class CollectJob:
    """Everything that a process needs to make the tables of one part of the folder; `classes` None: one."""

    images: Sequence[tuple[str, str, ResultFiles, str, ResultFiles | None]]
    gate: FocusGate | None
    predictions: Mapping[str, PredictionJob]
    settings: Settings
    classes: DefectClasses | None
    inputs: Inputs
    tables: ShardTables


class ComputeStatistics(ShardTask):
    """Statistics of each image of one part of the folder, and its loops in one table."""

    requirement = MeasureLoops
    bar = "statistics"
    priority = 10
    takes_corrections = True
    takes_focus = True

    def stale(self, session: Session) -> dict[str, str]:
        """All images of this part, if anything of it changed: the statistics are cheap."""
        plan = session.plan
        if awaits_corrections(session):
            return dict.fromkeys(plan.shards[self.shard], UPSTREAM_CHANGED)
        tables = shard_tables(plan, self.shard)
        reason = stale_because(tables.stamp, _inputs(plan, self.shard), tables.images, tables.loops, tables.classes)
        return dict.fromkeys(plan.shards[self.shard], reason) if reason else {}

    def work_on(self, session: Session, stale: dict[str, str]) -> None:
        """Collect the part on the run's engine."""
        if not stale:
            return
        for _job, outcome in session.engine.map(collect, [make_collect_job(session.plan, self.shard)]):
            if isinstance(outcome, BaseException):
                raise outcome
        session.progress.step(self.bar, len(stale))


class WriteTables(FolderTask):
    """``images.csv`` and ``loops.csv`` of the folder, with the agreement columns where there are labels.

    Where the model tells classes apart, ``classes.csv`` as well.
    They are written in every run: somebody may have saved them from a spreadsheet in between.
    """

    def needs(self, session: Session) -> list[luigi.Task]:
        """The tables of the parts, and the agreement with the labels if any."""
        from tasks.agreement import EvaluateAgreement

        parts = [self.child(ComputeStatistics, shard=i) for i in range(len(session.plan.shards))]
        return [*parts, self.child(EvaluateAgreement)] if session.plan.labels_dir else parts

    def work(self, session: Session) -> None:
        """Put the parts together."""
        from defectpipe.io.tables import images_table, write_csv
        from tasks.agreement import agreement_columns

        images, loops = folder_tables(session.plan)
        if session.plan.labels_dir:
            added = agreement_columns(session.plan)
            images = images.drop(columns=[c for c in added if c in images and c not in ("image", "frame")])
            images = images_table(images.merge(added, on=["image", "frame"], how="left"))
        write_csv(loops, session.plan.output_dir / "loops.csv")
        if session.plan.model.class_names:
            write_csv(folder_classes(session.plan), session.plan.output_dir / CLASSES_FILE)
        else:
            (session.plan.output_dir / CLASSES_FILE).unlink(missing_ok=True)
        write_csv(images, session.plan.output_dir / "images.csv")


def shard_tables(plan: Plan, shard: int) -> ShardTables:
    """Where the tables of one part are kept; the number of parts is in the name, since it changes with the folder."""
    name = f"{shard:03d}-of-{len(plan.shards):03d}"
    folder = plan.state_dir / "tables"
    tables = (folder / f"{table}-{name}.parquet" for table in ("images", "loops", "classes"))
    return ShardTables(*tables, folder / f"{name}.json")


def folder_tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images and loops of the whole folder, sorted, without the agreement columns."""
    import pandas as pd

    from defectpipe.io.tables import images_table, loops_table, read_parquet

    parts = [shard_tables(plan, i) for i in range(len(plan.shards)) if plan.shards[i]]
    images = pd.concat([read_parquet(part.images) for part in parts], ignore_index=True)
    loops = [table for part in parts if len(table := read_parquet(part.loops))]
    found = pd.concat(loops, ignore_index=True) if loops else loops_table()
    return (
        images_table(images.sort_values(["image", "frame"], kind="stable")),
        loops_table(found.sort_values(["image", "frame", "loop_id"], kind="stable")),
    )


def folder_classes(plan: Plan) -> pd.DataFrame:
    """The loops of the whole folder counted and measured class by class; empty where the model knows but one."""
    import pandas as pd

    from defectpipe.io.tables import classes_table, read_parquet

    parts = [read_parquet(shard_tables(plan, i).classes) for i in range(len(plan.shards)) if plan.shards[i]]
    filled = [part for part in parts if len(part)]
    found = pd.concat(filled, ignore_index=True) if filled else classes_table()
    # Classes stay in the model's order.
    return classes_table(found.sort_values(["image", "frame"], kind="stable"))


def make_collect_job(plan: Plan, shard: int) -> CollectJob:
    """The job that makes the tables of one part."""
    corrections = read_corrections(plan)
    refused = {} if corrections is None else corrections.refused
    focus = None if plan.focus is None else plan.focus.gate
    images = [
        (
            image,
            plan.hashes[image],
            loops_result(plan, image),
            refused.get(image, ""),
            None if plan.focus is None else plan.result(FOCUS, image),
        )
        for image in plan.shards[shard]
    ]
    predictions = prediction_jobs(plan, plan.shards[shard])
    inputs, tables = _inputs(plan, shard), shard_tables(plan, shard)
    return CollectJob(images, focus, predictions, plan.settings, plan.model.classes, inputs, tables)


def collect(job: CollectJob) -> None:
    """Make the tables of one part from the results of its images."""
    import pandas as pd

    from defectpipe.io.tables import classes_table, images_table, loops_table, read_parquet, write_parquet
    from defectpipe.statistics.classes import class_rows
    from defectpipe.statistics.images import image_row

    rows: list[dict[str, Any]] = []
    by_class: list[dict[str, Any]] = []
    found = [loops_table()]
    for image, sha256, result, doubt, focus in job.images:
        stamp = read_stamp(result.stamp)
        if stamp is None:
            raise RuntimeError(f"{image}: its measurement is gone.")
        if stamp.failed:
            rows.append({"image": image, "frame": 0, "sha256": sha256, "status": "failed", "reason": stamp.reason})
            continue
        loops = loops_table(read_parquet(result.table))
        found.append(loops)
        sharpness = {} if focus is None else _focus_facts(focus, job.gate)
        predictions = predict(job.predictions[image], stamp.frames) if image in job.predictions else {}
        for facts in stamp.frames:
            facts = facts | sharpness.get(facts["frame"], {})
            own = loops[loops["frame"] == facts["frame"]]
            row = image_row(facts, own, job.settings, doubt, predictions.get(facts["frame"]))
            rows.append({"image": image, "sha256": sha256} | row)
            if job.classes is not None and job.classes.several:
                by_class += [{"image": image} | of for of in class_rows(facts, own, job.classes, job.settings)]
    job.tables.stamp.unlink(missing_ok=True)
    write_parquet(images_table(rows), job.tables.images)
    write_parquet(pd.concat(found, ignore_index=True), job.tables.loops)
    write_parquet(classes_table(by_class), job.tables.classes)
    write_stamp(job.tables.stamp, Stamp(job.inputs.parts))


def _focus_facts(result: ResultFiles, gate: FocusGate | None) -> dict[int, dict[str, Any]]:
    """What the tables say of the focus of each frame; nothing where it could not be assessed."""
    from defectpipe.focus.gate import judged_frames

    stamp = read_stamp(result.stamp)
    return {} if stamp is None or stamp.failed else judged_frames(stamp.frames, gate)


def _inputs(plan: Plan, shard: int) -> Inputs:
    images = digest(list(plan.shards[shard]))
    predictor = plan.model.predictor
    parts = {
        "tables": TABLES_VERSION,
        "list of images": images,
        "predicted F1": None if predictor is None else digest([predictor.to_card(), plan.model.working_pixel_size_nm]),
    }
    return Inputs(
        parts | plan.class_parts | shard_parts(plan, shard) | plan.focus_parts(shard) | plan.settings_of("statistics")
    )
