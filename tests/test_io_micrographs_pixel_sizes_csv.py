"""The table ``pixel_sizes.csv``: what may stand in it, and which image a line means."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs import read_pixel_sizes
from defectpipe.io.micrographs.pixel_sizes import given_size


@pytest.mark.parametrize(
    "text",
    [
        "image,pixel_size_nm\na.tif,0.4\nsub/b c.tif,1.5\nunknown.tif,\n",
        "\ufeffimage,pixel_size_nm\r\na.tif,0.4\r\nsub/b c.tif,1.5\r\n",
        "image;pixel_size_nm\na.tif;0,4\nsub\\b c.tif;1,5\n",
        'note,pixel_size_nm,image\n"x, y",0.4,"a.tif"\n,1.5,./sub/b c.tif\n\n',
        "image,pixel_size_nm\na.tif,0.4\na.tif,0.40\nsub/b c.tif,15e-1\n",
    ],
)
def test_table_of_pixel_sizes(tmp_path: Path, text: str) -> None:
    (tmp_path / "pixel_sizes.csv").write_text(text, encoding="utf-8", newline="")
    assert read_pixel_sizes(tmp_path) == {"a.tif": 0.4, "sub/b c.tif": 1.5}


def test_without_a_table_nothing_is_given(tmp_path: Path) -> None:
    assert read_pixel_sizes(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must name the columns"),
        ("a.tif,0.4\n", "must name the columns"),
        ("image,size\na.tif,0.4\n", "must name the columns"),
        ("image,pixel_size_nm\na.tif,0.4 nm\n", "line 2: '0.4 nm' is not a pixel size"),
        ("image,pixel_size_nm\na.tif,0.4\nb.tif,-1\n", "line 3: '-1' is not a pixel size"),
        ("image,pixel_size_nm\na.tif,nan\n", "'nan' is not a pixel size"),
        ("image,pixel_size_nm\na.tif,0\n", "'0' is not a pixel size"),
        ("image,pixel_size_nm\na.tif,0.4\na.tif,0.5\n", "line 3: 'a.tif' has two different pixel sizes"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "pixel_sizes.csv").write_text(text)
    with pytest.raises(MicrographError, match=rf"pixel_sizes\.csv.*{reason}"):
        read_pixel_sizes(tmp_path)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pixel_sizes.csv").write_bytes(struct.pack("<4d", 1.1, 2.2, 3.3, 4.4) + b"\xff\xfe")
    with pytest.raises(MicrographError, match=r"cannot be read as UTF-8"):
        read_pixel_sizes(tmp_path)


def test_a_relative_path_goes_before_a_file_name() -> None:
    table = {"a.tif": 1.0, "x/a.tif": 2.0, "x/y/a.tif": 3.0, "e\u0301.tif": 4.0}
    assert [given_size(image, table) for image in ("a.tif", "x/a.tif", "x/y/a.tif", "z/x/a.tif", "z/a.tif")] == [
        1.0,
        2.0,
        3.0,
        2.0,
        1.0,
    ]
    assert given_size("b.tif", table) is None
    assert given_size("ba.tif", table) is None


def test_accents_match_however_they_are_composed(tmp_path: Path) -> None:
    (tmp_path / "pixel_sizes.csv").write_text("image,pixel_size_nm\né.tif,4.0\n", encoding="utf-8")
    assert given_size("x/e\u0301.tif", read_pixel_sizes(tmp_path)) == 4.0


def test_a_file_name_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pixel_sizes.csv").write_text("image,pixel_size_nm\na.tif,0.4\nx/b.tif,0.5\nb.tif,0.6\n")
    table = read_pixel_sizes(tmp_path, ["x/a.tif", "x/b.tif", "y/b.tif", "c.tif"])
    assert [given_size(image, table) for image in ("x/a.tif", "x/b.tif", "y/b.tif")] == [0.4, 0.5, 0.6]
    for images in (["x/a.tif", "y/a.tif"], ["a.tif", "x/a.tif"]):
        with pytest.raises(MicrographError, match=rf"'a\.tif' could be {images[0]} or {images[1]}; give the path"):
            read_pixel_sizes(tmp_path, images)
