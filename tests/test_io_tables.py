"""Tables and files: what is written is whole, the same every time, and reads back."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectpipe.io.files import TEMPORARY_PREFIX, sweep_leftovers, write_atomic
from defectpipe.io.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LOOP_COLUMNS,
    images_table,
    labels_table,
    loops_table,
    read_csv,
    read_parquet,
    write_csv,
    write_json,
    write_parquet,
)

CONTRACT_IMAGES = (
    "image,frame,sha256,status,reason,height_px,width_px,analysed_area_px2,pixel_size_nm,pixel_size_source,"
    "magnification,focus_score,focus_gate,n_loops,n_on_edge,mean_diameter_px,std_diameter_px,mean_diameter_nm,"
    "std_diameter_nm,mean_diameter_nm_ci_low,mean_diameter_nm_ci_high,areal_density_per_m2,"
    "areal_density_per_m2_ci_low,areal_density_per_m2_ci_high,n_labels,labels_mean_diameter_px,"
    "labels_std_diameter_px,recall,precision,recall_20px,precision_20px,n_moved,n_added,n_deleted,"
    "focus_score_std,focus_blur_px,focus_blur_nm,focus_state,predicted_f1,predicted_f1_low,predicted_f1_high"
)
CONTRACT_LOOPS = (
    "image,frame,loop_id,x_px,y_px,x0_px,y0_px,x1_px,y1_px,diameter_px,minor_px,angle_deg,area_px2,feret_px,"
    "equivalent_diameter_px,diameter_nm,minor_nm,area_nm2,on_edge,detection_score,screening_score,fit_quality,origin,"
    "diameter_uncertainty_px,diameter_uncertainty_nm,class"
)


# --- files ---------------------------------------------------------------------------------------------------------


def test_bytes_arrive_whole_and_replace_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["a.bin"]


def test_a_writer_is_given_the_real_extension_and_a_fresh_name(tmp_path: Path) -> None:
    seen = []

    def writer(temporary: Path) -> None:
        seen.append((temporary.suffix, temporary.parent, temporary.exists()))
        temporary.write_bytes(b"x")

    write_atomic(tmp_path / "mask.ome.tif", writer)
    assert seen == [(".tif", tmp_path, False)]


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failed_writer_leaves_the_folder_as_it_was(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_bytes(before)

    def writer(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, writer)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_kill_in_the_middle_keeps_the_old_file_and_its_leftover_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    write_atomic(path, b"old")
    program = (
        "import os, signal, sys; from pathlib import Path; from defectpipe.io.files import write_atomic\n"
        "def writer(t):\n    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), writer)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    swept = sweep_leftovers(tmp_path)
    assert [p.name.startswith(TEMPORARY_PREFIX) for p in swept] == [True]
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_folder_of_parts_is_swept_and_a_link_is_left(tmp_path: Path) -> None:
    parts = tmp_path / "out" / f"{TEMPORARY_PREFIX}0123abcd"
    parts.mkdir(parents=True)
    (parts / "sheet.xml").write_bytes(b"half")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"kept")
    link = tmp_path / "out" / f"{TEMPORARY_PREFIX}link"
    link.symlink_to(elsewhere)
    assert sweep_leftovers(tmp_path / "out") == [parts]
    assert os.listdir(tmp_path / "out") == [link.name]
    assert (elsewhere / "kept").read_bytes() == b"kept"


def test_the_longest_name_that_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".json")
    write_atomic(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"precious")
    link = tmp_path / "out" / "a.txt"
    link.parent.mkdir()
    link.symlink_to(outside)
    write_atomic(link, b"new")
    assert outside.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


# --- the contract --------------------------------------------------------------------------------------------------


def test_columns_are_those_of_the_contract_in_its_order() -> None:
    assert ",".join(IMAGE_COLUMNS) == CONTRACT_IMAGES
    assert ",".join(LOOP_COLUMNS) == CONTRACT_LOOPS


@pytest.mark.parametrize(
    ("make", "columns"), [(images_table, IMAGE_COLUMNS), (loops_table, LOOP_COLUMNS), (labels_table, LABEL_COLUMNS)]
)
def test_an_empty_table_keeps_its_header_and_types(make, columns, tmp_path: Path) -> None:
    table = make()
    assert list(table.columns) == columns
    assert len(table) == 0
    write_csv(table, tmp_path / "a.csv")
    write_parquet(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.csv").read_text() == ",".join(columns) + "\n"
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet"), table)


def test_rows_take_the_order_and_types_of_the_contract_and_keep_what_is_more() -> None:
    table = loops_table([{"species": "<111>", "on_edge": True, "x_px": 3, "image": "a.tif", "loop_id": 2}])
    assert list(table.columns) == [*LOOP_COLUMNS, "species"]
    assert table.loc[0, "x_px"] == 3.0
    assert table["on_edge"].dtype == bool
    assert math.isnan(table.loc[0, "diameter_nm"])
    pd.testing.assert_frame_equal(loops_table(table), table)


def test_a_failed_image_has_empty_cells_not_zeros(tmp_path: Path) -> None:
    table = images_table(
        [{"image": "a.tif", "status": "failed", "reason": "0 bytes"}, {"image": "b.tif", "n_loops": 0}]
    )
    write_csv(table, tmp_path / "a.csv")
    failed, empty = (line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()[1:])
    assert set(failed[5:]) == {""}
    assert empty[IMAGE_COLUMNS.index("n_loops")] == "0"
    assert empty[IMAGE_COLUMNS.index("mean_diameter_nm")] == ""
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table)


def test_a_name_that_is_not_unicode_can_be_listed(tmp_path: Path) -> None:
    table = images_table([{"image": os.fsdecode(b"caf\xe9.tif")}])
    write_parquet(table, tmp_path / "a.parquet")
    write_csv(table, tmp_path / "a.csv")
    assert read_parquet(tmp_path / "a.parquet")["image"].tolist() == ["caf\\udce9.tif"]
    assert read_csv(tmp_path / "a.csv")["image"].tolist() == ["caf\\udce9.tif"]


# --- CSV -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "cell"),
    [
        ("x_px", 30123.45678, "30123.457"),
        ("analysed_area_px2", 900000000.0, "900000000"),
        ("angle_deg", -0.0001, "0"),
        ("mean_diameter_nm", 12.3456789, "12.3457"),
        ("areal_density_per_m2", 1.23456789e22, "1.23457e+22"),
        ("screening_score", float(np.float32(0.9)), "0.9"),
        ("pixel_size_nm", 0.47852, "0.47852"),
        ("recall", -0.0, "0"),
        ("recall", math.nan, ""),
        ("recall", math.inf, "inf"),
    ],
)
def test_figures_are_written_as_people_read_them(column: str, value: float, cell: str, tmp_path: Path) -> None:
    write_csv(pd.DataFrame({column: [value], "end": [1]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == f"{column},end\n{cell},1\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "'=", "''@", "＝"])
def test_text_is_neutral_in_a_spreadsheet_and_reads_back(start: str, tmp_path: Path) -> None:
    name = f'{start}HYPERLINK("http://x","y").tif'
    write_csv(images_table([{"image": name, "reason": "-5 is no size"}]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().split(b"\n", 1)[1].lstrip(b'"')[:1] == b"'"
    back = read_csv(tmp_path / "a.csv")
    assert back.loc[0, "image"] == name
    assert back.loc[0, "reason"] == "-5 is no size"


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    write_csv(loops_table([{"image": "a", "x0_px": -3.25}]), tmp_path / "a.csv")
    assert ",-3.25," in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("name", ["\r", "a\rb", "a\nb", "\r\n", 'a"\r', "a,\r"])
def test_a_name_with_a_line_end_stays_one_cell(tmp_path: Path, name: str) -> None:
    write_csv(loops_table([{"image": "first"}, {"image": name}]), tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")["image"].tolist() == ["first", name]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(st.just(math.nan), st.floats(-1e12, 1e12), st.floats(0, 1, width=32))
rows = st.fixed_dictionaries(
    {
        "image": st.one_of(texts, st.builds("{}{}".format, st.sampled_from(["=", "'", "'=", "+1", '"', ","]), texts)),
        "frame": st.integers(0, 2**40),
        "x_px": numbers,
        "angle_deg": numbers,
        "area_nm2": numbers,
        "on_edge": st.booleans(),
        "screening_score": numbers,
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, max_size=5))
def test_written_again_it_is_the_same_bytes_and_the_text_is_exact(tmp_path_factory, listed) -> None:
    folder = tmp_path_factory.mktemp("t")
    table = loops_table(listed)
    write_csv(table, folder / "a.csv")
    back = read_csv(folder / "a.csv")
    write_csv(back, folder / "b.csv")
    assert (folder / "b.csv").read_bytes() == (folder / "a.csv").read_bytes()
    assert back.dtypes.tolist() == table.dtypes.tolist()
    for name in ("image", "frame", "on_edge"):
        assert back[name].tolist() == table[name].tolist()
    np.testing.assert_allclose(back["x_px"], table["x_px"], rtol=1e-14, atol=5.01e-4)
    np.testing.assert_allclose(back["area_nm2"], table["area_nm2"], rtol=5.01e-6, atol=0)


def test_columns_that_the_contract_does_not_know_read_by_content(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.5, 2.0], "b": ["x", "1"], "c": [True, False], "d": ["", ""]})
    write_csv(table, tmp_path / "a.csv")
    back = read_csv(tmp_path / "a.csv")
    assert back["a"].tolist() == [1.5, 2.0]
    assert back["b"].tolist() == ["x", "1"]
    assert back["c"].tolist() == [True, False]
    assert back["d"].tolist() == ["", ""]


# --- Parquet and JSON ----------------------------------------------------------------------------------------------


def test_parquet_is_exact_compressed_and_the_same_every_time(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5)
    table = loops_table([{"image": "a.tif", "loop_id": i, "x_px": x, "on_edge": i % 2} for i, x in enumerate(values)])
    for name in ("a", "b"):
        write_parquet(table.set_axis(range(7, 12)), tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet"), table)
    assert list(read_parquet(tmp_path / "a.parquet", ["loop_id", "image"]).columns) == ["loop_id", "image"]
    import pyarrow.parquet

    column = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(3)
    assert column.compression == "ZSTD"


@dataclass
class Point:
    x: float
    where: Path


def test_json_holds_plain_values_in_their_order_and_null_for_unknown(tmp_path: Path) -> None:
    values = {
        "z": np.float64(0.1),
        "a": [np.int64(3), np.bool_(True), None, math.nan, math.inf, pd.NA],
        "m": np.array([[1.0, np.nan]]),
        1: Point(2.0, Path("a") / "b"),
        "text": "µm \udce9",
    }
    write_json(values, tmp_path / "a.json")
    read = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert list(read) == ["z", "a", "m", "1", "text"]
    assert read["z"] == 0.1
    assert read["a"] == [3, True, None, None, None, None]
    assert read["m"] == [[1.0, None]]
    assert read["1"] == {"x": 2.0, "where": "a/b"}
    assert read["text"] == "µm \udce9"
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_json_refuses_what_it_does_not_know_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="set"):
        write_json({"a": {1, 2}}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
