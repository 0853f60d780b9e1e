"""Building a catalogue: what is in it, what is read again, what moved or went, and who may build at the same time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from catalogue_helpers import SHAPE, contents, picture, simulate, write_run, write_tables

from defectpipe.catalogue import Catalogue, index_folders
from defectpipe.catalogue import build as building
from defectpipe.catalogue.descriptor import DESCRIPTOR, SIZE
from defectpipe.errors import CatalogueError
from defectpipe.io.micrographs.read import sha256_of
from defectpipe.io.tables import read_csv, write_csv, write_parquet

HOSTILE = "sub folder/x'); DROP TABLE images; --\"$v0%_.tif"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation of each kind."""
    place = tmp_path_factory.mktemp("simulated")
    for seed, (kind, n) in enumerate((("loops", 2), ("solids", 3), ("sem", 4))):
        simulate(kind, n, seed, place / f"sim-{kind}")
    return place


@pytest.fixture
def root(tmp_path: Path, simulated: Path) -> Path:
    """Two runs and three simulations."""
    shutil.copytree(simulated, tmp_path / "work")
    write_run(tmp_path / "work", "steel", ["a.tif", "b.tif", HOSTILE])
    write_run(tmp_path / "work", "zircaloy", ["a.tif", "c.tif"], seed=7, pixel_size_nm=None)
    return tmp_path / "work"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a 'quoted' catalogue.duckdb"


def test_every_table_is_there_simulated_and_real_side_by_side(root, path):
    report = index_folders(path, [root])
    assert [Path(p).name for p in report.read] == [
        *("sim-loops", "sim-sem", "sim-solids", "steel-defects", "zircaloy-defects")
    ]
    assert (report.n_images, report.n_embeddings, report.n_without_picture) == (14, 14, 0)
    truth = [read_csv(root / f"sim-{kind}" / "truth.csv") for kind in ("loops", "solids", "sem")]
    assert report.n_loops == len(truth[0]) + (0 + 1 + 2) + (0 + 1)
    assert report.n_objects == len(truth[1])
    with Catalogue.open(path) as catalogue:
        images = catalogue.search(limit=None)
        assert images.groupby("origin").size().to_dict() == {"experimental": 5, "simulated": 9}
        assert images.groupby("kind").size().to_dict() == {"loops": 7, "sem": 4, "solids": 3}
        sem = images[images["kind"] == "sem"].set_index("image")
        for row in truth[2].itertuples():
            found = sem.loc[row.image]
            assert (found["magnification"], found["focus_score"]) == (row.magnification, row.focus_score)
            assert found["modality"] == "SEM"
        zircaloy = images[images["folder"].str.endswith("zircaloy-defects")]
        assert zircaloy["pixel_size_nm"].isna().all()
        assert zircaloy["mean_diameter_nm"].isna().all()
        assert set(images["height_px"][images["origin"] == "experimental"]) == {SHAPE[0]}
        loops = catalogue.search(of="loops", limit=None)
        assert loops.groupby("source").size().to_dict() == {"found": 4, "truth": len(truth[0])}
        truths = loops[loops["source"] == "truth"].sort_values(["image", "loop_id"])
        given = truth[0].sort_values(["image", "loop_id"])
        np.testing.assert_allclose(truths["diameter_nm"], given["diameter_nm"])
        np.testing.assert_allclose(truths["cnr"], given["cnr"])
        assert truths["class"].tolist() == given["class"].tolist()
        assert truths["visible"].tolist() == given["visible"].tolist()
        bodies, given = catalogue.search(of="objects", limit=None), truth[1].sort_values("image")
        assert bodies["image"].tolist() == given["image"].tolist()
        np.testing.assert_allclose(bodies["volume_nm3"], given["volume_nm3"])
        np.testing.assert_allclose(bodies["dose_per_px"], given["dose_per_px"])


def test_what_is_unchanged_is_not_read_again(root, path, monkeypatch):
    index_folders(path, [root])
    before = path.read_bytes()
    monkeypatch.setattr(building, "read_folder", None)
    report = index_folders(path)
    assert (report.read, len(report.unchanged), report.written) == ([], 5, False)
    assert path.read_bytes() == before
    # Nor are times of any importance.
    for table in root.rglob("*.csv"):
        os.utime(table, (1e9, 1e9))
    assert not index_folders(path, [root]).written


