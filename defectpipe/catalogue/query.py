"""From what somebody looks for to SQL: values are always bound, and columns are always those of the catalogue."""

from __future__ import annotations

import difflib
import numbers
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from defectpipe.catalogue.schema import INTERNAL, OF_IMAGE, OF_MANY, quoted
from defectpipe.errors import CatalogueError

Condition = Any
"""A value, a list of values, or a (low, high) pair of numbers, each None where it is open."""

CONDITION_NAMES = re.compile(r"(?:^|,)\s*([\w.]+)\s*=")
"""Names in a line of conditions."""

Columns = Mapping[str, Mapping[str, str]]
"""Types of the columns of each table."""


def searchable(text: str) -> str:
    """Text as it is stored and looked for: in one case, and composed in one way."""
    return unicodedata.normalize("NFC", text).casefold()


@dataclass
class Query:
    """Conditions on images, and on the loops or objects that they hold.

    Attributes
    ----------
    of : str
        ``images``, ``loops`` or ``objects``: what a row of the answer is.
    columns : mapping
        What the catalogue holds.
    """

    of: str
    columns: Columns
    _conditions: list[str] = field(default_factory=list)
    _of_many: dict[str, list[str]] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.of not in ("images", *OF_MANY):
            raise CatalogueError(f"A search is for images, loops or objects, not for {self.of!r}.")

    def words(self, text: str) -> None:
        """Every word must be in an image's name, folder, metadata or remarks, in whatever case."""
        for word in searchable(text).split():
            bound = self._bind(word)
            folders = f"SELECT folder_id FROM folders WHERE contains(words, {bound})"
            self._conditions.append(f"(contains(images.words, {bound}) OR images.folder_id IN ({folders}))")

    def class_name(self, name: str) -> None:
        """An image of this kind, condition or sample, or one that holds a loop or object of this class."""
        bound = f"lower({self._bind(name)})"
        if self.of in OF_MANY:
            self._conditions.append(f'lower({self.of}."class") = {bound}')
            return
        own = [f"lower({column}) = {bound}" for column in ("images.kind", "images.condition", "acquisition.sample")]
        held = [
            f'images.image_id IN (SELECT image_id FROM {many} WHERE lower({many}."class") = {bound})'
            for many in OF_MANY
        ]
        self._conditions.append(f"({' OR '.join([*own, *held])})")

    def where(self, name: str, condition: Condition) -> None:
        """A condition on one column, such as ``mean_diameter_nm`` or ``loops.diameter_nm``.

        Conditions on loops (or objects) of a search for images all hold for one and the same loop.
        """
        table, column = self.resolve(name)
        text = self._compare(name, f"{table}.{quoted(column)}", self.columns[table][column], condition)
        if table in OF_MANY and table != self.of:
            self._of_many.setdefault(table, []).append(text)
        else:
            self._conditions.append(text)

    def without(self, sha256: str) -> None:
        """Leave an image out, wherever it is."""
        self._conditions.append(f"(images.sha256 IS NULL OR images.sha256 <> {self._bind(sha256)})")

    def like(self, vector: Sequence[float], descriptor: str) -> str:
        """Likeness to an embedding, as SQL; only images with one of that descriptor are left."""
        self._conditions.append(f"embeddings.descriptor = {self._bind(descriptor)}")
        size = len(vector)
        return f"array_inner_product(embeddings.vector, {self._bind(list(map(float, vector)))}::FLOAT[{size}])"

    def resolve(self, name: str) -> tuple[str, str]:
        """Table and column that a name means.

        Raises
        ------
        CatalogueError
            No column is called so, or columns of two tables are.
        """
        given_table, _, column = name.rpartition(".")
        own = [self.of] if self.of in OF_MANY else []
        order = [*own, *OF_IMAGE, "folders", *(many for many in OF_MANY if many not in own)]
        found = []
        for table in [given_table] if given_table else order:
            for known in self.columns.get(table, {}):
                if known.casefold() == column.casefold() and known not in INTERNAL:
                    found.append((table, known))
        # What is of an image comes before what it holds; between loops and objects there is no order.
        found = found[:1] if found and (found[0][0] not in OF_MANY or found[0][0] == self.of) else found
        if not found:
            names = {c for table in order for c in self.columns.get(table, {}) if c not in INTERNAL}
            near = difflib.get_close_matches(column, sorted(names), 3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise CatalogueError(f"{name}: the catalogue has no such column{hint}")
        if len(found) > 1:
            tables = " or ".join(f"{table}.{known}" for table, known in found)
            raise CatalogueError(f"{name}: say which is meant: {tables}.")
        return found[0]

    def source(self, *, with_embeddings: bool = False) -> str:
        """The joined tables with the conditions, as SQL from FROM on."""
        tables = "images JOIN folders USING (folder_id)"
        for table in ("acquisition", "focus"):
            tables += f" JOIN {table} ON {table}.image_id = images.image_id"
        if self.of in OF_MANY:
            tables += f" JOIN {self.of} ON {self.of}.image_id = images.image_id"
        if with_embeddings:
            tables += " JOIN embeddings ON embeddings.image_id = images.image_id"
        held = [
            f"images.image_id IN (SELECT image_id FROM {table} WHERE {' AND '.join(conditions)})"
            for table, conditions in self._of_many.items()
        ]
        conditions = [*self._conditions, *held]
        return f"FROM {tables}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")

    @property
    def values(self) -> dict[str, Any]:
        """What is bound, by name."""
        return dict(self._values)

    def _compare(self, name: str, column: str, kind: str, condition: Condition) -> str:
        if condition is None:
            return f"{column} IS NULL"
        if isinstance(condition, tuple):
            return self._range(name, column, kind, condition)
        if isinstance(condition, str):
            if kind != "VARCHAR":
                raise CatalogueError(f"{name}: this column holds no text, so not {condition!r}.")
            return f"lower({column}) = lower({self._bind(condition)})"
        if isinstance(condition, bool | np.bool_):
            return self._flag(name, column, kind, bool(condition))
        if isinstance(condition, numbers.Real):
            if kind == "VARCHAR":
                raise CatalogueError(f"{name}: this column holds text, so not {condition!r}.")
            return f"{column}::DOUBLE = {self._bind(float(condition))}"
        if isinstance(condition, Sequence) and len(condition):
            return f"({' OR '.join(self._compare(name, column, kind, one) for one in condition)})"
        raise CatalogueError(f"{name}: a condition is a value, a list of values or a pair (low, high): {condition!r}.")

    def _flag(self, name: str, column: str, kind: str, condition: bool) -> str:
        if kind == "VARCHAR":
            raise CatalogueError(f"{name}: this column is not true or false.")
        # Flags that this version does not know are kept as 0 and 1.
        return f"{column}::DOUBLE = {self._bind(float(condition))}"

    def _range(self, name: str, column: str, kind: str, condition: tuple[Any, ...]) -> str:
        if len(condition) != 2 or not all(c is None or isinstance(c, numbers.Real) for c in condition):
            raise CatalogueError(f"{name}: a range is two numbers (low, high), each None where it is open.")
        if kind in ("VARCHAR", "BOOLEAN"):
            raise CatalogueError(f"{name}: this column holds no numbers, so no range of them.")
        low, high = condition
        sides = [f"{column} >= {self._bind(float(low))}"] if low is not None else []
        sides += [f"{column} <= {self._bind(float(high))}"] if high is not None else []
        return f"({' AND '.join(sides) or f'{column} IS NOT NULL'})"

    def _bind(self, value: Any) -> str:
        name = f"v{len(self._values)}"
        self._values[name] = value
        return f"${name}"


