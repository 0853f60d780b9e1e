"""A walk through the tags of a DM3 or DM4 file, before the reader trusts any count in it.

The reader takes counts as they stand: one damaged byte can keep it busy for hours. Gatan gives no description of the
layout; it is the one that C. Boothroyd published for DM3 and DM4.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from defectpipe.errors import MicrographError

_BYTES_OF_TYPE = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
_STRUCT, _ARRAY = 15, 20
_GROUP, _DATA = 20, 21
_MAX_DEPTH = 64


class _UnknownLayoutError(Exception):
    """A kind of tag that this walk does not know: it ends there, and the reader decides."""


def check_dm(path: Path) -> None:
    """Refuse a DM file whose tags do not fit in it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MicrographError
        It is no DM3 or DM4, or its tags point beyond its end: cut short or damaged.
    """
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            version = struct.unpack_from(">I", data)[0]
            if version not in (3, 4):
                raise MicrographError(f"it is no DM3 or DM4 file (version {version}).")
            # Sizes and counts have 4 bytes in DM3, 8 in DM4.
            word = "I" if version == 3 else "Q"
            _walk_group(data, 8 + struct.calcsize(word), f">{word}", 0)
        except _UnknownLayoutError:
            return
        except (struct.error, OverflowError) as error:
            raise MicrographError("the DM file is cut short or damaged: its tags do not fit in it.") from error


def _walk_group(data: mmap.mmap, position: int, word: str, depth: int) -> int:
    """The position behind the group of tags that starts at `position`."""
    if depth > _MAX_DEPTH:
        raise struct.error
    n_tags = struct.unpack_from(word, data, position + 2)[0]
    position += 2 + struct.calcsize(word)
    for _ in range(n_tags):
        kind, name_bytes = struct.unpack_from(">BH", data, position)
        position += 3 + name_bytes
        if word == ">Q":
            position += 8
        if kind == _GROUP:
            position = _walk_group(data, position, word, depth + 1)
        elif kind == _DATA:
            position = _behind_value(data, position, word)
        else:
            raise _UnknownLayoutError
        if position > len(data):
            raise struct.error
    return position


def _behind_value(data: mmap.mmap, position: int, word: str) -> int:
    if data[position : position + 4] != b"%%%%":
        raise struct.error
    size = struct.calcsize(word)
    n_words = struct.unpack_from(word, data, position + 4)[0]
    position += 4 + size
    if position + n_words * size > len(data):
        raise struct.error
    layout = struct.unpack_from(f">{n_words}{word[1:]}", data, position)
    position += n_words * size
    if layout[:1] == (_ARRAY,):
        return position + _bytes_of(layout[1:-1]) * layout[-1]
    return position + _bytes_of(layout)


def _bytes_of(layout: tuple[int, ...]) -> int:
    """Bytes of a number, or of a structure ``15, name length, fields, (name length, type) ...``."""
    if len(layout) == 1 and layout[0] in _BYTES_OF_TYPE:
        return _BYTES_OF_TYPE[layout[0]]
    if layout[:1] == (_STRUCT,) and len(layout) >= 3:
        types = layout[4::2]
        if len(layout) != 3 + 2 * layout[2]:
            raise struct.error
        if all(kind in _BYTES_OF_TYPE for kind in types):
            return sum(_BYTES_OF_TYPE[kind] for kind in types)
    raise _UnknownLayoutError