def change_a_run(root: Path) -> Path:
    output = root / "steel-defects"
    images, loops = read_csv(output / "images.csv"), read_csv(output / "loops.csv")
    loops["diameter_nm"] *= 2
    write_tables(output, images.assign(focus_score=[1.0, 2.0, 3.0]), loops)
    return output


def add_a_run(root: Path) -> Path:
    return write_run(
        root, "eurofer", ["z.tif", "y.tif"], seed=3, my_measure=[1.5, 2.5], remark=["", "thick"], focus_later=[1, 2]
    )


def remove_a_run(root: Path) -> None:
    shutil.rmtree(root / "sim-sem")


def move_a_run(root: Path) -> Path:
    (root / "moved").mkdir()
    (root / "steel").rename(root / "moved" / "steel")
    (root / "steel-defects").rename(root / "moved" / "steel-defects")
    return root / "moved"


@pytest.mark.parametrize("change", [change_a_run, add_a_run, remove_a_run, move_a_run])
def test_an_increment_is_the_same_as_a_catalogue_built_anew(root, path, tmp_path, change):
    index_folders(path, [root])
    changed = change(root)
    index_folders(path, [changed] if changed else [])
    index_folders(tmp_path / "anew.duckdb", [root])
    assert contents(path) == contents(tmp_path / "anew.duckdb")
    # All at once, after each other, and each of them undone and done again.
    index_folders(path, [root], rebuild=True)
    assert contents(path) == contents(tmp_path / "anew.duckdb")


def test_only_what_changed_is_read_again(root, path):
    index_folders(path, [root])
    changed = change_a_run(root)
    report = index_folders(path)
    assert report.read == [str(changed)]
    assert len(report.unchanged) == 4
    with Catalogue.open(path) as catalogue:
        assert catalogue.search("b.tif", focus_score=2).shape[0] == 1


def test_columns_of_later_versions_are_searched_too(root, path):
    add_a_run(root)
    index_folders(path, [root])
    with Catalogue.open(path) as catalogue:
        assert catalogue.search(my_measure=(2, 3))["image"].tolist() == ["y.tif"]
        assert catalogue.search(remark="THICK")["image"].tolist() == ["y.tif"]
        assert catalogue.search(where={"focus.focus_later": 2})["image"].tolist() == ["y.tif"]
    # What is a number in one folder and text in another is text.
    write_run(root, "later", ["x.tif"], my_measure=["high"])
    index_folders(path, [root])
    with Catalogue.open(path) as catalogue:
        assert catalogue.search(my_measure="high")["image"].tolist() == ["x.tif"]
        assert catalogue.search(my_measure="2.5")["image"].tolist() == ["y.tif"]
        with pytest.raises(CatalogueError, match="no numbers"):
            catalogue.search(my_measure=(2, 3))


def test_a_folder_that_is_gone_leaves_and_one_that_moved_stays(root, path):
    index_folders(path, [root])
    remove_a_run(root)
    place = move_a_run(root)
    report = index_folders(path, [place])
    assert report.dropped == [str(root / "sim-sem")]
    assert report.moved == {str(place / "steel-defects"): str(root / "steel-defects")}
    assert report.read == []
    with Catalogue.open(path) as catalogue:
        assert catalogue.count(class_name="sem") == 0
        found = catalogue.search("steel-defects")
        assert set(found["images_dir"]) == {str(place / "steel")}
        assert found.micrograph(0).shape == SHAPE


def test_embeddings_are_made_once_and_kept_beside_the_results(root, path, tmp_path, monkeypatch):
    index_folders(path, [root])
    kept = root / "steel-defects" / ".defectpipe" / "catalogue" / f"{DESCRIPTOR.name}.parquet"
    assert pq.read_table(kept).num_rows == 3

    def refuse(*_):
        raise AssertionError("an image was looked at again")

    monkeypatch.setattr(type(DESCRIPTOR), "embed", refuse)
    index_folders(tmp_path / "other.duckdb", [root])
    index_folders(path, rebuild=True)
    assert contents(path) == contents(tmp_path / "other.duckdb")


