"""Folders of simulated micrographs with exact truth, in the formats that people and other programs read."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.errors import SettingsError
from defectpipe.io.tables import write_csv, write_json
from defectpipe.io.tiffs import write_tiff
from defectpipe.micrograph import Micrograph
from defectpipe.simulation.images import Annotation
from defectpipe.simulation.kinds import KINDS, find_preset
from defectpipe.simulation.preset import Preset
from defectpipe.workers import begin_worker

SIMULATION_VERSION = 3
IMAGES_FOLDER = "images"
LABELS_FILE = "labels.coco.json"


def simulate_dataset(
    kind: str,
    n: int,
    seed: int,
    preset: str | Preset = "",
    output_dir: Path | str = ".",
    progress: Callable[[int, int], object] | None = None,
    n_jobs: int = 1,
) -> Path:
    """Write a data set of simulated images; the same arguments give the same bytes, whatever `n_jobs`.

    The folder then holds ``images/CONDITION_field-NNN.tif`` (ImageJ TIFF with its pixel size), ``labels.coco.json``
    (what an expert would label, file names relative to ``images``, so that the two serve as input and labels of a run;
    not where a kind has no labels), ``truth.csv`` (every object, or image; `image` as in the COCO), a folder for each
    map of truth (``thickness_nm/…tif``, 32 bit) and ``manifest.json`` (settings with their hash, and each image's
    hash). The manifest comes last: where it is, the set is whole. Images of another set in that folder are left alone.

    Parameters
    ----------
    kind : str
        A name in `kinds.KINDS`.
    n : int
        Number of images, at least 1; the preset's conditions take turns.
    seed : int
        Not negative.
    preset : str or Preset
        A name among the kind's presets, or settings of one's own; empty: the kind's first.
    output_dir : Path
        Made if missing.
    progress : callable, optional
        Called with the number of images done and `n` after each.
    n_jobs : int
        Processes.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    SettingsError
        There is no kind or preset of that name, or `n` or `seed` is out of range.
    """
    if n < 1 or seed < 0:
        raise SettingsError(f"A data set needs at least one image and a seed of at least 0, not n={n}, seed={seed}.")
    preset = find_preset(kind, preset)
    output = Path(output_dir)
    manifest = output / "manifest.json"
    manifest.unlink(missing_ok=True)
    coco = _Coco(f"Simulated {kind}, preset {preset.name}, seed {seed}", preset.categories)
    tables, entries = [], []
    for done, image in enumerate(_in_order(partial(_write_image, kind, preset, seed, output), n, n_jobs), 1):
        coco.add(image)
        tables.append(image.truth)
        entries.append(
            {
                "image": image.image,
                "condition": image.condition,
                "n_labels": len(image.annotations),
                "sha256": image.sha256,
            }
        )
        if progress is not None:
            progress(done, n)
    if preset.categories:
        write_json(coco.content, output / LABELS_FILE)
    write_csv(pd.concat(tables, ignore_index=True), output / "truth.csv")
    write_json(
        {
            "kind": kind,
            "simulation_version": SIMULATION_VERSION,
            "n": n,
            "seed": seed,
            "preset": preset.name,
            "settings": preset.to_dict(),
            "settings_sha256": preset.sha256(),
            "images_folder": IMAGES_FOLDER,
            "labels": LABELS_FILE if preset.categories else None,
            "truth": "truth.csv",
            "images": entries,
        },
        manifest,
    )
    return manifest


@dataclass(frozen=True, eq=False)
class _Written:
    """What is needed of an image once it is written."""

    image: str
    condition: str
    shape: tuple[int, int]
    sha256: str
    truth: pd.DataFrame
    annotations: tuple[Annotation, ...]


def _write_image(kind: str, preset: Preset, seed: int, output: Path, index: int) -> _Written:
    made = KINDS[kind].simulate(preset, seed, index)
    name = made.micrograph.image
    path = output / IMAGES_FOLDER / name
    write_tiff(made.micrograph, path)
    for quantity, values in made.maps.items():
        write_tiff(Micrograph(values, name, calibration=made.micrograph.calibration), output / quantity / name)
    return _Written(
        image=name,
        condition=made.condition,
        shape=made.micrograph.shape,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        truth=made.truth,
        annotations=made.annotations,
    )


def _in_order(write: Callable[[int], _Written], n: int, n_jobs: int) -> Iterator[_Written]:
    if min(n, n_jobs) <= 1:
        yield from map(write, range(n))
        return
    with multiprocessing.get_context("spawn").Pool(min(n, n_jobs), begin_worker) as pool:
        yield from pool.imap(write, range(n))


class _Coco:
    """COCO counts from the corner of the top left pixel, half a px from its centre; outlines end at the border."""

    def __init__(self, description: str, categories: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(categories, 1)}
        self.content: dict[str, Any] = {
            "info": {"description": description},
            "categories": [{"id": number, "name": name} for name, number in self._numbers.items()],
            "images": [],
            "annotations": [],
        }

    def add(self, image: _Written) -> None:
        """Append an image and its labelled objects."""
        height, width = image.shape
        images, annotations = self.content["images"], self.content["annotations"]
        images.append({"id": len(images) + 1, "file_name": image.image, "height": height, "width": width})
        for annotation in image.annotations:
            points = np.clip(annotation.outline + 0.5, 0, [width, height])
            low, high = points.min(0), points.max(0)
            x, y = points[:, 0], points[:, 1]
            area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": self._numbers[annotation.label],
                    "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
                    "area": round(area, 2),
                    "iscrowd": 0,
                    "segmentation": [[round(float(v), 2) for v in points.ravel()]],
                }
            )
