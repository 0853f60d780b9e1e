"""One label file: each format against the same geometry, and what is refused."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import label as connected_regions
from skimage.measure import regionprops

from defectpipe.errors import LabelError
from defectpipe.io.labels import LABEL_COLUMNS, LABEL_FORMATS, read_labels
from defectpipe.io.tables import labels_table, loops_table, write_csv

SHAPE = (300, 400)
HEADER = " ,Area,Mean,XM,YM,Major,Minor,Angle"


def saved(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def as_json(folder: Path, name: str, content: object) -> Path:
    return saved(folder, name, json.dumps(content))


def coco(annotations: list[dict], **more: object) -> dict[str, object]:
    image = {"id": 7, "file_name": "a.tif", "height": SHAPE[0], "width": SHAPE[1]}
    listed = [{"id": i + 1, "image_id": 7, "category_id": 1, "iscrowd": 0} | a for i, a in enumerate(annotations)]
    return {"images": [image], "annotations": listed, "categories": [{"id": 1, "name": "loop"}]} | more


def via(shapes: list[dict]) -> dict:
    regions = [{"shape_attributes": shape, "region_attributes": {"type": "loop"}} for shape in shapes]
    return {"a.tif12": {"filename": "a.tif", "size": 12, "regions": regions, "file_attributes": {}}}


def rim(x: float, y: float, major: float, minor: float, angle_deg: float, n: int = 720) -> np.ndarray:
    """Points of an ellipse, y downwards, angle counter-clockwise as seen: written without the library's functions."""
    t, a = np.linspace(0, 2 * np.pi, n, endpoint=False), np.deg2rad(angle_deg)
    along, across = major / 2 * np.cos(t), minor / 2 * np.sin(t)
    return np.stack([x + along * np.cos(a) - across * np.sin(a), y - along * np.sin(a) - across * np.cos(a)], 1)


def ellipse_roi(x: float, y: float, major: float, minor: float, angle_deg: float) -> bytes:
    """An ImageJ ellipse ROI (corner coordinates), the ratio of its axes set in its bytes."""
    points = rim(x, y, major, minor, angle_deg, 72)
    roi = roifile.ImagejRoi.frompoints(points.astype(np.float32), name="e")
    roi.subtype = roifile.ROI_SUBTYPE.ELLIPSE
    dx, dy = major / 2 * np.cos(np.deg2rad(angle_deg)), major / 2 * np.sin(np.deg2rad(angle_deg))
    roi.x1, roi.y1, roi.x2, roi.y2 = x - dx, y + dy, x + dx, y - dy
    data = bytearray(roi.tobytes())
    struct.pack_into(">f", data, 52, minor / major)
    return bytes(data)


def write_ellipse(kind: str, folder: Path, x: float, y: float, major: float, minor: float, angle: float) -> Path:
    """The same ellipse (pixel centres at integers) in any format."""
    corner = rim(x, y, major, minor, angle) + 0.5
    if kind == "imagej":
        row = f"1,99,0,{x + 0.5!r},{y + 0.5!r},{major!r},{minor!r},{angle!r}"
        return saved(folder, "a.csv", f"{HEADER}\n{row}\n")
    if kind == "coco":
        return as_json(folder, "a.json", coco([{"segmentation": [corner.ravel().tolist()]}]))
    if kind == "yolo":
        numbers = (corner / (SHAPE[1], SHAPE[0])).ravel().tolist()
        return saved(folder, "a.txt", "0 " + " ".join(map(repr, numbers)))
    if kind == "via":
        shape = {"name": "ellipse", "cx": x + 0.5, "cy": y + 0.5, "rx": minor / 2, "ry": major / 2}
        return as_json(folder, "a.json", via([shape | {"theta": -math.radians(angle - 90)}]))
    if kind == "roi":
        return saved(folder, "a.roi", ellipse_roi(x + 0.5, y + 0.5, major, minor, angle))
    if kind == "csv":
        table = labels_table([{"x_px": x, "y_px": y, "diameter_px": major, "minor_px": minor, "angle_deg": angle}])
        write_csv(table, folder / "a.csv")
        return folder / "a.csv"
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a = np.deg2rad(angle)
    along = (columns - x) * np.cos(a) - (rows - y) * np.sin(a)
    across = (columns - x) * np.sin(a) + (rows - y) * np.cos(a)
    mask = (2 * along / major) ** 2 + (2 * across / minor) ** 2 <= 1
    tifffile.imwrite(folder / "a.tif", (mask * 255).astype(np.uint8))
    return folder / "a.tif"


TOLERANCES = {"imagej": 1e-6, "coco": 0.01, "yolo": 0.01, "via": 1e-6, "roi": 1e-3, "csv": 2e-3, "masks": 1.0}


