"""Clearing away what belongs to no image of the folder any more, and what killed runs left."""

from __future__ import annotations

from tasks.corrections import STAGE as CORRECTION
from tasks.corrections import read_corrections
from tasks.exports import export_stamp, folder_stamp
from tasks.logs import logger
from tasks.overlays import overlay_stamp, remove_pictures
from tasks.plan import FOCUS, STAGES, Plan
from tasks.stamps import read_stamp
from tasks.tables import shard_tables


def sweep(plan: Plan) -> None:
    """Remove the results and pictures of images that are gone, the tables of former parts, and half-written files."""
    from defectpipe.io.files import sweep_leftovers

    sweep_leftovers(plan.output_dir)
    keep = {folder_stamp(plan)} | {
        path for i in range(len(plan.shards)) for path in vars(shard_tables(plan, i)).values()
    }
    for image in plan.images:
        keep |= {overlay_stamp(plan, image), export_stamp(plan, image)}
        for stage in (*plan.stages, "pictures"):
            keep |= set(vars(plan.result(stage, image)).values())
    gone = set()
    corrections = read_corrections(plan)
    for image in corrections.tables if corrections is not None else ():
        keep |= set(vars(plan.result(CORRECTION, image)).values())
    listed_below = {"overlays": plan.output_dir / "overlays", "exports": plan.output_dir}
    for name in (*STAGES, FOCUS, CORRECTION, "overlays", "exports", "pictures", "tables"):
        for path in sorted((plan.state_dir / name).rglob("*")):
            if path.is_file() and path not in keep:
                stamp = read_stamp(path) if name in listed_below else None
                if stamp is not None:
                    remove_pictures(stamp, listed_below[name])
                path.unlink()
                if name in STAGES:
                    gone.add(path.stem)
    if gone:
        logger.info("%d image%s gone from the folder: their results are removed", len(gone), "s" * (len(gone) != 1))
    if plan.labels_dir is None:
        (plan.output_dir / "evaluation.json").unlink(missing_ok=True)
