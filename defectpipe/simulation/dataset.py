"""Folders of simulated micrographs with exact truth, in the formats that people and other programs read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from defectpipe.errors import SettingsError
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_csv, write_json
from defectpipe.simulation.fields import SimulatedField, simulate_field
from defectpipe.simulation.presets import Preset, find_preset

SIMULATION_VERSION = 1
IMAGES_FOLDER = "images"
LABELS_FILE = "labels.coco.json"


def simulate_loops(
    n: int,
    seed: int,
    preset: str | Preset = "demo",
    output_dir: Path | str = ".",
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write a data set of simulated loops; the same arguments give the same bytes.

    The folder then holds ``images/CONDITION_field-NNN.tif`` (ImageJ TIFF with its pixel size), ``labels.coco.json``
    (the visible loops of the labelled class, file names relative to ``images``, so that the two serve as input and
    labels of a run), ``truth.csv`` (every loop of every class, see `fields.SimulatedField`; `image` as in the COCO)
    and ``manifest.json`` (settings with their hash, and each image's hash). The manifest comes last: where it is,
    the set is whole. Images of another set in that folder are left alone.

    Parameters
    ----------
    n : int
        Number of images, at least 1; the preset's conditions take turns.
    seed : int
        Not negative.
    preset : str or Preset
        A name in `presets.PRESETS`, or settings of one's own.
    output_dir : Path
        Made if missing.
    progress : callable, optional
        Called with the number of images done and `n` after each.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    SettingsError
        There is no preset of that name, or `n` or `seed` is out of range.
    """
    if n < 1 or seed < 0:
        raise SettingsError(f"A data set needs at least one image and a seed of at least 0, not n={n}, seed={seed}.")
    preset = find_preset(preset)
    output = Path(output_dir)
    manifest = output / "manifest.json"
    manifest.unlink(missing_ok=True)
    coco: dict[str, Any] = {
        "info": {"description": f"Simulated dislocation loops, preset {preset.name}, seed {seed}"},
        "categories": [{"id": 1, "name": preset.labelled_class, "supercategory": "loop"}],
        "images": [],
        "annotations": [],
    }
    tables, entries = [], []
    for index in range(n):
        field = simulate_field(preset, seed, index)
        path = output / IMAGES_FOLDER / field.micrograph.image
        write_tiff(field, path)
        add_to_coco(coco, field)
        tables.append(field.truth)
        entries.append(
            {
                "image": field.micrograph.image,
                "condition": field.condition,
                "n_labels": int(field.labelled.sum()),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
        if progress is not None:
            progress(index + 1, n)
    write_json(coco, output / LABELS_FILE)
    write_csv(pd.concat(tables, ignore_index=True), output / "truth.csv")
    write_json(
        {
            "kind": "loops",
            "simulation_version": SIMULATION_VERSION,
            "n": n,
            "seed": seed,
            "preset": preset.name,
            "settings": preset.to_dict(),
            "settings_sha256": preset.sha256(),
            "images_folder": IMAGES_FOLDER,
            "labels": LABELS_FILE,
            "truth": "truth.csv",
            "images": entries,
        },
        manifest,
    )
    return manifest


def write_tiff(field: SimulatedField, path: Path) -> None:
    """Write a field as an ImageJ TIFF with its pixel size in nm."""
    per_px = 1 / (field.micrograph.pixel_size_nm or 1)
    write_atomic(
        path,
        lambda temporary: tifffile.imwrite(
            temporary,
            field.micrograph.pixels,
            imagej=True,
            resolution=(per_px, per_px),
            metadata={"unit": "nm", "axes": "YX"},
        ),
    )


def add_to_coco(coco: dict[str, Any], field: SimulatedField) -> None:
    """Append a field's image and its labelled loops to a COCO dictionary, in place.

    COCO counts from the corner of the top left pixel, half a px from its centre; outlines end at the image's border.
    """
    height, width = field.micrograph.shape
    number = len(coco["images"]) + 1
    coco["images"].append({"id": number, "file_name": field.micrograph.image, "height": height, "width": width})
    for row in np.flatnonzero(field.labelled):
        points = np.clip(field.outlines[row] + 0.5, 0, [width, height])
        low, high = points.min(0), points.max(0)
        x, y = points[:, 0], points[:, 1]
        area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": number,
                "category_id": 1,
                "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
                "area": round(area, 2),
                "iscrowd": 0,
                "segmentation": [[round(float(v), 2) for v in points.ravel()]],
            }
        )
