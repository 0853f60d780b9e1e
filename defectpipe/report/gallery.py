"""The gallery of the report: which images come first, small pictures of them, and layers of findings."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from markupsafe import Markup

from defectpipe import boxes as bx
from defectpipe.micrograph import Micrograph
from defectpipe.report import text
from defectpipe.report.overlays import bar_length, grey_picture

MOST_PICTURES = 100
"""Images with a picture: half of them the worst, half the best."""

MOST_LISTED = 6000
"""Loops and labels with a row in the report, the worst images' first; ``loops.csv`` has all the loops."""

MOST_CANDIDATES = 400
"""Candidates that are drawn of one image, the best first."""

OFF_AT_FIRST = ("candidates", "screened")
"""Layers that are not shown until they are asked for."""

LARGEST_JPEG_BYTES = 40_000

# Long sides and qualities, the first that is small enough is taken.
_TRIALS = ((720, 72), (720, 55), (600, 55), (600, 40), (480, 40), (360, 35), (240, 30))
# Long side from which on the boxes of candidates are drawn to whole px.
_WHOLE_PX_FROM = 800
_BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]
_ELLIPSE_COLUMNS = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]


@dataclass(frozen=True)
class Need:
    """How much an image needs a look: its place in the table, and why it stands where it does."""

    row: int
    reason: str


@dataclass(frozen=True, eq=False)
class Findings:
    """What there is to draw over one frame.

    Parameters
    ----------
    image : str
    frame : int
    jpeg : bytes
        The frame as `jpeg_picture` gives it; empty: there is none.
    candidates, screened_out : DataFrame
        Boxes in px, best first: the cascade's, and those that the network did not keep. At most `MOST_CANDIDATES`
        are drawn.
    n_candidates, n_screened_out : int
        How many there are.
    labels : mapping of str to DataFrame
        By expert, boxes tight; none: not labelled.
    overlay : str
        The picture of the image below the output folder, for a link; empty: there is none.
    partners : pair of ndarray, optional
        Of each label of the first expert the place of the loop that found it, and the other way round (see
        `statistics.scoring.partners`; negative: none).
    """

    image: str
    frame: int
    jpeg: bytes
    candidates: pd.DataFrame
    screened_out: pd.DataFrame
    n_candidates: int
    n_screened_out: int
    labels: Mapping[str, pd.DataFrame]
    overlay: str = ""
    partners: tuple[np.ndarray, np.ndarray] | None = None


def order_by_need(images: pd.DataFrame, loops: pd.DataFrame, f1: Mapping[str, float | None]) -> list[Need]:
    """All rows of ``images.csv``, the worst first: failed, to review, then by F1, by predicted F1, by the scores.

    Parameters
    ----------
    images, loops : DataFrame
        As in ``images.csv`` and ``loops.csv``.
    f1 : mapping of str to float
        Of the labelled images (first frames); None: undefined.
    """
    scores = loops.groupby(["image", "frame"])["screening_score"].median().to_dict() if len(loops) else {}
    keys: list[tuple[Any, ...]] = []
    reasons = []
    columns = (images[name] for name in ("image", "frame", "status", "predicted_f1"))
    for row, (image, frame, status, guess) in enumerate(zip(*columns, strict=True)):
        score, agreement = text.known(scores.get((image, frame))), f1.get(image) if frame == 0 else None
        predicted = text.known(guess)
        if status == "failed":
            reasons.append("failed")
        elif agreement is not None:
            reasons.append(("to review; " if status == "review" else "") + f"F1 {agreement:.2f} beside the labels")
        elif predicted is not None:
            reasons.append(("to review; " if status == "review" else "") + f"predicted F1 {predicted:.2f}")
        elif status == "review":
            reasons.append("to review")
        elif score is not None:
            reasons.append(f"median screening score {score:.2f}")
        else:
            reasons.append("nothing found")
        rank = {"failed": 0, "review": 1}.get(status, 2)
        keys.append((rank, *(math.inf if v is None else v for v in (agreement, predicted, score)), row))
    return [Need(row, reasons[row]) for row in sorted(range(len(keys)), key=keys.__getitem__)]


