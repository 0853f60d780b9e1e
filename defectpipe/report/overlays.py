"""One picture per image: boxes, ellipses, scores, labels, and a scale bar in nm.

Loops and labels differ in colour and in line, in colours that colour-blind eyes tell apart (Okabe & Ito). What the
legend says stands below the image: nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from defectpipe import boxes as bx
from defectpipe.io.files import write_atomic
from defectpipe.micrograph import Micrograph
from defectpipe.resolution import reader_of_reduced

LOOP_COLOUR = (230, 159, 0)
CANDIDATE_COLOUR = (204, 121, 167)
# Of the second class and those after it; the first has `LOOP_COLOUR`.
CLASS_COLOURS = ((213, 94, 0), (240, 228, 66), (204, 121, 167), (0, 158, 115))
LABEL_COLOURS = ((86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0))

SHORTEST_LONG_SIDE_PX, LONGEST_LONG_SIDE_PX = 768, 2048
_NARROWEST_PX = 480
# Images so many times as large as their picture are reduced by a whole factor as they are read.
_REDUCED_FROM = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHIFT = 4
_JPEG_QUALITY = 88
_MOST_SCORES = 400
_BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]

Labels = pd.DataFrame | Mapping[str, pd.DataFrame]


def draw_overlay(
    micrograph: Micrograph,
    loops: pd.DataFrame,
    labels: Labels | None = None,
    candidates: pd.DataFrame | None = None,
    box_convention: str = "tight",
    classes: Sequence[str] = (),
) -> np.ndarray:
    """Draw what was found over an image.

    Loops have a thin box, their ellipse and the screening score; those on the edge are dashed and dim. Labels are
    drawn as ellipses where their angle is known, else as boxes.

    Parameters
    ----------
    micrograph : Micrograph
    loops : DataFrame
        Rows of ``loops.csv`` of this image and frame; may be empty.
    labels : DataFrame, or mapping of expert to DataFrame, optional
        Labels of this image, boxes tight. An empty table still has its line in the legend.
    candidates : DataFrame, optional
        Candidates, as faint boxes.
    box_convention : str
        Of the loops' boxes; those of labels are converted to it.
    classes : sequence of str
        Names of the classes where there are several: each has its colour.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB. Long side of the image part between 768 and 2048 px; below it a strip with the legend and a scale bar of a
        round length in nm, or in px without calibration.
    """
    scale = picture_scale(micrograph.shape)
    canvas = Canvas(np.ascontiguousarray(np.repeat(grey_picture(micrograph, scale)[..., None], 3, 2)), scale)
    legend: list[tuple[str, tuple[int, int, int]]] = [(counted(len(loops), "loop"), LOOP_COLOUR)]
    if classes:
        counts = loops["class"].value_counts()
        legend = [(f"{counts.get(name, 0)} {name}", class_colour(name, classes)) for name in classes]
    if candidates is not None:
        for box in candidates[_BOX_COLUMNS].to_numpy(float):
            canvas.box(box, CANDIDATE_COLOUR, dim=True)
        legend.append((counted(len(candidates), "candidate"), CANDIDATE_COLOUR))
    experts = {} if labels is None else {"": labels} if isinstance(labels, pd.DataFrame) else dict(labels)
    for k, name in enumerate(sorted(experts)):
        colour = LABEL_COLOURS[k % len(LABEL_COLOURS)]
        # Earlier experts in wider lines, so that those who agree exactly do not hide each other.
        _draw_labels(canvas, experts[name], colour, box_convention, 2 * (len(experts) - 1 - k))
        legend.append((counted(len(experts[name]), "label") + (f" of {name}" if name else ""), colour))
    _draw_loops(canvas, loops, classes)
    n_cut = int(loops["on_edge"].to_numpy(bool).sum())
    if n_cut:
        legend.append((f"dashed: {n_cut} on the edge", dim_colour(LOOP_COLOUR)))
    return with_strip(canvas.pixels, legend, scale, micrograph.pixel_size_nm)


def write_overlay(
    path: Path,
    micrograph: Micrograph,
    loops: pd.DataFrame,
    labels: Labels | None = None,
    candidates: pd.DataFrame | None = None,
    box_convention: str = "tight",
    classes: Sequence[str] = (),
) -> None:
    """Write the picture of `draw_overlay` as JPEG, atomically.

    Parameters
    ----------
    path : Path
        Its extension does not choose the format.
    micrograph, loops, labels, candidates, box_convention, classes
        As in `draw_overlay`.
    """
    picture = draw_overlay(micrograph, loops, labels, candidates, box_convention, classes)
    write_jpeg(path, picture)


def write_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture as JPEG, atomically; the extension of the path does not choose the format."""
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    write_atomic(path, encoded.tobytes())


