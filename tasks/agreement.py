"""The loops beside the labels: ``evaluation.json``, and the agreement columns of ``images.csv``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import luigi

from tasks.base import FolderTask
from tasks.corrections import awaits_corrections, folder_parts
from tasks.labels import Labels, read_labels
from tasks.plan import Plan
from tasks.session import Session
from tasks.stamps import UPSTREAM_CHANGED, Inputs, Stamp, digest, stale_because, write_stamp
from tasks.tables import ComputeStatistics, folder_tables

if TYPE_CHECKING:
    import pandas as pd

AGREEMENT_VERSION = 1


class EvaluateAgreement(FolderTask):
    """Agreement with the labels, image by image and pooled."""

    def needs(self, session: Session) -> list[luigi.Task]:
        """The tables of all parts."""
        return [self.child(ComputeStatistics, shard=i) for i in range(len(session.plan.shards))]

    def is_current(self, session: Session) -> bool:
        """Whether neither loops nor labels have changed."""
        return not awaits_corrections(session) and not _stale(session.plan)

    def work(self, session: Session) -> None:
        """Score every labelled image, and all together."""
        from defectpipe.io.tables import write_json, write_parquet
        from defectpipe.statistics.agreement import evaluate

        plan = session.plan
        labels = require_labels(plan)
        if reason := _stale(plan):
            session.agenda.say("agreement: %s", reason.replace(UPSTREAM_CHANGED, "measurement changed"))
        _stamp(plan).unlink(missing_ok=True)
        images, loops = folder_tables(plan)
        write_parquet(_image_by_image(plan, labels, images, loops), _columns(plan))
        convention = plan.model.box_convention
        found = evaluate(
            images,
            loops,
            labels.experts,
            box_convention=convention,
            settings=plan.settings,
            candidates=_screened(plan),
            classes=plan.model.classes,
        )
        write_json(found | {"labels": _facts(labels)}, _evaluation(plan))
        write_stamp(_stamp(plan), Stamp(_inputs(plan).parts))


def require_labels(plan: Plan) -> Labels:
    """The labels of the run.

    Raises
    ------
    LabelError
        No labels were given.
    """
    from defectpipe.errors import LabelError

    labels = read_labels(plan)
    if labels is None:
        raise LabelError("There is nothing to compare with: give --labels-dir.")
    return labels


def agreement_columns(plan: Plan) -> pd.DataFrame:
    """The agreement columns of the labelled images, by ``image`` and ``frame``."""
    from defectpipe.io.tables import read_parquet

    return read_parquet(_columns(plan))


def read_evaluation(plan: Plan) -> dict[str, object]:
    """Content of ``evaluation.json``."""
    return dict(json.loads(_evaluation(plan).read_text(encoding="utf-8")))


def _image_by_image(plan: Plan, labels: Labels, images: pd.DataFrame, loops: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    from defectpipe.statistics.agreement import LABELLED_FRAME, agreement

    rows = []
    own = {str(image): part for image, part in loops[loops["frame"] == LABELLED_FRAME].groupby("image")}
    good = images[(images["frame"] == LABELLED_FRAME) & (images["status"] != "failed")]
    for image, height, width in zip(good["image"], good["height_px"], good["width_px"], strict=True):
        table = labels.of(image)
        if table is not None:
            found, convention = own.get(image, loops.iloc[:0]), plan.model.box_convention
            shape = (int(height), int(width))
            scores = agreement(found, table, shape, box_convention=convention, settings=plan.settings)
            rows.append({"image": image, "frame": LABELLED_FRAME} | scores)
    if not rows:
        return pd.DataFrame({"image": pd.Series(dtype="str"), "frame": pd.Series(dtype="int64")})
    return pd.DataFrame(rows)


def _screened(plan: Plan) -> pd.DataFrame | None:
    """Every screened candidate of every image that did not fail, kept or not: the curve goes below the threshold."""
    import pandas as pd

    from defectpipe.io.tables import read_parquet

    tables = [
        read_parquet(table).assign(image=image)
        for image in plan.images
        if (table := plan.result("screening", image).table).is_file()
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def _facts(labels: Labels) -> dict[str, object]:
    return {f.name: getattr(labels, f.name) for f in dataclasses.fields(labels) if f.name != "experts"}


def _inputs(plan: Plan) -> Inputs:
    settings = plan.settings_of("statistics") | plan.settings_of("labels")
    labels = {"labels": digest(dict(plan.label_hashes)), "label format": plan.label_format}
    return Inputs({"agreement": AGREEMENT_VERSION} | folder_parts(plan) | labels | settings | plan.class_parts)


def _stale(plan: Plan) -> str:
    """Why the agreement has to be found anew; empty: it has not."""
    return stale_because(_stamp(plan), _inputs(plan), _columns(plan), _evaluation(plan))


def _stamp(plan: Plan) -> Path:
    return plan.state_dir / "agreement" / "stamp.json"


def _columns(plan: Plan) -> Path:
    return plan.state_dir / "agreement" / "images.parquet"


def _evaluation(plan: Plan) -> Path:
    return plan.output_dir / "evaluation.json"