@pytest.mark.parametrize("kind", TOLERANCES)
@settings(deadline=None, max_examples=12)
@given(
    x=st.floats(60, 330),
    y=st.floats(60, 240),
    major=st.floats(30, 100),
    ratio=st.floats(0.4, 0.85),
    angle=st.floats(0, 179.9),
)
def test_one_ellipse_is_the_same_in_every_format(tmp_path_factory, kind, x, y, major, ratio, angle) -> None:
    folder = tmp_path_factory.mktemp("f")
    minor, tolerance = major * ratio, TOLERANCES[kind]
    table = read_labels(write_ellipse(kind, folder, x, y, major, minor, angle), SHAPE)
    assert list(table.columns) == LABEL_COLUMNS
    got = table.drop(columns="label").iloc[0]
    np.testing.assert_allclose(got[["x_px", "y_px"]], [x, y], atol=tolerance)
    np.testing.assert_allclose(got[["diameter_px", "minor_px"]], [major, minor], atol=tolerance)
    turned = (got["angle_deg"] - angle + 90) % 180 - 90
    # What a change of the axes by the tolerance can turn: little for a long ellipse, much for one that is almost round.
    assert abs(turned) <= math.degrees(tolerance / (major - minor)) + 0.02
    assert 0 <= got["angle_deg"] < 180
    points = rim(x, y, major, minor, angle, 100_000)
    box = np.concatenate([points.min(0), points.max(0)])
    np.testing.assert_allclose(got[["x0_px", "y0_px", "x1_px", "y1_px"]], box, atol=2 * tolerance)


# --- boxes ---------------------------------------------------------------------------------------------------------


