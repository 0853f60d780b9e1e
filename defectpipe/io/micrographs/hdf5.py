"""A walk through an HDF5 file (EMD), before the reader follows what it names: an HDF5 file can point to other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defectpipe.errors import MicrographError

_MAX_OBJECTS = 100_000


def check_hdf5(path: Path) -> None:
    """Refuse an HDF5 file that takes its data from elsewhere.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MicrographError
        It holds a link to another file, or a data set that is kept in others, or more objects than a microscope writes.
    """
    import h5py

    with h5py.File(path, "r") as file:
        seen: set[int] = set()
        groups: list[Any] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise MicrographError(f"it points to another file ({link.filename[:80]}), which is not followed.")
                if not isinstance(link, h5py.HardLink):
                    continue
                part = group[name]
                if isinstance(part, h5py.Dataset) and (part.external or part.is_virtual):
                    raise MicrographError("it keeps its data in other files, which are not followed.")
                # A group can hold itself.
                address = h5py.h5o.get_info(part.id).addr
                if isinstance(part, h5py.Group) and address not in seen:
                    groups.append(part)
                seen.add(address)
                if len(seen) > _MAX_OBJECTS:
                    raise MicrographError(f"it holds more than {_MAX_OBJECTS} objects: it is damaged.")
