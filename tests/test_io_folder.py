"""Which files of a folder are images, and under which name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from defectpipe.errors import MicrographError
from defectpipe.io.folder import ImageFile, list_images


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def names_of(root: Path, *exclude: Path) -> list[str]:
    return [file.image for file in list_images(root, exclude)]


def test_images_of_all_folders_are_listed_by_relative_name_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.tif", "deep/er/a.PNG", "deep/b.jpeg", "a.dm3", "c.spc")
    assert names_of(tmp_path) == ["a.dm3", "b.tif", "c.spc", "deep/b.jpeg", "deep/er/a.PNG"]


def test_a_listed_file_carries_its_path_size_and_time(tmp_path: Path) -> None:
    make(tmp_path, "sub/a.tif")
    os.utime(tmp_path / "sub/a.tif", ns=(1, 1_234_567_890_000_000_000))
    assert list_images(tmp_path) == [ImageFile("sub/a.tif", tmp_path / "sub/a.tif", 9, 1_234_567_890_000_000_000)]


def test_labels_and_texts_are_no_images(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a.csv", "a.xls", "a.json", "a.zip", "a.roi", "a.tif.txt", "README", "tif")
    assert names_of(tmp_path) == []


def test_same_stem_and_names_that_differ_in_case_stay_apart(tmp_path: Path) -> None:
    names = ["a.png", "a.tif", "x/a.tif", "y/a.tif", "y/b.tif"]
    make(tmp_path, *names)
    if not (tmp_path / "Y").exists():
        make(tmp_path, "y/B.tif", "A.tif")
        names += ["y/B.tif", "A.tif"]
    assert names_of(tmp_path) == sorted(names)


@pytest.mark.parametrize(
    "name", ["mit Leerzeichen, (1) - Copy.jpg", "试样 α′ é.png", "a" * 200 + ".tif", "=HYPERLINK(1).tif", "a\nb.tif"]
)
def test_odd_names_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert names_of(tmp_path) == [name]


def test_a_name_that_is_not_utf8_is_listed_with_its_bytes_escaped(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.tif")
    try:
        make(tmp_path, raw)
    except OSError:
        # macOS refuses such a name: then no folder can hold one.
        assert names_of(tmp_path) == []
        return
    (file,) = list_images(tmp_path)
    assert file.image == r"caf\xe9.tif"
    assert file.image.encode("utf-8")
    assert file.path.read_bytes() == b"caf\xe9.tif"


def test_links_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    make(inside, "a.tif", "sub/b.tif")
    make(outside, "secret.tif")
    (inside / "loop").symlink_to(inside, target_is_directory=True)
    (inside / "sub" / "leaves").symlink_to(outside, target_is_directory=True)
    (inside / "linked.tif").symlink_to(outside / "secret.tif")
    (inside / "broken.tif").symlink_to(outside / "nothing.tif")
    assert names_of(inside) == ["a.tif", "sub/b.tif"]


def test_the_input_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    make(tmp_path / "real", "a.tif")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (file,) = list_images(tmp_path / "link")
    assert (file.image, file.path) == ("a.tif", tmp_path / "link" / "a.tif")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "._a.tif", ".cache/a.tif", "a.tif", "sub/.b.tif")
    assert names_of(tmp_path) == ["a.tif"]


def test_excluded_folders_are_left_out_with_all_below(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "out/overlays/a.tif", "labels/a.png", "output/a.tif")
    (tmp_path / "alias").symlink_to(tmp_path / "labels", target_is_directory=True)
    assert names_of(tmp_path, tmp_path / "out", tmp_path / "alias") == ["a.tif", "output/a.tif"]


def test_a_folder_or_pipe_named_like_an_image_is_none(tmp_path: Path) -> None:
    make(tmp_path, "stack.tif/a.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    assert names_of(tmp_path) == ["stack.tif/a.tif"]


def test_emi_and_ser_are_one_image(tmp_path: Path) -> None:
    make(tmp_path, "a.emi", "a_1.ser", "a_2.ser", "alone.emi", "b_1.ser", "sub/a_1.ser", "sub/c.EMI", "sub/c_1.SER")
    assert names_of(tmp_path) == ["a_1.ser", "a_2.ser", "alone.emi", "b_1.ser", "sub/a_1.ser", "sub/c_1.SER"]


def test_an_input_that_is_no_folder_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.tif")
    with pytest.raises(MicrographError, match=r"a\.tif: the input folder is a file"):
        list_images(tmp_path / "a.tif")
    with pytest.raises(MicrographError, match=r"nowhere: the input folder does not exist"):
        list_images(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.tif", "locked/b.tif")
    scandir = os.scandir

    def refuse(folder: str):  # type: ignore[no-untyped-def]
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MicrographError, match=r"locked: the folder cannot be listed \(Permission denied\)"):
        list_images(tmp_path)