def test_box_text_counts_from_one_and_a_size_is_x2_minus_x1(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt", "1 11 41 91\n\n# a comment\n100 200 300 400\n")
    table = read_labels(path, SHAPE, box_convention="tight")
    first = table.iloc[0]
    assert first[["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [10, 0, 90, 40]
    assert first[["x_px", "y_px", "diameter_px", "minor_px"]].tolist() == [50, 20, 80, 40]
    assert math.isnan(first["angle_deg"])
    assert table.loc[1, "x1_px"] == SHAPE[1] - 1
    assert table["label"].tolist() == ["", ""]


@pytest.mark.parametrize("side", range(5, 140, 3))
def test_the_published_padding_is_undone_unless_told_that_boxes_are_tight(tmp_path: Path, side: int) -> None:
    extra = min(max(5, round(0.3 * side)), 15)
    path = saved(tmp_path, "a.txt", f"20 30 {20 + side + extra} {30 + 60 + 15}\n")
    table = read_labels(path, SHAPE)
    height = table.loc[0, "y1_px"] - table.loc[0, "y0_px"]
    assert abs(height - side) <= 0.5
    assert table.loc[0, "y_px"] == pytest.approx(19 + (side + extra) / 2)
    assert table.loc[0, "diameter_px"] == pytest.approx(max(height, 60), abs=0.5)
    assert read_labels(path, SHAPE, box_convention="tight").loc[0, "y1_px"] - 19 == side + extra


def test_padding_is_undone_for_other_bare_boxes_only_when_asked(tmp_path: Path) -> None:
    path = as_json(tmp_path, "a.json", coco([{"bbox": [100, 50, 75, 26]}, {"segmentation": [[0, 0, 80, 0, 80, 40]]}]))
    for convention, size in (("auto", (75, 26)), ("tight", (75, 26)), ("padded", (60, 20))):
        table = read_labels(path, SHAPE, box_convention=convention)
        assert table.loc[0, ["diameter_px", "minor_px"]].tolist() == pytest.approx(size)
        assert table.loc[1, ["x0_px", "x1_px"]].tolist() == [-0.5, 79.5]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0 5 40 60", "outside"),
        ("5 -3 40 60", "outside"),
        ("5 5 301 60", "outside"),
        ("5 5 40 401", "outside"),
        ("40 5 5 60", "inverted"),
        ("5 60 40 60", "empty"),
        ("nan 5 40 60", "not finite"),
        ("5 5 inf 60", "not finite"),
        ("5 5 40", "not 3 numbers"),
        ("5 5 forty 60", "'forty' is not a number"),
        ("5 5 1_0 60", "'1_0' is not a number"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_row(tmp_path: Path, row: str, why: str) -> None:
    path = saved(tmp_path, "my loops.txt", f"5 5 40 60\n\n{row}\n")
    with pytest.raises(LabelError, match=rf"^my loops\.txt, row 3: .*{why}"):
        read_labels(path, SHAPE, "boxes")


def test_boxes_are_clipped_only_on_request_and_never_from_outside(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt", "-9 11 41 501\n")
    table = read_labels(path, SHAPE, box_convention="tight", clip=True)
    assert table.loc[0, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [10, -0.5, 399.5, 40]
    gone = saved(tmp_path, "b.txt", "5 500 40 600\n")
    with pytest.raises(LabelError, match="outside"):
        read_labels(gone, SHAPE, clip=True)


def test_an_ellipse_may_reach_over_the_border_but_its_centre_may_not(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", f"{HEADER}\n1,9,0,2,100,40,20,0\n")
    assert read_labels(path, SHAPE).loc[0, "x0_px"] == -18.5
    path = saved(tmp_path, "b.csv", f"{HEADER}\n1,9,0,-2,100,40,20,0\n")
    with pytest.raises(LabelError, match=r"b\.csv, row 2.*outside"):
        read_labels(path, SHAPE)


# --- ImageJ --------------------------------------------------------------------------------------------------------

DECIMALS = {
    "a.csv": ("X,Y,Major,Minor,Angle", "100.5,50.25,40,20.5,30"),
    "a.xls": (" \tX\tY\tMajor\tMinor\tAngle", "1\t100.5\t50.25\t40\t20.5\t30"),
    "b.xls": (" \tArea\tX\tY\tMajor\tMinor\tAngle", "1\t644\t100,5\t50,25\t40\t20,5\t30"),
    "c.txt": ("X;Y;Major;Minor;Angle", "100,5;50,25;40,0;20,5;30"),
    "d.csv": ("X,Y,Major,Minor,Angle", '"100,5","50,25",40,"20,5",30'),
    "e.csv": ("XM(px),YM (pixels),Major_px,Minor [px],Angle(deg)", "100.5,50.25,40,20.5,30"),
}


@pytest.mark.parametrize("name", DECIMALS)
def test_imagej_tables_of_any_separator_and_decimal_sign_say_the_same(tmp_path: Path, name: str) -> None:
    header, row = DECIMALS[name]
    table = read_labels(saved(tmp_path, name, f"\ufeff{header}\r\n{row}\r\n"), SHAPE)
    assert table.loc[0, ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]].tolist() == pytest.approx(
        [100, 49.75, 40, 20.5, 30]
    )


def test_imagej_bounding_boxes_and_their_corner(tmp_path: Path) -> None:
    table = read_labels(saved(tmp_path, "a.csv", " ,BX,BY,Width,Height\n1,0,10,30,20\n"), SHAPE)
    assert table.loc[0, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [-0.5, 9.5, 29.5, 29.5]
    assert table.loc[0, ["diameter_px", "minor_px"]].tolist() == [30, 20]


def test_the_centroid_comes_before_the_centre_of_mass(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", "X,Y,XM,YM,Major,Minor,Angle\n100,50,103,51,40,20,0\n")
    assert read_labels(path, SHAPE).loc[0, ["x_px", "y_px"]].tolist() == [99.5, 49.5]


def test_summary_rows_are_no_loops(tmp_path: Path) -> None:
    rows = "".join(f"{i},{label},50,50,40,20,0\n" for i, label in enumerate(["", "Mean", "SD", "Min", "Max"], 1))
    path = saved(tmp_path, "a.csv", f" ,Label,X,Y,Major,Minor,Angle\n{rows}")
    assert len(read_labels(path, SHAPE)) == 1


@pytest.mark.parametrize(
    ("header", "row", "why"),
    [
        ("X(nm),Y(nm),Major(nm),Minor(nm),Angle", "10,10,8,6,0", "in nm"),
        ("X,Y,Major,Minor (µm),Angle", "10,10,8,6,0", "in µm"),
        ("X,Y,Major,Minor,Angle,Unit", "10,10,8,6,0,nm", "in nm"),
        ("Area,X,Y,Major,Minor,Angle", "37.7,10,10,8,6,0", "row 2: .*37.7 is not a whole number.*--label-format"),
        ("X,Y,Major,Minor,Angle,Slice", "10,10,8,6,0,1\n10,10,8,6,0,2", "several slices"),
        ("X,Y,Major,Minor,Angle", '10.5,"10,5",8,6,0', "point and some a comma"),
        ("X,Y,Major,Minor,Angle", "10,5,10,5,8,6,0", "row 2: 7 cells under a header of 5"),
        ("X,Y,Major,Minor,Angle", "10,10,8,6", "row 2: 4 cells"),
        ("X,Y,Major,Minor,Angle", "10,10,8,0,0", "no size"),
        ("X,Y,Major,Minor,Angle", "10,10,NaN,6,0", "not finite"),
        ("X,Y,Major,Minor,Angle", "10,10,,6,0", "'' is not a number"),
        ("X,Y,Area", "10,10,8", "no header that we know"),
    ],
)
def test_imagej_tables_that_could_mislead_are_refused(tmp_path: Path, header: str, row: str, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^a\.csv.*{why}"):
        read_labels(saved(tmp_path, "a.csv", f"{header}\n{row}\n"), SHAPE)


def test_areas_of_fractions_are_taken_when_the_user_says_that_they_are_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", "Area,X,Y,Major,Minor,Angle\n37.7,10,10,8,6,0\n")
    assert read_labels(path, SHAPE, "imagej").loc[0, "diameter_px"] == 8


def test_an_excel_workbook_named_xls_is_refused(tmp_path: Path) -> None:
    for start in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        with pytest.raises(LabelError, match="Excel workbook; save it as CSV"):
            read_labels(saved(tmp_path, "a.xls", start + b"rest"), SHAPE)


# --- polygons ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    width=st.floats(10, 80),
    ratio=st.floats(0.2, 0.95),
    angle=st.floats(0, 3.1),
    first=st.integers(0, 3),
    back=st.booleans(),
    closed=st.booleans(),
)
def test_a_rectangle_has_its_analytic_ellipse_however_it_is_listed(
    tmp_path_factory, width, ratio, angle, first, back, closed
) -> None:
    height = width * ratio
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    corners = corners @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] + [150, 120]
    corners = np.roll(corners, first, 0)[:: -1 if back else 1]
    listed = np.concatenate([corners, corners[:1]]) if closed else corners
    folder = tmp_path_factory.mktemp("p")
    row = read_labels(as_json(folder, "a.json", coco([{"segmentation": [listed.ravel().tolist()]}])), SHAPE).iloc[0]
    assert row["diameter_px"] == pytest.approx(4 * width / math.sqrt(12))
    assert row["minor_px"] == pytest.approx(4 * height / math.sqrt(12))
    assert row[["x_px", "y_px"]].tolist() == pytest.approx([149.5, 119.5])
    assert row["x0_px"] == pytest.approx(corners[:, 0].min() - 0.5)


def test_two_parts_make_one_loop(tmp_path: Path) -> None:
    left, right = [[10, 10, 50, 10, 50, 50, 10, 50], [50, 10, 50, 50, 90, 50, 90, 10]]
    whole = [10, 10, 90, 10, 90, 50, 10, 50]
    a = read_labels(as_json(tmp_path, "a.json", coco([{"segmentation": [left, right]}])), SHAPE)
    b = read_labels(as_json(tmp_path, "b.json", coco([{"segmentation": [whole]}])), SHAPE)
    pd.testing.assert_frame_equal(a, b)
    assert a.loc[0, "label"] == "loop"


@pytest.mark.parametrize(
    ("polygon", "why"),
    [
        ([10, 10, 20, 20], "three corners"),
        ([10, 10, 20, 20, 30, 30], "no area"),
        ([10, 10, 10, 10, 10, 10], "no area"),
        ([10, 10, 30, 30, 30, 10, 10, 30], "no area"),
        ([10, 10, 30, 36, 30, 10, 10, 30], "crosses itself"),
        ([10, 10, 30, 10, 410, 30], "outside"),
        ([10, 10, 30, 10, 20], "odd"),
        ([10, 10, 30, 10, 20, "30"], "no list of numbers"),
        ([10, 10, 30, 10, 20, float("nan")], "not a finite number"),
    ],
)
def test_polygons_that_outline_nothing_are_refused_with_their_number(tmp_path: Path, polygon: list, why: str) -> None:
    path = as_json(tmp_path, "a.json", coco([{"segmentation": [[0, 0, 9, 0, 9, 9]]}, {"segmentation": [polygon]}]))
    with pytest.raises(LabelError, match=rf"^a\.json, annotation 2: .*{why}"):
        read_labels(path, SHAPE)


# --- YOLO ----------------------------------------------------------------------------------------------------------


def test_yolo_boxes_scale_with_each_side_and_take_names_from_beside(tmp_path: Path) -> None:
    saved(tmp_path, "classes.txt", "dot\nopen loop\n")
    path = saved(tmp_path, "a.txt", "1 0.5 0.25 0.1 0.2\n7 0.95 0.9 0.1 0.2")
    table = read_labels(path, SHAPE)
    assert table.loc[0, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == pytest.approx([179.5, 44.5, 219.5, 104.5])
    assert table.loc[1, "x1_px"] == pytest.approx(SHAPE[1] - 0.5)
    assert table["label"].tolist() == ["open loop", "7"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0 0.5 0.5 1.2 0.1", "outside"),
        ("0 0.5 0.5 0.1", "4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("nan 0.5 0.5 0.1 0.1", "class nan"),
    ],
)
def test_bad_yolo_rows_are_refused(tmp_path: Path, row: str, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^a\.txt, row 2: .*{why}"):
        read_labels(saved(tmp_path, "a.txt", f"0 0.5 0.5 0.1 0.1\n{row}\n"), SHAPE, "yolo")


# --- what could be two things --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.2 0.3 0.4 0.5", "1 5 5 40 60", "5 5 40 60 1", "0.5 0.5 0.5 0.1 0.1"])
def test_numbers_that_fit_two_formats_ask_for_the_format(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelError, match=r"^a\.txt: .*boxes or yolo.*--label-format"):
        read_labels(saved(tmp_path, "a.txt", text), SHAPE)


def test_the_stated_format_settles_it(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt", "5 5 40 60 1")
    table = read_labels(path, SHAPE, "boxes", "tight")
    assert table.loc[0, ["x0_px", "x1_px"]].tolist() == [4, 59]
    assert table.loc[0, "label"] == "1"


@pytest.mark.parametrize("label_format", [None, "boxes", "yolo", "imagej", "csv"])
@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff"])
def test_a_blank_file_says_that_there_are_no_loops(tmp_path: Path, text: str, label_format: str | None) -> None:
    table = read_labels(saved(tmp_path, "a.txt", text), SHAPE, label_format)
    assert len(table) == 0
    pd.testing.assert_frame_equal(table, labels_table())


@pytest.mark.parametrize("name", ["a.json", "a.zip", "a.roi", "a.png", "a.tif"])
def test_an_empty_file_of_another_kind_is_broken(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match=f"^{name}"):
        read_labels(saved(tmp_path, name, b""), SHAPE)


def test_headers_alone_say_that_there_are_no_loops(tmp_path: Path) -> None:
    write_csv(loops_table(), tmp_path / "loops.csv")
    write_csv(labels_table(), tmp_path / "labels.csv")
    saved(tmp_path, "imagej.csv", HEADER + "\n")
    for name in ("labels.csv", "imagej.csv"):
        assert len(read_labels(tmp_path / name, SHAPE)) == 0


@pytest.mark.parametrize("label_format", LABEL_FORMATS)
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, label_format: str) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(tmp_path / "a.png", SHAPE, label_format)


def test_unknown_choices_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt", "5 5 40 60")
    with pytest.raises(LabelError, match="label format 'voc'; known: boxes, yolo"):
        read_labels(path, SHAPE, "voc")
    with pytest.raises(LabelError, match="convention 'loose'; known: auto, tight, padded"):
        read_labels(path, SHAPE, box_convention="loose")


class Hostile:
    def __reduce__(self):
        return (Path.write_text, (Path("hostile-was-here"), "x"))


@pytest.mark.parametrize("suffix", [".xml", ".pkl", ".npy", ".mat"])
def test_files_that_could_run_code_are_refused_unread(tmp_path: Path, monkeypatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, f"a{suffix}", pickle.dumps(Hostile()))
    with pytest.raises(LabelError, match="labels are not read from"):
        read_labels(path, SHAPE)
    assert not Path("hostile-was-here").exists()


# --- COCO and VIA --------------------------------------------------------------------------------------------------


def test_coco_boxes_and_classes(tmp_path: Path) -> None:
    row = read_labels(as_json(tmp_path, "a.json", coco([{"bbox": [10, 20, 40, 30]}])), SHAPE).iloc[0]
    assert row[["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [9.5, 19.5, 49.5, 49.5]
    assert row["label"] == "loop"


def of_squares(axis_px: float) -> float:
    """An axis of scikit-image, whose pixels are points, for pixels that are squares (their variance is 1/12 px²)."""
    return math.sqrt(axis_px**2 + 16 / 12)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Counts of 0 and 1 in turn down the columns, the first of 0."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def packed(counts: list[int]) -> str:
    """COCO's run-length text, after rleToString of its maskApi.c."""
    text = ""
    for i, count in enumerate(counts):
        x = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_coco_run_lengths_give_the_mask_that_they_were_made_of(tmp_path_factory, seed: int, plain: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    for _ in range(3):
        y, x, h, w = rng.integers(0, [250, 350, 50, 50])
        mask[y : y + h + 1, x : x + w + 1] = True
    counts = run_lengths(mask)
    folder = tmp_path_factory.mktemp("r")
    segmentation = {"size": list(SHAPE), "counts": counts if plain else packed(counts)}
    row = read_labels(as_json(folder, "a.json", coco([{"segmentation": segmentation}])), SHAPE).iloc[0]
    expected = regionprops(mask.astype(int))[0]
    assert row["diameter_px"] == pytest.approx(of_squares(expected.axis_major_length))
    assert row["y0_px"] == expected.bbox[0] - 0.5
    assert row["x1_px"] == expected.bbox[3] - 0.5


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ({"segmentation": {"size": [300, 400], "counts": [5, 5]}}, "add up to 10"),
        ({"segmentation": {"size": [300, 400], "counts": [120001, -1]}}, "run lengths of the mask are broken"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "size"),
        ({"segmentation": {"size": [300, 400], "counts": [120000]}}, "empty"),
        ({"segmentation": {"size": [300, 400], "counts": "ooooo"}}, "run lengths"),
        ({"bbox": [1, 2, 3]}, "neither a segmentation nor a bbox"),
        ({}, "no list of numbers"),
        ({"bbox": [10, 10, -5, 5]}, "inverted"),
        ({"bbox": [1, 1, 9, 9], "iscrowd": 1}, "crowd"),
    ],
)
def test_broken_coco_annotations_are_refused(tmp_path: Path, annotation: dict, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^a\.json, annotation 1: .*{why}"):
        read_labels(as_json(tmp_path, "a.json", coco([annotation])), SHAPE)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"images": [', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1, 2]", "neither a COCO nor a VIA"),
        ("{}", "neither a COCO nor a VIA"),
        (json.dumps(coco([], images=[{"id": 1}])), "no file name"),
        (json.dumps(coco([{"bbox": [1, 1, 9, 9], "image_id": 8}])), "no image with the id 8"),
        (json.dumps(coco([]) | {"annotations": {}}), "lists 'images' and 'annotations'"),
        (json.dumps(coco([], images=[{"id": 1, "file_name": "a"}] * 2)), "listed twice"),
    ],
)
def test_broken_json_is_refused_whole(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^a\.json.*{why}"):
        read_labels(saved(tmp_path, "a.json", content), SHAPE)


def test_labels_made_for_another_size_are_refused(tmp_path: Path) -> None:
    path = as_json(tmp_path, "a.json", coco([{"bbox": [10, 20, 40, 30]}]))
    with pytest.raises(LabelError, match="made for 400 x 300 px, the image has 800 x 600 px"):
        read_labels(path, (600, 800))


VIA_SHAPES = [
    {"name": "rect", "x": 10, "y": 20, "width": 40, "height": 30},
    {"name": "circle", "cx": 100, "cy": 50, "r": 15.5},
    {"name": "polygon", "all_points_x": [10, 50, 50, 10], "all_points_y": [20, 20, 50, 50]},
]


def via_csv(shapes: list[dict]) -> str:
    text = io.StringIO()
    rows = [
        {
            "#filename": "a.tif",
            "file_size": 12,
            "region_count": len(shapes),
            "region_id": i,
            "region_shape_attributes": json.dumps(shape),
            "region_attributes": json.dumps({"type": "loop"}),
        }
        for i, shape in enumerate(shapes)
    ]
    pd.DataFrame(rows).to_csv(text, index=False)
    return text.getvalue()


def test_via_projects_exports_and_csv_say_the_same(tmp_path: Path) -> None:
    plain = via(VIA_SHAPES)
    old = json.loads(json.dumps(plain))
    old["a.tif12"]["regions"] = {str(i): r for i, r in enumerate(old["a.tif12"]["regions"])}
    paths = [
        as_json(tmp_path, "export.json", plain),
        as_json(tmp_path, "project.json", {"_via_settings": {}, "_via_img_metadata": plain}),
        as_json(tmp_path, "version1.json", old),
        saved(tmp_path, "via.csv", via_csv(VIA_SHAPES)),
    ]
    tables = [read_labels(path, SHAPE) for path in paths]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    table = tables[0]
    assert table.loc[0, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [9.5, 19.5, 49.5, 49.5]
    assert table.loc[1, ["x_px", "y_px", "diameter_px", "minor_px"]].tolist() == [99.5, 49.5, 31, 31]
    assert table.loc[2, "diameter_px"] == pytest.approx(4 * 40 / math.sqrt(12))
    assert table["label"].tolist() == ["loop"] * 3


def test_via_images_without_regions_have_no_loops(tmp_path: Path) -> None:
    assert len(read_labels(as_json(tmp_path, "a.json", via([])), SHAPE)) == 0
    assert len(read_labels(saved(tmp_path, "a.csv", via_csv([{}])), SHAPE)) == 0


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"name": "point", "cx": 1, "cy": 2}, "a point encloses no loop"),
        ({"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]}, "a polyline encloses"),
        ({"name": "circle", "cx": 1, "cy": 2}, "missing or no number"),
        ({"name": "rect", "x": "1", "y": 2, "width": 3, "height": 4}, "missing or no number"),
        ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, "as many x as y"),
        ({"name": "circle", "cx": 90, "cy": 90, "r": 0}, "no size"),
    ],
)
def test_via_shapes_that_are_no_loops_are_refused(tmp_path: Path, shape: dict, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^a\.json, a\.tif, region 1: .*{why}"):
        read_labels(as_json(tmp_path, "a.json", via([shape])), SHAPE)
    with pytest.raises(LabelError, match=rf"^a\.csv, row 2: .*{why}"):
        read_labels(saved(tmp_path, "a.csv", via_csv([shape])), SHAPE)


@pytest.mark.parametrize("name", ["../../x.tif", "/etc/x.tif", "..\\x.tif", "C:\\x.tif", "http://x/y.tif", "a/../../b"])
def test_image_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    image = {"id": 7, "file_name": name}
    one = via([])
    one["a.tif12"]["filename"] = name
    paths = [
        as_json(tmp_path, "coco.json", coco([], images=[image])),
        as_json(tmp_path, "via.json", one),
        saved(tmp_path, "via.csv", via_csv([{}]).replace("a.tif", name)),
        saved(tmp_path, "own.csv", f"image,x0_px,y0_px,x1_px,y1_px\n{name},1,1,9,9\n"),
    ]
    for path in paths:
        with pytest.raises(LabelError, match=rf"^{path.name}: .*absolute or leaves its folder"):
            read_labels(path, SHAPE)


# --- our own tables ------------------------------------------------------------------------------------------------


def test_a_table_of_loops_read_as_labels_is_tight_whatever_its_boxes_were(tmp_path: Path) -> None:
    loop = {"image": "=a.tif", "x_px": 100, "y_px": 50, "diameter_px": 40, "minor_px": 20, "angle_deg": 90}
    padded = {"x0_px": 87, "y0_px": 24, "x1_px": 113, "y1_px": 76}
    write_csv(loops_table([loop | padded]), tmp_path / "a.csv")
    row = read_labels(tmp_path / "a.csv", SHAPE).iloc[0]
    assert row[["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == pytest.approx([90, 30, 110, 70])
    write_csv(loops_table([{"image": "a.tif"} | padded]), tmp_path / "b.csv")
    bare = read_labels(tmp_path / "b.csv", SHAPE).iloc[0]
    assert bare[["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [87, 24, 113, 76]
    assert read_labels(tmp_path / "b.csv", SHAPE, box_convention="padded").loc[0, "diameter_px"] == pytest.approx(40)


def test_rows_of_a_later_frame_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", "image,frame,x0_px,y0_px,x1_px,y1_px\na,0,1,1,9,9\na,2,1,1,9,9\n")
    with pytest.raises(LabelError, match=r"a\.csv, row 3: labels are of frame 0, not of frame 2"):
        read_labels(path, SHAPE)


def test_a_file_of_many_images_serves_the_one_of_its_name(tmp_path: Path) -> None:
    text = "image,x0_px,y0_px,x1_px,y1_px\nsub/a.tif,1,1,9,9\nb.tif,1,1,19,9\n"
    assert read_labels(saved(tmp_path, "b.csv", text), SHAPE).loc[0, "diameter_px"] == 18
    with pytest.raises(LabelError, match="labels of 2 images"):
        read_labels(saved(tmp_path, "c.csv", text), SHAPE)


# --- masks ---------------------------------------------------------------------------------------------------------


def blobs(seed: int, n: int = 12) -> np.ndarray:
    """A label image of `n` separate blobs, values 1 to n, on an image that is not square."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.int32)
    for i in range(n):
        y, x = 25 + 100 * (i // 4), 30 + 90 * (i % 4)
        h, w = rng.integers(1, 20, 2)
        mask[y - h : y + h, x - w : x + w] = (i + 1) * (rng.random((2 * h, 2 * w)) < 0.95)
        mask[y, x - w : x + w] = mask[y - h : y + h, x] = i + 1
    return mask


def check_against_regionprops(table: pd.DataFrame, mask: np.ndarray) -> None:
    expected = regionprops(mask)
    assert len(table) == len(expected)
    for got, region in zip(table.itertuples(), expected, strict=True):
        assert got.y_px == pytest.approx(region.centroid[0])
        assert got.x_px == pytest.approx(region.centroid[1])
        assert got.diameter_px == pytest.approx(of_squares(region.axis_major_length))
        assert got.minor_px == pytest.approx(of_squares(region.axis_minor_length))
        y0, x0, y1, x1 = region.bbox
        assert (got.x0_px, got.y0_px, got.x1_px, got.y1_px) == (x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_label_images_and_binary_masks_against_regionprops(tmp_path: Path, seed: int, name: str) -> None:
    mask = blobs(seed)
    whole = np.where(mask > 0, 1, 0)
    for values in (mask, whole * 255):
        if name.endswith(".tif"):
            tifffile.imwrite(tmp_path / name, values.astype(np.uint16))
        else:
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / name)
        stated = "masks" if values is mask else None
        table = read_labels(tmp_path / name, SHAPE, stated)
        if values is mask:
            check_against_regionprops(table, mask)
        else:
            check_against_regionprops(table, connected_regions(whole, connectivity=2))


def test_palettes_and_grey_stored_as_colour_are_read_by_value(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[50:80, 100:160], mask[50:80, 160:200] = 1, 2
    palette = Image.fromarray(mask, mode=None).convert("P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "p.png")
    Image.merge("RGBA", [Image.fromarray(mask)] * 3 + [Image.new("L", SHAPE[::-1], 255)]).save(tmp_path / "c.png")
    for name in ("p.png", "c.png"):
        table = read_labels(tmp_path / name, SHAPE)
        assert table[["x0_px", "x1_px"]].to_numpy().tolist() == [[99.5, 159.5], [159.5, 199.5]]


def png(values: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def square(value: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:40, 30:70] = value
    return mask


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.png", png(255 - square(255)), "inverted"),
        ("a.png", png(square() * 0 + 1), "inverted"),
        ("a.png", png(square().T), "300 x 400 px, its image 400 x 300"),
        ("a.jpg", png(square()), "lossy"),
        ("a.png", png(np.stack([square(), square(2), square()], 2)), "coloured"),
        ("a.png", png(square() + np.roll(square(), 90, 0) + np.roll(square(2), 90, 1)), "value 1 lies in 2 pieces"),
        ("a.png", png(square())[:80], "cannot be read as a mask"),
        ("a.tif", b"II*\0 and no more", "cannot be read as a mask"),
        ("a.png", b"<html></html>", "cannot be read as a mask"),
    ],
)
def test_pictures_that_are_no_masks_are_refused(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    with pytest.raises(LabelError, match=rf"^{name}: .*{why}"):
        read_labels(saved(tmp_path, name, content), SHAPE)


def test_a_value_in_pieces_is_one_loop_when_the_user_says_so(tmp_path: Path) -> None:
    values = square() + np.roll(square(), 90, 0) + np.roll(square(2), 90, 1)
    table = read_labels(saved(tmp_path, "a.png", png(values)), SHAPE, "masks")
    assert table[["y0_px", "y1_px"]].to_numpy().tolist() == [[19.5, 129.5], [19.5, 39.5]]


def test_a_mask_is_the_polygon_around_its_pixels(tmp_path: Path) -> None:
    corners = [30, 20, 70, 20, 70, 40, 30, 40]
    polygon = read_labels(as_json(tmp_path, "a.json", coco([{"segmentation": [corners]}])), SHAPE)
    mask = read_labels(saved(tmp_path, "a.png", png(square())), SHAPE)
    pd.testing.assert_frame_equal(mask.drop(columns="label"), polygon.drop(columns="label"))


def test_an_empty_mask_says_that_there_are_no_loops(tmp_path: Path) -> None:
    assert len(read_labels(saved(tmp_path, "a.png", png(square() * 0)), SHAPE)) == 0


def test_float_masks_hold_whole_numbers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", square().astype(np.float32))
    assert read_labels(tmp_path / "a.tif", SHAPE).loc[0, "x1_px"] == 69.5
    for bad in (0.5, -1.0, np.nan):
        tifffile.imwrite(tmp_path / "b.tif", np.where(square(), bad, 0).astype(np.float32))
        with pytest.raises(LabelError, match="whole numbers"):
            read_labels(tmp_path / "b.tif", SHAPE)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    import zlib

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(LabelError, match=r"^a\.png"):
        read_labels(saved(tmp_path, "a.png", data), SHAPE)


# --- ImageJ ROIs ---------------------------------------------------------------------------------------------------


def roi(kind: roifile.ROI_TYPE, box: tuple[int, int, int, int]) -> roifile.ImagejRoi:
    made = roifile.ImagejRoi()
    made.roitype = kind
    made.left, made.top, made.right, made.bottom = box
    made.name = kind.name
    return made


def zipped(entries: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_rois_of_every_kind_that_encloses_a_loop(tmp_path: Path) -> None:
    oval = roi(roifile.ROI_TYPE.OVAL, (10, 20, 50, 44))
    polygon = roifile.ImagejRoi.frompoints(np.array([[10, 20], [50, 20], [50, 50], [10, 50]]), name="p")
    rectangle = roi(roifile.ROI_TYPE.RECT, (100, 20, 130, 80))
    entries = {f"{i}.roi": made.tobytes() for i, made in enumerate((oval, polygon, rectangle))}
    entries["3.roi"] = ellipse_roi(200.5, 150.5, 60, 24, 120)
    table = read_labels(saved(tmp_path, "a.zip", zipped(entries)), SHAPE)
    assert table.loc[0, ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]].tolist() == [29.5, 31.5, 40, 24, 0]
    assert table.loc[1, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [9.5, 19.5, 49.5, 49.5]
    assert table.loc[1, "diameter_px"] == pytest.approx(4 * 40 / math.sqrt(12))
    assert table.loc[2, ["x0_px", "y0_px", "x1_px", "y1_px"]].tolist() == [99.5, 19.5, 129.5, 79.5]
    assert math.isnan(table.loc[2, "angle_deg"])
    assert table.loc[3, ["diameter_px", "minor_px", "angle_deg"]].tolist() == pytest.approx([60, 24, 120], abs=1e-4)


def test_the_hole_of_a_ring_is_part_of_its_loop(tmp_path: Path) -> None:
    ring = roi(roifile.ROI_TYPE.RECT, (10, 20, 50, 60))
    outer, inner = [(10, 20), (50, 20), (50, 60), (10, 60)], [(20, 30), (20, 50), (40, 50), (40, 30)]
    path = [n for part in (outer, inner) for i, p in enumerate(part) for n in (min(i, 1), *p)] + [4]
    ring.multi_coordinates = np.array(path, np.float32)
    ring.shape_roi_size = len(path)
    row = read_labels(saved(tmp_path, "a.roi", ring.tobytes()), SHAPE).iloc[0]
    assert row["diameter_px"] == pytest.approx(4 * 40 / math.sqrt(12))
    assert row["x_px"] == 29.5


def line() -> bytes:
    made = roi(roifile.ROI_TYPE.LINE, (0, 0, 9, 9))
    made.x1, made.y1, made.x2, made.y2 = 1, 1, 9, 9
    return made.tobytes()


def at_slice(position: int) -> bytes:
    made = roi(roifile.ROI_TYPE.OVAL, (10, 20, 50, 44))
    made.position = position
    return made.tobytes()


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"l.roi": line()}, "ROI 'l.roi': a line encloses no loop"),
        ({"b.roi": b"Iout" + b"\xff" * 20}, "ROI 'b.roi': cannot be read"),
        ({"b.roi": ellipse_roi(50, 50, 40, 20, 0)[:200]}, "ROI 'b.roi': cannot be read"),
        ({"../../evil.roi": at_slice(0)}, "leaves the zip; refused"),
        ({"/evil.roi": at_slice(0)}, "leaves the zip; refused"),
        ({"readme.txt": b"x"}, "no ImageJ ROI"),
        ({"1.roi": at_slice(1), "2.roi": at_slice(2)}, "several slices"),
        ({"o.roi": roi(roifile.ROI_TYPE.OVAL, (10, 20, 500, 44)).tobytes()}, "outside|no size"),
        ({"o.roi": roi(roifile.ROI_TYPE.OVAL, (10, 20, 10, 44)).tobytes()}, "no size"),
    ],
)
def test_rois_that_are_no_loops_are_refused_by_name(tmp_path: Path, entries: dict[str, bytes], why: str) -> None:
    if why.startswith("outside"):
        entries = {"o.roi": roi(roifile.ROI_TYPE.RECT, (10, 20, 500, 44)).tobytes()}
    with pytest.raises(LabelError, match=rf"^a\.zip.*({why})"):
        read_labels(saved(tmp_path, "a.zip", zipped(entries)), SHAPE)


def test_a_zip_bomb_is_refused_by_what_it_claims(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(2**25))
    with pytest.raises(LabelError, match="too large"):
        read_labels(saved(tmp_path, "a.zip", data.getvalue()), SHAPE)


# --- anything at all -----------------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers(-5, 500) | st.floats() | st.text(max_size=4)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v, max_size=3))


def read_or_refuse(path: Path, **how: object) -> None:
    try:
        table = read_labels(path, SHAPE, **how)
    except LabelError as refused:
        sentence = str(refused)
    else:
        sentence = ""
        assert list(table.columns) == LABEL_COLUMNS
        boxes = table[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy()
        assert np.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert sentence == "" or sentence.startswith(path.name)


@settings(deadline=None, max_examples=150)
@given(
    content=st.one_of(st.binary(max_size=200), st.text("0123456789., ;\t\n-enaXYMajor", max_size=80).map(str.encode)),
    suffix=st.sampled_from([".txt", ".csv", ".xls", ".json", ".zip", ".roi", ".png", ".tif", ".xml"]),
    label_format=st.sampled_from([None, *LABEL_FORMATS]),
)
def test_any_bytes_are_read_or_refused_by_one_exception(tmp_path_factory, content, suffix, label_format) -> None:
    path = saved(tmp_path_factory.mktemp("any"), f"a{suffix}", content)
    read_or_refuse(path, label_format=label_format)


@settings(deadline=None, max_examples=150)
@given(value=values, place=st.sampled_from(["image", "annotation", "polygon", "counts", "shape", "regions", "list"]))
def test_any_json_is_read_or_refused_by_one_exception(tmp_path_factory, value, place) -> None:
    content: object = {
        "image": coco([{"bbox": [1, 1, 9, 9]}], images=[value]),
        "annotation": coco([]) | {"annotations": [value]},
        "polygon": coco([{"segmentation": value, "bbox": value, "category_id": value}]),
        "counts": coco([{"segmentation": {"size": list(SHAPE), "counts": value}}]),
        "shape": {
            "x": {"filename": "a", "regions": [{"shape_attributes": {"name": "polygon", "all_points_x": value}}]}
        },
        "regions": {"_via_img_metadata": {"x": {"filename": "a", "regions": value}}},
        "list": {"_via_img_metadata": value},
    }[place]
    read_or_refuse(as_json(tmp_path_factory.mktemp("any"), "a.json", content))
