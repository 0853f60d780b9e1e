"""Measurement on the real micrographs: jittered boxes stand in for a network's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from defectpipe.boxes import ellipse_bounds, touches_border, unpad
from defectpipe.measurement import measure


@pytest.mark.real
def test_the_flood_brings_wrong_boxes_closer_to_the_experts(data_dir: Path):
    folder = data_dir / "fecral-loops"
    table = pd.read_csv(folder / "images.csv")
    rng = np.random.default_rng(0)
    labels, boxes, fits = [], [], []
    for name in table.loc[table.fold.isin([3, 4]) & (table.n_loops > 0), "image"].iloc[::4]:
        picture = cv2.imread(str(folder / "images" / name), cv2.IMREAD_GRAYSCALE)
        padded = np.loadtxt(folder / "boxes" / f"{Path(name).stem}.txt", ndmin=2)[:, [1, 0, 3, 2]] - 1
        tight = unpad(padded[~touches_border(padded, picture.shape)])
        side, centre = tight[:, 2:] - tight[:, :2], (tight[:, 2:] + tight[:, :2]) / 2
        drawn = side * np.exp(rng.normal(0, 0.08, side.shape))
        centre = centre + rng.normal(0, 0.05, side.shape) * side
        box = np.concatenate([centre - drawn / 2, centre + drawn / 2], 1)
        rows = measure(picture, box)
        bounds = ellipse_bounds(rows.x_px, rows.y_px, rows.diameter_px, rows.minor_px, rows.angle_deg)
        labels.append(side.max(1))
        boxes.append(drawn.max(1))
        fits.append((bounds[:, 2:] - bounds[:, :2]).max(1))
    truth = np.concatenate(labels)
    error = np.concatenate(fits) / truth - 1
    alone = np.concatenate(boxes) / truth - 1
    assert len(truth) > 300
    assert np.median(np.abs(error)) < 0.05
    assert np.median(np.abs(error)) < np.median(np.abs(alone)) - 0.003
    assert abs(np.median(error)) < 0.02
