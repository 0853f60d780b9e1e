"""Simulated images for recognition with their maps of truth, kept in shards on disk."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.draw import polygon2mask

from defectpipe.errors import SettingsError
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_json
from defectpipe.simulation.solids.fields import SimulatedSolids, simulate_tilts, simulate_views
from defectpipe.simulation.solids.rays import BODIES
from defectpipe.simulation.solids.truth import TRUTH_COLUMNS
from defectpipe.training.recognition_sets import SETS, SetPlan

# Below this thickness (px) what lies within an outline is a hole.
_HOLE_PX = 0.3
_IMAGES_A_SHARD = 384
_TEXT = ("image", "class")
_ACQUISITION = (
    "probe_sigma_px",
    "astigmatism",
    "scan_distortion",
    "drift_x_px",
    "drift_y_px",
    "flyback_px",
    "detector_rms",
    "line_rms",
    "black_level",
    "gain",
)
COLUMNS = (*(c for c in TRUTH_COLUMNS if c not in _TEXT), *_ACQUISITION)
_ARRAYS = ("pixels", "instances", "thickness_nm", "label", "image_index", "truth")


@dataclass(frozen=True, eq=False)
class SolidImages:
    """Images with what is in them.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, height, width)
        Views of one scene follow each other.
    instances : ndarray of uint8, shape (n, height, width)
        0: support; k: the k-th body of the image, of those that lie there the one that is thickest.
    thickness_nm : ndarray of float16, shape (n, height, width)
        Along the beam, of all bodies together.
    label : ndarray of int16, shape (rows,)
        A row a body, in order: index of its class in `rays.BODIES`.
    image_index : ndarray of int32, shape (rows,)
        Which image the row belongs to.
    truth : ndarray of float64, shape (rows, len(COLUMNS))
    n_views : int
        Of each scene.
    """

    pixels: np.ndarray
    instances: np.ndarray
    thickness_nm: np.ndarray
    label: np.ndarray
    image_index: np.ndarray
    truth: np.ndarray
    n_views: int

    def __len__(self) -> int:
        return len(self.pixels)

    def column(self, name: str) -> np.ndarray:
        """A column of the truth, shape (rows,)."""
        return self.truth[:, COLUMNS.index(name)]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that occur, in the order of `rays.BODIES`."""
        return tuple(BODIES[i] for i in np.unique(self.label))

    @property
    def class_index(self) -> np.ndarray:
        """Of each row, the place of its class in `classes`."""
        return np.searchsorted(np.unique(self.label), self.label)


def simulate_images(plan: SetPlan, first: int, n: int) -> SolidImages:
    """Scenes `first` to `first + n` of a plan; of plan and number alone each depends."""
    made: list[SimulatedSolids] = []
    for index in range(first, first + n):
        if plan.tilts_deg:
            made += simulate_tilts(plan.preset, plan.seed, index, plan.tilts_deg)
        else:
            made += simulate_views(plan.preset, plan.seed, index, plan.n_views)
    rows, labels, image_index = [], [], []
    for number, image in enumerate(made):
        acquisition = [float(getattr(image.acquisition, name)) for name in _ACQUISITION]
        columns = [image.truth[name].to_numpy(float) for name in COLUMNS[: -len(_ACQUISITION)]]
        for row, body in enumerate(image.bodies):
            rows.append([*(column[row] for column in columns), *acquisition])
            labels.append(BODIES.index(body.solid.label))
            image_index.append(number)
    return SolidImages(
        pixels=np.stack([np.asarray(image.micrograph.pixels) for image in made]),
        instances=np.stack([instance_map(image) for image in made]),
        thickness_nm=np.stack([image.maps["thickness_nm"] for image in made]).astype(np.float16),
        label=np.array(labels, np.int16),
        image_index=np.array(image_index, np.int32),
        truth=np.array(rows, float).reshape(-1, len(COLUMNS)),
        n_views=plan.n_views,
    )


def instance_map(image: SimulatedSolids) -> np.ndarray:
    """Which body each px shows: inside its outline, its holes left out, and thicker than any other there.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Numbers of the rows of truth, from 1; 0: none.
    """
    shape, pixel_size_nm = image.micrograph.shape, image.truth["pixel_size_nm"][0]
    chosen, most = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    for number, (outline, thickness) in enumerate(zip(image.outlines, image.thicknesses_nm, strict=True), 1):
        here = polygon2mask(shape, outline[:, ::-1]) & (thickness > np.maximum(most, _HOLE_PX * pixel_size_nm))
        chosen[here], most[here] = number, thickness[here]
    return chosen


