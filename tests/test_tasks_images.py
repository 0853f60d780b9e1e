"""What an image may be, as a whole run over it tells: rows of `images.csv`, reasons, and what is left out."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import build, computed, write_blobs

from defectpipe.io.tables import read_csv
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS
from tasks.runall import RunAll

DONE, FAILED = LuigiStatusCode.SUCCESS, LuigiStatusCode.FAILED
STAGES = ("candidates", "screening", "measurement")


def run_all(source: Path, settings: dict | None = None, **parameters) -> LuigiStatusCode:
    if settings is not None:
        path = source.with_name("settings.json")
        path.write_text(json.dumps(settings))
        parameters["settings"] = str(path)
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def images_of(source: Path) -> pd.DataFrame:
    return read_csv(source.with_name("in-defects") / "images.csv").set_index("image")


def loops_of(source: Path) -> pd.DataFrame:
    return read_csv(source.with_name("in-defects") / "loops.csv")


def summary_of(source: Path) -> dict:
    return json.loads((source.with_name("in-defects") / "summary.json").read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """480 × 640 px of a simulated field, 8 bit, with loops."""
    return np.ascontiguousarray(simulate_field(PRESETS["demo"], 7).micrograph.grey8()[:480, :640])


def test_too_small_an_image_is_a_row_with_its_size(toy, source):
    write_blobs(source / "good.tif")
    for name, shape in (("dot.tif", (1, 1)), ("strip.tif", (23, 300)), ("small.png", (20, 20))):
        image = np.full(shape, 200, np.uint8)
        (source / name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
    # A PNG whose header says 0 × 0.
    header = struct.pack(">4sII", b"IHDR", 20, 20) + bytes([8, 0, 0, 0, 0])
    emptied = header[:4] + bytes(8) + header[12:]
    png = (source / "small.png").read_bytes()
    for old, new in (
        (header, emptied),
        (struct.pack(">I", zlib.crc32(header)), struct.pack(">I", zlib.crc32(emptied))),
    ):
        assert png.count(old) == 1
        png = png.replace(old, new)
    (source / "nothing.png").write_bytes(png)
    assert run_all(source) == FAILED
    images = images_of(source)
    assert images["status"].to_dict() == {
        **dict.fromkeys(("dot.tif", "nothing.png", "small.png", "strip.tif"), "failed"),
        "good.tif": "ok",
    }
    assert images.loc["dot.tif", "reason"] == "1 × 1 px are too few; each side needs 24 px."
    assert images.loc["strip.tif", "reason"].startswith("23 × 300 px are too few")
    assert "0 × 0 px" in images.loc["nothing.png", "reason"]
    assert images.loc["small.png", "reason"].startswith("20 × 20 px are too few")
    assert images.loc[["dot.tif", "nothing.png"], ["n_loops", "height_px"]].isna().all(axis=None)


def test_the_cap_on_pixels_is_a_setting_and_a_change_reads_again(toy, source):
    write_blobs(source / "a.tif", shape=(120, 160))
    write_blobs(source / "b.tif", shape=(130, 160))
    assert run_all(source, {"reading": {"max_pixels": 120 * 160}}) == FAILED
    images = images_of(source)
    assert images["status"].to_dict() == {"a.tif": "ok", "b.tif": "failed"}
    assert "130 × 160 px, more than the 19200 px" in images.loc["b.tif", "reason"]
    assert run_all(source, {"reading": {"max_pixels": 130 * 160}}) == DONE
    assert set(images_of(source)["status"]) == {"ok"}
    assert "2 images: settings.reading.max_pixels changed" in (source.with_name("in-defects") / "run.log").read_text()


def test_a_colour_picture_is_refused_until_a_setting_says_luminance(toy, source):
    grey = np.full((120, 160), 200, np.uint8)
    cv2.circle(grey, (80, 60), 14, 10, -1)
    coloured = np.dstack([grey, grey, np.where(grey > 100, 90, grey)]).astype(np.uint8)
    cv2.imwrite(str(source / "colour.png"), coloured)
    cv2.imwrite(str(source / "equal.png"), np.dstack([grey] * 3))
    cv2.imwrite(str(source / "alpha.png"), np.dstack([grey] * 3 + [np.full_like(grey, 9)]))
    assert run_all(source) == FAILED
    images = images_of(source)
    assert images["status"].to_dict() == {"alpha.png": "ok", "colour.png": "failed", "equal.png": "ok"}
    assert "it is a colour picture" in images.loc["colour.png", "reason"]
    assert images.loc["equal.png", "reason"] == "colour channels are equal: read as grey"
    assert images.loc["alpha.png", "reason"].startswith("alpha channel dropped")
    computed(toy)
    assert run_all(source, {"reading": {"colour": "luminance"}}) == DONE
    images = images_of(source)
    assert "colour converted to luminance (BT.601)" in images.loc["colour.png", "reason"]
    assert images["n_loops"].to_dict() == {"alpha.png": 1, "colour.png": 1, "equal.png": 1}
    assert len(computed(toy)) == 9
    assert run_all(source, {"reading": {"colour": "luminance"}}) == DONE
    assert computed(toy) == []


def test_a_box_outside_its_image_is_cut_only_on_request_and_counted(toy, source, tmp_path):
    write_blobs(source / "a.tif")
    labels = tmp_path / "labels"
    labels.mkdir()
    # y1 x1 y2 x2, counted from 1: the second reaches over the right border of 160 px.
    (labels / "a.txt").write_text("29 39 53 63\n56 96 86 176\n")
    given = {"labels_dir": str(labels), "label_format": "boxes"}
    assert run_all(source, **given) == FAILED
    assert pd.isna(images_of(source).loc["a.tif", "n_labels"])
    assert "lies outside the image" in json.dumps(summary_of(source)["labels"]["errors"])
    computed(toy)
    assert run_all(source, {"labels": {"clip": True}}, **given) == DONE
    assert computed(toy) == []
    assert images_of(source).loc["a.tif", "n_labels"] == 2
    assert summary_of(source)["labels"]["n_clipped"] == 1
    assert "1 boxes cut at the border" in summary_of(source)["labels"]["convention_note"]
    # A box that is nowhere in the image is refused all the same, and so is one turned over.
    for row in ("56 196 86 226", "53 39 29 63"):
        (labels / "a.txt").write_text(f"29 39 53 63\n{row}\n")
        assert run_all(source, {"labels": {"clip": True}}, **given) == FAILED


def test_any_depth_gives_the_same_loops_and_the_stretch_is_recorded(source, field):
    spread = field.astype(float)
    for name, values, options in (
        ("int16.tif", (spread * 100 - 9000).astype(np.int16), {}),
        ("uint16.tif", (spread * 100 + 700).astype(np.uint16), {}),
        ("float32.tif", (spread * 0.25 - 3).astype(np.float32), {}),
        ("inverted.tif", (65535 - (spread * 100 + 700)).astype(np.uint16), {"photometric": "miniswhite"}),
    ):
        tifffile.imwrite(source / name, values, **options)
    assert run_all(source) == DONE
    images, loops = images_of(source), loops_of(source)
    assert set(images["status"]) == {"ok"}
    assert images["n_loops"].min() >= 3
    first = loops[loops["image"] == "uint16.tif"].drop(columns="image").reset_index(drop=True)
    for name in ("float32.tif", "int16.tif", "inverted.tif"):
        other = loops[loops["image"] == name].drop(columns="image").reset_index(drop=True)
        pd.testing.assert_frame_equal(other, first, rtol=1e-3, atol=1e-2)
    assert images.loc["inverted.tif", "reason"] == "inverted: white is zero in the file"
    low, high = np.percentile(spread, [0.1, 99.9])
    ranges = {name: values[0] for name, values in summary_of(source)["grey_range"].items()}
    assert ranges["uint16.tif"] == pytest.approx([low * 100 + 700, high * 100 + 700])
    assert ranges["int16.tif"] == pytest.approx([low * 100 - 9000, high * 100 - 9000])
    assert ranges["float32.tif"] == pytest.approx([low * 0.25 - 3, high * 0.25 - 3])


def test_pixels_without_data_are_masked_counted_and_reported(source, field):
    values = field.astype(np.float32)
    values[40:60, 30:55], values[300, 200], values[301, 200] = np.nan, np.inf, -np.inf
    tifffile.imwrite(source / "holes.tif", values)
    tifffile.imwrite(source / "none.tif", np.full((100, 120), np.nan, np.float32))
    assert run_all(source) == FAILED
    images = images_of(source)
    assert images["status"].to_dict() == {"holes.tif": "ok", "none.tif": "failed"}
    assert images.loc["holes.tif", "reason"] == "502 pixels without data (NaN or infinite) are masked"
    assert images.loc["holes.tif", "analysed_area_px2"] == 480 * 640 - 502
    assert images.loc["holes.tif", "n_loops"] >= 3
    assert images.loc["none.tif", "reason"] == "no pixel holds a finite value."


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_constant_image_is_warned_of_and_holds_nothing(source, value):
    cv2.imwrite(str(source / "flat.png"), np.full((150, 200), value, np.uint8))
    tifffile.imwrite(source / "deep.tif", np.full((150, 200), 257 * value, np.uint16))
    assert run_all(source) == DONE
    images = images_of(source)
    assert set(images["status"]) == {"review"}
    assert images["reason"].str.startswith("every pixel has the same value").all()
    assert set(images["n_loops"]) == {0}
    assert images["mean_diameter_px"].isna().all()
    assert set(images["focus_score"]) == {0.0}
    assert summary_of(source)["grey_range"] == {"deep.tif": [[257 * value, 257 * value]]}


def test_a_data_bar_holds_no_loop_and_is_not_analysed(source, field):
    # A strip full of rings: where it is kept, they are found.
    barred = field.copy()
    barred[420:] = 0
    cv2.putText(barred, "200 kV   x50 000   WD 4.2 mm", (10, 470), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    cv2.rectangle(barred, (430, 440), (600, 446), 255, -1)
    tifffile.imwrite(source / "bar.tif", barred)
    tifffile.imwrite(source / "cut.tif", field[:420])
    assert run_all(source, pixel_size_nm=0.28) == DONE
    images, loops = images_of(source), loops_of(source)
    assert images.loc["bar.tif", ["height_px", "width_px"]].tolist() == [480, 640]
    assert images.loc["bar.tif", "analysed_area_px2"] == 420 * 640
    assert images.loc["bar.tif", "reason"] == "data bar left out: 60 rows at the bottom"
    # The very loops, counts and densities of the picture without it, the border's included.
    one, other = (loops[loops["image"] == name].drop(columns="image").reset_index(drop=True) for name in images.index)
    pd.testing.assert_frame_equal(one, other)
    assert len(one) >= 3
    for column in ("n_loops", "n_on_edge", "areal_density_per_m2", "areal_density_per_m2_ci_high"):
        assert images.loc["bar.tif", column] == images.loc["cut.tif", column]


def test_rows_are_cropped_as_set_and_a_strip_can_be_kept(source, field):
    shifted = np.concatenate([field[100:130], field[:420]])
    tifffile.imwrite(source / "a.tif", shifted)
    assert run_all(source, {"reading": {"crop_top_px": 30, "crop_bottom_px": 20}}) == DONE
    images, loops = images_of(source), loops_of(source)
    assert images.loc["a.tif", "analysed_area_px2"] == 400 * 640
    assert images.loc["a.tif", "reason"].endswith("cropped as set: 30 rows at the top, 20 at the bottom")
    alone = source.with_name("alone") / "in"
    alone.mkdir(parents=True)
    tifffile.imwrite(alone / "a.tif", np.ascontiguousarray(field[:400]))
    assert run_all(alone) == DONE
    expected = loops_of(alone)
    for column in ("y_px", "y0_px", "y1_px"):
        expected[column] += 30
    pd.testing.assert_frame_equal(loops, expected)
    assert len(loops) >= 3
    assert run_all(source, {"reading": {"crop_top_px": 440}}) == FAILED
    assert "440 at the top" in images_of(source).loc["a.tif", "reason"]
    assert run_all(source, {"reading": {"data_bar": "keep"}}) == DONE
    assert images_of(source).loc["a.tif", "analysed_area_px2"] == 450 * 640


def test_no_loop_is_found_in_a_scale_bar_and_its_area_is_not_analysed(source, field):
    drawn = np.clip(field, 5, 250)
    plain = drawn.copy()
    cv2.rectangle(drawn, (40, 440), (199, 446), 255, -1)
    cv2.putText(drawn, "100 nm", (70, 430), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    cv2.imwrite(str(source / "drawn.png"), drawn)
    cv2.imwrite(str(source / "plain.png"), plain)
    assert run_all(source) == DONE
    images, loops = images_of(source), loops_of(source)
    reason = images.loc["drawn.png", "reason"]
    assert reason.startswith("scale bar left out: ")
    width, height = (int(word) for word in reason.split("px")[0].removeprefix("scale bar left out: ").split("×"))
    assert images.loc["drawn.png", "analysed_area_px2"] == 480 * 640 - width * height
    found, there = (loops[loops["image"] == name] for name in ("drawn.png", "plain.png"))
    inside = (found["y_px"] > 400) & (found["x_px"] < 220)
    assert not inside.any()
    away = there[(there["y_px"] < 300) & (there["x_px"] > 200)]
    assert len(away) >= 2
    for row in away.itertuples():
        assert (np.hypot(found["x_px"] - row.x_px, found["y_px"] - row.y_px) < 2).any()


def test_pages_are_frames_with_a_row_each_never_colours(toy, source):
    stack = np.full((3, 90, 120), 200, np.uint8)
    stack[1, 30:60, 40:70] = 10
    tifffile.imwrite(source / "three.tif", stack, photometric="minisblack")
    assert run_all(source) == DONE
    images = images_of(source)
    assert images["frame"].tolist() == [0, 1, 2]
    assert images["n_loops"].tolist() == [0, 1, 0]
    assert images["reason"].isna().all() or not images["reason"].str.contains("colour").any()


def test_pixel_sizes_in_any_unit_are_converted_and_doubtful_ones_stop_their_image(toy, source):
    circle = np.full((90, 120), 200, np.uint8)
    cv2.circle(circle, (60, 45), 12, 10, -1)
    for name, unit, per_unit in (("um", "micron", 2000.0), ("nm", "n_m", 2.0), ("pm", "pm", 0.002), ("m", "m", 2e9)):
        values = {"metadata": {"unit": unit, "axes": "YX"}, "resolution": (per_unit, per_unit)}
        tifffile.imwrite(source / f"{name}.tif", circle, imagej=True, **values)
    uneven = {"metadata": {"unit": "nm", "axes": "YX"}, "resolution": (2.0, 1.0)}
    tifffile.imwrite(source / "uneven.tif", circle, imagej=True, **uneven)
    huge = {"metadata": {"unit": "m", "axes": "YX"}, "resolution": (1.0, 1.0)}
    tifffile.imwrite(source / "huge.tif", circle, imagej=True, **huge)
    tifffile.imwrite(source / "without.tif", circle)
    assert run_all(source) == FAILED
    images = images_of(source)
    good = ["m.tif", "nm.tif", "pm.tif", "um.tif"]
    assert np.allclose(images.loc[good, "pixel_size_nm"], 0.5)
    assert set(images.loc[good, "pixel_size_source"]) == {"metadata: ImageJ"}
    assert np.allclose(images.loc[good, "mean_diameter_nm"], 12.5)
    assert images.loc[["huge.tif", "uneven.tif"], "status"].tolist() == ["failed"] * 2
    assert "not square" in images.loc["uneven.tif", "reason"]
    assert "implausible" in images.loc["huge.tif", "reason"]
    # Unknown is empty, never 1, and said.
    assert images.loc["without.tif", "status"] == "ok"
    assert images.loc[["without.tif"]].filter(regex="nm|per_m2").isna().all(axis=None)
    assert summary_of(source)["without_pixel_size"] == ["without.tif"]
    assert "no pixel size, so no nm: without.tif" in (source.with_name("in-defects") / "run.log").read_text()
    # Overridden, they are read, and the conflict is in the table.
    (source / "pixel_sizes.csv").write_text("image,pixel_size_nm\nuneven.tif,0.7\nhuge.tif,0.8\n")
    assert run_all(source) == DONE
    images = images_of(source)
    assert images.loc[["huge.tif", "uneven.tif"], "pixel_size_nm"].tolist() == [0.8, 0.7]
    assert "pixel size 0.7 nm (pixel_sizes.csv) used instead of ImageJ" in images.loc["uneven.tif", "reason"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reading": {"colour": "red"}}, "'reading.colour' is refuse or luminance, not 'red'"),
        ({"reading": {"data_bar": "crop"}}, "'reading.data_bar' is leave_out or keep"),
        ({"reading": {"max_pixels": 0}}, "'reading.max_pixels' is a whole number from 1"),
        ({"reading": {"crop_top_px": 1.5}}, "'reading.crop_top_px' is a whole number from 0"),
        ({"tiling": {"tile_px": 8}}, "'tiling.tile_px' is a whole number from 64"),
        ({"labels": {"clip": 1}}, "'labels.clip' cannot be 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(toy, source, caplog, settings, said):
    write_blobs(source / "a.tif")
    assert run_all(source, settings) == FAILED
    assert said in caplog.text
