"""Runs as the report gets them, made from loops and labels without a model, and pages taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd

from defectpipe.boxes import touches_border
from defectpipe.io.tables import images_table, labels_table, loops_table
from defectpipe.report.data import ReportData
from defectpipe.report.gallery import Findings, choose
from defectpipe.settings import Settings
from defectpipe.statistics.agreement import agreeing, agreement, evaluate
from defectpipe.statistics.images import image_statistics
from defectpipe.statistics.summary import pooled_summary

SHAPE = (300, 400)
JPEG = cv2.imencode(".jpg", np.tile(np.arange(400, dtype=np.uint8), (300, 1)))[1].tobytes()
BOXES = ["x0_px", "y0_px", "x1_px", "y1_px"]
SETTINGS = Settings()


def circles(seed: int, n: int) -> pd.DataFrame:
    """`n` round objects on a grid, with boxes: the columns that loops and labels share."""
    rng = np.random.default_rng(seed)
    x, y = 40.0 + 50 * (np.arange(n) % 7), 40.0 + 50 * (np.arange(n) // 7)
    d = rng.uniform(12, 40, n)
    return pd.DataFrame(
        {"x_px": x, "y_px": y, "diameter_px": d, "minor_px": d, "angle_deg": 0.0}
        | {"x0_px": x - d / 2, "y0_px": y - d / 2, "x1_px": x + d / 2, "y1_px": y + d / 2}
    )


def loops_of(image: str, objects: pd.DataFrame, nm: float | None, frame: int = 0) -> pd.DataFrame:
    """The objects as rows of ``loops.csv``."""
    return loops_table(
        objects.assign(
            image=image,
            frame=frame,
            loop_id=np.arange(1, len(objects) + 1),
            diameter_nm=objects["diameter_px"] * (np.nan if nm is None else nm),
            diameter_uncertainty_px=objects["diameter_px"] * 0.05,
            diameter_uncertainty_nm=objects["diameter_px"] * 0.05 * (np.nan if nm is None else nm),
            on_edge=touches_border(objects[BOXES].to_numpy(float), SHAPE, 2.0),
            screening_score=np.linspace(0.9, 0.6, len(objects)),
            fit_quality=1.0,
        )
    )


def make_run(
    found: Mapping[str, pd.DataFrame],
    *,
    nm: float | None = 0.5,
    labels: Mapping[str, Mapping[str, pd.DataFrame]] | None = None,
    failed: Mapping[str, str] | None = None,
    review: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
    folder: str = "fields",
    jpeg: bytes = JPEG,
) -> ReportData:
    """A run that found these objects in these images."""
    rows, tables = [], [loops_table()]
    for image, objects in found.items():
        own = loops_of(image, objects, nm)
        tables.append(own)
        row = {"image": image, "frame": 0, "status": "ok", "height_px": SHAPE[0], "width_px": SHAPE[1]}
        row |= {"analysed_area_px2": float(SHAPE[0] * SHAPE[1]), "pixel_size_nm": nm}
        if review and image in review:
            row |= {"status": "review", "reason": review[image]}
        marked = next((of[image] for of in (labels or {}).values() if image in of), None)
        if marked is not None:
            row |= agreement(own, labels_table(marked), SHAPE, box_convention="tight", settings=SETTINGS)
        rows.append(row | image_statistics(own, SHAPE, nm, SETTINGS.statistics))
    rows += [{"image": i, "frame": 0, "status": "failed", "reason": why} for i, why in (failed or {}).items()]
    images = images_table(rows).sort_values("image", kind="stable", ignore_index=True)
    loops = loops_table(pd.concat(tables).sort_values(["image", "loop_id"], kind="stable", ignore_index=True))
    summary = {
        "pooled": pooled_summary(images, loops, SETTINGS),
        "failed": dict(failed or {}),
        "skipped": dict(skipped or {}),
        "without_pixel_size": sorted(found) if nm is None else [],
        "settings": SETTINGS.to_dict(),
        "model": {"name": "toy", "sha256": "0" * 64, "box_convention": "tight"},
        "versions": {"defectpipe": "0"},
    }
    evaluation, sizes = None, None
    if labels is not None:
        typed = {who: {image: labels_table(t) for image, t in of.items()} for who, of in labels.items()}
        evaluation = evaluate(images, loops, typed, box_convention="tight", settings=SETTINGS)
        unlabelled = sorted(set(found) - set().union(*labels.values()))
        summary["labels"] = {"errors": {}, "unmatched_labels": [], "unlabelled_images": unlabelled, "n_clipped": 0}
        first = typed[min(typed)]
        sizes = pd.concat(
            [
                pd.DataFrame(
                    {"image": image, "diameter_px": t["diameter_px"], "diameter_nm": t["diameter_px"] * (nm or 1)}
                )
                for image, t in first.items()
            ],
            ignore_index=True,
        )
    data = ReportData(folder, images, loops, summary, evaluation, sizes, [])
    gallery = []
    for need in choose(data.order, images):
        image = str(images["image"].iloc[need.row])
        boxes = found[image][BOXES]
        own = {who: labels_table(of[image]) for who, of in (labels or {}).items() if image in of}
        rows = loops[loops["image"] == image]
        marked = own[min(own)] if own else None
        pairs = None if marked is None else agreeing(rows, marked, SHAPE, box_convention="tight", settings=SETTINGS)
        overlay = f"overlays/{image}.jpg"
        gallery.append(Findings(image, 0, jpeg, boxes, boxes + 3, len(boxes), len(boxes), own, overlay, pairs))
    return ReportData(folder, images, loops, summary, evaluation, sizes, gallery)


class Html(HTMLParser):
    """A page taken apart: every element with its attributes, and the text of each element with an id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.elements.append((tag, values))
        self._add(" ")
        if tag not in ("meta", "input"):
            self._open.append((tag, values.get("id", "")))
            self.texts.setdefault(values.get("id", ""), "")

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        # Every element is closed, in order: nothing in the page breaks out of its place.
        assert self._open[-1][0] == tag, (self._open[-3:], tag)
        self._add(" ")
        self._open.pop()

    def _add(self, text: str) -> None:
        for _tag, name in self._open:
            if name:
                self.texts[name] += text

    def handle_data(self, data: str) -> None:
        self._add(data)
        if self._open and self._open[-1][0] in ("script", "style"):
            {"script": self.scripts, "style": self.styles}[self._open[-1][0]].append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of all elements of that name."""
        return [values for name, values in self.elements if name == tag]

    def words(self, name: str) -> str:
        """Text of the element with that id, white space folded."""
        return " ".join(self.texts[name].split())
