"""Label files that hold many images: their entries, and which image each entry is of."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import Outline


@dataclass
class Entry:
    """What a file says about one image.

    Parameters
    ----------
    outlines : list of Outline
    shape : tuple of int or None
        Height and width that the file states.
    error : str
        Why this image's labels cannot be used; empty if they can.
    """

    outlines: list[Outline] = field(default_factory=list)
    shape: tuple[int, int] | None = None
    error: str = ""

    def checked(self, where: str, shape: tuple[int, int]) -> list[Outline]:
        """The outlines, for an image of `shape` (height, width).

        Raises
        ------
        LabelError
            The entry is broken, or of an image of another size.
        """
        if self.error:
            raise LabelError(self.error)
        if self.shape is not None and self.shape != shape:
            raise LabelError(
                f"{where}: made for {self.shape[1]} x {self.shape[0]} px, the image has {shape[1]} x {shape[0]} px."
            )
        return self.outlines


def match_entries(names: Sequence[str], images: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Which image each entry of a label file is of.

    The same relative path; else the one image whose path ends with the entry's name, or the other way round, by whole
    folder names. Upper and lower case differ; the two Unicode spellings of an accent do not.

    Returns
    -------
    matched : dict
        Entry name to image.
    errors : dict
        Entry name to why it cannot be told.
    """
    by_path = {_normal(image): image for image in images}
    matched: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name in names:
        plain = _normal(name)
        exact = by_path.get(plain)
        fits = [exact] if exact else [i for p, i in by_path.items() if _ends_with(p, plain) or _ends_with(plain, p)]
        if len(fits) > 1:
            errors[name] = f"'{name}' could be {' or '.join(sorted(fits)[:3])}; give its relative path."
        elif fits and fits[0] in matched.values():
            errors[name] = f"'{name}' is of the image {fits[0]}, which has an entry already."
        elif fits:
            matched[name] = fits[0]
    return matched, errors


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _ends_with(path: str, tail: str) -> bool:
    return path.endswith(f"/{tail}")
