"""Images taken out of a catalogue: what the folder holds, and that nothing leaves it or comes from elsewhere."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from catalogue_helpers import SHAPE, simulate, write_run, write_tables

from defectpipe.catalogue import Catalogue, export_images, index_folders
from defectpipe.catalogue import export as exporting
from defectpipe.catalogue.export import safe_name
from defectpipe.errors import CatalogueError
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import read_micrographs, read_pixel_sizes
from defectpipe.io.tables import read_csv

NAMES = ["plain.tif", "sub/plain.tif", "=HYPERLINK('x').tif", "<img src=x onerror=alert(1)>.TIF", "Größe $(rm -rf).tif"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    write_run(root, "steel", NAMES)
    simulate("solids", 12, 2, root / "sim")
    index_folders(root / "c.duckdb", [root])
    return root


@pytest.fixture
def catalogue(place: Path) -> Catalogue:
    with Catalogue.open(place / "c.duckdb") as opened:
        yield opened


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_images_of_a_class_with_their_tables(catalogue, place, tmp_path):
    found = catalogue.search(class_name="torus")
    report = export_images(catalogue, found, tmp_path / "new" / "tori")
    assert report.n_files == len(found) == 1
    assert report.left_out == {}
    out = tmp_path / "new" / "tori"
    assert files(out) == {"found.csv", "objects.csv", "images/pixel_sizes.csv", "images/000001_torus_field-001.tif"}
    source = place / "sim" / "images" / "torus_field-001.tif"
    assert (out / "images" / "000001_torus_field-001.tif").read_bytes() == source.read_bytes()
    truth = read_csv(place / "sim" / "truth.csv").query("image == 'torus_field-001.tif'")
    objects = read_csv(out / "objects.csv")
    np.testing.assert_allclose(objects["volume_nm3"], truth["volume_nm3"])
    assert objects["file"].tolist() == ["000001_torus_field-001.tif"]


def test_every_name_is_plain_and_the_table_has_the_old_one(catalogue, place, tmp_path):
    found = catalogue.search(origin="experimental")
    report = export_images(catalogue, found, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "images").iterdir()} - {"pixel_sizes.csv"}
    assert report.n_files == len(names) == len(NAMES)
    assert all(re.fullmatch(r"\d{6}[A-Za-z0-9._-]*\.tif", name) for name in names)
    table = read_csv(tmp_path / "out" / "found.csv")
    assert sorted(table["image"]) == sorted(NAMES)
    for row in table.itertuples():
        copied = (tmp_path / "out" / "images" / row.file).read_bytes()
        assert hashlib.sha256(copied).hexdigest() == row.sha256
        assert copied == (place / "steel" / row.image).read_bytes()
    # No cell begins a formula.
    assert ",=HYPERLINK" not in (tmp_path / "out" / "found.csv").read_text()
    loops = read_csv(tmp_path / "out" / "loops.csv")
    assert loops.groupby("file").size().to_dict() == {
        row.file: row.n_loops for row in table.itertuples() if row.n_loops
    }


def test_the_copies_can_be_the_input_of_a_run(catalogue, tmp_path):
    export_images(catalogue, catalogue.search(origin="experimental"), tmp_path / "out")
    folder = tmp_path / "out" / "images"
    images = list_images(folder)
    assert len(images) == len(NAMES)
    sizes = read_pixel_sizes(folder, [file.image for file in images])
    for file in images:
        [micrograph] = read_micrographs(file, pixel_sizes=sizes)
        assert micrograph.shape == SHAPE
        assert (micrograph.pixel_size_nm, micrograph.calibration.source) == (0.5, "pixel_sizes.csv")


def test_rows_of_loops_take_their_images_along_once(catalogue, tmp_path):
    found = catalogue.search(of="loops", where={"source": "found"})
    report = export_images(catalogue, found, tmp_path / "out")
    assert len(found) > report.n_files == found["image_id"].nunique()
    assert len(read_csv(tmp_path / "out" / "found.csv")) == len(found)


@pytest.mark.parametrize(
    "image", ["../../secret.tif", "sub/../../secret.tif", "ABSOLUTE", "link.tif", "linked/secret.tif"]
)
def test_nothing_from_outside_the_folder_comes_along(tmp_path, image):
    """Tables may come from strangers: a name that leads elsewhere is no image, though the hash is right."""
    output = write_run(tmp_path / "run", "in", ["a.tif"])
    secret = tmp_path / "secret.tif"
    shutil.copy(tmp_path / "run" / "in" / "a.tif", secret)
    (tmp_path / "run" / "secret.tif").symlink_to(secret)
    (tmp_path / "run" / "in" / "link.tif").symlink_to(secret)
    (tmp_path / "run" / "in" / "linked").symlink_to(tmp_path)
    name = str(secret) if image == "ABSOLUTE" else image
    write_tables(output, read_csv(output / "images.csv").assign(image=name), read_csv(output / "loops.csv"))
    report = index_folders(tmp_path / "c.duckdb", [output])
    assert (report.n_images, report.n_embeddings) == (1, 0)
    with Catalogue.open(tmp_path / "c.duckdb") as catalogue:
        found = catalogue.search()
        assert "no picture" in found._repr_html_()
        exported = export_images(catalogue, found, tmp_path / "out")
    assert exported.n_files == 0
    assert "leads out of its folder" in next(iter(exported.left_out.values()))
    assert files(tmp_path / "out") == {"found.csv"}
    assert read_csv(tmp_path / "out" / "found.csv")["not_copied"].str.contains("leads out").all()


def test_a_file_that_changed_is_left_out(tmp_path):
    output = write_run(tmp_path, "in", ["a.tif", "b.tif"])
    index_folders(tmp_path / "c.duckdb", [output])
    shutil.copy(tmp_path / "in" / "b.tif", tmp_path / "in" / "a.tif")
    with Catalogue.open(tmp_path / "c.duckdb") as catalogue:
        report = export_images(catalogue, catalogue.search(), tmp_path / "out")
    assert report.n_files == 1
    assert report.left_out == {str(tmp_path / "in" / "a.tif"): "its file is another one by now"}
    assert files(tmp_path / "out" / "images") == {"000001_b.tif", "pixel_sizes.csv"}


def test_one_image_in_two_folders_is_copied_once(tmp_path):
    outputs = [write_run(tmp_path / side, "in", ["a.tif"]) for side in ("left", "right")]
    index_folders(tmp_path / "c.duckdb", outputs)
    # The first copy is gone: the second serves both rows that come after it.
    with Catalogue.open(tmp_path / "c.duckdb") as catalogue:
        found = catalogue.search()
        assert found["sha256"].nunique() == 1
        assert export_images(catalogue, found, tmp_path / "both").n_files == 1
        (tmp_path / "left" / "in" / "a.tif").unlink()
        report = export_images(catalogue, found, tmp_path / "one")
    assert report.n_files == 1
    assert read_csv(tmp_path / "one" / "found.csv")["file"].tolist() == ["", "000001_a.tif"]


def test_nothing_found_is_a_table_with_its_header(catalogue, tmp_path):
    report = export_images(catalogue, catalogue.search("nothing is called so"), tmp_path / "out")
    assert report.n_files == 0
    assert files(tmp_path / "out") == {"found.csv"}
    assert list(read_csv(tmp_path / "out" / "found.csv"))[:3] == ["file", "not_copied", "image_id"]


def test_a_folder_that_holds_something_is_left_alone(catalogue, tmp_path):
    found = catalogue.search(class_name="torus")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "link", "file"):
        with pytest.raises(CatalogueError, match="already"):
            export_images(catalogue, found, tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert not any((tmp_path / "elsewhere").iterdir())
    (tmp_path / "empty").mkdir()
    assert export_images(catalogue, found, tmp_path / "empty").n_files == 1


def test_a_full_disk_leaves_nothing_half_done(catalogue, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_csv", fail)
    with pytest.raises(OSError, match="No space"):
        export_images(catalogue, catalogue.search(class_name="torus"), tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a/b/c d.TIF", "000007_c_d.tif"),
        ("..tif", "000007_tif"),
        ("-rf.dm3", "000007_rf.dm3"),
        ("../../etc/passwd", "000007_passwd"),
        ("日本.png", "000007.png"),
        ("x" * 300 + ".tif", "000007_" + "x" * 80 + ".tif"),
        ("con\n\x1b[31m.tif", "000007_con_31m.tif"),
    ],
)
def test_names_are_made_plain(image, name):
    assert safe_name(7, image) == name
