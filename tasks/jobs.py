"""One stage for one image: what a worker process does. The work itself is in `defectpipe.analysis`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from defectpipe.errors import DefectpipeError, ModelError
from defectpipe.io.files import NO_ROOM
from defectpipe.settings import Settings
from tasks.plan import BEFORE, FOCUS, Plan, ResultFiles
from tasks.stamps import Inputs, Stamp, read_stamp, write_stamp

if TYPE_CHECKING:
    import pandas as pd

    from defectpipe.focus.model import FocusModel
    from defectpipe.io.folder import ImageFile
    from defectpipe.micrograph import Micrograph
    from defectpipe.model import LoopModel
    from defectpipe.model_files import FolderModel

AnyModel = TypeVar("AnyModel", bound="FolderModel")
LONGEST_REASON = 400


@dataclass(frozen=True)
class StageJob:
    """Everything that a process needs to compute one stage for one image."""

    stage: str
    image: str
    file: ImageFile
    model: Path
    model_sha256: str
    settings: Settings
    pixel_size: tuple[float, str] | None
    inputs: Inputs
    upstream: ResultFiles | None
    result: ResultFiles


@dataclass(frozen=True)
class ImageJob:
    """The stages of one image that one process computes in one go, in their order: so it is decoded once for all."""

    stages: tuple[StageJob, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the reason of a failure, and its traceback where the program was surprised."""

    reason: str = ""
    surprise: str = field(default="", repr=False)


def make_job(plan: Plan, stage: str, image: str) -> StageJob:
    """The job of one stage for one image of the plan."""
    above = BEFORE.get(stage)
    pixel_size = plan.pixel_size_of(image)
    model = plan.model if stage != FOCUS or plan.focus is None else plan.focus
    return StageJob(
        stage=stage,
        image=image,
        file=plan.images[image],
        model=model.path,
        model_sha256=model.sha256,
        settings=plan.settings,
        pixel_size=None if pixel_size is None else (pixel_size[0], pixel_size[1]),
        inputs=plan.inputs(stage, image),
        upstream=None if above is None else plan.result(above, image),
        result=plan.result(stage, image),
    )


def run_stages(job: ImageJob) -> list[Outcome]:
    """Compute the stages of an image, each with the table of the one before, all with the same pixels."""
    frames = cache(lambda: read_frames(job.stages[0]))
    return [run_job(stage, frames) for stage in job.stages]


def run_job(job: StageJob, frames: Callable[[], list[Micrograph]]) -> Outcome:
    """Compute, and write the table, then the stamp. An image that cannot be computed has a stamp that says why."""
    _prepare(job)
    began = time.perf_counter()
    # Between the two writes there must be no stamp that vouches for a table it does not know.
    job.result.stamp.unlink(missing_ok=True)
    above = read_stamp(job.upstream.stamp) if job.upstream is not None else None
    if above is not None and above.failed:
        return fail(job, above.reason)
    try:
        table, facts = _compute(job, frames)
    except DefectpipeError as error:
        return fail(job, str(error), seconds=time.perf_counter() - began)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            # A full disk is no image's fault.
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return fail(job, reason, traceback.format_exc(), time.perf_counter() - began)
    from defectpipe.io.tables import write_parquet

    write_parquet(table, job.result.table)
    seconds = time.perf_counter() - began
    write_stamp(job.result.stamp, Stamp(job.inputs.parts, job.inputs.reading, frames=facts, seconds=seconds))
    return Outcome()


def fail(job: StageJob, reason: str, surprise: str = "", seconds: float = 0.0) -> Outcome:
    """Stamp the result as failed; the reason always stands beside the image, so it need not begin with its name."""
    reason = reason.removeprefix(f"{job.image}: ")
    reason = reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + " …"
    job.result.table.unlink(missing_ok=True)
    stamp = Stamp(job.inputs.parts, job.inputs.reading, failed=True, reason=reason, seconds=seconds)
    write_stamp(job.result.stamp, stamp)
    return Outcome(reason, surprise)


def read_frames(job: StageJob) -> list[Micrograph]:
    """All frames of an image, read and calibrated as the run says."""
    from defectpipe.io.micrographs import read_micrographs

    argument, given = None, None
    if job.pixel_size is not None:
        value, source = job.pixel_size
        argument, given = (value, None) if source == "argument" else (None, {job.image: value})
    reading = job.settings.reading
    return read_micrographs(
        job.file,
        image=job.image,
        pixel_sizes=given,
        pixel_size_nm=argument,
        colour=reading.colour,
        max_pixels=reading.max_pixels,
        data_bar=reading.data_bar,
        crop_px=(reading.crop_top_px, reading.crop_bottom_px),
        in_file_above_px=int(job.settings.tiling.above_megapixels * 1e6),
    )


