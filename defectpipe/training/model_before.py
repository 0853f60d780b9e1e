"""The model whose loops a person corrected: found again, and run over the images of a training."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectpipe.analysis import analyse
from defectpipe.errors import ModelError, SettingsError
from defectpipe.io.tables import loops_table, read_parquet, write_parquet
from defectpipe.model import LoopModel, find_model
from defectpipe.settings import Settings
from defectpipe.training.image_list import pixel_sha256, pixels_known_to
from defectpipe.training.progress import PartProgress, rows_for, share_rows
from defectpipe.training.workspace import StoredImage


@dataclass(frozen=True)
class ModelBefore:
    """The model whose loops were corrected, as the run of it names it.

    Parameters
    ----------
    name, sha256 : str
        As in ``summary.json``; empty where that does not say.
    path : Path or None
        Its folder; None: it is not at hand.
    settings : Settings
        Of the run: those of detection and screening decide what the model gave.
    missing : str
        Why it is not at hand.
    """

    name: str
    sha256: str
    path: Path | None
    settings: Settings
    missing: str = ""

    @classmethod
    def of_run(cls, summary: Mapping[str, Any], places: Sequence[Path] = ()) -> ModelBefore:
        """The model of a run, looked for where the run had it, then by its name.

        Parameters
        ----------
        summary : mapping
            Content of the run's ``summary.json``; anything else counts as a run that names no model.
        places : sequence of Path
            Folders of models, beside the built-in ones.
        """
        if not summary:
            return cls("", "", None, Settings(), "no summary.json of a run lies beside the corrections")
        try:
            name, sha256 = str(summary["model"]["name"]), str(summary["model"]["sha256"])
            settings = Settings.from_dict(summary["settings"], "summary.json")
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            return cls("", "", None, Settings(), f"the run does not say which model it was made with ({error!r})")
        missing = f"there is no model '{name}' here"
        for where in (str(summary.get("run", {}).get("model_dir") or name), name):
            try:
                found = LoopModel.load(find_model(where, places))
            except ModelError:
                continue
            if found.sha256 == sha256:
                return cls(name, sha256, found.path, settings)
            missing = f"the model '{name}' that is here is not the one that the run was made with"
        return cls(name, sha256, None, settings, missing)


@dataclass(frozen=True, eq=False)
class BeforeJob:
    """Some images for the model before, in one process."""

    path: Path
    settings: Settings
    images: tuple[StoredImage, ...]


def loops_before(before: ModelBefore, images: Sequence[StoredImage], folder: Path, n_jobs: int) -> pd.DataFrame:
    """What the model before finds in the images of the training, kept in `folder` so that it is found once.

    Returns
    -------
    DataFrame
        Columns of ``loops.csv``; boxes in the convention of that model.
    """
    assert before.path is not None
    place = folder / f"before-{before.sha256[:12]}.parquet"
    if place.exists():
        return read_parquet(place)
    settings = Settings(detection=before.settings.detection, screening=before.settings.screening)
    n_jobs = max(1, min(n_jobs, len(images)))
    jobs = [BeforeJob(before.path, settings, tuple(images[i::n_jobs])) for i in range(n_jobs)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(n_jobs, share_rows, rows_for(context, n_jobs)) as pool:
        loops = loops_table(pd.concat(pool.map(find_loops, jobs, chunksize=1), ignore_index=True))
    write_parquet(loops, place)
    return loops


def find_loops(job: BeforeJob) -> pd.DataFrame:
    """The loops of a job's images, by the chain of a run."""
    cv2.setNumThreads(1)
    model, tables = LoopModel.load(job.path), [loops_table()]
    with PartProgress("model before") as progress:
        progress.begin("images", len(job.images))
        for image in job.images:
            _, loops = analyse(image.micrograph(), model, job.settings)
            tables.append(loops)
            progress.step()
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def seen_before(path: Path, images: Sequence[StoredImage]) -> set[str] | None:
    """Images, by their pixels, that a model lists among those that it was trained on; None: it has no list."""
    known = pixels_known_to(path)
    return None if known is None else {i.image for i in images if pixel_sha256(np.load(i.pixels)) in known}
