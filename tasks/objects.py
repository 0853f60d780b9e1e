"""Objects of one file, or of the files that show one object: what a worker process does."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectpipe.errors import DefectpipeError
from defectpipe.io.files import NO_ROOM
from tasks.jobs import LONGEST_REASON, Outcome, StageJob, make_job, picture_facts, read_frames, unchanged
from tasks.overlays import mirrored, overlay_paths, remove_pictures
from tasks.plan import OBJECTS, Plan, ResultFiles
from tasks.stamps import Inputs, Stamp, read_stamp, write_stamp

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from defectpipe.micrograph import Micrograph
    from defectpipe.recognition.model import SolidModel

AUTO, SINGLE, SERIES = "auto", "single", "series"
OVERLAYS, LABEL_IMAGES = "overlays", "label_images"


@dataclass(frozen=True)
class ObjectsJob:
    """Everything that a process needs to recognise what one file, or the files of one series, show."""

    name: str
    files: tuple[StageJob, ...]
    views: str
    inputs: Inputs
    result: ResultFiles
    views_table: Path
    folder: Path


@dataclass(frozen=True, eq=False)
class _Found:
    """Of one frame: its objects as drawn and as rows, and what is said of it."""

    micrograph: Micrograph
    instances: np.ndarray
    table: pd.DataFrame
    warnings: tuple[str, ...]
    factor: float
    series: str = ""


def make_jobs(plan: Plan, views: str) -> list[ObjectsJob]:
    """One job for each file; with `SERIES` one for each folder of files."""
    units: dict[str, list[str]] = {}
    for image in plan.images:
        units.setdefault(f"{image.rpartition('/')[0]}/" if views == SERIES else image, []).append(image)
    return [_make_job(plan, name, images, views) for name, images in units.items()]


def _make_job(plan: Plan, name: str, images: Sequence[str], views: str) -> ObjectsJob:
    files = tuple(make_job(plan, OBJECTS, image) for image in images)
    parts: dict[str, Any] = {"views": views}
    if len(files) == 1:
        parts |= files[0].inputs.parts
    else:
        parts |= {f"image {job.image}": job.inputs.fingerprint for job in files}
    result = plan.result(OBJECTS, name)
    views_table = result.table.with_suffix(".views.parquet")
    return ObjectsJob(name, files, views, Inputs(parts), result, views_table, plan.output_dir)


def recognise(job: ObjectsJob) -> Outcome:
    """Recognise, and write tables, label images and pictures, then the stamp. A file that fails is a row in it."""
    from defectpipe.io.tables import write_parquet

    before = read_stamp(job.result.stamp)
    facts, frames, surprise = _read(job)
    found: list[_Found] = []
    objects: list[pd.DataFrame] = []
    views: list[pd.DataFrame] = []
    for series, group in _groups(frames, job):
        try:
            seen, of_series = (
                _series(series, group, _model_of(job)) if series else (_singles(group, _model_of(job)), None)
            )
        except Exception as error:
            reason, unexpected = _reason(error)
            surprise += unexpected
            facts += [_failed(m.image, m.sha256, reason, m.frame) for m in group]
            continue
        found += seen
        (views if series else objects).extend(one.table for one in seen)
        if of_series is not None:
            objects.append(of_series)
    # from here on the files are not those that an earlier stamp vouches for
    job.result.stamp.unlink(missing_ok=True)
    written = _write_pictures(job, found)
    remove_files(before, job.folder, keep=written)
    write_parquet(joined(objects), job.result.table)
    write_parquet(joined(views), job.views_table)
    facts += [_facts(one) for one in found]
    # the files that belong to the result, so that they can be cleared away with it
    listed = {"image": "", "frame": -1, "files": written}
    write_stamp(job.result.stamp, Stamp(job.inputs.parts, job.inputs.reading, frames=[listed, *facts]))
    return Outcome("; ".join(f["reason"] for f in facts if f["status"] == "failed")[:LONGEST_REASON], surprise)


def remove_files(stamp: Stamp | None, folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove the pictures and label images that a stamp lists, and the folders that this leaves empty."""
    pictures = [
        {"picture": name} for facts in ([] if stamp is None else stamp.frames) for name in facts.get("files", ())
    ]
    remove_pictures(Stamp({}, frames=pictures), folder, keep=[folder / name for name in keep])


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Objects of several tables in one, in that order."""
    import pandas as pd

    from defectpipe.io.tables import objects_table

    # without a row a table does not know what others hold
    filled = [table for table in tables if len(table)] or tables[:1]
    return objects_table(pd.concat(filled, ignore_index=True) if filled else ())


def frames_of(stamp: Stamp) -> list[dict[str, Any]]:
    """What a stamp says of each frame."""
    return [facts for facts in stamp.frames if facts["frame"] >= 0]


def lost(job: ObjectsJob, reason: str) -> None:
    """Stamp the files of a job as failed, and remove the pictures of an earlier result."""
    from defectpipe.io.tables import objects_table, write_parquet

    remove_files(read_stamp(job.result.stamp), job.folder)
    for path in (job.result.table, job.views_table):
        write_parquet(objects_table(), path)
    facts = [_failed(one.image, one.inputs.parts["image"], reason) for one in job.files]
    write_stamp(job.result.stamp, Stamp(job.inputs.parts, job.inputs.reading, frames=facts))


def _read(job: ObjectsJob) -> tuple[list[dict[str, Any]], list[list[Micrograph]], str]:
    """Rows of the files that cannot be read, frames of the others, and what is a fault of the program."""
    failed, frames, surprise = [], [], ""
    for one in job.files:
        try:
            frames.append(read_frames(one))
        except Exception as error:
            reason, unexpected = _reason(error)
            surprise += unexpected
            failed.append(_failed(one.image, one.inputs.parts["image"], reason))
    return failed, frames, surprise


def _reason(error: Exception) -> tuple[str, str]:
    """Why an image failed, and where in the program if it is its fault. A full disk is no image's: it is raised."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        raise error
    if isinstance(error, DefectpipeError):
        return str(error), ""
    return f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc()