def _compute(job: StageJob, frames: Callable[[], list[Micrograph]]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    if job.stage == FOCUS:
        return _assess(job, frames())
    import pandas as pd

    from defectpipe.io.tables import read_parquet

    above = None if job.upstream is None else read_parquet(job.upstream.table)
    model = _model(job.model, job.model_sha256)
    tables, facts = [], []
    for m in frames():
        part = None if above is None else above[above["frame"] == m.frame].drop(columns="frame").reset_index(drop=True)
        table = _stage_function(job.stage)(m, part, model, job.settings)
        tables.append(table.assign(frame=m.frame))
        facts.append(_facts(m))
    return pd.concat(tables, ignore_index=True), facts


def _prepare(job: StageJob) -> None:
    """Load code and model, so that the first image of a process does not seem slower than the others."""
    from defectpipe.io import micrographs, tables  # noqa: F401

    if job.stage == FOCUS:
        _focus_model(job.model, job.model_sha256)
        return
    _stage_function(job.stage)
    _model(job.model, job.model_sha256)


def _assess(job: StageJob, frames: list[Micrograph]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The focus of each frame: a table of its tiles, and the score with what belongs to it."""
    import pandas as pd

    from defectpipe.focus.assessment import assess_focus

    tables, facts = [], []
    for m in frames:
        found = assess_focus(m, _focus_model(job.model, job.model_sha256))
        boxes = {name: found.tile_boxes[:, k] for k, name in enumerate(("x0_px", "y0_px", "x1_px", "y1_px"))}
        tables.append(pd.DataFrame({"frame": m.frame, **boxes, "focus_score": found.tiles.ravel()}))
        facts.append(
            {
                **picture_facts(m),
                "modality": m.modality or "",
                "focus_score": found.score,
                "focus_score_std": found.score_std,
                "focus_blur_px": found.blur_px,
                "focus_blur_nm": found.blur_nm,
                "focus_state": found.state,
                "focus_reason": found.reason,
            }
        )
    return pd.concat(tables, ignore_index=True), facts


@lru_cache(maxsize=1)
def _focus_model(path: Path, sha256: str) -> FocusModel:
    from defectpipe.focus.model import FocusModel

    return unchanged(FocusModel.load(path), sha256)


def _stage_function(stage: str) -> Callable[..., pd.DataFrame]:
    from defectpipe import analysis

    if stage == "candidates":
        return lambda m, _above, model, settings: analysis.detect_candidates(m, model, settings)
    return {"screening": analysis.screen_candidates, "measurement": analysis.measure_loops}[stage]


def stage_function(job: StageJob, m: Micrograph) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The stage of a job for one frame, as a function of the result of the stage before."""
    model = _model(job.model, job.model_sha256)
    return lambda above: _stage_function(job.stage)(m, above, model, job.settings)


def picture_facts(m: Micrograph) -> dict[str, Any]:
    """Which frame it is, its size and its scale."""
    return {
        "frame": m.frame,
        "height_px": m.shape[0],
        "width_px": m.shape[1],
        "pixel_size_nm": m.pixel_size_nm,
        "pixel_size_source": m.calibration.source if m.calibration else "",
        "magnification": m.magnification,
    }


def _facts(m: Micrograph) -> dict[str, Any]:
    """What the tables say of a frame, so that nothing has to read the image again to write them."""
    import numpy as np

    return {
        **picture_facts(m),
        "notes": list(m.notes),
        "constant": m.is_constant,
        "analysed_shape_px": list(m.analysed_shape),
        "analysed_top_px": m.analysed_rows[0],
        "analysed_area_px2": m.analysed_area_px2,
        "grey_range": None if m.pixels.dtype == np.uint8 else [m.scale.low, m.scale.high],
    }


@lru_cache(maxsize=1)
def _model(path: Path, sha256: str) -> LoopModel:
    """The model, loaded once a process; the hash makes a changed file another model."""
    from defectpipe.model import LoopModel

    return unchanged(LoopModel.load(path), sha256)


def unchanged(model: AnyModel, sha256: str) -> AnyModel:
    """A model that a process has loaded.

    Raises
    ------
    ModelError
        The files are not those that the run began with.
    """
    if model.sha256 != sha256:
        raise ModelError(f"{model.path}: the model was changed while the run was at work; start the run again.")
    return model
