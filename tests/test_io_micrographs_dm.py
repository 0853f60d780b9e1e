"""The walk through the tags of a DM file: whole ones pass, counts that do not fit are refused at once."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.micrographs.dm import check_dm


def value(*layout: int, data: bytes = b"", version: int = 3) -> bytes:
    word = "I" if version == 3 else "Q"
    return b"%%%%" + struct.pack(f">{word}{len(layout)}{word}", len(layout), *layout) + data


def tag(name: bytes, content: bytes, kind: int = 21, version: int = 3) -> bytes:
    length = b"" if version == 3 else struct.pack(">Q", len(content))
    return struct.pack(">BH", kind, len(name)) + name + length + content


def group(*tags: bytes, n_tags: int | None = None, version: int = 3) -> bytes:
    word = "I" if version == 3 else "Q"
    return b"\0\1" + struct.pack(f">{word}", len(tags) if n_tags is None else n_tags) + b"".join(tags)


def write(path: Path, root: bytes, version: int = 3) -> Path:
    word = "I" if version == 3 else "Q"
    path.write_bytes(struct.pack(f">I{word}I", version, len(root), 1) + root + bytes(8))
    return path


@pytest.mark.parametrize("version", [3, 4])
def test_a_whole_tree_of_every_kind_of_value_passes(tmp_path: Path, version: int) -> None:
    tags = [
        tag(b"number", value(7, data=bytes(8), version=version), version=version),
        tag(b"pair", value(15, 0, 2, 0, 3, 0, 6, data=bytes(8), version=version), version=version),
        tag(b"pixels", value(20, 4, 5, data=bytes(10), version=version), version=version),
        tag(b"pairs", value(20, 15, 0, 2, 0, 2, 0, 7, 3, data=bytes(30), version=version), version=version),
        tag(b"", group(version=version), kind=20, version=version),
    ]
    nested = tag(b"inner", group(*tags, version=version), kind=20, version=version)
    path = write(tmp_path / "a.dm3", group(*tags, nested, version=version), version)
    check_dm(path)
    # The walk went to the end: one byte less than the tree is an error.
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MicrographError, match="cut short or damaged"):
        check_dm(path)


@pytest.mark.parametrize(
    "root",
    [
        group(tag(b"pixels", value(20, 4, 2**31, data=bytes(10)))),
        group(tag(b"pairs", value(20, 15, 0, 2**31, 0, 2, 3, data=bytes(30)))),
        group(tag(b"pair", value(15, 0, 2**32 - 1, 0, 3, data=bytes(8)))),
        group(tag(b"words", b"%%%%" + struct.pack(">I", 2**31))),
        group(tag(b"number", b"????" + struct.pack(">2I", 1, 3) + bytes(4))),
        group(tag(b"number", value(3, data=bytes(4))), n_tags=2**31 + 1) + b"\x15\xff\xff",
    ],
    ids=["array", "array of structures", "structure", "words", "no delimiter", "tags"],
)
def test_counts_that_do_not_fit_are_refused(tmp_path: Path, root: bytes) -> None:
    with pytest.raises(MicrographError, match="DM file is cut short or damaged"):
        check_dm(write(tmp_path / "a.dm3", root))


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    root = group()
    for _ in range(2000):
        root = group(tag(b"", root, kind=20))
    with pytest.raises(MicrographError, match="DM file is cut short or damaged"):
        check_dm(write(tmp_path / "a.dm3", root))


def test_a_kind_of_value_that_the_walk_does_not_know_is_left_to_the_reader(tmp_path: Path) -> None:
    check_dm(write(tmp_path / "a.dm3", group(tag(b"text", value(18, 4, data=bytes(8))), n_tags=3)))


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MicrographError, match=r"no DM3 or DM4 file \(version 5\)"):
        check_dm(write(tmp_path / "a.dm4", group(), version=5))


@pytest.mark.real
def test_a_damaged_count_in_a_real_file_does_not_keep_the_reader_busy(data_dir: Path, tmp_path: Path) -> None:
    data = bytearray((data_dir / "formats" / "mit-nist" / "DMReader_SI-HAADF.dm3").read_bytes())
    structure = data.index(b"%%%%" + struct.pack(">4I", 7, 15, 0, 2)) + 16
    data[structure : structure + 4] = struct.pack(">I", 2**31)
    path = tmp_path / "a.dm3"
    path.write_bytes(data)
    with pytest.raises(MicrographError, match=r"^a\.dm3: the DM file is cut short or damaged"):
        read_micrographs(path)