def grey_picture(micrograph: Micrograph, scale: float) -> np.ndarray:
    """An image for the eye: resized, its contrast stretched. It measures nothing.

    Parameters
    ----------
    micrograph : Micrograph
        Of very large ones only a reduced copy is read.
    scale : float
        Size of the picture over that of the image.

    Returns
    -------
    ndarray of uint8, shape (height, width)
    """
    height, width = micrograph.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    factor = int(1 / scale)
    if factor >= _REDUCED_FROM:
        # An image of this size may not fit into memory.
        whole = (0, height // factor, 0, width // factor)
        grey = reader_of_reduced(micrograph.grey8_region, factor)(*whole)
    else:
        grey = micrograph.grey8()
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    # Weak contrast is common.
    low, high = np.percentile(grey, [0.2, 99.8])
    if high > low:
        grey = np.clip((grey.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return grey


def bar_length(width: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most a quarter of `width` (in the same unit)."""
    target = width / 4
    decade = 10.0 ** np.floor(np.log10(target))
    # A hair of tolerance: a quarter that is round itself must not fall to the next length through rounding.
    return float(max(m * decade for m in (1, 2, 5) if m * decade <= target * (1 + 1e-9)))


class Canvas:
    """RGB pixels, drawn on in the image's own coordinates (pixel centres at integers)."""

    def __init__(self, pixels: np.ndarray, scale: float) -> None:
        self.pixels = pixels
        self.scale = scale
        self.width = max(1, round(max(pixels.shape[:2]) / 900))

    def _points(self, xy: np.ndarray) -> np.ndarray:
        placed = (np.asarray(xy, float) + 0.5) * self.scale - 0.5
        # Far outside, fixed-point coordinates would overflow; the line runs out of the picture all the same.
        placed = np.clip(np.nan_to_num(placed), -30_000, 30_000)
        return np.rint(placed * 2**_SHIFT).astype(np.int32)

    def outline(self, xy: np.ndarray, colour: tuple[int, int, int], width: int, dashed: bool = False) -> None:
        points = self._points(xy)
        if dashed:
            parts = [points[k : k + 4] for k in range(0, len(points) - 1, 6)]
            cv2.polylines(self.pixels, parts, False, colour, width, cv2.LINE_AA, _SHIFT)
        else:
            cv2.polylines(self.pixels, [points], False, colour, width, cv2.LINE_AA, _SHIFT)

    def box(
        self, box: np.ndarray, colour: tuple[int, int, int], dim: bool = False, dashed: bool = False, wider: int = 0
    ) -> None:
        x0, y0, x1, y1 = box
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        if dashed:
            corners = np.concatenate([np.linspace(a, b, 19)[:-1] for a, b in pairwise(corners)])
        self.outline(corners, dim_colour(colour) if dim else colour, 1 if dim else self.width + wider, dashed)

    def ellipse(self, ellipse: np.ndarray, colour: tuple[int, int, int], dashed: bool = False, wider: int = 0) -> None:
        points = bx.ellipse_points(ellipse, 48)
        self.outline(np.concatenate([points, points[:1]]), colour, self.width + 1 + wider, dashed)

    def text(self, x: float, y: float, text: str, colour: tuple[int, int, int]) -> None:
        at = self._points(np.array([x, y])) // 2**_SHIFT
        size = 0.38 * max(1.0, max(self.pixels.shape[:2]) / 1024)
        (w, h), _ = cv2.getTextSize(text, _FONT, size, 1)
        px = int(np.clip(at[0], 0, max(0, self.pixels.shape[1] - w - 1)))
        py = int(np.clip(at[1] - 3, h + 1, self.pixels.shape[0] - 2))
        cv2.putText(self.pixels, text, (px, py), _FONT, size, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(self.pixels, text, (px, py), _FONT, size, colour, 1, cv2.LINE_AA)


def class_colour(name: str, classes: Sequence[str]) -> tuple[int, int, int]:
    """Colour of a class; of one that is not among `classes`, and of the first, that of loops."""
    number = classes.index(name) if name in classes else 0
    return LOOP_COLOUR if number == 0 else CLASS_COLOURS[(number - 1) % len(CLASS_COLOURS)]


def _draw_loops(canvas: Canvas, loops: pd.DataFrame, classes: Sequence[str]) -> None:
    columns = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]
    values = loops[_BOX_COLUMNS + columns].to_numpy(float)
    on_edge = loops["on_edge"].to_numpy(bool)
    colours = [LOOP_COLOUR] * len(loops)
    if classes:
        colours = [class_colour(str(name), classes) for name in loops["class"]]
    for row, cut, colour in zip(values, on_edge, colours, strict=True):
        canvas.box(row[:4], colour, dim=True, dashed=bool(cut))
        if np.isfinite(row[4:]).all():
            canvas.ellipse(row[4:], dim_colour(colour) if cut else colour, dashed=bool(cut))
    if len(loops) <= _MOST_SCORES:
        scores = loops["screening_score"].to_numpy(float)
        for row, score, cut, colour in zip(values, scores, on_edge, colours, strict=True):
            if np.isfinite(score) and not cut:
                canvas.text(row[0], row[1], f"{score:.2f}", colour)


def _draw_labels(
    canvas: Canvas, labels: pd.DataFrame, colour: tuple[int, int, int], box_convention: str, wider: int
) -> None:
    ellipses = labels[["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]].to_numpy(float)
    boxes = bx.convert(labels[_BOX_COLUMNS].to_numpy(float), "tight", box_convention)
    for ellipse, box in zip(ellipses, boxes, strict=True):
        if np.isfinite(ellipse).all():
            canvas.ellipse(ellipse, colour, wider=wider)
        else:
            canvas.box(box, colour, wider=wider)


def picture_scale(shape: tuple[int, int]) -> float:
    """Size of a picture over that of its image."""
    return float(np.clip(max(shape), SHORTEST_LONG_SIDE_PX, LONGEST_LONG_SIDE_PX)) / max(shape)


def with_strip(
    picture: np.ndarray, legend: list[tuple[str, tuple[int, int, int]]], scale: float, pixel_size_nm: float | None
) -> np.ndarray:
    """The picture with a strip below it: a scale bar of a round length, and the legend."""
    width = max(picture.shape[1], _NARROWEST_PX)
    size = 0.45 * max(1.0, width / 1024)
    line = round(40 * size) + 8
    nm_per_drawn_px = (1.0 if pixel_size_nm is None else pixel_size_nm) / scale
    length = bar_length(picture.shape[1] * nm_per_drawn_px)
    bar_px = max(1, round(length / nm_per_drawn_px))
    caption = f"{length:g} {'px' if pixel_size_nm is None else 'nm'}"

    places: list[tuple[int, int]] = []
    x, row = 10 + bar_px + 10 + _text_width(caption, size) + 30, 0
    for text, _ in legend:
        needed = 24 + _text_width(text, size)
        if x + needed > width - 6 and x > 10:
            x, row = 10, row + 1
        places.append((x, row))
        x += needed + 24
    strip = np.zeros((line * (row + 1), width, 3), np.uint8)
    middle = line // 2
    cv2.rectangle(strip, (10, middle - 3), (10 + bar_px - 1, middle + 2), (255, 255, 255), -1)
    down = round(10 * size)
    cv2.putText(strip, caption, (20 + bar_px, middle + down), _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
    for (text, colour), (left, of_row) in zip(legend, places, strict=True):
        y = of_row * line + middle
        cv2.line(strip, (left, y), (left + 16, y), colour, 3, cv2.LINE_AA)
        cv2.putText(strip, text, (left + 24, y + down), _FONT, size, colour, 1, cv2.LINE_AA)
    right = np.full((picture.shape[0], width - picture.shape[1], 3), 48, np.uint8)
    return np.concatenate([np.concatenate([picture, right], 1), strip], 0)


def with_lines(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A picture with sentences below it, broken where they are too long."""
    size = 0.45 * max(1.0, picture.shape[1] / 1024)
    height = round(34 * size) + 6
    broken = []
    for line in lines:
        rest = ""
        for word in line.split():
            if rest and _text_width(f"{rest} {word}", size) > picture.shape[1] - 20:
                broken.append(rest)
                word = f"   {word}"
                rest = ""
            rest = f"{rest} {word}" if rest else word
        broken.append(rest)
    strip = np.zeros((height * len(broken) + (8 if broken else 0), picture.shape[1], 3), np.uint8)
    for k, line in enumerate(broken):
        # Hershey fonts have no signs beyond ASCII
        plain = line.replace("–", "-").replace("×", "x").encode("ascii", "replace").decode()
        cv2.putText(strip, plain, (10, height * (k + 1) - 6), _FONT, size, (230, 230, 230), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip], 0)


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, _FONT, size, 1)[0][0])


def counted(n: int, noun: str) -> str:
    """A number of things in words."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def dim_colour(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour for what matters less."""
    return (colour[0] * 7 // 10, colour[1] * 7 // 10, colour[2] * 7 // 10)