def write_images(
    name: str, folder: Path, n_scenes: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Simulate a set of `SETS` into shards; those that are there already are kept.

    Parameters
    ----------
    name : str
    folder : Path
        Made if missing; holds a folder for each set.
    n_scenes : int, optional
        Only the first, rounded up to whole shards; all by default.
    progress : callable, optional
        Called with the number of shards there are and all of them.

    Returns
    -------
    Path
        The manifest, written last: settings, seed and the hash of each shard's arrays.
    """
    plan = find_plan(name)
    key = plan.sha256()
    place = folder / name
    starts = range(0, min(n_scenes or plan.n_scenes, plan.n_scenes), _scenes_a_shard(plan))
    digests = {}
    for number, first in enumerate(starts):
        path = place / f"{number:04d}.npz"
        digest = _digest_of(path, key)
        if digest is None:
            part = simulate_images(plan, first, min(_scenes_a_shard(plan), plan.n_scenes - first))
            arrays = {array: getattr(part, array) for array in _ARRAYS}
            digest = _digest(arrays)
            buffer = io.BytesIO()
            np.savez(buffer, key=np.array(key), digest=np.array(digest), **arrays)
            write_atomic(path, buffer.getvalue())
        digests[path.name] = digest
        if progress is not None:
            progress(number + 1, len(starts))
    content = {
        "name": name,
        "plan_sha256": key,
        "settings": plan.preset.to_dict(),
        "seed": plan.seed,
        "n_scenes": min(len(starts) * _scenes_a_shard(plan), plan.n_scenes),
        "n_views": plan.n_views,
        "tilts_deg": list(plan.tilts_deg),
        "columns": list(COLUMNS),
        "shards": digests,
        "arrays_sha256": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
    }
    write_json(content, place / "manifest.json")
    return place / "manifest.json"


def read_images(name: str, folder: Path, n_scenes: int | None = None, maps: bool = True) -> SolidImages:
    """The first scenes of a set, from its shards.

    Parameters
    ----------
    name : str
    folder : Path
        As for `write_images`.
    n_scenes : int, optional
        As many as there are by default, also of a set that is not whole yet.
    maps : bool
        Whether instances and thickness are read; else they are empty.

    Raises
    ------
    SettingsError
        Fewer scenes are there, or they were simulated by other settings.
    """
    plan = find_plan(name)
    wanted = plan.n_scenes if n_scenes is None else n_scenes
    parts: dict[str, list[np.ndarray]] = {array: [] for array in _ARRAYS}
    n_images = 0
    for path in sorted((folder / name).glob("[0-9]*.npz")):
        if n_images >= wanted * plan.n_views:
            break
        with np.load(path) as shard:
            if str(shard["key"]) != plan.sha256():
                raise SettingsError(f"{path} was simulated by other settings; delete {path.parent} and simulate again.")
            label = shard["label"]
            for array in _ARRAYS:
                if array in ("instances", "thickness_nm") and not maps:
                    continue
                values = label if array == "label" else shard[array]
                parts[array].append(values + n_images if array == "image_index" else values)
            n_images += len(parts["pixels"][-1])
    if not n_images or (n_scenes is not None and n_images < wanted * plan.n_views):
        raise SettingsError(f"{folder / name} holds {n_images // plan.n_views} scenes; {wanted} are needed.")
    n_images = min(n_images, wanted * plan.n_views)
    whole = {array: np.concatenate(values) if values else np.empty(0) for array, values in parts.items()}
    rows = whole["image_index"] < n_images
    for array, values in whole.items():
        whole[array] = values[rows] if array in ("label", "image_index", "truth") else values[:n_images]
    return SolidImages(**whole, n_views=plan.n_views)


def find_plan(name: str) -> SetPlan:
    """The plan of that name.

    Raises
    ------
    SettingsError
        There is none.
    """
    if name not in SETS:
        raise SettingsError(f"There is no set '{name}' for recognition; known: {', '.join(SETS)}.")
    return SETS[name]


def _scenes_a_shard(plan: SetPlan) -> int:
    size = plan.preset.shape[0] * plan.preset.shape[1] * plan.n_views
    # of every class as many, and about as many px whatever the set
    turns = len(plan.preset.classes)
    return max(_IMAGES_A_SHARD * 64 * 64 // size // turns, 1) * turns


def _digest_of(path: Path, key: str) -> str | None:
    """Hash of a shard's arrays as it says itself; None: it is missing, damaged, or of other settings."""
    try:
        with path.open("rb") as file, np.load(file) as shard:
            return str(shard["digest"]) if str(shard["key"]) == key else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in _ARRAYS:
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()
