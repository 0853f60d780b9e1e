"""Loops of known diameter for `make bench-diameters`: analytic rings, simulated fields, labels, labels given twice.

All of them are tables of `COLUMNS`, a row a loop, beside their images.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
import pandas as pd
from scipy import fft
from scipy.spatial import cKDTree

from defectpipe.boxes import convert, ellipse_bounds, shrink
from defectpipe.simulation.acquisition import Acquisition, blur
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects, matched_pairs
from defectpipe.training.figures import HeldOut, long_sides

COLUMNS = [*BOX_COLUMNS, "image", "true_px", "noise", "defocus_px"]
Images = Mapping[str, np.ndarray]

# How the screener's boxes, made tight, err beside the labels of folds 0 to 2: log sides and their correlation, centre
# over the side. The labels' own scatter is in it.
SIDE_STD, SIDE_CORRELATION, CENTRE_STD = 0.15, 0.25, 0.07
SEED = 5
RING_SIZES_PX, RING_NOISES, RING_DEFOCI_PX = (12.0, 20.0, 40.0, 80.0, 160.0), (0.0, 10.0, 30.0, 60.0), (0.0, 2.0, 4.0)
RING_CONTRAST = 60.0
SIMULATED_DEFOCI_PX = (0.0, 2.0, 4.0)


def jittered(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes that err as a screener's."""
    side, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    covariance = SIDE_STD**2 * np.array([[1, SIDE_CORRELATION], [SIDE_CORRELATION, 1]])
    centre = centre + rng.normal(0, CENTRE_STD, centre.shape) * side
    side = side * np.exp(rng.multivariate_normal([0, 0], covariance, len(boxes)))
    return np.concatenate([centre - side / 2, centre + side / 2], 1)


def rings(n_each: int) -> tuple[pd.DataFrame, Images]:
    """Exact dark rings, one an image: sizes at noise 10, noises and defoci at 40 px; rims of sigma 0.06 of the size."""
    rng = np.random.default_rng(SEED)
    plan = {(size, 10.0, 0.0) for size in RING_SIZES_PX} | {(40.0, noise, 0.0) for noise in RING_NOISES}
    plan |= {(40.0, 10.0, defocus) for defocus in RING_DEFOCI_PX}
    rows, images = [], {}
    for (size, noise, defocus), number in itertools.product(sorted(plan), range(n_each)):
        major, ratio, angle = size * np.exp(rng.uniform(-0.1, 0.1)), rng.uniform(0.55, 1.0), rng.uniform(0, 180)
        x, y = 1.3 * size + 10 + rng.uniform(-0.5, 0.5, 2)
        picture = _ring((int(2.6 * size) + 20, int(2.6 * size) + 23), x, y, major, ratio * major, angle)
        seen = blur(picture, Acquisition(probe_sigma_px=0.0, defocus_sigma_px=defocus))
        name = f"{size:g}-{noise:g}-{defocus:g}-{number}"
        images[name] = np.clip(np.rint(seen + rng.normal(0, noise, seen.shape)), 0, 255).astype(np.uint8)
        box = jittered(ellipse_bounds(x, y, major, ratio * major, angle), rng)[0]
        rows.append((*box, name, major, noise, defocus, size))
    return pd.DataFrame(rows, columns=[*COLUMNS, "size_px"]), images


def _ring(shape: tuple[int, int], x: float, y: float, major: float, minor: float, angle_deg: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    along, across = (columns - x) * c - (rows - y) * s, (columns - x) * s + (rows - y) * c
    radius = np.hypot(along / (major / 2), across / (minor / 2))
    slope = np.hypot(along / (major / 2) ** 2, across / (minor / 2) ** 2) / np.maximum(radius, 1e-9)
    distance = (radius - 1) / np.maximum(slope, 1e-9)
    return (150 - RING_CONTRAST * np.exp(-0.5 * (distance / max(0.06 * major, 1.0)) ** 2)).astype(np.float32)


def simulated(preset: str, n_fields: int, defocus_px: float) -> tuple[pd.DataFrame, Images]:
    """Open, visible, uncut loops of simulated fields; `noise` is one over the contrast-to-noise of a px."""
    chosen = PRESETS[preset]
    chosen = dataclasses.replace(
        chosen, acquisition=dataclasses.replace(chosen.acquisition, defocus_sigma_px=defocus_px)
    )
    rng = np.random.default_rng(SEED)
    tables, images = [], {}
    for index in range(n_fields):
        field = simulate_field(chosen, SEED, index)
        truth = field.truth[(field.truth["class"] == "open") & field.truth["visible"] & ~field.truth["on_edge"]]
        boxes = jittered(truth[BOX_COLUMNS].to_numpy(float), rng)
        images[str(index)] = field.micrograph.grey8()
        tables.append(
            pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
                image=str(index),
                true_px=truth["diameter_px"].to_numpy(float),
                noise=1 / truth["cnr"].to_numpy(float),
                defocus_px=defocus_px,
            )
        )
    return pd.concat(tables, ignore_index=True), images


