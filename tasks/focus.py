"""The focus of a folder's images, for itself: table, pictures sorted by score, one page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import luigi

import defectpipe
from defectpipe.settings import FocusSettings
from tasks.base import FolderTask
from tasks.logs import logger
from tasks.options import RunOptions
from tasks.pictures import make_pictures
from tasks.plan import FOCUS, Plan
from tasks.runall import refuse_failures
from tasks.session import Session
from tasks.stages import ScoreFocus
from tasks.stamps import read_stamp

if TYPE_CHECKING:
    import pandas as pd

FOCUS_FILE, FOCUS_PAGE = "focus.csv", "focus.html"
SEM_MODEL, LOOP_MODEL = "focus", "focus-stem"
# An SEM's pixels are larger than those of a loop image, where nothing else tells them apart.
_SEM_FROM_NM = 5.0
_LOOKED_AT = 5


class AssessFocus(FolderTask):
    """The focus of each image of a folder: ``focus.csv``, and ``focus.html`` with pictures sorted by score."""

    focus_model = luigi.Parameter(
        default="auto", description=f"name or path of a focus model; auto: {SEM_MODEL} for SEM, else {LOOP_MODEL}"
    )

    def options(self) -> RunOptions:
        """Those of a run, with the focus model that was asked for and an output folder of its own."""
        options = super().options()
        if not self.output_dir:
            options = replace(options, output_dir=options.input_dir.with_name(options.input_dir.name + "-focus"))
        model = self.focus_model if self.focus_model != "auto" else choose_model(options)
        return replace(options, settings=replace(options.settings, focus=FocusSettings(model)))

    def needs(self, session: Session) -> list[luigi.Task]:
        """The scores of every part of the folder."""
        return [self.child(ScoreFocus, shard=i) for i in range(len(session.plan.shards))]

    def work(self, session: Session) -> None:
        """Write table and page."""
        from defectpipe.io.tables import write_csv
        from defectpipe.report.focus_page import by_focus, summary_line, write_focus_page

        session.progress.close()
        table, failed = focus_table(session.plan)
        out = session.plan.output_dir
        write_csv(table.iloc[by_focus(table)], out / FOCUS_FILE)
        write_focus_page(_page(session, table), out / FOCUS_PAGE)
        logger.info("focus: %s; look at %s", summary_line(table), out / FOCUS_PAGE)
        refuse_failures({"failed": failed})


def choose_model(options: RunOptions) -> str:
    """The focus model for a folder, by what its first images say: modality, else pixel size; else that of loops."""
    from defectpipe.errors import DefectpipeError
    from defectpipe.io.folder import list_images
    from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes

    if options.is_demonstration:
        return LOOP_MODEL
    files = list_images(options.input_dir, options.no_input)
    sizes = read_pixel_sizes(options.input_dir, [file.image for file in files])
    for file in files[:_LOOKED_AT]:
        try:
            [m, *_] = read_micrographs(
                file, image=file.image, pixel_sizes=sizes, pixel_size_nm=options.pixel_size_nm, colour="luminance"
            )
        except (DefectpipeError, OSError, ValueError):
            continue
        if m.modality:
            return SEM_MODEL if m.modality.upper().startswith("SEM") else LOOP_MODEL
        if m.pixel_size_nm is not None:
            return SEM_MODEL if m.pixel_size_nm >= _SEM_FROM_NM else LOOP_MODEL
    logger.info("focus: no image says what it is, so all are taken for loop images; for SEM give --focus-model focus")
    return LOOP_MODEL


def focus_table(plan: Plan) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row for each frame, and the images that failed with their reasons."""
    import pandas as pd

    columns = [
        *("image", "frame", "sha256", "status", "reason", "height_px", "width_px", "pixel_size_nm"),
        *("pixel_size_source", "magnification", "modality", "focus_score", "focus_score_std", "focus_gate"),
        *("focus_blur_px", "focus_blur_nm", "focus_state"),
    ]
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    gate = None if plan.focus is None else plan.focus.gate
    for image in plan.images:
        stamp = read_stamp(plan.result(FOCUS, image).stamp)
        if stamp is None or stamp.failed:
            failed[image] = "its focus score is gone" if stamp is None else stamp.reason
            known = {"image": image, "frame": 0, "sha256": plan.hashes[image], "focus_gate": "", "focus_state": ""}
            rows.append(known | {"status": "failed", "reason": failed[image]})
            continue
        for facts in stamp.frames:
            judged = "" if gate is None else gate.judge(facts["focus_score"], facts["focus_state"])
            known = {"image": image, "sha256": plan.hashes[image], "status": "ok", "focus_gate": judged}
            rows.append(facts | known | {"reason": facts["focus_reason"]})
    table = pd.DataFrame(rows, columns=columns)
    numbers = [name for name in columns if name.endswith(("_nm", "_px", "_score", "_std")) or name == "magnification"]
    return table.astype(dict.fromkeys(numbers, "float64")), failed


def _page(session: Session, table: pd.DataFrame) -> Any:
    from defectpipe.io.tables import read_parquet
    from defectpipe.report.focus_page import MOST_PICTURES, FocusPage, by_focus

    plan = session.plan
    assert plan.focus is not None
    frames: dict[str, list[int]] = defaultdict(list)
    for k in by_focus(table)[:MOST_PICTURES]:
        if table["status"].iloc[k] == "ok":
            frames[table["image"].iloc[k]].append(int(table["frame"].iloc[k]))
    make_pictures(session, frames)
    pictures, tiles = {}, {}
    for image, wanted in frames.items():
        stamp = read_stamp(plan.result("pictures", image).stamp)
        drawn = None if stamp is None or stamp.failed else read_parquet(plan.result("pictures", image).table)
        scores = read_parquet(plan.result(FOCUS, image).table)
        for frame in wanted:
            tiles[image, frame] = scores[scores["frame"] == frame]
            if drawn is not None:
                pictures[image, frame] = drawn["jpeg"][drawn["frame"] == frame].iloc[0]
    gate = plan.focus.gate
    model = {
        "name": plan.focus.name,
        "sha256": plan.focus.sha256,
        "reject_below": None if gate is None else gate.reject_below,
        "ok_from": None if gate is None else gate.ok_from,
    }
    return FocusPage(session.options.input_dir.name, model, table, pictures, tiles, defectpipe.__version__)
