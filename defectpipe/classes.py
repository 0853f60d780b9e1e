"""The classes of defects that a model knows, and the diameter by which each is usually stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.errors import LabelError

LOOP_CLASS = "loop"
"""The class of a model that knows but one, and of a loop of which nothing else is said."""

MAJOR_AXIS, EQUIVALENT = "major_axis", "equivalent"
DIAMETERS = {MAJOR_AXIS: "diameter", EQUIVALENT: "equivalent_diameter"}
"""By the name of a convention the column that holds it, without its unit."""

RIM, EDGE = "rim", "edge"
CONTOURS = (RIM, EDGE)

MOST_CLASSES, LONGEST_NAME = 20, 60


@dataclass(frozen=True)
class DefectClass:
    """One class.

    Parameters
    ----------
    name : str
    diameter : str
        By which diameter defects of this class are stated: ``major_axis`` of the ellipse (loops), or ``equivalent``,
        that of the circle of the same area (black dots, cavities).
    contour : str
        What is measured: the ``rim``, its darkest or brightest line (open loops), or the ``edge`` of a body that is
        dark or bright all over, where the grey value is half way to its surroundings'.
    labels : tuple of str
        Further names that label files have for it.
    """

    name: str = LOOP_CLASS
    diameter: str = MAJOR_AXIS
    contour: str = RIM
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class DefectClasses:
    """The classes of a model, in the order of its answers."""

    each: tuple[DefectClass, ...] = (DefectClass(),)

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, Any]] | None) -> DefectClasses:
        """From what a card or a recipe says; nothing said: one class of loops.

        Parameters
        ----------
        values : mapping of str to mapping, or None
            By name ``diameter``, ``contour`` and ``labels`` (see `DefectClass`), any of which may be left out.

        Raises
        ------
        ValueError
            What is said makes no sense; the sentence says what.
        """
        if values is None or (isinstance(values, Mapping) and not values):
            return cls()
        if not isinstance(values, Mapping) or len(values) > MOST_CLASSES:
            raise ValueError(f"'classes' holds names, each with its values, and at most {MOST_CLASSES}")
        each = tuple(_one(name, value) for name, value in values.items())
        known = [label for one in each for label in (one.name, *one.labels)]
        if twice := sorted({label for label in known if known.count(label) > 1}):
            raise ValueError(f"'classes' names '{twice[0]}' twice")
        return cls(each)

    def to_card(self) -> dict[str, dict[str, Any]]:
        """What `of` takes, as plain JSON values."""
        return {
            one.name: {"diameter": one.diameter, "contour": one.contour}
            | ({"labels": list(one.labels)} if one.labels else {})
            for one in self.each
        }

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return [one.name for one in self.each]

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.each) > 1

    @property
    def told_apart(self) -> list[str]:
        """Names of the classes that have to be told apart: none where there is but one."""
        return self.names if self.several else []

    @property
    def n_logits(self) -> int:
        """Answers of a screener that tell the class: none where there is but one."""
        return len(self.told_apart)

    def numbers(self, labels: pd.DataFrame, where: str = "the labels") -> np.ndarray:
        """Class of each label.

        Parameters
        ----------
        labels : DataFrame
            Column ``label``: names as label files give them. Where there is one class, every label is of it, whatever
            its name.
        where : str
            For the message.

        Returns
        -------
        ndarray of int, shape (n,)

        Raises
        ------
        LabelError
            A name is of no class.
        """
        if not self.several:
            return np.zeros(len(labels), np.int64)
        number = self._number_of
        if unknown := sorted({str(label) for label in labels["label"] if label not in number}):
            what = f"'{unknown[0]}' is" if unknown[0] else "a label without a class is"
            raise LabelError(
                f"{where}: {what} none of {', '.join(self.names)}, nor a further name of one of them; "
                "the recipe's classes name the class of every label."
            )
        return np.array([number[label] for label in labels["label"]], np.int64)

    def known(self, labels: pd.Series) -> pd.Series:
        """Name of each label's class; empty where a label is of none."""
        if not self.several:
            return pd.Series(self.names[0], index=labels.index, dtype="str")
        number = self._number_of
        names = [self.names[number[label]] if label in number else "" for label in labels]
        return pd.Series(names, index=labels.index, dtype="str")

    @property
    def _number_of(self) -> dict[str, int]:
        return {label: number for number, one in enumerate(self.each) for label in (one.name, *one.labels)}


def _one(name: Any, value: Any) -> DefectClass:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"'classes' holds the name '{str(name)[:LONGEST_NAME]}', which is none")
    if not isinstance(value, Mapping) or set(value) - {"diameter", "contour", "labels"}:
        raise ValueError(f"'classes.{name}' holds something other than 'diameter', 'contour' and 'labels'")
    diameter, contour, labels = value.get("diameter", MAJOR_AXIS), value.get("contour", RIM), value.get("labels", ())
    for said, of, known in (("diameter", diameter, DIAMETERS), ("contour", contour, CONTOURS)):
        if not isinstance(of, str) or of not in known:
            raise ValueError(f"'classes.{name}.{said}' is none of {', '.join(known)}")
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"'classes.{name}.labels' is no list of names")
    return DefectClass(name, diameter, contour, tuple(labels))
