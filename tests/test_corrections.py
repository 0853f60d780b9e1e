"""Which loops a correction leaves, moves, adds and deletes; and runs over a folder that somebody has corrected."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import build, computed, table_bytes, write_folder

# Before the toy chain takes the place of the real one, which training needs.
import defectpipe.training  # noqa: F401
from defectpipe.boxes import ellipse_bounds
from defectpipe.corrections import correct_loops, pair_loops
from defectpipe.export.rois import ellipse_roi
from defectpipe.io.labels.rois import roi_name
from defectpipe.io.tables import labels_table, loops_table, read_csv, write_csv
from tasks.runall import RunAll
from tasks.training_set import find_training_folder, read_training_images

DONE, FAILED = LuigiStatusCode.SUCCESS, LuigiStatusCode.FAILED
SHAPE = (300, 400)
ELLIPSE = ["x_px", "y_px", "diameter_px", "minor_px", "angle_deg"]
BOX = ["x0_px", "y0_px", "x1_px", "y1_px"]
CORRECTED = "field 1.tif"


def boxed(table: pd.DataFrame) -> pd.DataFrame:
    bounds = ellipse_bounds(*table[ELLIPSE].to_numpy(float).T)
    return table.assign(**{name: bounds[:, i] for i, name in enumerate(BOX)})


def shifted(table: pd.DataFrame, x_px: float, y_px: float = 0.0) -> pd.DataFrame:
    return table.assign(x_px=table["x_px"] + x_px, y_px=table["y_px"] + y_px)


def found_loops() -> pd.DataFrame:
    rows = [(50.0, 60.0, 30.0, 20.0, 30.0), (150.0, 60.0, 40.0, 15.0, 120.0), (398.0, 200.0, 30.0, 30.0, 0.0)]
    table = boxed(pd.DataFrame(rows, columns=ELLIPSE)).assign(image="a.tif", frame=0, loop_id=[1, 2, 3])
    return loops_table(table.assign(fit_quality=0.7, detection_score=0.8, screening_score=[0.9, 0.8, 0.7]))


def wanted_loops(table: pd.DataFrame, loop_ids: list[int | None]) -> pd.DataFrame:
    return labels_table(boxed(table)[ELLIPSE + BOX]).assign(loop_id=pd.array(loop_ids, dtype="Int64"))


def measure(screened: pd.DataFrame) -> pd.DataFrame:
    """A measurement that says which boxes it was given, and fails on large ones."""
    boxes = screened[BOX].to_numpy(float)
    side = (boxes[:, 2:] - boxes[:, :2]).max(1)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    table = screened.assign(image="a.tif", frame=0, loop_id=7, x_px=centres[:, 0], y_px=centres[:, 1])
    table = table.assign(diameter_px=side, minor_px=side / 2, angle_deg=5.0, diameter_nm=side * 0.5)
    table = table.assign(diameter_uncertainty_px=3.0, diameter_uncertainty_nm=1.5)
    return loops_table(table.assign(fit_quality=np.where(side > 60, 0.0, 0.6)).iloc[::-1])


def correct(wanted: pd.DataFrame):
    return correct_loops(found_loops(), wanted, SHAPE, "tight", measure)


def test_what_was_not_touched_keeps_its_measurement_to_the_bit():
    found = found_loops()
    # As formats round; numbers lost, order changed.
    rounded = shifted(found[ELLIPSE].round(1).iloc[::-1], 0.2, -0.2)
    corrected = correct(wanted_loops(rounded, [None] * 3))
    pd.testing.assert_frame_equal(corrected.loops, found)
    assert (corrected.n_moved, corrected.n_added, corrected.n_deleted) == (0, 0, 0)


def test_an_outline_that_ends_at_the_border_is_the_loop_that_reaches_over_it():
    found = found_loops()
    wanted = wanted_loops(found[ELLIPSE], [None] * 3)
    wanted.loc[2, ["x1_px", "x_px", "diameter_px", "minor_px"]] = [399.5, 391.0, 30.0, 17.0]
    assert [list(part) for part in pair_loops(found, wanted, SHAPE)] == [[0, 1, 2], [True] * 3]


def test_a_loop_turned_in_its_box_is_moved():
    found = found_loops()
    turned = found[ELLIPSE].assign(angle_deg=[150.0, 120.0, 0.0])
    pair, is_same = pair_loops(found, wanted_loops(turned, [None] * 3), SHAPE)
    assert (list(pair), list(is_same)) == ([0, 1, 2], [False, True, True])


def test_moved_added_and_deleted_loops():
    found = found_loops()
    moved = shifted(found[ELLIPSE].iloc[[0]], 100.0, 100.0)
    added = pd.DataFrame([(60.0, 250.0, 20.0, 10.0, 0.0), (300.0, 30.0, 24.0, 10.0, 0.0)], columns=ELLIPSE)
    nudged = shifted(found[ELLIPSE].iloc[[1]], 3.0)
    wanted = pd.concat([added, moved, nudged], ignore_index=True)
    corrected = correct(wanted_loops(wanted, [None, 99, 1, None]))
    assert (corrected.n_moved, corrected.n_added, corrected.n_deleted) == (2, 2, 1)
    loops = corrected.loops
    # Moved: one by its number, one by its place; the added ones in reading order, after the last number given.
    assert list(loops["loop_id"]) == [1, 2, 4, 5]
    assert list(loops["origin"]) == ["human-moved", "human-moved", "human-added", "human-added"]
    assert loops["x_px"].to_numpy() == pytest.approx([150, 153, 300, 60])
    assert list(loops["screening_score"][:2]) == [0.9, 0.8]
    assert loops["screening_score"][2:].isna().all()
    assert (loops["angle_deg"] == 5.0).all()


def test_numbers_that_have_changed_hands_do_not_mix_loops_up():
    """The automatic loops were numbered anew since: place comes before number."""
    found = found_loops()
    pair, is_same = pair_loops(found, wanted_loops(found[ELLIPSE], [2, 3, 1]), SHAPE)
    assert (list(pair), is_same.all()) == ([0, 1, 2], True)


def test_where_the_flood_fails_the_person_is_right():
    added = pd.DataFrame([(200.0, 150.0, 80.0, 40.0, 25.0)], columns=ELLIPSE)
    wanted = wanted_loops(pd.concat([found_loops()[ELLIPSE], added], ignore_index=True), [1, 2, 3, None])
    last = correct(wanted).loops.iloc[3]
    assert last[ELLIPSE].tolist() == [200.0, 150.0, 80.0, 40.0, 25.0]
    assert last["fit_quality"] == 0
    assert last["area_px2"] == pytest.approx(np.pi * 800)
    assert last["diameter_nm"] == pytest.approx(40.0)
    assert last[["diameter_uncertainty_px", "diameter_uncertainty_nm"]].isna().all(), "nobody has measured it"


def test_nothing_left_and_nothing_found():
    assert correct(wanted_loops(found_loops()[ELLIPSE][:0], [])).n_deleted == 3
    all_new = correct_loops(
        found_loops()[:0], wanted_loops(found_loops()[ELLIPSE], [None] * 3), SHAPE, "tight", measure
    )
    assert list(all_new.loops["loop_id"]) == [1, 2, 3]
    assert all_new.n_added == 3


def run_all(source: Path, **parameters) -> LuigiStatusCode:
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def edited(loops: pd.DataFrame) -> tuple[pd.DataFrame, list[int | None]]:
    """The loops of an image with the first deleted, the second moved by 4 px, and one added."""
    kept = shifted(loops[ELLIPSE].iloc[1:], 4.0)
    added = pd.DataFrame([(30.0, 95.0, 21.0, 13.0, 0.0)], columns=ELLIPSE)
    return pd.concat([kept, added], ignore_index=True), [*map(int, loops["loop_id"][1:]), None]


def as_rois(place: Path, _output: Path, table: pd.DataFrame, loop_ids: list[int | None]) -> None:
    with zipfile.ZipFile(place / f"{CORRECTED}.zip", "w") as archive:
        for ellipse, loop_id in zip(table.to_numpy(float), loop_ids, strict=True):
            name = "0096-0031" if loop_id is None else roi_name(loop_id)
            archive.writestr(f"{name}.roi", ellipse_roi(ellipse, name))


def as_csv(place: Path, _output: Path, table: pd.DataFrame, loop_ids: list[int | None]) -> None:
    write_csv(boxed(table).assign(loop_id=pd.array(loop_ids, dtype="Int64")), place / "field 1.csv")


def as_imagej(place: Path, _output: Path, table: pd.DataFrame, _loop_ids: list[int | None]) -> None:
    columns = {"X": table["x_px"] + 0.5, "Y": table["y_px"] + 0.5, "Major": table["diameter_px"]}
    columns |= {"Minor": table["minor_px"], "Angle": table["angle_deg"]}
    pd.DataFrame(columns).to_csv(place / "field 1.csv")


def as_coco(place: Path, output: Path, _table: pd.DataFrame, _loop_ids: list[int | None]) -> None:
    """Our own export, edited: that of all images."""
    content = json.loads((output / "loops.coco.json").read_text())
    [number] = [image["id"] for image in content["images"] if image["file_name"] == CORRECTED]
    gone, moved = [a for a in content["annotations"] if a["image_id"] == number]
    content["annotations"].remove(gone)
    moved["segmentation"][0][::2] = [x + 4 for x in moved["segmentation"][0][::2]]
    moved["bbox"][0] += 4
    new = {"id": 99, "image_id": number, "category_id": 1, "bbox": [20.0, 89.0, 21.0, 13.0], "iscrowd": 0}
    content["annotations"].append(new)
    (place / "anything.json").write_text(json.dumps(content))


@pytest.mark.parametrize("write", [as_rois, as_csv, as_imagej, as_coco])
def test_a_corrected_image_and_nothing_else_changes(toy, tmp_path, write: Callable[..., None]):
    source = write_folder(tmp_path / "in", 3)
    output = tmp_path / "in-defects"
    assert run_all(source) == DONE
    before, loops = table_bytes(output), read_csv(output / "loops.csv")
    assert set(loops["origin"]) == {"automatic"}
    computed(toy)
    stamps = _stamps(output)
    place = output / "corrections"
    place.mkdir()
    write(place, output, *edited(loops[loops["image"] == CORRECTED]))
    theirs = {path: path.read_bytes() for path in place.iterdir()}
    assert run_all(source) == DONE
    # The two loops that changed are measured; nothing of the other images, nothing before the measurement.
    assert computed(toy) == [f"measurement {CORRECTED} 0"]
    assert _rewritten(stamps, output) <= {"correction", "tables", "overlays", "exports", "report"}
    n_others = 2 if write is as_coco else 0
    assert len(_changed_overlays(stamps, output)) == 1 + n_others
    now = read_csv(output / "loops.csv")
    others = now["image"] != CORRECTED
    pd.testing.assert_frame_equal(now[others], loops[loops["image"] != CORRECTED])
    own = now[~others]
    assert list(own["origin"]) == ["human-moved", "human-added"]
    assert list(own["loop_id"]) == [1, 2]
    assert own["x_px"].to_numpy() == pytest.approx([114, 30], abs=0.02)
    rows = read_csv(output / "images.csv").set_index("image")
    assert rows.loc[CORRECTED, ["n_loops", "n_moved", "n_added", "n_deleted"]].tolist() == [2, 1, 1, 1]
    assert rows["n_moved"].isna().sum() == 2 - n_others
    labels = tifffile.imread(output / "label_images" / f"{CORRECTED}.tif")
    assert set(np.unique(labels)) == {0, 1, 2}
    # Once more, and nothing is computed; what people wrote stays as it was.
    after, again = table_bytes(output), _stamps(output)
    assert run_all(source) == DONE
    assert (computed(toy), _rewritten(again, output)) == ([], set())
    assert table_bytes(output) == after
    assert {path: path.read_bytes() for path in place.iterdir()} == theirs
    # Taken back, all is as before.
    shutil.rmtree(place)
    assert run_all(source) == DONE
    assert (computed(toy), table_bytes(output)) == ([], before)
    assert not list((output / ".defectpipe" / "correction").rglob("*.parquet"))


def test_broken_and_unknown_corrections_cost_nothing(toy, tmp_path):
    source = write_folder(tmp_path / "in", 3)
    output, place = tmp_path / "out", tmp_path / "in" / "mine"
    place.mkdir()
    (place / "field 0.zip").write_bytes(b"no zip")
    (place / "field 2.txt").write_text("")
    (place / "ghost.csv").write_text("x_px,y_px,diameter_px,minor_px,angle_deg\n1,1,1,1,1\n")
    assert run_all(source, output_dir=str(output), corrections_dir=str(place)) == FAILED
    rows = read_csv(output / "images.csv").set_index("image")
    assert list(rows["status"]) == ["review", "ok", "ok"]
    assert rows["reason"].iloc[0].startswith("not corrected: field 0.zip: cannot be read as a zip")
    assert list(rows["n_loops"]) == [2, 2, 0]
    assert rows["n_deleted"].iloc[2] == 2
    log = (output / "run.log").read_text()
    assert "ghost.csv is of no image of this folder" in log
    assert "1 correction files failed" in log
    summary = json.loads((output / "summary.json").read_text())["corrections"]
    assert summary["unmatched"] == ["ghost.csv"]
    assert list(summary["errors"]) == ["field 0.zip"]
    assert (summary["images"], summary["n_deleted"]) == (["field 2.tif"], 2)
    # A fixed file is all that is missing.
    (place / "field 0.zip").unlink()
    assert run_all(source, output_dir=str(output), corrections_dir=str(place)) == DONE


def test_a_stack_is_corrected_frame_by_frame(toy, tmp_path):
    stack = np.full((3, 120, 160), 200, np.uint8)
    stack[0, 30:60, 40:70] = stack[1, 50:80, 90:120] = stack[2, 20:50, 20:50] = 10
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    output = tmp_path / "in-defects"
    assert run_all(tmp_path / "in") == DONE
    loops = read_csv(output / "loops.csv")
    (output / "corrections").mkdir()
    shutil.copyfile(output / "rois" / "movie.tif.zip", output / "corrections" / "movie.zip")
    assert run_all(tmp_path / "in") == DONE
    pd.testing.assert_frame_equal(read_csv(output / "loops.csv"), loops)
    # One slice loses its loop.
    with zipfile.ZipFile(output / "corrections" / "movie.zip", "w") as archive:
        for frame in (0, 2):
            row = loops[loops["frame"] == frame].iloc[0]
            name = roi_name(int(row["loop_id"]), frame)
            archive.writestr(f"{name}.roi", ellipse_roi(row[ELLIPSE].to_numpy(float), name, frame))
    assert run_all(tmp_path / "in") == DONE
    assert list(read_csv(output / "loops.csv")["frame"]) == [0, 2]
    assert list(read_csv(output / "images.csv")["n_deleted"]) == [0, 1, 0]
    assert set(read_csv(output / "loops.csv")["origin"]) == {"automatic"}


def test_corrected_images_join_the_training_set(toy, tmp_path):
    from defectpipe.settings import Settings

    source = write_folder(tmp_path / "in", 3)
    output = tmp_path / "in-defects"
    assert run_all(source) == DONE
    loops = read_csv(output / "loops.csv")
    (output / "corrections").mkdir()
    as_rois(output / "corrections", output, *edited(loops[loops["image"] == CORRECTED]))
    # Other images of the same names, labelled.
    other = write_folder(tmp_path / "other", 2)
    (tmp_path / "labels").mkdir()
    for i in range(2):
        write_csv(boxed(loops[:1]).drop(columns="image"), tmp_path / "labels" / f"field {i}.csv")
    given = (str(other), str(tmp_path / "labels"), "", str(output / "corrections"))
    images = read_training_images(find_training_folder(*given), None, Settings())
    assert [(i.micrograph.image, len(i.labels), i.corrected) for i in images] == [
        ("field 0.tif", 1, False),
        ("field 1.tif", 1, False),
        ("in/field 1.tif", 2, True),
    ]
    # The same folder: the correction stands in the place of the label.
    given = (str(source), "", "", str(output / "corrections"))
    [alone] = read_training_images(find_training_folder(*given), None, Settings())
    assert (alone.micrograph.image, alone.corrected) == (CORRECTED, True)
    assert sorted(alone.labels["x_px"]) == pytest.approx([30, 114], abs=0.01)


def _stamps(output: Path) -> dict[Path, int]:
    kept = (*(output / ".defectpipe").glob("*/**/*.*"), *(output / "overlays").rglob("*.jpg"))
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}


def _rewritten(before: dict[Path, int], output: Path) -> set[str]:
    """Stages of which something was written since."""
    now = _stamps(output)
    changed = [path for path, time in now.items() if before.get(path) != time]
    return {path.relative_to(output).parts[1] for path in changed if ".defectpipe" in path.parts}


def _changed_overlays(before: dict[Path, int], output: Path) -> list[Path]:
    return [path for path, time in _stamps(output).items() if path.suffix == ".jpg" and before.get(path) != time]
