"""Exports: what ImageJ, COCO readers and spreadsheets find in them, read back by others' readers and by our own."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import strategies as st

from defectpipe.boxes import ellipse_bounds, ellipse_points
from defectpipe.export.coco import write_coco
from defectpipe.export.figure import Diameters, bin_edges, write_diameter_figure
from defectpipe.export.imagejtable import imagej_results, write_imagej_results
from defectpipe.export.labelimage import write_label_image
from defectpipe.export.rois import rois_zip
from defectpipe.export.sources import diameters_found, diameters_of_labels
from defectpipe.export.workbook import write_workbook
from defectpipe.io.labels import read_label_folder, read_labels
from defectpipe.io.labels.rois import loop_id_of
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.tables import images_table, labels_table, loops_table

SHAPE = (300, 400)
ELLIPSE = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]
HOSTILE = '=HYPERLINK("x").tif'
IMAGEJ = Path("/usr/share/java/ij.jar")


def make_loops(n: int = 12, image: str = "a.tif", frame: int = 0, seed: int = 1) -> pd.DataFrame:
    """Loops that do not touch, on a grid, turned every way; none reaches out of the image."""
    rng = np.random.default_rng(seed)
    major = rng.uniform(12, 60, n)
    table = pd.DataFrame({"x_px": 45.25 + 80 * (np.arange(n) % 4), "y_px": 44.5 + 80 * (np.arange(n) // 4)})
    table = table.assign(image=image, frame=frame, loop_id=np.arange(1, n + 1), diameter_px=major)
    table = table.assign(minor_px=major * rng.uniform(0.35, 0.9, n), angle_deg=rng.uniform(0, 180, n))
    return loops_table(table.assign(screening_score=0.75, diameter_nm=major * 0.5))


def make_images(image: str = "a.tif", nm: float | None = 0.5, **more: object) -> pd.DataFrame:
    row = {"image": image, "frame": 0, "status": "ok", "height_px": SHAPE[0], "width_px": SHAPE[1]}
    return images_table([row | {"pixel_size_nm": nm} | more])


def assert_same_ellipses(found: pd.DataFrame, loops: pd.DataFrame, tolerance_px: float) -> None:
    there, here = found[ELLIPSE[:4]].to_numpy(float), loops[ELLIPSE[:4]].to_numpy(float)
    assert there.shape == here.shape
    assert np.abs(there - here).max() <= tolerance_px
    turned = (found["angle_deg"].to_numpy() - loops["angle_deg"].to_numpy() + 90) % 180 - 90
    assert np.abs(turned).max() < 1


def test_rois_open_where_the_loops_are(tmp_path):
    loops = make_loops()
    (tmp_path / "a.zip").write_bytes(rois_zip(loops))
    rois = roifile.roiread(tmp_path / "a.zip")
    for roi, row in zip(rois, loops.itertuples(), strict=True):
        assert (roi.roitype, roi.subtype) == (roifile.ROI_TYPE.FREEHAND, roifile.ROI_SUBTYPE.ELLIPSE)
        assert (roi.name, roi.position) == (f"loop-{row.loop_id:04d}", 0)
        # ImageJ counts from the corner of the top left pixel.
        centre = np.array([roi.x1 + roi.x2, roi.y1 + roi.y2]) / 2
        assert np.abs(centre - 0.5 - [row.x_px, row.y_px]).max() < 0.05
        ratio = struct.unpack_from(">f", roi.tobytes(), 52)
        assert ratio == struct.unpack_from(">f", struct.pack(">f", row.minor_px / row.diameter_px))
    assert_same_ellipses(read_labels(tmp_path / "a.zip", SHAPE), loops, 0.05)


def test_rois_of_a_stack_have_the_position_of_their_slice():
    loops = pd.concat([make_loops(2), make_loops(3, frame=2)], ignore_index=True)
    with zipfile.ZipFile(io.BytesIO(rois_zip(loops, is_stack=True))) as archive:
        names = archive.namelist()
        assert len(set(names)) == 5
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in names]
    assert [roi.position for roi in rois] == [1, 1, 3, 3, 3]
    assert [loop_id_of(roi.name) for roi in rois] == [1, 2, 1, 2, 3]
    # Names that ImageJ gives to what is drawn by hand.
    assert [loop_id_of(name) for name in ("0012-0345", "0001-0012-0345", "12", "loop-x")] == [None] * 4


def test_files_do_not_tell_the_day(tmp_path):
    loops, images = make_loops(), make_images()

    def write(place: Path) -> list[bytes]:
        place.mkdir()
        (place / "a.zip").write_bytes(rois_zip(loops))
        write_label_image([SHAPE], loops, 0.5, place / "a.tif")
        write_workbook({"images": images, "loops": loops}, place / "a.xlsx")
        write_coco(loops, images, place / "a.json")
        write_diameter_figure(diameters_found(loops, images, "nm"), None, "nm", place / "a")
        return [path.read_bytes() for path in sorted(place.iterdir())]

    first = write(tmp_path / "1")
    time.sleep(2.1)  # zips count in steps of two seconds
    assert write(tmp_path / "2") == first


def test_the_empty_zip_says_no_loops(tmp_path):
    (tmp_path / "a.zip").write_bytes(rois_zip(loops_table()))
    assert len(read_labels(tmp_path / "a.zip", SHAPE)) == 0


def test_label_images_hold_the_numbers(tmp_path):
    loops = make_loops()
    write_label_image([SHAPE], loops, 0.5, tmp_path / "a.tif")
    labels = tifffile.imread(tmp_path / "a.tif")
    assert (labels.shape, labels.dtype) == (SHAPE, np.uint16)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    expected = np.zeros(SHAPE, int)
    for row in loops.itertuples():
        # An ellipse by its foci: another road than the writer's.
        focus = 0.5 * np.sqrt(row.diameter_px**2 - row.minor_px**2) * np.exp(-1j * np.deg2rad(row.angle_deg))
        point = (x - row.x_px) + 1j * (y - row.y_px)
        expected[np.abs(point - focus) + np.abs(point + focus) <= row.diameter_px] = row.loop_id
    assert (labels == expected).all()
    assert set(np.unique(labels)) == {0, *loops["loop_id"]}
    calibration = read_micrographs(tmp_path / "a.tif")[0].calibration
    assert calibration is not None
    assert (calibration.pixel_size_nm, calibration.source) == (0.5, "metadata: ImageJ")


def test_label_images_of_stacks_and_of_high_numbers(tmp_path):
    loops = pd.concat([make_loops(2), make_loops(3, frame=1)], ignore_index=True)
    write_label_image([SHAPE, SHAPE], loops, None, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej
        assert file.series[0].shape == (2, *SHAPE)
        assert [len(np.unique(page)) for page in file.asarray()] == [3, 4]
    write_label_image([SHAPE], loops[:2].assign(loop_id=[70_000, 3]), None, tmp_path / "b.tif")
    labels = tifffile.imread(tmp_path / "b.tif")
    assert set(np.unique(labels)) == {0, 3, 70_000}


def test_no_loop_is_hidden_in_a_label_image(tmp_path):
    loops = make_loops(3).assign(x_px=50.5, y_px=50.5, diameter_px=[20.0, 40.0, 0.5], minor_px=[20.0, 40.0, 0.5])
    beyond = make_loops(1).assign(loop_id=4, x_px=-1.0, y_px=150.0, diameter_px=30.0, minor_px=30.0)
    write_label_image([SHAPE], pd.concat([loops, beyond]), None, tmp_path / "a.tif")
    counts = np.bincount(tifffile.imread(tmp_path / "a.tif").ravel(), minlength=5)
    assert counts[3] == 1
    assert counts[1] == pytest.approx(100 * np.pi, rel=0.05)
    assert counts[2] == pytest.approx(300 * np.pi, rel=0.05)
    assert 0 < counts[4] < 225 * np.pi


def test_a_large_label_image_is_never_held(tmp_path):
    """Far more pixels than memory is allowed for: strip by strip."""
    import tracemalloc

    loops = make_loops()
    write_label_image([SHAPE], loops, None, tmp_path / "warm.tif")
    tracemalloc.start()
    write_label_image([(20_000, 5_000)], loops.assign(y_px=loops["y_px"] * 60), None, tmp_path / "a.tif")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6 < 20_000 * 5_000 * 2
    assert (tmp_path / "a.tif").stat().st_size < 2e6
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].shape == (20_000, 5_000)


@pytest.mark.parametrize("nm", [0.5, None])
def test_the_results_table_is_read_back_in_pixels(tmp_path, nm):
    loops = pd.concat([make_loops(5), make_loops(7, "deep/b.tif", seed=2)], ignore_index=True)
    images = pd.concat([make_images(nm=nm), make_images("deep/b.tif", nm=nm)], ignore_index=True)
    write_imagej_results(imagej_results(loops, images), tmp_path / "imagej_results.csv")
    table = pd.read_csv(tmp_path / "imagej_results.csv")
    assert list(table.columns[:4]) == [" ", "Label", "Area", "X"]
    assert set(table["Unit"]) == ({"nm"} if nm else {"pixel"})
    assert table["Major"].to_numpy() == pytest.approx(loops["diameter_px"].to_numpy() * (nm or 1))
    named = [("a.tif", SHAPE), ("deep/b.tif", SHAPE)]
    found = read_label_folder(tmp_path / "imagej_results.csv", named, marks=True)
    assert not found.errors
    for image, _ in named:
        assert_same_ellipses(found.experts["labels"][image], loops[loops["image"] == image], 0.05)
        assert found.marks[image].loop_ids == tuple(loops["loop_id"][loops["image"] == image])


def test_coco_is_read_back_and_keeps_numbers_and_scores(tmp_path):
    loops = make_loops(image=HOSTILE)
    loops.loc[3, "screening_score"] = np.nan
    failed = make_images("failed.tif", status="failed", height_px=None, width_px=None)
    write_coco(loops, pd.concat([make_images(HOSTILE), failed]), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [HOSTILE]
    assert [a["loop_id"] for a in content["annotations"]] == list(loops["loop_id"])
    assert ["score" in a for a in content["annotations"]].count(False) == 1
    area = np.pi / 4 * (loops["diameter_px"] * loops["minor_px"]).to_numpy()
    assert [a["area"] for a in content["annotations"]] == pytest.approx(area, rel=1e-3)
    found = read_label_folder(tmp_path / "a.json", [(HOSTILE, SHAPE)], marks=True)
    assert_same_ellipses(found.experts["labels"][HOSTILE], loops, 0.05)
    assert found.marks[HOSTILE].loop_ids == tuple(loops["loop_id"])


def sheet_cells(path: Path, number: int) -> list[dict[str, tuple[str, str]]]:
    """Rows of a sheet: column to type and content, as the XML has them."""
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))
    space = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    assert not root.findall(".//x:f", space)
    assert not root.findall(".//x:hyperlink", space)
    assert root.find(".//x:pane[@state='frozen']", space) is not None
    return [
        {cell.get("r"): (cell.get("t", "n"), "".join(cell.itertext())) for cell in row.findall("x:c", space)}
        for row in root.findall(".//x:row", space)
    ]


def test_a_workbook_runs_nothing_and_says_what_it_leaves_out(tmp_path):
    loops = make_loops(image=HOSTILE)
    images = make_images(HOSTILE, reason="-1+1")
    assert write_workbook({"images": images, "loops": loops}, tmp_path / "a.xlsx", max_rows=10) == {"loops": 3}
    first, second = (sheet_cells(tmp_path / "a.xlsx", number) for number in (1, 2))
    assert first[1]["A2"] == ("inlineStr", HOSTILE)
    assert first[1]["E2"] == ("inlineStr", "-1+1")
    assert len(second) == 10
    assert [text for _, text in second[0].values()] == list(loops.columns)
    column = "DEF"[list(loops.columns).index("x_px") - 3]
    assert float(second[1][f"{column}2"][1]) == pytest.approx(loops["x_px"][0])
    assert second[1]["S2"] == ("b", "0")
    assert loops.columns[18] == "on_edge"


def test_a_figure_fits_a_column_and_shows_every_loop(tmp_path):
    loops, images = make_loops(), make_images()
    labels = labels_table(make_loops(7, seed=3)[[*ELLIPSE, "x0_px", "y0_px", "x1_px", "y1_px"]])
    labels[["x0_px", "y0_px", "x1_px", "y1_px"]] = ellipse_bounds(*labels[ELLIPSE].to_numpy(float).T)
    labels.loc[0, "x0_px"] = 0.0
    marked = diameters_of_labels({"a.tif": labels, "gone.tif": labels}, images, "nm", "tight", 2.0)
    assert len(marked.values) == 6
    assert marked.values == pytest.approx(labels["diameter_px"].to_numpy()[1:] * 0.5)
    found = diameters_found(loops.assign(on_edge=loops["loop_id"] == 1), images, "nm")
    assert found.legend == "found: 11 in 1 image"
    paths = write_diameter_figure(found, marked, "nm", tmp_path / "diameters")
    assert [path.suffix for path in paths] == [".svg", ".png"]
    svg = paths[0].read_text()
    assert "loop diameter (nm)" in svg
    assert float(ElementTree.fromstring(svg).get("width").removesuffix("pt")) == pytest.approx(85 / 25.4 * 72)
    # Nothing found, all alike: a figure all the same.
    for values in (np.zeros(0), np.full(4, 7.0)):
        assert all(
            p.is_file() for p in write_diameter_figure(Diameters("found", values, 1), None, "px", tmp_path / "e")
        )


@given(st.lists(st.floats(0.5, 1e5), max_size=50))
def test_bins_hold_every_diameter_and_are_not_many(values):
    edges = bin_edges(np.array(values))
    assert (np.diff(edges) > 0).all()
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert len(edges) < 2100


READ_IN_IMAGEJ = """
import ij.*; import ij.gui.*; import ij.io.*; import java.io.*; import java.util.zip.*;
public class Read { public static void main(String[] a) throws Exception {
  ZipInputStream in = new ZipInputStream(new FileInputStream(a[0]));
  for (ZipEntry e; (e = in.getNextEntry()) != null; ) {
    EllipseRoi roi = (EllipseRoi) new RoiDecoder(in.readAllBytes(), e.getName()).getRoi();
    double[] p = roi.getParams(); java.awt.Rectangle b = roi.getBounds();
    System.out.println(roi.getName() + "," + p[0] + "," + p[1] + "," + p[2] + "," + p[3] + "," + p[4] + ","
      + b.x + "," + b.y + "," + (b.x + b.width) + "," + (b.y + b.height));
  }
  ImagePlus image = IJ.openImage(a[1]);
  System.out.println("image," + image.getBitDepth() + "," + image.getCalibration().pixelWidth + ","
    + image.getCalibration().getUnit() + "," + (int) image.getStatistics().max);
} }
"""


def test_imagej_itself_opens_them_at_their_place(tmp_path):
    if not IMAGEJ.is_file() or shutil.which("java") is None:
        pytest.skip("ImageJ is not here (Debian: imagej and a Java development kit)")
    loops = make_loops()
    (tmp_path / "a.zip").write_bytes(rois_zip(loops))
    write_label_image([SHAPE], loops, 0.5, tmp_path / "a.tif")
    (tmp_path / "Read.java").write_text(READ_IN_IMAGEJ)
    java = ("java", "-Djava.awt.headless=true", "-cp", str(IMAGEJ), "Read.java", "a.zip", "a.tif")
    done = subprocess.run(java, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "compiler" in done.stderr.lower():
        pytest.skip("this Java cannot run a source file: no compiler")
    *rois, image = [line.split(",") for line in done.stdout.splitlines()]
    assert image == ["image", "16", "0.5", "nm", "12"]
    bounds = ellipse_bounds(*loops[ELLIPSE].to_numpy(float).T) + 0.5
    for (name, *numbers), row, box in zip(rois, loops.itertuples(), bounds, strict=True):
        x1, y1, x2, y2, ratio, *theirs = map(float, numbers)
        assert name == f"loop-{row.loop_id:04d}"
        assert [(x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5] == pytest.approx([row.x_px, row.y_px], abs=0.05)
        assert np.hypot(x2 - x1, y2 - y1) == pytest.approx(row.diameter_px, abs=0.05)
        assert ratio == pytest.approx(row.minor_px / row.diameter_px, abs=1e-4)
        # Bounds of its pixels: whole ones.
        assert np.abs(np.array(theirs) - box).max() <= 1.0


def test_points_lie_on_their_ellipse():
    points = ellipse_points(np.array([3.0, 4.0, 10.0, 4.0, 90.0]), 8)
    # Along +y as seen is up: rows run down.
    assert points[0] == pytest.approx([3.0, -1.0])
    assert points[2] == pytest.approx([1.0, 4.0])
