"""``report.html``: made again when what it shows has changed, and only then."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import luigi

from tasks.agreement import read_evaluation
from tasks.base import FolderTask
from tasks.labels import Labels, read_labels
from tasks.overlays import DrawOverlays, overlay_paths
from tasks.pictures import make_pictures
from tasks.plan import Plan
from tasks.session import Session
from tasks.stamps import Inputs, Stamp, digest, read_stamp, stale_because, write_stamp
from tasks.summary import found_in, program_versions
from tasks.tables import WriteTables

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from defectpipe.report.data import ReportData
    from defectpipe.report.gallery import Findings

REPORT_FILE = "report.html"
_MOST_NAMED = 3
_SHOWN_FILES = ("images.csv", "loops.csv", "evaluation.json")


class Report(FolderTask):
    """The report: looked at in every run, since the tables may change, and written when its content does."""

    def needs(self, session: Session) -> list[luigi.Task]:
        """The tables, and the pictures that it links to."""
        pictures = [self.child(DrawOverlays, shard=i) for i in range(len(session.plan.shards))]
        return [self.child(WriteTables), *pictures]

    def work(self, session: Session) -> None:
        """Write the report unless it shows just this already."""
        from defectpipe.io.tables import read_csv
        from defectpipe.report.report import write_report

        plan, out = session.plan, session.plan.output_dir
        stamp, inputs = plan.state_dir / "report" / "stamp.json", report_inputs(session)
        reason = stale_because(stamp, inputs, out / REPORT_FILE)
        if not reason:
            return
        session.agenda.say("report: %s", reason)
        images, loops = read_csv(out / "images.csv"), read_csv(out / "loops.csv")
        data = collect(session, images, loops)
        stamp.unlink(missing_ok=True)
        write_report(data, out / REPORT_FILE)
        write_stamp(stamp, Stamp(inputs.parts))


def report_inputs(session: Session) -> Inputs:
    """What the report depends on."""
    from defectpipe.report.report import REPORT_VERSION

    plan = session.plan
    wanted = [name for name in _SHOWN_FILES if plan.labels_dir is not None or name != "evaluation.json"]
    parts = {name: hashlib.sha256((plan.output_dir / name).read_bytes()).hexdigest() for name in wanted}
    upstream = digest([plan.shard_fingerprint(shard) for shard in range(len(plan.shards))])
    return Inputs(
        {
            "report": REPORT_VERSION,
            "folder": session.options.input_dir.name,
            **parts,
            "upstream": upstream,
            "labels": digest(dict(plan.label_hashes)),
            "skipped files": digest(dict(session.skipped)),
            "settings": digest(plan.settings.to_dict()),
            "model": [plan.model.name, plan.model.sha256],
            "versions": digest(program_versions()),
        }
    )


def collect(session: Session, images: pd.DataFrame, loops: pd.DataFrame) -> ReportData:
    """Everything that the report shows, the small pictures made where they are not there yet."""
    from defectpipe.report.data import ReportData, f1_by_image
    from defectpipe.report.gallery import choose, order_by_need

    plan, labels = session.plan, read_labels(session.plan)
    evaluation = read_evaluation(plan) if plan.labels_dir is not None else None
    chosen = choose(order_by_need(images, loops, f1_by_image(evaluation)), images)
    # Names in the tables are text; those of files may be no UTF-8.
    names = {image.encode("utf-8", "backslashreplace").decode(): image for image in plan.images}
    frames: dict[str, list[int]] = defaultdict(list)
    for need in chosen:
        frames[names[images["image"].iloc[need.row]]].append(int(images["frame"].iloc[need.row]))
    make_pictures(session, frames)
    n_frames = images.groupby("image").size()
    gallery = []
    for need in chosen:
        shown, frame = str(images["image"].iloc[need.row]), int(images["frame"].iloc[need.row])
        found = _findings(plan, labels, names[shown], shown, frame, int(n_frames[shown]))
        gallery.append(replace(found, partners=_partners(plan, found, images.iloc[need.row], loops)))
    return ReportData(
        folder=session.options.input_dir.name,
        images=images,
        loops=loops,
        summary=found_in(session, images, loops),
        evaluation=evaluation,
        label_diameters=None if labels is None else _label_diameters(plan, labels, images, names),
        gallery=gallery,
    )


def look_first(session: Session, images: pd.DataFrame, loops: pd.DataFrame) -> list[str]:
    """The images that most need a look, as the report orders them, with the reasons."""
    from defectpipe.report.data import f1_by_image
    from defectpipe.report.gallery import order_by_need

    evaluation = read_evaluation(session.plan) if session.plan.labels_dir is not None else None
    order = order_by_need(images, loops, f1_by_image(evaluation))
    return [f"{images['image'].iloc[need.row]} ({need.reason})" for need in order[:_MOST_NAMED]]


def _findings(plan: Plan, labels: Labels | None, image: str, shown: str, frame: int, n_frames: int) -> Findings:
    from defectpipe.io.tables import read_parquet
    from defectpipe.report.gallery import MOST_CANDIDATES, Findings

    candidates, screened = (read_parquet(plan.result(stage, image).table) for stage in ("candidates", "screening"))
    candidates, screened = (table[table["frame"] == frame] for table in (candidates, screened))
    refused = screened[~screened["kept"].to_numpy(bool)]
    picture = plan.result("pictures", image)
    stamp = read_stamp(picture.stamp)
    jpeg = b""
    if stamp is not None and not stamp.failed:
        table = read_parquet(picture.table)
        jpeg = table["jpeg"][table["frame"] == frame].iloc[0]
    overlay = overlay_paths(plan.output_dir / "overlays", image, n_frames)[frame if n_frames > 1 else 0]
    own = {} if labels is None or frame != labels.frame else labels.experts
    return Findings(
        image=shown,
        frame=frame,
        jpeg=jpeg,
        candidates=candidates.head(MOST_CANDIDATES),
        screened_out=refused.head(MOST_CANDIDATES),
        n_candidates=len(candidates),
        n_screened_out=len(refused),
        labels={expert: tables[image] for expert, tables in sorted(own.items()) if image in tables},
        overlay=overlay.relative_to(plan.output_dir).as_posix() if overlay.is_file() else "",
    )


def _partners(plan: Plan, found: Findings, row: pd.Series, loops: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Which loops of a frame agree with which labels of the first expert; None: not labelled."""
    from defectpipe.statistics.agreement import agreeing

    if not found.labels:
        return None
    own = loops[(loops["image"] == found.image) & (loops["frame"] == found.frame)]
    shape = (int(row["height_px"]), int(row["width_px"]))
    labels, convention = found.labels[min(found.labels)], plan.model.box_convention
    return agreeing(own, labels, shape, box_convention=convention, settings=plan.settings)


def _label_diameters(plan: Plan, labels: Labels, images: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Diameters of the labels that the border does not cut, in px and, where the pixel size is known, in nm."""
    import numpy as np
    import pandas as pd

    from defectpipe.statistics.scoring import Objects

    margin_px = plan.settings.measurement.border_margin_px
    parts = [pd.DataFrame({"image": [], "diameter_px": [], "diameter_nm": []})]
    scored = images[(images["frame"] == labels.frame) & (images["status"] != "failed")]
    columns = ("image", "height_px", "width_px", "pixel_size_nm")
    for shown, height, width, size_nm in zip(*(scored[c] for c in columns), strict=True):
        table = labels.of(names[shown])
        if table is not None:
            shape = (int(height), int(width))
            sizes = Objects.from_labels(table, shape, plan.model.box_convention, margin_px).whole()
            part = {
                "image": shown,
                "diameter_px": sizes,
                "diameter_nm": sizes * (np.nan if pd.isna(size_nm) else size_nm),
            }
            parts.append(pd.DataFrame(part))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