def parse_conditions(text: str, types: Mapping[str, str]) -> dict[str, Condition]:
    """Conditions from a line such as ``mean_diameter_nm=5..20, origin=simulated, loops.class=open|closed``.

    Parameters
    ----------
    text : str
        ``NAME=LOW..HIGH`` (either may be left out), ``NAME=VALUE``, ``NAME=VALUE|VALUE``, ``NAME=`` (not known); with
        commas between.
    types : mapping
        Type of each name that occurs: ``text``, ``number`` or ``flag``.

    Raises
    ------
    CatalogueError
        It cannot be understood.
    """
    found: dict[str, Condition] = {}
    for part in filter(None, (part.strip() for part in re.split(r",(?=\s*[\w.]+\s*=)", text))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise CatalogueError(f"{part}: a condition is NAME=VALUE, NAME=LOW..HIGH or NAME=VALUE|VALUE.")
        kind = types.get(name, "text")
        low, dots, high = value.partition("..")
        if dots and kind == "number":
            found[name] = (_number(part, low), _number(part, high))
        else:
            values = [_value(part, one.strip(), kind) for one in value.split("|")]
            found[name] = values if len(values) > 1 else values[0]
    return found


def _value(part: str, text: str, kind: str) -> Any:
    if not text:
        return None
    if kind == "flag":
        if text.lower() not in ("true", "false"):
            raise CatalogueError(f"{part}: this column is true or false.")
        return text.lower() == "true"
    return _number(part, text) if kind == "number" else text


def _number(part: str, text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError as error:
        raise CatalogueError(f"{part}: {text.strip()!r} is no number.") from error