def real(held_out: HeldOut, loops: pd.DataFrame, tight_scales: Mapping[int, float]) -> pd.DataFrame:
    """Loops that a fold's model found: their boxes made tight in two ways, and the label that they match, if any.

    Returns
    -------
    DataFrame
        `COLUMNS`, the boxes made tight by `tight_scales`, `true_px` the long side of the matched label's tight box
        (NaN: a false loop); with ``rule_`` before their names the boxes by the rule of padding; ``fold``, ``on_edge``.
    """
    tables = []
    for image, part in loops.groupby("image"):
        marked = held_out.marked(str(image))
        pairs = matched_pairs(marked, Objects.from_loops(part), 0.4)
        label = np.full(len(part), np.nan)
        sides = long_sides(held_out.labels[str(image)][BOX_COLUMNS].to_numpy(float))
        label[pairs[:, 1]] = sides[pairs[:, 0]]
        boxes = part[BOX_COLUMNS].to_numpy(float)
        fold = held_out.folds[str(image)]
        table = pd.DataFrame(
            _cut(shrink(boxes, 1 / tight_scales[fold]), held_out.shapes[str(image)]), columns=BOX_COLUMNS
        )
        by_rule = _cut(convert(boxes, held_out.box_convention, "tight"), held_out.shapes[str(image)])
        table = table.assign(**{f"rule_{name}": by_rule[:, i] for i, name in enumerate(BOX_COLUMNS)})
        tables.append(table.assign(image=str(image), true_px=label, fold=fold, on_edge=part["on_edge"].to_numpy()))
    return pd.concat(tables, ignore_index=True).assign(noise=np.nan, defocus_px=0.0)


def _cut(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, -0.5, np.array([shape[1], shape[0], shape[1], shape[0]]) - 0.5)


_SPECTRUM_PX = 256
# From this peak over the spread of a phase correlation on, two fields may be the same place; then labels decide.
_LEAST_PEAK, _LEAST_PAIRS, _LEAST_SHARE = 14.0, 4, 0.4


def labelled_twice(held_out: HeldOut, pixels: Images) -> pd.DataFrame:
    """Labels that the expert gave to one loop in two fields that overlap.

    Returns
    -------
    DataFrame
        ``first_px``, ``second_px`` (long sides of the tight boxes), ``fields``, ``image``, ``other_image``, and the
        shift ``dx_px``, ``dy_px`` from the second field's coordinates to the first one's.
    """
    tables = [pd.DataFrame(columns=["first_px", "second_px", "fields"])]
    for first, second, shift in _same_places(held_out, pixels):
        boxes = [held_out.labels[name][BOX_COLUMNS].to_numpy(float) for name in (first, second)]
        if min(map(len, boxes)) < _LEAST_PAIRS:
            continue
        centres, sides = [(b[:, :2] + b[:, 2:]) / 2 for b in boxes], [long_sides(b) for b in boxes]
        pairs = _mutual(centres[0], centres[1] + shift, 2 * sides[0], 2 * sides[1])
        if len(pairs) < _LEAST_PAIRS:
            continue
        shift = shift + np.median(centres[0][pairs[:, 0]] - centres[1][pairs[:, 1]] - shift, 0)
        pairs = _mutual(centres[0], centres[1] + shift, *sides)
        height, width = held_out.shapes[first]
        seen = [
            ((c + s > 0) & (c + s < [width, height])).all(1).sum()
            for c, s in ((centres[0], -shift), (centres[1], shift))
        ]
        if len(pairs) < max(_LEAST_PAIRS, _LEAST_SHARE * min(seen)):
            continue
        whole = ~held_out.marked(first).on_edge[pairs[:, 0]] & ~held_out.marked(second).on_edge[pairs[:, 1]]
        a, b = sides[0][pairs[whole, 0]], sides[1][pairs[whole, 1]]
        known = {"fields": f"{first} | {second}", "image": first, "other_image": second}
        tables.append(pd.DataFrame({"first_px": a, "second_px": b}).assign(dx_px=shift[0], dy_px=shift[1], **known))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def _same_places(held_out: HeldOut, pixels: Images) -> Iterator[tuple[str, str, np.ndarray]]:
    """Pairs of fields of a family that may show one place, and the shift (x, y) from the second to the first."""
    window = np.outer(*(np.hanning(_SPECTRUM_PX),) * 2).astype(np.float32)
    for group in sorted(set(held_out.groups.values())):
        spectra = {}
        for name in sorted(n for n, g in held_out.groups.items() if g == group):
            small = cv2.resize(pixels[name], (_SPECTRUM_PX, _SPECTRUM_PX), interpolation=cv2.INTER_AREA)
            small = small.astype(np.float32)
            spectra[name] = fft.rfft2((small - cv2.GaussianBlur(small, (0, 0), 12)) * window, (2 * _SPECTRUM_PX,) * 2)
        for first, second in itertools.combinations(spectra, 2):
            if held_out.shapes[first] != held_out.shapes[second]:
                continue
            cross = spectra[first] * np.conj(spectra[second])
            peaks = fft.irfft2(cross / (np.abs(cross) + 1e-9), (2 * _SPECTRUM_PX,) * 2).astype(np.float32)
            peaks = cv2.GaussianBlur(peaks, (0, 0), 0.8)
            if peaks.max() < _LEAST_PEAK * peaks.std():
                continue
            row, column = np.unravel_index(int(peaks.argmax()), peaks.shape)
            moved = (np.array([column, row]) + _SPECTRUM_PX) % (2 * _SPECTRUM_PX) - _SPECTRUM_PX
            height, width = held_out.shapes[first]
            yield first, second, moved * np.array([width, height]) / _SPECTRUM_PX


def _mutual(a: np.ndarray, b: np.ndarray, sides_a: np.ndarray, sides_b: np.ndarray) -> np.ndarray:
    """Pairs of points that are each other's nearest and nearer than a quarter of the smaller side; shape (k, 2)."""
    distance, to_b = cKDTree(b).query(a)
    _, to_a = cKDTree(a).query(b)
    i = np.flatnonzero((to_a[to_b] == np.arange(len(a))) & (distance < 0.25 * np.minimum(sides_a, sides_b[to_b]) + 2))
    return np.stack([i, to_b[i]], 1)
