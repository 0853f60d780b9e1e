"""The simulated focus sets of the benchmark, kept on disk: FOCUS_CACHE, by default ``focus-cache`` (ignored by git)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from defectpipe.focus.backbones import prepare
from defectpipe.focus.training import prepare_view
from defectpipe.simulation.sem.presets import PRESETS
from defectpipe.training.focus_data import DATASETS, PATCH_SHAPE, FocusSamples, simulate_focus_samples

CACHE = Path(os.environ.get("FOCUS_CACHE", Path(__file__).parent / "focus-cache"))
_COLUMNS = ("score", "expert", "magnification", "kind", "specimen")
_AT_ONCE = 500


def load(name: str, part: str, n: int | None = None) -> FocusSamples:
    """The first `n` of a set of `DATASETS`, ``train`` or ``test``; simulated first if they are not there.

    Pixels are mapped, not read.
    """
    dataset = DATASETS[name]
    whole, seed = (dataset.n_train, dataset.train_seed) if part == "train" else (dataset.n_test, dataset.test_seed)
    n = min(n or whole, whole)
    CACHE.mkdir(parents=True, exist_ok=True)
    pixels_file, table_file = CACHE / f"{name}-{part}-{n}.npy", CACHE / f"{name}-{part}-{n}.npz"
    if not table_file.exists():
        shape = (n, *PRESETS[dataset.preset].shape)
        pixels = np.lib.format.open_memmap(pixels_file, "w+", np.uint8, shape)
        tables = []
        for i in range(0, n, _AT_ONCE):
            made = simulate_focus_samples(dataset.preset, seed, min(_AT_ONCE, n - i), i)
            pixels[i : i + len(made)] = made.pixels
            tables.append([getattr(made, column) for column in _COLUMNS])
        pixels.flush()
        np.savez(table_file, **{c: np.concatenate(p) for c, p in zip(_COLUMNS, zip(*tables, strict=True), strict=True)})
    table = np.load(table_file)
    return FocusSamples(np.load(pixels_file, mmap_mode="r"), *(table[column] for column in _COLUMNS))


def view(name: str, samples: FocusSamples, number: int, backbone: str = "spectral") -> np.ndarray:
    """What a backbone takes of one random crop of every training image, kept on disk."""
    file = _kept(f"{name}-{len(samples)}-view{number}", backbone)
    if not file.exists():
        np.save(file, prepare_view(samples.pixels, backbone, PATCH_SHAPE, (0, number)))
    return np.load(file)


def centre(name: str, samples: FocusSamples, backbone: str = "spectral") -> np.ndarray:
    """What a backbone takes of the centre crops, kept on disk."""
    file = _kept(f"{name}-{len(samples)}-centre", backbone)
    if not file.exists():
        np.save(file, np.concatenate([prepare(backbone, p[None], None)["features"] for p in samples.patches()]))
    return np.load(file)


def _kept(name: str, backbone: str) -> Path:
    return CACHE / (f"{name}.npy" if backbone == "spectral" else f"{name}-{backbone}.npy")
