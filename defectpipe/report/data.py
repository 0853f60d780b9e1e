"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.report.gallery import Findings, Need, order_by_need

RULES = {"li2018": "centres within {distance:g} px, many to many (Li, Field & Morgan 2018)"}


@dataclass(frozen=True, eq=False)
class ReportData:
    """Tables and figures of a run, as it wrote them.

    Parameters
    ----------
    folder : str
        Name of the input folder.
    images, loops : DataFrame
        ``images.csv`` and ``loops.csv``, in their order.
    summary : mapping
        Of ``summary.json``: ``pooled``, ``failed``, ``skipped``, ``without_pixel_size``, ``settings``, ``model``,
        ``versions``, and with labels ``labels``.
    evaluation : mapping or None
        ``evaluation.json``; None: no labels were given.
    label_diameters : DataFrame or None
        ``image``, ``diameter_px``, ``diameter_nm`` of the labels of the first frames that the border does not cut.
    gallery : sequence of Findings
        Of the images that have a picture, in the order of `gallery.choose`.
    """

    folder: str
    images: pd.DataFrame
    loops: pd.DataFrame
    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    label_diameters: pd.DataFrame | None
    gallery: Sequence[Findings]

    @property
    def pooled(self) -> Mapping[str, Any]:
        """The folder's pooled figures."""
        return dict(self.summary["pooled"])

    @property
    def has_nm(self) -> bool:
        """Whether any image has a pixel size."""
        return bool(self.images["pixel_size_nm"].notna().any())

    @property
    def has_predictions(self) -> bool:
        """Whether any image has a predicted F1."""
        return bool(self.images["predicted_f1"].notna().any())

    @property
    def n_low_predictions(self) -> int:
        """Images whose predicted F1 is too low to trust them."""
        least = self.summary["settings"]["statistics"]["min_predicted_f1"]
        return int((self.images["predicted_f1"] < least).sum())

    @property
    def unit(self) -> str:
        """Unit of the diameters."""
        return "nm" if self.has_nm else "px"

    @property
    def experts(self) -> list[str]:
        """Names of all who labelled."""
        if self.evaluation is None:
            return []
        several = self.evaluation.get("experts")
        return list(several["names"]) if several else [self.evaluation["reference"] or "labels"]

    @cached_property
    def order(self) -> list[Need]:
        """All images, the worst first."""
        return order_by_need(self.images, self.loops, self.f1)

    @cached_property
    def f1(self) -> dict[str, float | None]:
        """F1 of the labelled images."""
        return f1_by_image(self.evaluation)

    @cached_property
    def loop_rows(self) -> dict[tuple[str, int], np.ndarray]:
        """Places of each frame's loops in the table of loops."""
        places: dict[tuple[str, int], list[int]] = {}
        for place, (image, frame) in enumerate(zip(self.loops["image"], self.loops["frame"], strict=True)):
            places.setdefault((str(image), int(frame)), []).append(place)
        return {key: np.array(rows) for key, rows in places.items()}

    def loops_of(self, image: str, frame: int) -> pd.DataFrame:
        """The loops of one frame."""
        return self.loops.iloc[self.loop_rows.get((image, frame), np.zeros(0, int))]


def one_to_one_rule(evaluation: Mapping[str, Any]) -> str:
    """Name of the one-to-one rule in ``evaluation.json``; the overlap that was asked for is part of it."""
    return str(evaluation["precision_recall_curve"]["rule"])


def described_rule(rule: str, evaluation: Mapping[str, Any]) -> str:
    """What a rule of ``evaluation.json`` counts as found."""
    if rule == one_to_one_rule(evaluation):
        return f"boxes one to one, intersection over union at least {evaluation['match_iou']:g}"
    return RULES[rule].format(distance=evaluation["match_distance_px"])


def f1_by_image(evaluation: Mapping[str, Any] | None) -> dict[str, float | None]:
    """F1 of each labelled image, one to one."""
    if evaluation is None:
        return {}
    rule = one_to_one_rule(evaluation)
    return {row["image"]: row[rule]["f1"] for row in evaluation["images"]}
