"""A walk through an HDF5 file before its reader follows what it names: an HDF5 file can point to other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

_MAX_OBJECTS = 100_000


def check_hdf5(source: Path | BinaryIO) -> None:
    """Refuse an HDF5 file that takes its data from elsewhere.

    Parameters
    ----------
    source : Path or binary file

    Raises
    ------
    ValueError
        It holds a link to another file, or a data set that is kept in others, or more objects than any file read here.
    """
    import h5py

    with h5py.File(source, "r") as file:
        seen: set[int] = set()
        groups: list[Any] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise ValueError(f"it points to another file ({link.filename[:80]}), which is not followed")
                if not isinstance(link, h5py.HardLink):
                    continue
                part = group[name]
                if isinstance(part, h5py.Dataset) and (part.external or part.is_virtual):
                    raise ValueError("it keeps its data in other files, which are not followed")
                # A group can hold itself.
                address = h5py.h5o.get_info(part.id).addr
                if isinstance(part, h5py.Group) and address not in seen:
                    groups.append(part)
                seen.add(address)
                if len(seen) > _MAX_OBJECTS:
                    raise ValueError(f"it holds more than {_MAX_OBJECTS} objects: it is damaged")
