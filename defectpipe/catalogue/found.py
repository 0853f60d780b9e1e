"""What a search has found: a DataFrame that a notebook shows with thumbnails."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from defectpipe.catalogue.folders import locate
from defectpipe.errors import DefectpipeError
from defectpipe.io.folder import shown
from defectpipe.io.micrographs import read_micrographs
from defectpipe.micrograph import Micrograph
from defectpipe.resolution import reader_of_reduced

THUMBNAIL_PX = 144
MOST_THUMBNAILS = 24
_JPEG_QUALITY = 70
_IN_FILE_ABOVE_PX = 2**24
_SHOWN = ("likeness", "class", "diameter_nm", "volume_nm3", "origin", "condition", "pixel_size_nm", "focus_score")
_SHOWN_OF_RUN = ("n_loops", "mean_diameter_nm")


class Found(pd.DataFrame):
    """Rows of a search. ``path`` is where the image should be; empty where its name leads out of its folder."""

    @property
    def _constructor(self) -> type[Found]:
        return Found

    @classmethod
    def made_of(cls, rows: pd.DataFrame) -> Found:
        """Rows of a catalogue with the paths of their images."""
        paths = [_path(folder, image) for folder, image in zip(rows["images_dir"], rows["image"], strict=True)]
        return cls(rows.assign(path=pd.Series(paths, rows.index, dtype=object)))

    def file(self, row: int) -> Path | None:
        """The image file of a row, by its place; None: it is gone, or its name leads out of its folder."""
        found = self.iloc[row]
        return locate(Path(found["images_dir"]), str(found["image"]))

    def micrograph(self, row: int) -> Micrograph:
        """The image of a row, by its place.

        Raises
        ------
        DefectpipeError
            It is no longer there, or cannot be read.
        """
        found, path = self.iloc[row], self.file(row)
        if path is None:
            raise DefectpipeError(f"{found['image']}: its file is no longer in its place.")
        frames = read_micrographs(
            path, image=found["image"], colour="luminance", in_file_above_px=_IN_FILE_ABOVE_PX, data_bar="keep"
        )
        return frames[int(found["frame"])]

    def show(self, most: int = MOST_THUMBNAILS) -> Gallery:
        """Thumbnails of the first rows, with their figures."""
        return Gallery(self, most)

    def _repr_html_(self) -> str:
        return self.show()._repr_html_() if {"images_dir", "image", "frame"} <= set(self.columns) else _plain(self)


class Gallery:
    """Thumbnails for a notebook; every text in it is escaped, and nothing in it is loaded from anywhere."""

    def __init__(self, found: Found, most: int) -> None:
        self._found = found
        self._most = most

    def _repr_html_(self) -> str:
        n = min(self._most, len(self._found))
        more = f"; the first {n} are shown" if n < len(self._found) else ""
        cards = "".join(_card(self._found, row) for row in range(n))
        return (
            f"<p>{len(self._found)} found{more}</p>"
            f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start">{cards}</div>'
        )


def thumbnail(micrograph: Micrograph) -> bytes:
    """A JPEG of at most `THUMBNAIL_PX` a side."""
    height, width = micrograph.shape
    factor = max(1, max(height, width) // (2 * THUMBNAIL_PX))
    grey = reader_of_reduced(micrograph.grey8_region, factor)(0, height // factor, 0, width // factor)
    scale = THUMBNAIL_PX / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())


def _card(found: Found, row: int) -> str:
    try:
        picture = base64.b64encode(thumbnail(found.micrograph(row))).decode("ascii")
        image = f'<img alt="" style="display:block;max-width:{THUMBNAIL_PX}px" src="data:image/jpeg;base64,{picture}">'
    except (DefectpipeError, IndexError):
        image = f'<div style="width:{THUMBNAIL_PX}px;padding:2em 0;text-align:center;background:#eee">no picture</div>'
    values = found.iloc[row]
    lines = [f"<b>{_escaped(values['image'])}</b>" + (f" [{int(values['frame'])}]" if values["frame"] else "")]
    for name in (*_SHOWN, *_SHOWN_OF_RUN):
        if name in values.index and not pd.isna(values[name]) and values[name] != "":
            value = values[name]
            text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
            lines.append(f"{_escaped(name)} {_escaped(text)}")
    style = f"width:{THUMBNAIL_PX}px;font:11px/1.35 sans-serif;overflow-wrap:anywhere"
    return f'<div style="{style}">{image}{"<br>".join(lines)}</div>'


def _escaped(text: Any) -> str:
    return html.escape(shown(str(text)), quote=True)


def _plain(table: pd.DataFrame) -> str:
    return str(pd.DataFrame(table)._repr_html_())  # type: ignore[operator]


def _path(folder: str, image: str) -> str:
    leaves = image.startswith("/") or ".." in image.split("/")
    return "" if leaves else f"{folder}/{image}"
