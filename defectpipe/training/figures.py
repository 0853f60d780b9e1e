"""Figures of a training, all from images that the model in question never saw."""

from __future__ import annotations

BOXES = ["x0_px", "y0_px", "x1_px", "y1_px"]


def held_out_figures(*args: object) -> dict:
    raise RuntimeError("figures of this training are made by the caller")