def choose(order: Sequence[Need], images: pd.DataFrame, most: int = MOST_PICTURES) -> list[Need]:
    """Those that have a picture, in the same order: all that did not fail, or half `most` from either end."""
    failed = (images["status"] == "failed").to_numpy(bool)
    able = [need for need in order if not failed[need.row]]
    return able if len(able) <= most else able[: most - most // 2] + able[len(able) - most // 2 :]


def jpeg_picture(micrograph: Micrograph) -> bytes:
    """A grey picture of a frame in at most about 40 kB."""
    longest = max(micrograph.shape)
    side, encoded, grey = 0, np.zeros(0, np.uint8), np.zeros((0, 0), np.uint8)
    for wanted, quality in _TRIALS:
        if side != min(wanted, longest):
            side = min(wanted, longest)
            grey = grey_picture(micrograph, side / longest)
        encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        if len(encoded) <= LARGEST_JPEG_BYTES:
            break
    return encoded.tobytes()


def drawing(
    found: Findings,
    loops: pd.DataFrame,
    shape: tuple[int, int],
    *,
    pixel_size_nm: float | None,
    box_convention: str,
    experts: Sequence[str],
    loop_link: str,
    described: str,
    classes: Sequence[str] = (),
) -> Markup:
    """The picture of a frame with its layers, in the image's own coordinates.

    Parameters
    ----------
    found : Findings
    loops : DataFrame
        Rows of ``loops.csv`` of this frame.
    shape : (int, int)
        Height and width, in px.
    pixel_size_nm : float or None
    box_convention : str
        Of the loops' boxes; those of labels are converted to it.
    experts : sequence of str
        All experts of the run: each has a layer of its own.
    loop_link : str
        Address of a loop's row less its number; empty: the loops have no rows.
    described : str
        In words, for those who do not see it.
    classes : sequence of str
        Names of the classes where there are several: each has its colour.
    """
    height, width = shape
    view = Markup('viewBox="-0.5 -0.5 {} {}"').format(width, height)
    href = base64.b64encode(found.jpeg).decode("ascii")
    parts = [
        Markup('<svg class="field" {} role="img" aria-label="{}">').format(view, described),
        Markup(
            '<image x="-0.5" y="-0.5" width="{}" height="{}" preserveAspectRatio="none" '
            'href="data:image/jpeg;base64,{}"/>'
        ).format(width, height, href),
        _layer("candidates", _boxes(found.candidates, shape)),
        _layer("screened", _boxes(found.screened_out, shape)),
    ]
    parts.append(_layer("loops", _loops(loops, loop_link, classes)))
    # Over the loops, with gaps in their lines: where both agree, both are seen.
    for k, expert in enumerate(experts):
        if expert in found.labels:
            parts.append(_layer(f"labels-{k}", _labels(found.labels[expert], box_convention)))
    parts += [_scale_bar(shape, pixel_size_nm), Markup("</svg>")]
    return Markup("").join(parts)


def _layer(key: str, content: Markup) -> Markup:
    off = " off" if key in OFF_AT_FIRST else ""
    return Markup('<g class="layer{}" data-layer="{}">{}</g>').format(off, key, content)


def _boxes(table: pd.DataFrame, shape: tuple[int, int]) -> Markup:
    # There are many of them: as short as can be, whole px where these are fine enough.
    boxes = table[_BOX_COLUMNS].to_numpy(float)[:MOST_CANDIDATES]
    boxes = np.round(boxes, 0 if max(shape) >= _WHOLE_PX_FROM else 1)
    d = "".join(f"M{_n(x0)} {_n(y0)}h{_n(x1 - x0)}v{_n(y1 - y0)}h{_n(x0 - x1)}z" for x0, y0, x1, y1 in boxes)
    return Markup('<path d="{}"/>').format(d) if d else Markup("")


def _loops(loops: pd.DataFrame, link: str, classes: Sequence[str]) -> Markup:
    parts = []
    boxes = loops[_BOX_COLUMNS].to_numpy(float)
    values = loops[_ELLIPSE_COLUMNS].to_numpy(float)
    nm = loops["diameter_nm"].to_numpy(float)
    places = {name: place for place, name in enumerate(classes)}
    for number, box, ellipse, size_nm, cut, name in zip(
        loops["loop_id"], boxes, values, nm, loops["on_edge"].to_numpy(bool), loops["class"], strict=True
    ):
        place = places.get(name, 0)
        style = " ".join([*(["cut"] if cut else []), *([f"k{place}"] if place else [])])
        shape = _ellipse(ellipse, style) or _box(box, style)
        size = f"{text.figure(size_nm)} nm" if math.isfinite(size_nm) else f"{text.figure(ellipse[2])} px"
        said = f"{name if name in places else 'loop'} {number}: {size}" + (", cut by the border" if cut else "")
        if link:
            shape = Markup('<a href="{}{}" tabindex="-1">{}<title>{}</title></a>').format(link, number, shape, said)
        parts.append(shape)
    return Markup("").join(parts)


def _labels(labels: pd.DataFrame, box_convention: str) -> Markup:
    boxes = bx.convert(labels[_BOX_COLUMNS].to_numpy(float), "tight", box_convention)
    ellipses = labels[_ELLIPSE_COLUMNS].to_numpy(float)
    return Markup("").join(_ellipse(e) or _box(b) for e, b in zip(ellipses, boxes, strict=True))


def _ellipse(values: np.ndarray, style: str = "") -> Markup:
    if not np.isfinite(values).all():
        return Markup("")
    x, y, major, minor, angle_deg = values
    # SVG turns clockwise as seen; angles here count counter-clockwise.
    turned = Markup(' transform="rotate({} {} {})"').format(_n(-angle_deg), _n(x), _n(y)) if major != minor else ""
    return Markup('<ellipse{} cx="{}" cy="{}" rx="{}" ry="{}"{}/>').format(
        _class(style), _n(x), _n(y), _n(major / 2), _n(minor / 2), turned
    )


def _box(box: np.ndarray, style: str = "") -> Markup:
    x0, y0, x1, y1 = box
    return Markup('<rect{} x="{}" y="{}" width="{}" height="{}"/>').format(
        _class(style), _n(x0), _n(y0), _n(x1 - x0), _n(y1 - y0)
    )


def _class(style: str) -> Markup:
    return Markup(' class="{}"').format(style) if style else Markup("")


def _scale_bar(shape: tuple[int, int], pixel_size_nm: float | None) -> Markup:
    height, width = shape
    nm_per_px = 1.0 if pixel_size_nm is None else pixel_size_nm
    length = bar_length(width * nm_per_px)
    unit = width / 100
    x, y = 3 * unit, height - 4 * unit
    return Markup(
        '<g class="scale"><rect x="{}" y="{}" width="{}" height="{}"/><text x="{}" y="{}" font-size="{}">{}</text></g>'
    ).format(
        _n(x),
        _n(y),
        _n(length / nm_per_px),
        _n(unit),
        _n(x),
        _n(y - 1.2 * unit),
        _n(3.4 * unit),
        f"{length:g} {'px' if pixel_size_nm is None else 'nm'}",
    )


def _n(value: float) -> str:
    value = float(np.clip(np.nan_to_num(value), -1e7, 1e7))
    out = f"{value:.1f}".removesuffix(".0")
    return "0" if out == "-0" else out