def _groups(files: Sequence[list[Micrograph]], job: ObjectsJob) -> list[tuple[str, list[Micrograph]]]:
    """Frames that are judged together, each with the name of the series; without one: each frame by itself."""
    groups: list[tuple[str, list[Micrograph]]] = []
    loose: list[Micrograph] = []
    for frames in files:
        tilted = len(frames) > 1 and all(m.tilt_deg is not None for m in frames)
        if len(frames) > 1 and (job.views == SERIES or (job.views == AUTO and tilted)):
            groups.append((frames[0].image, frames))
        else:
            loose += frames
    if loose:
        groups.append((job.name if job.views == SERIES and len(loose) > 1 else "", loose))
    return groups


def _singles(frames: Sequence[Micrograph], model: SolidModel) -> list[_Found]:
    from defectpipe.recognition.analysis import recognise_micrograph
    from defectpipe.recognition.frames import field_of, instances_in_frame, table_in_frame

    found = []
    for m in frames:
        seen = recognise_micrograph(field_of(m), model, m.pixel_size_nm, m.modality)
        table = _of_frame(table_in_frame(m, seen.table), m).assign(series="")
        found.append(_Found(m, instances_in_frame(m, seen.instances), table, seen.warnings, seen.factor))
    return found


def _series(name: str, frames: Sequence[Micrograph], model: SolidModel) -> tuple[list[_Found], pd.DataFrame | None]:
    """Each picture with the object in it, and the row of the object; None: there is none."""
    import pandas as pd

    from defectpipe.recognition.frames import field_of, instances_in_frame, table_in_frame
    from defectpipe.recognition.series import recognise_series

    known = [m.pixel_size_nm for m in frames if m.pixel_size_nm is not None]
    if 0 < len(known) < len(frames) or (known and max(known) > 1.01 * min(known)):
        raise DefectpipeError("the pictures of the series do not have one pixel size; give it with --pixel-size-nm.")
    size = known[0] if known else None
    tilts = [m.tilt_deg for m in frames]
    seen = recognise_series([field_of(m) for m in frames], model, size, frames[0].modality, tilts)
    found = []
    for i, m in enumerate(frames):
        views = seen.views[seen.views["view"] == i].drop(columns="view")
        table = _of_frame(table_in_frame(m, views.assign(object_id=1)), m)
        table = table.assign(series=name, tilt_deg=float("nan") if m.tilt_deg is None else m.tilt_deg)
        found.append(_Found(m, instances_in_frame(m, seen.instances[i]), table, seen.warnings, seen.factor, name))
    if seen.verdict is None:
        return found, None
    shown = frames[seen.view]
    row = _of_frame(table_in_frame(shown, pd.DataFrame([seen.row])), shown, len(seen.views))
    return found, row.assign(series=name)


def _of_frame(table: pd.DataFrame, m: Micrograph, n_views: int = 1) -> pd.DataFrame:
    likely = table["deformed_probability"] > 0.5
    return table.assign(image=m.image, frame=m.frame, n_views=n_views, deformed=likely)


def _write_pictures(job: ObjectsJob, found: Sequence[_Found]) -> list[str]:
    """Label image of each file, picture of each frame; their paths below the output folder."""
    from defectpipe.export.labelimage import write_instances
    from defectpipe.report.object_overlays import write_object_overlay

    by_image: dict[str, list[_Found]] = {}
    for one in found:
        by_image.setdefault(one.micrograph.image, []).append(one)
    written = []
    for image, frames in by_image.items():
        path = mirrored(job.folder / LABEL_IMAGES, image, ".tif")
        write_instances([one.instances for one in frames], frames[0].micrograph.pixel_size_nm, path)
        pictures = overlay_paths(job.folder / OVERLAYS, image, len(frames))
        for one, picture in zip(frames, pictures, strict=True):
            write_object_overlay(picture, one.micrograph, one.instances, one.table, one.warnings)
        written += [path, *pictures]
    return [path.relative_to(job.folder).as_posix() for path in written]


def _facts(one: _Found) -> dict[str, Any]:
    """The frame's row of ``images.csv``."""
    m, table = one.micrograph, one.table
    return {
        **picture_facts(m),
        "image": m.image,
        "sha256": m.sha256,
        "status": "review" if one.warnings else "ok",
        "reason": "; ".join([*m.notes, *one.warnings]),
        "warnings": list(one.warnings),
        "modality": m.modality or "",
        "tilt_deg": m.tilt_deg,
        "series": one.series,
        "px_per_working_px": one.factor,
        "n_objects": len(table),
        "n_on_edge": int(table["on_edge"].sum()),
        "n_unknown": int((~table["is_known"].astype(bool)).sum()),
    }


def _failed(image: str, sha256: str, reason: str, frame: int = 0) -> dict[str, Any]:
    reason = reason.removeprefix(f"{image}: ")
    return {"image": image, "frame": frame, "sha256": sha256, "status": "failed", "reason": reason[:LONGEST_REASON]}


def _model_of(job: ObjectsJob) -> SolidModel:
    return _model(job.files[0].model, job.files[0].model_sha256)


@lru_cache(maxsize=1)
def _model(path: Path, sha256: str) -> SolidModel:
    from defectpipe.recognition.model import SolidModel

    return unchanged(SolidModel.load(path), sha256)
