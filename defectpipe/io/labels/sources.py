"""A label file read once: its text, table or JSON, with limits against files that are no labels."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from defectpipe.errors import LabelError

MAX_BYTES = 2**28
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_NOT_FINITE = {"nan", "inf", "-inf", "+inf", "infinity", "-infinity", "∞", "-∞"}


@dataclass(frozen=True)
class Table:
    """A text table with a header.

    Parameters
    ----------
    header : list of str
        Column names, stripped.
    rows : list of (str, dict)
        File and row for messages, and the cells by column name.
    """

    header: list[str]
    rows: list[tuple[str, dict[str, str]]]


class LabelFile:
    """A label file and what it holds, read when asked for and kept.

    Parameters
    ----------
    path : Path
    name : str, optional
        How messages call it; the file's name by default.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.name if name is None else name

    @property
    def suffix(self) -> str:
        """Extension in small letters, with its dot."""
        return self.path.suffix.lower()

    @cached_property
    def data(self) -> bytes:
        """The bytes; LabelError if unreadable or too large."""
        try:
            # A pipe or a device would never end.
            if self.path.exists() and not self.path.is_file():
                raise LabelError(f"{self.name}: it is no regular file.")
            size = self.path.stat().st_size
            if size > MAX_BYTES:
                raise LabelError(f"{self.name}: {size} bytes are too many for a label file.")
            return self.path.read_bytes()
        except OSError as error:
            raise LabelError(f"{self.name}: cannot be read ({error.strerror}).") from error

    @cached_property
    def text(self) -> str:
        """The text; LabelError for binary files."""
        if self.data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            raise LabelError(f"{self.name}: this is an Excel workbook; save it as CSV or tab-separated text.")
        if self.data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return self.data.decode("utf-16", "replace")
        if b"\0" in self.data:
            raise LabelError(f"{self.name}: this is no text file.")
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            # Older spreadsheets; only class names and units can hold such a character.
            return self.data.decode("cp1252", "replace")

    @property
    def is_blank(self) -> bool:
        """Whether a text file holds nothing, which says that the image has no loops."""
        return not self.text.strip()

    @cached_property
    def json(self) -> Any:
        """The JSON value; LabelError if it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise LabelError(f"{self.name}: this is not valid JSON ({error}).") from error

    @cached_property
    def numbers(self) -> list[tuple[str, list[float]]]:
        """Rows of bare numbers, with file and row for messages; blank lines and ``#`` comments left out."""
        rows = []
        for i, line in enumerate(self.text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                where = f"{self.name}, row {i}"
                rows.append((where, [number(cell, where) for cell in re.split(r"[\s,;]+", line.strip())]))
        return rows

    @cached_property
    def table(self) -> Table:
        """The text table: commas, semicolons or tabs, whichever the header has."""
        text = self.text
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max("\t;,", key=head.count)
        try:
            rows = list(_numbered(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)))
        except csv.Error as error:
            raise LabelError(f"{self.name}: this is not a table ({error}).") from error
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        named = []
        for line, cells in rows[1:]:
            where = f"{self.name}, row {line}"
            if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
                raise LabelError(f"{where}: {len(cells)} cells under a header of {len(header)}.")
            named.append((where, dict(zip(header, cells, strict=False))))
        return Table(header, named)


def number(text: str, where: str) -> float:
    """A number with a decimal point or comma; NaN for the words that mean it.

    Raises
    ------
    LabelError
        Anything else, an empty cell too.
    """
    text = text.strip()
    if text.lower() in _NOT_FINITE:
        return math.nan
    if not _NUMBER.fullmatch(text):
        raise LabelError(f"{where}: '{text[:40]}' is not a number.")
    return float(text.replace(",", "."))


def check_decimals(table: Table, columns: Sequence[str], name: str) -> None:
    """Refuse a table whose numbers have decimal points in some cells and commas in others."""
    cells = [row[column] for _, row in table.rows for column in columns]
    if any("." in cell for cell in cells) and any("," in cell for cell in cells):
        raise LabelError(f"{name}: some numbers have a decimal point and some a comma; write all of them one way.")


def safe_name(name: Any, file: str) -> str:
    """An image name from inside a label file as a relative path with ``/``.

    Raises
    ------
    LabelError
        It is no text, absolute, or leaves its folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise LabelError(f"{file}: an image has no file name.")
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]+:", name):
        raise LabelError(f"{file}: the image name '{name[:80]}' is absolute or leaves its folder; make it relative.")
    return parts.as_posix()


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells
