"""Labels of a folder: which file is of which image, several experts, and what a broken file costs."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import linear_sum_assignment

from defectpipe.boxes import overlaps
from defectpipe.errors import LabelError
from defectpipe.io.labels import LABEL_COLUMNS, LabelFolder, read_label_folder
from defectpipe.io.tables import loops_table, write_csv

SHAPE = (300, 400)
BOX = "5 5 40 60\n"


def saved(folder: Path, name: str, content: str = BOX) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def read(labels: Path, *images: str, **how) -> LabelFolder:
    return read_label_folder(labels, [(image, SHAPE) for image in images], **how)


def coco(**boxes: list[list[float]]) -> dict:
    names = {name.replace("__", "."): listed for name, listed in boxes.items()}
    images = [{"id": i, "file_name": name, "height": 300, "width": 400} for i, name in enumerate(names)]
    annotations = [{"id": 1, "image_id": i, "bbox": b} for i, listed in enumerate(names.values()) for b in listed]
    return {"images": images, "annotations": annotations, "categories": []}


# --- which file is of which image ----------------------------------------------------------------------------------


def test_labels_mirror_the_images(tmp_path: Path) -> None:
    names = ["a.tif", "sub/b.c.jpg", "sub/deep - Copy (2)/d, e.png", "ü.tif"]
    for name in ("a.txt", "sub/b.c.txt", "sub/deep - Copy (2)/d, e.txt", "ü.txt"):
        saved(tmp_path, name)
    result = read(tmp_path, *names, "f.tif", "sub/a.tif")
    assert sorted(result.experts) == ["labels"]
    assert sorted(result.experts["labels"]) == sorted(names)
    assert result.unlabelled_images == ["f.tif", "sub/a.tif"]
    assert result.unmatched_labels == []
    assert result.errors == {}
    assert result.files["labels"]["sub/b.c.jpg"] == tmp_path / "sub/b.c.txt"
    assert result.convention_note == "boxes (padding undone): 4 images"
    assert list(result.experts["labels"]["a.tif"].columns) == LABEL_COLUMNS


def test_a_label_file_may_keep_the_extension_of_its_image(tmp_path: Path) -> None:
    saved(tmp_path, "a.jpg.txt")
    saved(tmp_path, "b.b.tif.csv", "X,Y,Major,Minor,Angle\n50,50,40,20,0\n")
    assert sorted(read(tmp_path, "a.jpg", "b.b.tif").experts["labels"]) == ["a.jpg", "b.b.tif"]


def test_case_differs_and_unicode_spelling_does_not(tmp_path: Path) -> None:
    saved(tmp_path, "A.txt")
    saved(tmp_path, unicodedata.normalize("NFD", "é.txt"))
    image = unicodedata.normalize("NFC", "é.tif")
    result = read(tmp_path, "a.tif", image)
    assert list(result.experts["labels"]) == [image]
    assert result.unmatched_labels == ["A.txt"]
    assert result.unlabelled_images == ["a.tif"]


def test_one_file_for_two_images_of_a_stem_is_refused_until_it_says_which(tmp_path: Path) -> None:
    saved(tmp_path, "a.txt")
    saved(tmp_path, "b.txt")
    result = read(tmp_path, "a.jpg", "a.tif", "b.tif")
    assert list(result.experts["labels"]) == ["b.tif"]
    assert result.errors == {"a.txt": result.refused_images["a.tif"]}
    assert "a.jpg or a.tif" in result.errors["a.txt"]
    assert sorted(result.refused_images) == ["a.jpg", "a.tif"]
    assert result.unlabelled_images == []
    (tmp_path / "a.txt").rename(tmp_path / "a.tif.txt")
    assert sorted(read(tmp_path, "a.jpg", "a.tif", "b.tif").experts["labels"]) == ["a.tif", "b.tif"]


def test_the_same_stem_in_two_folders_is_two_images(tmp_path: Path) -> None:
    saved(tmp_path, "x/a.txt", "5 5 40 60\n")
    saved(tmp_path, "y/a.txt", "5 5 40 60\n5 5 40 60\n")
    tables = read(tmp_path, "x/a.tif", "y/a.tif").experts["labels"]
    assert {image: len(table) for image, table in tables.items()} == {"x/a.tif": 1, "y/a.tif": 2}


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "a.txt")
    saved(tmp_path, "a.csv", "X,Y,Major,Minor,Angle\n50,50,40,20,0\n")
    result = read(tmp_path, "a.tif")
    assert result.experts == {}
    assert "a.csv and a.txt: all are of a.tif; leave one." in result.refused_images["a.tif"]


def test_an_empty_file_is_an_image_without_loops_and_no_file_is_no_label(tmp_path: Path) -> None:
    saved(tmp_path, "a.txt", "")
    result = read(tmp_path, "a.tif", "b.tif")
    assert len(result.experts["labels"]["a.tif"]) == 0
    assert result.unlabelled_images == ["b.tif"]


def test_what_is_no_label_file_is_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, "a.txt")
    saved(tmp_path, "z.txt")
    saved(tmp_path, "README.txt", "These are the labels of 2018.\n")
    saved(tmp_path, "pixel_sizes.csv", "image,pixel_size_nm\na.tif,0.5\n")
    saved(tmp_path, "images.csv", "image,fold\na.tif,1\n")
    saved(tmp_path, "classes.txt", "loop\n")
    saved(tmp_path, ".hidden/b.txt")
    saved(tmp_path, ".b.txt")
    saved(tmp_path, "cascade.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]>")
    result = read(tmp_path, "a.tif", "b.tif")
    assert result.unmatched_labels == ["z.txt"]
    assert result.errors == {}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = saved(tmp_path / "outside", "a.txt")
    inside = tmp_path / "labels"
    inside.mkdir()
    (inside / "a.txt").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    assert read(inside, "a.tif").unlabelled_images == ["a.tif"]


def test_a_doubtful_file_is_settled_by_those_beside_it(tmp_path: Path) -> None:
    doubtful = "0.5 0.5 0.5 0.1 0.1\n"
    saved(tmp_path, "a.txt", doubtful)
    alone = read(tmp_path, "a.tif")
    assert "--label-format" in alone.errors["a.txt"]
    assert read(tmp_path, "a.tif", label_format="boxes").errors["a.txt"] != alone.errors["a.txt"]
    saved(tmp_path, "a.txt", "1 5 5 40 60\n")
    saved(tmp_path, "b.txt", "5 5 40 60\n")
    assert sorted(read(tmp_path, "a.tif", "b.tif", box_convention="tight").experts["labels"]) == ["a.tif", "b.tif"]


# --- what a broken file costs --------------------------------------------------------------------------------------


def test_a_broken_file_costs_its_image_only(tmp_path: Path) -> None:
    broken = {
        "b.txt": "5 5 40\n",
        "c.txt": "5 5 4000 60\n",
        "d.json": "{",
        "e.txt": "no header that we know\n",
        "f.xml": "<annotation/>",
        "g.zip": "PK",
        "h.txt": "1 2 3 4 5 6\n",
    }
    saved(tmp_path, "a.txt")
    for name, content in broken.items():
        saved(tmp_path, name, content)
    images = ["a.tif", *(f"{name[0]}.tif" for name in broken), "i.tif"]
    result = read(tmp_path, *images)
    assert list(result.experts["labels"]) == ["a.tif"]
    assert sorted(result.errors) == sorted(broken)
    assert sorted(result.refused_images) == sorted(images[1:-1])
    assert result.unlabelled_images == ["i.tif"]
    assert all(sentence.startswith(name) for name, sentence in result.errors.items())
    assert "row 1" in result.errors["c.txt"]
    assert "400 x 300 px" in result.errors["c.txt"]


def test_boxes_are_clipped_on_request_and_counted(tmp_path: Path) -> None:
    saved(tmp_path, "a.txt", "5 5 40 60\n-5 5 40 60\n200 300 310 390\n")
    assert "row 2" in read(tmp_path, "a.tif").errors["a.txt"]
    result = read(tmp_path, "a.tif", clip=True, box_convention="tight")
    assert result.n_clipped == 2
    assert len(result.experts["labels"]["a.tif"]) == 3
    assert result.convention_note == "boxes (tight boxes): 1 images; 2 boxes cut at the border"


def test_labels_that_are_not_there_and_unknown_choices_are_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no such file or folder"):
        read(tmp_path / "absent", "a.tif")
    with pytest.raises(LabelError, match="label format 'dota'"):
        read(tmp_path, "a.tif", label_format="dota")


def test_an_empty_folder_labels_nothing(tmp_path: Path) -> None:
    result = read(tmp_path, "a.tif")
    assert (result.experts, result.errors, result.unlabelled_images) == ({}, {}, ["a.tif"])


# --- one file for all ----------------------------------------------------------------------------------------------


def test_one_coco_file_labels_the_folder_from_outside_or_inside(tmp_path: Path) -> None:
    content = coco(a__tif=[[10, 20, 40, 30]], b__tif=[], z__tif=[[1, 1, 9, 9]])
    path = saved(tmp_path / "in", "annotations.json", json.dumps(content))
    saved(tmp_path / "in", "pixel_sizes.csv", "image,pixel_size_nm\na.tif,0.5\n")
    for labels in (path, path.parent):
        result = read(labels, "a.tif", "deep/b.tif", "c.tif")
        assert {image: len(table) for image, table in result.experts["labels"].items()} == {"a.tif": 1, "deep/b.tif": 0}
        assert result.unlabelled_images == ["c.tif"]
        assert result.unmatched_labels == ["annotations.json: z.tif"]
        assert result.errors == {}
        assert result.convention_note == "coco: 1 images; coco (tight boxes): 1 images"


def test_a_bad_annotation_costs_its_image_only(tmp_path: Path) -> None:
    content = coco(a__tif=[[10, 20, 40, 30], [390, 20, 40, 30]], b__tif=[[1, 1, 9, 9]], c__tif=[[1, 1]])
    content["images"].append({"id": 9, "file_name": "d.tif", "height": 512, "width": 512})
    result = read(saved(tmp_path, "x.json", json.dumps(content)), "a.tif", "b.tif", "c.tif", "d.tif")
    assert list(result.experts["labels"]) == ["b.tif"]
    assert sorted(result.errors) == ["x.json: a.tif", "x.json: c.tif", "x.json: d.tif"]
    assert "outside the image" in result.refused_images["a.tif"]
    assert "made for 512 x 512 px" in result.refused_images["d.tif"]


@pytest.mark.parametrize("name", ["../../x", "/abs/a.tif"])
def test_a_file_with_a_name_that_leaves_the_folder_is_refused_whole(tmp_path: Path, name: str) -> None:
    content = coco(a__tif=[[1, 1, 9, 9]])
    content["images"].append({"id": 9, "file_name": name})
    result = read(saved(tmp_path, "x.json", json.dumps(content)), "a.tif")
    assert result.experts == {}
    assert "leaves its folder" in result.errors["x.json"]
    assert result.unlabelled_images == ["a.tif"]


def test_an_entry_that_could_be_of_two_images_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.json", json.dumps(coco(a__tif=[], b__tif=[])))
    result = read(path, "u/a.tif", "v/a.tif", "u/b.tif")
    assert list(result.experts["labels"]) == ["u/b.tif"]
    assert "u/a.tif or v/a.tif" in result.errors["x.json: a.tif"]


def test_an_entry_with_more_folders_than_the_image_finds_it_but_not_by_half_a_name(tmp_path: Path) -> None:
    content = coco(a__tif=[])
    content["images"][0]["file_name"] = "train\\images/a.tif"
    assert list(read(saved(tmp_path, "x.json", json.dumps(content)), "images/a.tif").experts["labels"])
    assert read(saved(tmp_path, "y.json", json.dumps(coco(a__tif=[]))), "xa.tif").experts == {}


def test_of_several_files_for_all_the_one_named_labels_is_taken(tmp_path: Path) -> None:
    content = json.dumps(coco(a__tif=[[10, 20, 40, 30]]))
    saved(tmp_path, "first.coco.json", content)
    write_csv(loops_table([{"image": "a.tif", "x0_px": 1, "y0_px": 1, "x1_px": 9, "y1_px": 9}]), tmp_path / "truth.csv")
    doubt = read(tmp_path, "a.tif")
    assert doubt.experts == {}
    assert sorted(doubt.errors) == ["first.coco.json", "truth.csv"]
    saved(tmp_path, "labels.coco.json", content)
    result = read(tmp_path, "a.tif")
    assert result.experts["labels"]["a.tif"].loc[0, "diameter_px"] == 40
    assert result.unmatched_labels == ["first.coco.json", "truth.csv"]


def test_the_tables_of_a_run_serve_as_labels(tmp_path: Path) -> None:
    names = ["=1.tif", "sub/-2.tif"]
    ellipse = {"x_px": 50.0, "y_px": 40.0, "diameter_px": 30.0, "minor_px": 20.0, "angle_deg": 10.0}
    write_csv(loops_table([ellipse | {"image": name} for name in names]), tmp_path / "loops.csv")
    tables = read(tmp_path / "loops.csv", *names, "c.tif").experts["labels"]
    assert sorted(tables) == sorted(names)
    assert tables["=1.tif"].loc[0, "diameter_px"] == 30


def test_a_table_that_names_no_images_cannot_label_a_folder(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "x0_px,y0_px,x1_px,y1_px\n1,1,9,9\n")
    assert "no column 'image'" in read(path, "a.tif").errors["x.csv"]


def test_the_stated_format_narrows_what_is_a_label_file(tmp_path: Path) -> None:
    write_csv(loops_table([{"image": "a.tif", "x0_px": 1, "y0_px": 1, "x1_px": 9, "y1_px": 9}]), tmp_path / "loops.csv")
    saved(tmp_path, "pixel_sizes.csv", "image,pixel_size_nm\na.tif,0.5\n")
    saved(tmp_path, "x.json", json.dumps(coco(a__tif=[])))
    result = read(tmp_path, "a.tif", label_format="csv")
    assert len(result.experts["labels"]["a.tif"]) == 1
    assert (result.errors, result.unmatched_labels) == ({}, [])


def test_a_single_file_of_one_image_labels_that_image(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.txt")
    assert list(read(path, "a.tif", "b.tif").experts["labels"]) == ["a.tif"]
    assert read(path, "b.tif").unmatched_labels == ["a.txt"]


# --- experts -------------------------------------------------------------------------------------------------------


def test_each_folder_inside_is_an_expert(tmp_path: Path) -> None:
    saved(tmp_path, "ann/a.txt", "5 5 40 60\n")
    saved(tmp_path, "ann/sub/b.txt", "")
    saved(tmp_path, "bob/a.txt", "5 5 40\n")
    saved(tmp_path, "bob/sub/b.txt", BOX * 2)
    saved(tmp_path, "bob/z.txt")
    saved(tmp_path, "cy/labels.json", json.dumps(coco(a__tif=[[1, 1, 9, 9]])))
    saved(tmp_path, "notes/README.txt", "Who did what.")
    result = read(tmp_path, "a.tif", "sub/b.tif", "c.tif")
    counts = {expert: {image: len(t) for image, t in tables.items()} for expert, tables in result.experts.items()}
    assert counts == {"ann": {"a.tif": 1, "sub/b.tif": 0}, "bob": {"sub/b.tif": 2}, "cy": {"a.tif": 1}}
    assert list(result.errors) == ["bob/a.txt"]
    assert result.unmatched_labels == ["bob/z.txt"]
    assert result.unlabelled_images == ["c.tif"]


def test_one_expert_alone_is_a_single_set(tmp_path: Path) -> None:
    saved(tmp_path, "boxes/a.txt")
    assert list(read(tmp_path, "a.tif").experts) == ["labels"]


def test_a_mirror_comes_before_experts(tmp_path: Path) -> None:
    saved(tmp_path, "x/a.txt")
    saved(tmp_path, "y/a.txt")
    assert list(read(tmp_path, "x/a.tif", "a.tif").experts) == ["labels"]


# --- masks ---------------------------------------------------------------------------------------------------------


def mask(folder: Path, name: str) -> None:
    values = np.zeros(SHAPE, np.uint8)
    values[20:40, 30:70] = 255
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / name)


def test_a_folder_of_pictures_is_masks_unless_it_holds_other_labels(tmp_path: Path) -> None:
    mask(tmp_path, "a.png")
    mask(tmp_path, "b.png")
    assert sorted(read(tmp_path, "a.tif", "b.tif").experts["labels"]) == ["a.tif", "b.tif"]
    saved(tmp_path, "a.txt")
    beside = read(tmp_path, "a.png", "b.png")
    assert list(beside.experts["labels"]) == ["a.png"]
    assert beside.convention_note.startswith("boxes")
    assert (beside.unlabelled_images, beside.unmatched_labels, beside.errors) == (["b.png"], [], {})
    assert sorted(read(tmp_path, "a.png", "b.png", label_format="masks").experts["labels"]) == ["a.png", "b.png"]


# --- invariants ----------------------------------------------------------------------------------------------------

stems = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
folders = st.sampled_from(["", "x/", "x y/ü/"])


@settings(deadline=None, max_examples=25)
@given(st.sets(st.tuples(folders, stems.filter(lambda s: not s.startswith("."))), max_size=5))
def test_every_image_is_labelled_refused_or_unlabelled_and_only_once(tmp_path_factory, names) -> None:
    root = tmp_path_factory.mktemp("m")
    images = [f"{folder}{stem}.tif" for folder, stem in sorted(names)]
    for image in images[::2]:
        saved(root, image.removesuffix(".tif") + ".txt")
    result = read(root, *images)
    labelled = list(result.experts.get("labels", {}))
    assert sorted([*labelled, *result.refused_images, *result.unlabelled_images]) == sorted(set(images))
    plain = {unicodedata.normalize("NFC", image) for image in images}
    if len(plain) == len(images):
        assert sorted(labelled) == sorted(images[::2])


# --- the real labels -----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_all_boxes_of_the_fecral_set(data_dir: Path) -> None:
    folder = data_dir / "fecral-loops"
    table = pd.read_csv(folder / "images.csv")
    images = [(row.image, (row.height_px, row.width_px)) for row in table.itertuples()]
    padded = read_label_folder(folder / "boxes", images, box_convention="tight").experts["labels"]
    result = read_label_folder(folder / "boxes", images)
    tight = result.experts["labels"]
    assert (result.errors, result.unmatched_labels, result.unlabelled_images) == ({}, [], [])
    assert result.convention_note == "boxes (padding undone): 242 images"
    assert {image: len(t) for image, t in tight.items()} == dict(zip(table["image"], table["n_loops"], strict=True))
    assert sum(len(t) for t in tight.values()) == 6735

    first = sorted(tight)[0]
    y1, x1, y2, x2 = map(int, (folder / "boxes" / first).with_suffix(".txt").read_text().split()[:4])
    corners = ["x0_px", "y0_px", "x1_px", "y1_px"]
    assert padded[first].loc[0, corners].tolist() == [x1 - 1, y1 - 1, x2 - 1, y2 - 1]

    a, b = pd.concat(tight.values()), pd.concat(padded.values())
    extra = (b["x1_px"] - b["x0_px"]) - (a["x1_px"] - a["x0_px"])
    assert extra.between(5 - 1e-9, 15 + 1e-9).all()
    # The padding formula, applied to what was undone, gives the side in the file, within its rounding.
    side = a["x1_px"] - a["x0_px"]
    again = side + np.clip(np.rint(0.3 * side), 5, 15)
    assert (again - (b["x1_px"] - b["x0_px"])).abs().max() <= 0.5 + 1e-9
    np.testing.assert_allclose(a[["x_px", "y_px"]], b[["x_px", "y_px"]])


@pytest.mark.real
def test_the_folder_of_the_fecral_set_finds_its_boxes_beside_its_images(data_dir: Path) -> None:
    folder = data_dir / "fecral-loops"
    table = pd.read_csv(folder / "images.csv").head(20)
    images = [(row.image, (row.height_px, row.width_px)) for row in table.itertuples()]
    result = read_label_folder(folder, images)
    assert list(result.experts) == ["labels"]
    assert len(result.experts["labels"]) == 20
    assert len(result.unmatched_labels) == 222


@pytest.mark.real
def test_the_polygons_of_the_316l_set(data_dir: Path) -> None:
    folder = data_dir / "316l-loops"
    images = [(path.name, (512, 512)) for path in sorted((folder / "images").iterdir())]
    result = read_label_folder(folder, images)
    tables = result.experts["labels"]
    assert (result.errors, result.unmatched_labels, result.unlabelled_images) == ({}, [], [])
    assert sum(len(t) for t in tables.values()) == 103
    assert set(pd.concat(tables.values())["label"]) == {"hcloop"}
    content = json.loads((folder / "labels.coco.json").read_text())
    ids = {image["id"]: image["file_name"] for image in content["images"]}
    seen = dict.fromkeys(tables, 0)
    ratios = []
    for annotation in content["annotations"]:
        name = ids[annotation["image_id"]]
        row = tables[name].iloc[seen[name]]
        seen[name] += 1
        x, y, w, h = annotation["bbox"]
        box = row[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(float)
        # Its boxes span whole pixels, one more than its polygons' corners.
        np.testing.assert_allclose(box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])
        ratios.append(np.pi / 4 * row["diameter_px"] * row["minor_px"] / annotation["area"])
    # Of all shapes with given moments the ellipse is the largest; these outlines are nearly ellipses.
    assert min(ratios) >= 1
    assert np.median(ratios) < 1.01
    assert max(ratios) < 1.25


@pytest.mark.real
def test_the_two_passes_of_the_titanium_set_are_two_experts(data_dir: Path) -> None:
    folder = data_dir / "ti-black-dots"
    images = [(path.name, (2048, 2048)) for path in sorted((folder / "images").iterdir())]
    result = read_label_folder(folder, images)
    assert (result.errors, result.unmatched_labels, result.unlabelled_images) == ({}, [], [])
    assert result.convention_note == "yolo: 6 images"
    # Labels of the new pass, of the old, and pairs at IoU 0.5, one to one. Much of the old pass of two frames was
    # copied into the new one, to the last digit.
    frames = {"1434": (321, 262, 253), "2": (494, 397, 150), "816": (414, 252, 216)}
    for frame, (n_new, n_old, n_pairs) in frames.items():
        image = f"Chip-4-Heat-1-Frame-{frame}.jpg"
        new, old = (result.experts[name][image] for name in ("polygons_new", "polygons_old"))
        assert (len(new), len(old)) == (n_new, n_old)
        corners = ["x0_px", "y0_px", "x1_px", "y1_px"]
        close = overlaps(new[corners].to_numpy(), old[corners].to_numpy()) >= 0.5
        rows, columns = linear_sum_assignment(~close)
        assert close[rows, columns].sum() == n_pairs
        for table in (new, old):
            long_side = np.maximum(table["x1_px"] - table["x0_px"], table["y1_px"] - table["y0_px"])
            assert (table["diameter_px"] / long_side).between(0.75, 1.45).all()
