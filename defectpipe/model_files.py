"""The files of a model's folder, each of which must be the one that its card describes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectpipe.card_check import read_card
from defectpipe.errors import ModelError

CARD = "card.json"


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A folder with a card and the files whose hashes the card holds.

    Attributes
    ----------
    path : Path
    card : dict
        Its values have not been checked yet.
    sha256 : str
        Hash over the card and all files.
    max_bytes : mapping of str to int
        Its files, with the size that none of them exceeds.
    """

    path: Path
    card: dict[str, Any]
    sha256: str
    max_bytes: Mapping[str, int]

    @classmethod
    def open(cls, path: Path, max_bytes: Mapping[str, int]) -> ModelFolder:
        """Read the card and compare every file with it.

        Raises
        ------
        ModelError
            A file is missing, or is not the one that the card describes.
        """
        path = Path(path)
        text, card = read_card(path / CARD)
        total = hashlib.sha256(text)
        folder = cls(path, card, "", max_bytes)
        for name in max_bytes:
            total.update(folder._digest(name).encode())
        return cls(path, card, total.hexdigest(), max_bytes)

    def content(self, name: str) -> bytes:
        """One of the files: what is used is what was hashed, even if the file was changed since `open`."""
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(self.max_bytes[name] + 1)
        except OSError as error:
            raise ModelError(f"{self.path}: {name} is missing ({error}).") from error
        self._digest(name, data)
        return data

    def _digest(self, name: str, data: bytes | None = None) -> str:
        """Hash of one of the files, which must be the card's."""
        place = self.path / name
        try:
            # A pipe or a device would never end.
            if not place.is_file():
                raise ModelError(f"{self.path}: {name} is missing.")
            if data is None and place.stat().st_size > self.max_bytes[name]:
                raise ModelError(f"{place}: larger than {self.max_bytes[name] >> 20} MiB, which no model needs.")
            digest = file_sha256(place) if data is None else hashlib.sha256(data).hexdigest()
        except OSError as error:
            raise ModelError(f"{self.path}: {name} is missing ({error}).") from error
        if digest != self.card["sha256"].get(name):
            raise ModelError(
                f"{self.path}: {name} is not the file that {CARD} describes; restore the model or train it again."
            )
        return digest


@dataclass(frozen=True, eq=False)
class FolderModel:
    """What every kind of model is: a checked folder, and what its card says.

    Attributes
    ----------
    path : Path
        Its folder.
    card : dict
        Contents of ``card.json``.
    sha256 : str
        Hash over all its files.
    files : ModelFolder
    """

    path: Path
    card: dict[str, Any]
    sha256: str
    files: ModelFolder

    @property
    def name(self) -> str:
        """Its name, as the card gives it."""
        return str(self.card.get("name", self.path.name))

    @property
    def working_pixel_size_nm(self) -> float | None:
        """Pixel size to which images are reduced before it sees them; None: they are not."""
        size = self.card.get("working_pixel_size_nm")
        return None if size is None else float(size)


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