def test_a_network_can_take_the_descriptors_place(root, path):
    @dataclass(frozen=True)
    class Mean:
        name: str = "mean-1"

        def embed(self, micrograph):
            vector = np.zeros(SIZE, np.float32)
            angle = micrograph.grey8().mean() / 255
            vector[:2] = np.cos(angle), np.sin(angle)
            return vector

    index_folders(path, [root])
    report = index_folders(path, embedder=Mean())
    assert len(report.read) == 5
    with Catalogue.open(path, embedder=Mean()) as catalogue:
        found = catalogue.search(like=1)
        vectors = [catalogue.embedding_of(i) for i in found["image_id"]]
        np.testing.assert_allclose(found["likeness"], [v @ catalogue.embedding_of(1) for v in vectors], rtol=1e-5)
    with Catalogue.open(path) as catalogue, pytest.raises(CatalogueError, match="no embedding"):
        catalogue.search(like=1)


def test_an_image_that_is_gone_or_another_by_now_has_no_likeness(root, path):
    (root / "steel" / "a.tif").unlink()
    shutil.copy(root / "steel" / "b.tif", root / "zircaloy" / "a.tif")
    report = index_folders(path, [root])
    assert (report.n_images, report.n_embeddings, report.n_without_picture) == (14, 12, 2)
    shutil.rmtree(root / "zircaloy")
    assert index_folders(path, [root]).n_embeddings == 12


def test_simulated_images_are_known_wherever_a_run_found_them(root, path, tmp_path):
    """Also copies of them in a folder that says nothing; as long as the catalogue holds the simulation."""
    output = write_run(tmp_path / "other", "copies", ["s.tif"])
    source = next((root / "sim-solids" / "images").iterdir())
    shutil.copy(source, tmp_path / "other" / "copies" / "s.tif")
    images = read_csv(output / "images.csv")
    manifest = json.loads((root / "sim-solids" / "manifest.json").read_text())
    sha = next(entry["sha256"] for entry in manifest["images"] if entry["image"] == source.name)
    write_tables(output, images.assign(sha256=sha), read_csv(output / "loops.csv"))
    index_folders(path, [root, output])
    with Catalogue.open(path) as catalogue:
        assert catalogue.search("s.tif copies")["origin"].tolist() == ["simulated"]
    shutil.rmtree(root / "sim-solids")
    index_folders(path)
    with Catalogue.open(path) as catalogue:
        assert catalogue.search("s.tif copies")["origin"].tolist() == ["experimental"]


def test_loops_come_from_parquet_if_it_agrees_with_the_images(root, path):
    output = root / "steel-defects"
    loops = read_csv(output / "loops.csv")
    exact = loops.assign(diameter_nm=loops["diameter_nm"] + 1e-9)
    shard = output / ".defectpipe" / "tables" / "loops-000-of-001.parquet"
    shard.parent.mkdir(parents=True)
    write_parquet(exact, shard)
    index_folders(path, [output])
    with Catalogue.open(path) as catalogue:
        assert sorted(catalogue.search(of="loops")["diameter_nm"]) == sorted(exact["diameter_nm"])
    # As a run leaves it that was killed between its tables.
    write_parquet(exact.iloc[:1], shard)
    index_folders(path)
    with Catalogue.open(path) as catalogue:
        assert sorted(catalogue.search(of="loops")["diameter_nm"]) == sorted(loops["diameter_nm"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "{}"), ("summary.json", "[1"), ("images.csv", "a,b\n1,2\n"), ("images.csv", "")],
)
def test_a_broken_folder_is_named_and_the_others_go_on(root, path, name, content):
    index_folders(path, [root])
    (root / "steel-defects" / name).write_text(content)
    report = index_folders(path, [root])
    assert list(report.refused) == [str(root / "steel-defects")]
    assert str(root / "steel-defects") in report.refused[str(root / "steel-defects")]
    assert report.n_images == 11
    assert report.dropped == []


def test_a_folder_without_results_is_refused(root, path, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogueError, match="neither it nor a folder in it holds results"):
        index_folders(path, [tmp_path / "empty"])
    with pytest.raises(CatalogueError, match="no such folder"):
        index_folders(path, [tmp_path / "none"])
    # A run that has not come to its end has no summary yet.
    (root / "steel-defects" / "summary.json").unlink()
    with pytest.raises(CatalogueError, match="complete"):
        index_folders(path, [root / "steel-defects"])
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 20000])
def test_a_file_that_is_no_catalogue_is_left_alone(root, path, content):
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match="no catalogue"):
        index_folders(path, [root])
    with pytest.raises(CatalogueError, match="no catalogue"):
        Catalogue.open(path)
    assert path.read_bytes() == content


