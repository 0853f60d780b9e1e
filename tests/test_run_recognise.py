"""RecogniseObjects over a folder: tables with units, series, what fails, what is said, what is computed again.

The networks are untrained and the maps are those of a threshold: this is mechanics. What trained ones find in simulated
fields is in the model's card.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import build
from solids_helpers import LAYOUT, untrained_solids

from defectpipe.catalogue import Catalogue, index_folders
from defectpipe.io.tables import OBJECT_COLUMNS, read_csv, read_parquet
from defectpipe.recognition.analysis import COLUMNS, SOLID_COLUMNS
from defectpipe.recognition.model import SolidModel
from defectpipe.recognition.pixelwise import DEPTH, OUTLINE, THICKNESS
from defectpipe.simulation.solids.fields import simulate_tilts
from defectpipe.training.recognition_model import write_solid_model
from defectpipe.training.recognition_sets import SINGLE
from tasks import objects as objects_module
from tasks import recognise as recognise_module
from tasks.engine import WorkerLostError
from tasks.recognise import RecogniseObjects

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

GROUND, SLOPE = 20.0, 3.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_solid_model(tmp_path_factory.mktemp("models") / "toy", untrained_solids())


@pytest.fixture(autouse=True)
def thresholded(monkeypatch: pytest.MonkeyPatch) -> None:
    def maps(self: SolidModel, pixels: np.ndarray) -> np.ndarray:
        thickness = np.maximum(np.asarray(pixels, float) - GROUND, 0) / SLOPE
        inside = thickness > 4
        made = np.zeros((*pixels.shape, 3), np.float32)
        made[..., OUTLINE] = inside
        made[..., THICKNESS] = inside * thickness
        made[..., DEPTH] = inside * thickness / max(thickness.max(), 1)
        return made

    monkeypatch.setattr(SolidModel, "maps", maps)


def balls(*circles: tuple[int, int, int], shape: tuple[int, int] = (150, 210)) -> np.ndarray:
    """Bright balls (x, y, radius) with a little noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    thickness = sum(2 * np.sqrt(np.maximum(r**2 - (x - cx) ** 2 - (y - cy) ** 2, 0)) for cx, cy, r in circles)
    noise = np.random.default_rng(len(circles)).normal(0, 1.0, shape)
    return np.clip(GROUND + SLOPE * thickness + noise, 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, nm: float | None = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if nm is None:
        tifffile.imwrite(path, pixels)
        return
    axes = "ZYX"[-pixels.ndim :]
    tifffile.imwrite(path, pixels, imagej=True, resolution=(1 / nm, 1 / nm), metadata={"unit": "nm", "axes": axes})


def recognise(source: Path, model: Path, **parameters: str) -> tuple[LuigiStatusCode, Path]:
    task = RecogniseObjects(input_dir=str(source), model=str(model), engine="inline", **parameters)
    return build(task).status, source.with_name(source.name + "-objects")


def test_a_folder_has_its_objects_with_units_and_one_bad_file_does_not_stop_it(tmp_path, model, capsys):
    source = tmp_path / "in"
    write(source / "two.tif", balls((50, 55, 29), (140, 80, 31)))
    write(source / "sub" / "no size.tif", balls((60, 50, 24)), nm=None)
    write(source / "inverted.tif", 255 - balls((60, 50, 24)))
    write(source / "cut.tif", balls((5, 60, 24)))
    write(source / "flat.tif", np.full((90, 120), 90, np.uint8))
    (source / "broken.tif").write_bytes(b"II*\0 no image")
    status, output = recognise(source, model)
    assert status == LuigiStatusCode.FAILED, "a file that cannot be read is told at the end"
    objects = read_parquet(output / "objects.parquet")
    assert list(objects.columns[: len(OBJECT_COLUMNS)]) == OBJECT_COLUMNS
    assert set(COLUMNS) | set(SOLID_COLUMNS) <= set(objects)
    assert all(name.endswith(("_px", "_px2", "_px3", "_nm", "_nm2", "_nm3", "_deg")) for name in objects.columns[8:25])
    assert objects["image"].tolist() == ["cut.tif", "sub/no size.tif", "two.tif", "two.tif"]
    both = objects[objects["image"] == "two.tif"]
    assert both["length_nm"].to_numpy() == pytest.approx([29, 31], rel=0.08)
    assert both["x_px"].to_numpy() == pytest.approx([50, 140], abs=1)
    assert (objects["series"] == "").all()
    assert both["max_thickness_nm"].to_numpy() == pytest.approx([29, 31], rel=0.08)
    assert (both["volume_nm3"] / (4 / 3 * np.pi * np.array([14.5, 15.5]) ** 3)).to_numpy() == pytest.approx(1, rel=0.1)
    assert (both["n_views"] == 1).all()
    assert both["class"].isin(LAYOUT.classes).all()
    assert (both["second_class"] != both["class"]).all()
    assert (both["class_probability"] + both["second_probability"]).to_numpy() == pytest.approx(1)
    blind = objects[objects["image"] == "sub/no size.tif"].iloc[0]
    assert np.isnan(blind[[n for n in objects if n.endswith(("_nm", "_nm2", "_nm3"))]].astype(float)).all()
    assert blind["length_px"] == pytest.approx(48, rel=0.08)
    cut = objects[objects["image"] == "cut.tif"].iloc[0]
    assert cut["on_edge"]
    assert "cut by the border" in cut["warnings"]
    assert read_csv(output / "objects.csv")["length_px"].to_numpy() == pytest.approx(objects["length_px"], abs=1e-3)

    images = read_csv(output / "images.csv").set_index("image")
    assert images.loc["broken.tif", "status"] == "failed"
    assert images.loc["two.tif", "n_objects"] == 2
    assert images.loc["sub/no size.tif", "status"] == "review"
    assert "no pixel size" in images.loc["sub/no size.tif", "reason"]
    assert "bright-field" in images.loc["inverted.tif", "reason"]
    assert images.loc["inverted.tif", "n_objects"] == images.loc["flat.tif", "n_objects"] == 0
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert (summary["n_objects"], summary["n_on_edge"], summary["n_failed"]) == (4, 1, 1)
    assert sum(summary["classes"].values()) == 4
    assert summary["without_pixel_size"] == ["sub/no size.tif"]
    assert list(summary["failed"]) == ["broken.tif"]
    said = capsys.readouterr().out
    assert "6 images: 4 objects" in said
    assert "warning, 1 image: not analysed: what stands out is dark" in said
    with tifffile.TiffFile(output / "label_images" / "two.tif.tif") as file:
        labels = file.asarray()
        assert file.imagej_metadata["unit"] == "nm"
        assert file.pages[0].tags["XResolution"].value[0] / file.pages[0].tags["XResolution"].value[1] == 2
    assert labels.shape == (150, 210)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert labels[55, 50] == 1
    assert labels[80, 140] == 2
    assert sorted(p.name for p in (output / "overlays").glob("*.jpg")) == [
        *("cut.tif.jpg", "flat.tif.jpg", "inverted.tif.jpg", "two.tif.jpg")
    ]
    assert not (output / "views.parquet").exists()

    # again: nothing is computed; another picture costs itself, and one that goes takes its files along
    stamps = {path: path.stat().st_mtime_ns for path in (output / ".defectpipe" / "objects").rglob("*.json")}
    (source / "broken.tif").unlink()
    (source / "cut.tif").unlink()
    write(source / "flat.tif", balls((60, 50, 24)))
    catalogue = tmp_path / "catalogue.duckdb"
    assert recognise(source, model, catalogue_file=str(catalogue))[0] == LuigiStatusCode.SUCCESS
    after = {path: path.stat().st_mtime_ns for path in (output / ".defectpipe" / "objects").rglob("*.json")}
    assert len(after) == len(stamps) - 2
    assert sum(after[path] != stamps[path] for path in after) == 1
    assert not (output / "overlays" / "cut.tif.jpg").exists()
    assert not (output / "label_images" / "cut.tif.tif").exists()
    with Catalogue.open(catalogue) as opened:
        found = opened.search(of="objects", where={"volume_nm3": (12_000, 14_000)})
        assert found["image"].tolist() == ["two.tif"]
        assert found["kind"].tolist() == ["solids"]
        assert opened.count(of="objects") == 4
    assert index_folders(catalogue, [output]).unchanged == [str(output)]


def test_the_frames_of_a_stack_or_the_files_of_a_folder_are_views_of_one_object(tmp_path, model):
    source = tmp_path / "in"
    views = [balls((60 + 8 * i, 50, 20 + i)) for i in range(3)]
    write(source / "stack.tif", np.stack([*views, balls((-99, -99, 1))]))
    for i in range(3):
        write(source / "files" / f"{i}.tif", views[i])
    status, output = recognise(source, model, views="series")
    assert status == LuigiStatusCode.SUCCESS
    objects, seen = read_parquet(output / "objects.parquet"), read_parquet(output / "views.parquet")
    assert objects["series"].tolist() == ["files/", "stack.tif"]
    assert objects["n_views"].tolist() == [3, 3]
    assert seen.groupby("series").size().to_dict() == {"files/": 3, "stack.tif": 3}
    assert objects["length_nm"].to_numpy() == pytest.approx(21, rel=0.08)
    assert objects["frame"].tolist() == [0, 1], "of the view that is nearest to the median"
    assert objects["image"].tolist() == ["files/1.tif", "stack.tif"]
    images = read_csv(output / "images.csv")
    assert len(images) == 7
    assert (
        "pictures not analysed, nothing but noise: 1 of 4" in images["reason"][images["image"] == "stack.tif"].iloc[0]
    )
    assert json.loads((output / "summary.json").read_text(encoding="utf-8"))["series"] == ["files/", "stack.tif"]
    with tifffile.TiffFile(output / "label_images" / "stack.tif.tif") as file:
        assert file.asarray().shape == (4, 150, 210)
    assert len(list((output / "overlays").glob("stack.tif.*.jpg"))) == 4

    # each by itself where nobody says that they belong together
    assert recognise(source, model)[0] == LuigiStatusCode.SUCCESS
    assert len(read_parquet(output / "objects.parquet")) == 6
    assert not (output / "views.parquet").exists()

    # views of different scale are no views of one object
    write(source / "files" / "2.tif", views[2], nm=2.0)
    assert recognise(source, model, views="series")[0] == LuigiStatusCode.FAILED
    objects = read_parquet(output / "objects.parquet")
    assert objects["series"].tolist() == ["stack.tif"]
    images = read_csv(output / "images.csv")
    assert (images["status"] == "failed").sum() == 3


def test_a_long_tilt_series_is_judged_from_few_of_its_views(tmp_path, model, monkeypatch):
    source = tmp_path / "in"
    n, tilts = 13, np.linspace(-72, 72, 13)
    write(source / "tilts.tif", np.stack([balls((60 + i, 50, 24)) for i in range(n)]))
    plain = objects_module.read_frames
    monkeypatch.setattr(
        objects_module,
        "read_frames",
        lambda job: [dataclasses.replace(m, tilt_deg=float(t)) for m, t in zip(plain(job), tilts, strict=True)],
    )
    assert recognise(source, model)[0] == LuigiStatusCode.SUCCESS
    output = source.with_name("in-objects")
    assert read_parquet(output / "objects.parquet")["n_views"].tolist() == [n]
    views = read_parquet(output / "views.parquet")
    assert views["tilt_deg"].tolist() == tilts.tolist()
    assert views["in_verdict"].sum() == 8
    assert views["tilt_deg"][views["in_verdict"]].abs().max() == 60


def test_a_fault_or_a_killed_process_is_of_one_file_and_leaves_no_older_pictures(tmp_path, model, monkeypatch):
    source = tmp_path / "in"
    for name in ("a.tif", "b.tif"):
        write(source / name, balls((60, 50, 24)))
    output = recognise(source, model)[1]
    plain = objects_module.read_frames

    def faulty(job):
        if job.image == "b.tif":
            raise ZeroDivisionError("a fault")
        return plain(job)

    monkeypatch.setattr(objects_module, "read_frames", faulty)
    write(source / "b.tif", balls((70, 50, 24)))
    assert recognise(source, model)[0] == LuigiStatusCode.FAILED
    images = read_csv(output / "images.csv").set_index("image")
    assert images.loc["b.tif", "reason"] == "ZeroDivisionError: a fault"
    assert images.loc["a.tif", "n_objects"] == 1
    assert [p.name for p in (output / "overlays").iterdir()] == ["a.tif.jpg"]

    def killed(job):
        raise WorkerLostError("It was killed.")

    monkeypatch.setattr(recognise_module, "recognise", killed)
    write(source / "a.tif", balls((70, 50, 24)))
    assert recognise(source, model)[0] == LuigiStatusCode.FAILED
    assert read_csv(output / "images.csv")["status"].tolist() == ["failed", "failed"]
    assert not list(output.glob("overlays/*"))
    assert not list(output.glob("label_images/*"))


def test_simulated_tilts_are_one_object_and_a_missing_model_or_folder_is_one_sentence(tmp_path, model):
    source = tmp_path / "in"
    source.mkdir()
    tilts = simulate_tilts(SINGLE, 71, 0, (-60.0, 0.0, 60.0))
    write(source / "tilts.tif", np.stack([t.micrograph.grey8() for t in tilts]), tilts[0].micrograph.pixel_size_nm)
    status, output = recognise(source, model, views="series")
    assert status == LuigiStatusCode.SUCCESS
    assert read_parquet(output / "objects.parquet")["n_views"].max() <= 3
    assert recognise(source, tmp_path / "no model")[0] == LuigiStatusCode.FAILED
    assert build(RecogniseObjects(model=str(model))).status == LuigiStatusCode.FAILED
    (output / "loops.csv").write_text("image\n")
    assert recognise(source, model)[0] == LuigiStatusCode.FAILED, "the folder of a run is not written into"
