"""Files that reach for other files, or grow when they are opened: nothing of them is followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from fuzz_corpus import HEIGHT, WIDTH, corpus
from run_helpers import ROOT, run, write_blobs, write_folder

from defectpipe.errors import LabelError, MicrographError
from defectpipe.io.labels import read_labels
from defectpipe.io.micrographs import read_header, read_micrographs
from defectpipe.io.tables import read_csv

TASK_FAILED = 30


@pytest.fixture
def emd(tmp_path: Path) -> Path:
    [seed] = [seed for seed in corpus() if seed.name == "image-a.emd"]
    path = tmp_path / "a.emd"
    path.write_bytes(seed.data)
    return path


def external_link(file: h5py.File, secret: Path) -> None:
    file["data/other"] = h5py.ExternalLink(str(secret), "/")


def external_storage(file: h5py.File, secret: Path) -> None:
    del file["data/image/data"]
    place = [(str(secret), 0, HEIGHT * WIDTH)]
    file["data/image"].create_dataset("data", (HEIGHT, WIDTH), np.uint8, external=place)


def virtual_data(file: h5py.File, secret: Path) -> None:
    del file["data/image/data"]
    layout = h5py.VirtualLayout((HEIGHT, WIDTH), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "x", (HEIGHT, WIDTH))
    file["data/image"].create_virtual_dataset("data", layout)


@pytest.mark.parametrize("change", [external_link, external_storage, virtual_data])
def test_an_emd_that_takes_its_pixels_from_another_file_is_refused(emd, tmp_path, change):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 100)
    assert read_micrographs(shutil.copy(emd, tmp_path / "sound.emd"))[0].shape == (WIDTH, HEIGHT)
    with h5py.File(emd, "r+") as file:
        change(file, secret)
    for read in (read_header, read_micrographs):
        with pytest.raises(MicrographError, match=r"a\.emd: it .*(?:not followed)"):
            read(emd)


def test_an_emd_whose_group_holds_itself_is_walked_once(emd):
    with h5py.File(emd, "r+") as file:
        file["data/again"] = file["data"]
    assert read_micrographs(emd)[0].shape == (WIDTH, HEIGHT)


def test_entities_in_ome_metadata_are_refused_before_they_grow(tmp_path):
    laughs = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))
    description = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "ha">{laughs}]><OME xmlns="http://www.openmicroscopy.org/'
        'Schemas/OME/2016-06"><Image ID="Image:0"><Description>&a9;</Description></Image></OME>'
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH), np.uint8), description=description, metadata=None)
    began = time.process_time()
    with pytest.raises(MicrographError, match="define entities"):
        read_micrographs(path)
    assert time.process_time() - began < 2


def deflate_bomb(path: Path) -> None:
    """A TIFF strip of 1 MB that inflates to 1 GB, of which the header says that it is 40 × 64 px."""
    squeeze = zlib.compressobj(9)
    strip = b"".join(squeeze.compress(bytes(2**20)) for _ in range(2**10)) + squeeze.flush()
    tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tags, handle = tif.pages[0].tags, tif.filehandle
        place = handle.seek(0, os.SEEK_END)
        handle.write(strip)
        tags["StripOffsets"].overwrite([place])
        tags["StripByteCounts"].overwrite([len(strip)])


READ_WITHIN = """
import resource, sys
from pathlib import Path
from defectpipe.io.micrographs import read_micrographs
from defectpipe.errors import DefectpipeError
path = Path(sys.argv[1])
read_micrographs(Path(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(read_micrographs(path)[0].shape)
except DefectpipeError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_a_deflate_bomb_takes_no_more_memory_than_its_picture_says(tmp_path):
    deflate_bomb(tmp_path / "bomb.tif")
    write_blobs(tmp_path / "good.tif")
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHIN, tmp_path / "bomb.tif", tmp_path / "good.tif"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) < 100 * 2**20, done.stdout


def snapshot(root: Path, *without: Path) -> dict[str, object]:
    files = (p for p in root.rglob("*") if not any(p.is_relative_to(folder) for folder in without))
    return {str(p): os.readlink(p) if p.is_symlink() else p.is_file() and p.read_bytes() for p in files}


@pytest.mark.parametrize("name", ["../../escaped.tif", "/tmp/escaped.tif", "..\\\\..\\\\escaped.tif", "C:/escaped.tif"])
def test_a_label_file_that_names_a_file_outside_is_refused_and_nothing_is_written_there(tmp_path, name):
    source = write_folder(tmp_path / "place" / "in", 1)
    labels = tmp_path / "place" / "labels.json"
    image, annotation = {"id": 1, "file_name": name}, {"image_id": 1, "bbox": [20, 30, 9, 9]}
    labels.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    before = snapshot(tmp_path)
    done = run("RunAll", "--input-dir", source, "--labels-dir", labels, "--engine", "inline", cwd=tmp_path)
    assert done.returncode == TASK_FAILED
    assert "is absolute or leaves its folder" in done.stderr
    assert snapshot(tmp_path, source.with_name("in-defects")) == before
    assert not Path("/tmp/escaped.tif").exists()
    # The images are analysed all the same.
    assert list(read_csv(source.with_name("in-defects") / "images.csv")["status"]) == ["ok"]


def test_links_among_labels_are_not_followed(tmp_path):
    source, labels = write_folder(tmp_path / "in", 2), tmp_path / "labels"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "classes.txt").write_text("secret\n")
    (tmp_path / "elsewhere" / "field 0.txt").write_text("0 0.3 0.5 0.2 0.2\n")
    labels.mkdir()
    (labels / "field 0.txt").symlink_to(tmp_path / "elsewhere" / "field 0.txt")
    (labels / "classes.txt").symlink_to(tmp_path / "elsewhere" / "classes.txt")
    (labels / "loop").symlink_to(labels)
    (labels / "field 1.txt").write_text("0 0.3 0.5 0.2 0.2\n")
    os.mkfifo(labels / "pipe.csv")
    given = ("--labels-dir", labels, "--label-format", "yolo", "--engine", "inline")
    done = run("RunAll", "--input-dir", source, *given, cwd=tmp_path)
    images = read_csv(tmp_path / "in-defects" / "images.csv").set_index("image")
    assert list(images["n_labels"].fillna(-1)) == [-1, 1]
    assert "images without labels, not scored: field 0.tif" in done.stdout
    assert done.returncode == 0
    assert list(read_labels(labels / "field 1.txt", (120, 160), "yolo")["label"]) == ["0"]
    # Reading a pipe would wait for ever.
    with pytest.raises(LabelError, match="no regular file"):
        read_labels(labels / "pipe.csv", (120, 160))