def test_a_catalogue_of_another_version_is_read_anew(root, path, monkeypatch):
    monkeypatch.setattr(building.schema, "SCHEMA_VERSION", 0)
    index_folders(path, [root])
    monkeypatch.undo()
    with pytest.raises(CatalogueError, match="another version"):
        Catalogue.open(path)
    report = index_folders(path)
    assert len(report.read) == 5
    with Catalogue.open(path) as catalogue:
        assert catalogue.count() == 14


def test_an_error_leaves_the_old_catalogue_and_nothing_else(root, path, monkeypatch):
    index_folders(path, [root])
    before, names = path.read_bytes(), {p.name for p in path.parent.iterdir()}
    change_a_run(root)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building, "write_atomic", fail)
    with pytest.raises(OSError, match="No space"):
        index_folders(path)
    assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == names


def test_a_table_that_changes_while_it_is_read_is_read_again(root, path, monkeypatch):
    once = iter([True])
    read = building.read_folder

    def read_and_change(folder, *args):
        tables = read(folder, *args)
        if folder.path.name == "steel-defects" and next(once, False):
            change_a_run(root)
        return tables

    monkeypatch.setattr(building, "read_folder", read_and_change)
    index_folders(path, [root])
    with Catalogue.open(path) as catalogue:
        assert catalogue.search("steel b.tif")["focus_score"].tolist() == [2]


def test_a_second_process_is_told_that_one_is_building(root, path):
    holder = (
        "import sys, time; from pathlib import Path; from defectpipe.catalogue.lock import building_lock\n"
        "with building_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CatalogueError, match="another process is building this catalogue; wait until it ends"):
            index_folders(path, [root])
        # It dies, and the lock with it.
        process.kill()
        process.wait()
        process.stdin.close()
    assert index_folders(path, [root]).n_images == 14


def test_who_reads_goes_on_reading_while_another_builds(root, path):
    index_folders(path, [root])
    with Catalogue.open(path) as reader:
        add_a_run(root)
        index_folders(path, [root])
        assert reader.count() == 14
        with Catalogue.open(path) as second:
            assert second.count() == 16


def test_what_a_killed_process_left_is_cleared_away(root, path):
    leftover = path.with_name(f".{path.name}.building")
    leftover.write_bytes(b"half a database")
    index_folders(path, [root])
    assert not leftover.exists()


def test_a_stack_is_a_row_a_frame(tmp_path, path):
    output = write_run(tmp_path, "stack", ["s.tif"])
    stack = np.stack([picture(5), picture(6, 8)])
    tifffile.imwrite(tmp_path / "stack" / "s.tif", stack, photometric="minisblack")
    images = read_csv(output / "images.csv")
    images = images.assign(sha256=sha256_of(tmp_path / "stack" / "s.tif"))
    both = [images.assign(frame=0), images.assign(frame=1)]
    write_csv(pd.concat(both), output / "images.csv")
    index_folders(path, [output])
    with Catalogue.open(path) as catalogue:
        found = catalogue.search()
        assert found["frame"].tolist() == [0, 1]
        assert not np.allclose(*(catalogue.embedding_of(i) for i in found["image_id"]))
        np.testing.assert_array_equal(found.micrograph(1).pixels, stack[1])


def test_what_the_file_says_of_its_acquisition_is_there_though_no_table_holds_it(tmp_path, path):
    output = write_run(tmp_path, "in", ["a.tif", "b.tif"])
    beam = ["[Beam]", "Beam=EBeam", "HV=30000", ""]
    tifffile.imwrite(tmp_path / "in" / "a.tif", picture(0), extratags=[(34682, "s", 0, "\r\n".join(beam), True)])
    images = read_csv(output / "images.csv")
    sha256 = [sha256_of(tmp_path / "in" / "a.tif"), images["sha256"][1]]
    write_tables(output, images.assign(sha256=sha256), read_csv(output / "loops.csv"))
    index_folders(path, [output])
    with Catalogue.open(path) as catalogue:
        found = catalogue.search(voltage_kv=(25, 35))
        assert found["image"].tolist() == ["a.tif"]
        assert found["voltage_kv"].tolist() == [30]
        assert found["modality"].tolist() == ["SEM"]
        # What the run worked with goes before the file.
        assert found["pixel_size_source"].tolist() == ["argument"]
        assert catalogue.search(voltage_kv=None)["image"].tolist() == ["b.tif"]
