"""Several classes of defects: names and conventions, figures by class, and the whole way from labels to the report."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from run_helpers import build

from defectpipe.classes import DefectClass, DefectClasses
from defectpipe.corrections import CLASSED, MOVED, correct_loops
from defectpipe.detection.training import CascadeRecipe
from defectpipe.errors import LabelError, ModelError, SettingsError
from defectpipe.export.coco import CATEGORY, write_coco
from defectpipe.io.labels import read_labels
from defectpipe.io.tables import CLASS_COLUMNS, images_table, labels_table, loops_table, read_csv, write_csv
from defectpipe.measurement import measure
from defectpipe.measurement.edges import edge_reader, edge_strength
from defectpipe.measurement.tiles import measure_by_tiles
from defectpipe.model import CARD, LoopModel
from defectpipe.report.overlays import CLASS_COLOURS, LOOP_COLOUR, class_colour
from defectpipe.review.run_folder import RunFolder
from defectpipe.review.selection import agreement_of, at_threshold
from defectpipe.screening.network import ScreenerRecipe
from defectpipe.screening.screener import ScreeningRecipe, screen
from defectpipe.screening.training import ScreenerTraining
from defectpipe.settings import Settings
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.loops.presets import PRESETS
from defectpipe.statistics import evaluate
from defectpipe.statistics.classes import class_rows, pooled_classes
from defectpipe.statistics.images import image_row
from defectpipe.training import TrainingRecipe

SAID = {
    "loop": {"labels": ["open", "closed"]},
    "cavity": {"diameter": "equivalent", "contour": "edge"},
}
CLASSES = DefectClasses.of(SAID)
SHAPE = (300, 420)


# --- names and conventions -----------------------------------------------------------------------------------------


def test_classes_go_into_a_card_and_come_back() -> None:
    assert DefectClasses.of(json.loads(json.dumps(CLASSES.to_card()))) == CLASSES
    assert CLASSES.names == ["loop", "cavity"]
    assert CLASSES.n_logits == 2
    assert DefectClasses.of(None) == DefectClasses.of({}) == DefectClasses((DefectClass("loop", "major_axis", "rim"),))
    assert DefectClasses.of(None).n_logits == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"": {}}, "which is none"),
        ({"a": {"diameter": "feret"}}, r"classes\.a\.diameter"),
        ({"a": {"contour": ["rim"]}}, r"classes\.a\.contour"),
        ({"a": {"size": 1}}, "other than"),
        ({"a": {"labels": "b"}}, "no list of names"),
        ({"a": {"labels": ["b"]}, "b": {}}, "'b' twice"),
        ({str(i): {} for i in range(21)}, "at most 20"),
        (["a"], "holds names"),
    ],
)
def test_classes_that_make_no_sense_are_refused(values, said) -> None:
    with pytest.raises(ValueError, match=said):
        DefectClasses.of(values)
    if isinstance(values, dict):
        with pytest.raises(SettingsError, match=said):
            TrainingRecipe(classes=values)


def test_every_label_needs_a_class_where_there_are_several() -> None:
    labels = labels_table([{"label": name} for name in ("closed", "cavity", "open", "loop")])
    assert CLASSES.numbers(labels).tolist() == [0, 1, 0, 0]
    assert CLASSES.known(labels["label"]).tolist() == ["loop", "cavity", "loop", "loop"]
    for wrong, said in (("void", "'void' is none of loop, cavity"), ("", "a label without a class")):
        table = labels_table([{"label": wrong}])
        with pytest.raises(LabelError, match=said):
            CLASSES.numbers(table, "a.tif")
        assert CLASSES.known(table["label"]).tolist() == [""]
        # A model of one class takes labels by any name.
        assert DefectClasses().numbers(table).tolist() == [0]


def test_the_class_of_our_own_table_is_a_label(tmp_path: Path) -> None:
    write_csv(loops(), tmp_path / "loops.csv")
    table = read_labels(tmp_path / "loops.csv", SHAPE)
    assert table["label"].tolist() == ["loop", "cavity", "cavity", "loop"]


# --- figures by class ----------------------------------------------------------------------------------------------


def loops() -> pd.DataFrame:
    """Four loops of one image: a ring, two cavities (one cut by the border), a ring that no label knows."""
    x = np.array([60.0, 160, 410, 260])
    rows = pd.DataFrame({"image": "a.tif", "frame": 0, "loop_id": [1, 2, 3, 4], "x_px": x, "y_px": 100.0})
    rows = rows.assign(x0_px=x - 10, x1_px=x + 10, y0_px=90.0, y1_px=110.0, diameter_px=20.0, minor_px=16.0)
    rows = rows.assign(angle_deg=0.0, area_px2=np.pi * 81, equivalent_diameter_px=18.0, diameter_nm=10.0)
    rows = rows.assign(area_nm2=np.pi * 81 / 4, fit_quality=1.0, screening_score=0.9, on_edge=x > 400)
    rows["class"] = ["loop", "cavity", "cavity", "loop"]
    return loops_table(rows)


def facts(**more: object) -> dict[str, object]:
    return {
        **{"frame": 0, "height_px": 300, "width_px": 420, "analysed_shape_px": [300, 420]},
        **{"analysed_area_px2": 300 * 420.0, "pixel_size_nm": 0.5, "pixel_size_source": "argument"},
        **{"magnification": None, "constant": False, "notes": [], **more},
    }


def marks() -> pd.DataFrame:
    """Labels: the ring, a void called a loop, a cavity that nothing found, a thing of no class beside the last loop."""
    x = np.array([60.0, 160, 330, 260])
    rows = pd.DataFrame({"x_px": x, "y_px": 100.0, "x0_px": x - 10, "x1_px": x + 10, "y0_px": 90.0, "y1_px": 110.0})
    rows = rows.assign(diameter_px=20.0, minor_px=20.0, angle_deg=0.0, label=["open", "open", "cavity", "dust"])
    return labels_table(rows)


def test_each_class_has_its_own_diameter() -> None:
    ring, cavity = class_rows(facts(), loops(), CLASSES, Settings())
    assert (ring["class"], ring["n_loops"], ring["n_on_edge"], ring["mean_diameter_px"]) == ("loop", 2, 0, 20.0)
    assert (cavity["class"], cavity["n_loops"], cavity["n_on_edge"]) == ("cavity", 2, 1)
    assert cavity["mean_diameter_px"] == 18.0
    assert cavity["mean_diameter_nm"] == pytest.approx(9.0)
    whole = image_row(facts(), loops(), Settings())
    # Densities of classes add up to that of all.
    both = ring["areal_density_per_m2"] + cavity["areal_density_per_m2"]
    assert both == pytest.approx(whole["areal_density_per_m2"])


def test_pooled_figures_of_a_class_are_those_of_its_loops_alone() -> None:
    images = images_table([{"image": "a.tif", "sha256": ""} | image_row(facts(), loops(), Settings())])
    rows = pd.DataFrame([{"image": "a.tif"} | row for row in class_rows(facts(), loops(), CLASSES, Settings())])
    pooled = pooled_classes(images, rows, loops(), CLASSES, Settings())
    assert {name: of["n_loops"] for name, of in pooled.items()} == {"loop": 2, "cavity": 2}
    assert pooled["cavity"]["diameter"] == "equivalent"
    assert pooled["cavity"]["mean_diameter_nm"] == pytest.approx(9.0)
    assert pooled["loop"]["mean_diameter_nm"] == pytest.approx(10.0)
    assert pooled["loop"]["areal_density_per_m2"] == pytest.approx(rows["areal_density_per_m2"][0])


def test_agreement_asks_for_the_same_class() -> None:
    images = images_table([{"image": "a.tif", "sha256": ""} | image_row(facts(), loops(), Settings())])
    found = evaluate(
        images,
        loops(),
        {"expert": {"a.tif": marks()}},
        box_convention="tight",
        settings=Settings(),
        classes=CLASSES,
    )
    assert found["iou_0.4"]["n_found"] == 3
    of = found["classes"]
    assert of["confusion"] == {
        "labels": ["loop", "cavity", "no label"],
        "loops": ["loop", "cavity", "no loop"],
        # Of two loops one is called a cavity; the cavity is missed; the cut one counts neither way, nor that by dust.
        "counts": [[1, 1, 0], [0, 0, 1], [0, 0, 0]],
    }
    assert of["n_labels_without_class"] == 1
    assert of["class_accuracy"] == 0.5
    ring, cavity = of["by_class"]["loop"], of["by_class"]["cavity"]
    assert [ring[name] for name in ("n_labels", "n_found", "n_loops", "n_true")] == [2, 1, 1, 1]
    assert [cavity[name] for name in ("n_labels", "n_found", "n_loops", "n_true")] == [1, 0, 1, 0]
    assert (ring["recall"], ring["precision"], ring["n_pairs"]) == (0.5, 1.0, 1)
    assert ring["median_relative_error"] == 0.0
    assert cavity["median_relative_error"] is None
    alone = evaluate(images, loops(), {"e": {"a.tif": marks()}}, box_convention="tight", settings=Settings())
    assert "classes" not in alone


# --- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [30, 210])
@pytest.mark.parametrize("softness_px", [0.8, 2.0])
def test_a_solid_body_is_measured_by_its_edge(grey: int, softness_px: float) -> None:
    y, x = np.mgrid[:160, :220]
    inside = np.hypot((x - 100.3) / 1.25, y - 70.6) < 12
    picture = cv2.GaussianBlur(np.where(inside, float(grey), 120.0), (0, 0), softness_px)
    picture += np.random.default_rng(0).normal(0, 6, picture.shape)
    image = np.clip(picture, 0, 255).astype(np.uint8)
    box = np.array([[100.3 - 16, 70.6 - 11, 100.3 + 14, 70.6 + 13]])
    [row] = measure(edge_strength(image), box, polarity="bright").to_dict("records")
    assert row["measured"]
    assert row["diameter_px"] == pytest.approx(30, rel=0.04)
    assert row["equivalent_diameter_px"] == pytest.approx(24 * np.sqrt(1.25), rel=0.04)

    def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return image[y0:y1, x0:x1]

    boxes = np.concatenate([box, box - np.array([80.0, 55, 80, 55])])
    whole = measure(edge_strength(image), boxes, polarity="bright")
    tiled = measure_by_tiles(edge_reader(read, image.shape), image.shape, boxes, polarity="bright", tile_px=90)
    pd.testing.assert_frame_equal(tiled, whole, atol=1e-3)


class TwoClasses:
    """Finds what is not grey; bright is of the second class, dark of the first."""

    n_classes = 2

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        middle = crops[:, 8:16, 8:16, 0].mean((1, 2))
        answers = np.zeros((len(crops), 7), np.float32)
        answers[:, 0] = np.where(np.abs(middle) > 0.3, 3.0, -6.0)
        answers[:, 5], answers[:, 6] = -middle, middle
        return answers


def test_the_screener_says_the_class() -> None:
    y, x = np.mgrid[:120, :180]
    image = 120.0 + 90 * np.exp(-0.5 * ((x - 50) ** 2 + (y - 60) ** 2) / 8**2)
    image -= 90 * np.exp(-0.5 * ((x - 120) ** 2 + (y - 60) ** 2) / 8**2)
    candidates = np.array([[38.0, 48, 62, 72], [108, 48, 132, 72], [78, 10, 102, 34]])
    seen = ScreenerRecipe(crop_px=24, widths=(8, 16, 24), hidden=32)
    found = screen(image.astype(np.uint8), candidates, TwoClasses(), seen, ScreeningRecipe(image_share=0.0))
    assert dict(zip(found.candidates.tolist(), found.classes.tolist(), strict=True)) == {0: 1, 1: 0}


def test_a_person_can_change_the_class_alone() -> None:
    found = loops().iloc[[0, 1]].reset_index(drop=True)
    boxes = {"y0_px": found["y_px"] - 8, "y1_px": found["y_px"] + 8}
    wanted = labels_table(found.assign(label=["cavity", ""], **boxes)).assign(loop_id=[1, 2])
    moved = wanted.assign(x_px=wanted["x_px"] + [0.0, 6.0], x0_px=wanted["x0_px"] + [0.0, 6.0])
    moved["x1_px"] += [0.0, 6.0]
    asked = []

    def measure_anew(screened: pd.DataFrame) -> pd.DataFrame:
        asked.append(screened["class"].tolist())
        return loops_table(screened.assign(fit_quality=1.0, x_px=100.0, y_px=100.0))

    after = correct_loops(found, moved, SHAPE, "tight", measure_anew, CLASSES).loops
    assert after["class"].tolist() == ["cavity", "cavity"]
    assert after["origin"].tolist() == [CLASSED, MOVED]
    assert after["diameter_px"][0] == found["diameter_px"][0]
    # Which contour is measured depends on the class: it is known when a moved loop is measured.
    assert asked == [["cavity", "loop", "cavity"]]
    assert correct_loops(found, wanted, SHAPE, "tight", measure_anew).loops["class"].tolist() == ["loop", "cavity"]


def test_coco_has_a_category_a_class(tmp_path: Path) -> None:
    images = images_table([{"image": "a.tif", "sha256": ""} | image_row(facts(), loops(), Settings())])
    write_coco(loops(), images, tmp_path / "several.json", classes=CLASSES.names)
    content = json.loads((tmp_path / "several.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "loop"}, {"id": 2, "name": "cavity"}]
    assert [entry["category_id"] for entry in content["annotations"]] == [1, 2, 2, 1]
    write_coco(loops(), images, tmp_path / "one.json")
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["categories"] == [{"id": 1, "name": CATEGORY}]
    assert {entry["category_id"] for entry in content["annotations"]} == {1}


def test_classes_have_colours() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    colours = [class_colour(name, names) for name in names]
    assert colours[0] == LOOP_COLOUR == class_colour("unknown", names)
    assert colours[1:5] == list(CLASS_COLOURS)
    assert len(set(colours[:5])) == 5


# --- the whole way ---------------------------------------------------------------------------------------------------

TINY = TrainingRecipe(
    n_folds=2,
    polarity="dark",
    max_candidates_per_megapixel=500,
    focus_model="none",
    classes={
        "black_dot": {"diameter": "equivalent", "contour": "edge"},
        "hole": {"diameter": "equivalent", "contour": "edge", "labels": ["cavity"]},
    },
    cascade=CascadeRecipe(
        **{"n_stages": 4, "n_positives": 400, "n_negatives": 600, "copies": 4, "feature_share": 0.1},
        **{"max_stumps": 20, "negatives_per_image": 150},
    ),
    screener=ScreenerRecipe(crop_px=24, widths=(8, 12, 16), hidden=16, dropout=0.1),
    screener_training=ScreenerTraining(n_steps=150, batch_size=48, peak_learning_rate=4e-3),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated dots and cavities, and a small model trained on them by the task."""
    from tasks.models import TrainModel

    place = tmp_path_factory.mktemp("classes")
    preset = dataclasses.replace(
        PRESETS["mixed"],
        **{"shape": (220, 300), "labelled_classes": ("black_dot", "cavity"), "lines_per_megapixel": (0.0, 0.0)},
        **{"black_dots_per_megapixel": (190.0, 230.0), "cavities_per_megapixel": (130.0, 160.0)},
    )
    simulate_dataset("loops", 6, 5, preset, place / "set")
    recipe = dataclasses.asdict(TINY)
    (place / "recipe.json").write_text(json.dumps(recipe))
    given = {"images_dir": place / "set" / "images", "labels_dir": place / "set" / "labels.coco.json"}
    given |= {"recipe": place / "recipe.json", "models_dir": place / "models"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = build(TrainModel(name="two", n_jobs=2, **{name: str(path) for name, path in given.items()}))
    assert result.status.name == "SUCCESS"
    return place


@pytest.mark.slow
def test_a_model_of_two_classes_says_so_on_its_card(place: Path, tmp_path: Path) -> None:
    model = LoopModel.load(place / "models" / "two")
    assert model.classes == TINY.defect_classes
    assert model.network.n_classes == 2
    of = model.card["held_out"]["chain"]["classes"]
    assert set(of["by_class"]) == {"black_dot", "hole"}
    assert of["n_labels_without_class"] == 0
    # Dark and bright are not hard to tell apart, once something is found.
    assert np.sum(of["confusion"]["counts"][0][:2]) > 20
    assert of["class_accuracy"] > 0.9
    assert model.decisive("screening")[CARD]["classes"] == [["black_dot", "edge"], ["hole", "edge"]]
    # A card that tells another number of classes does not belong to this network.
    for file in model.path.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / CARD).write_text(json.dumps(model.card | {"classes": {"loop": {}}}))
    with pytest.raises(ModelError, match="weights have not the shapes"):
        LoopModel.load(tmp_path)


@pytest.mark.slow
def test_a_run_tells_the_classes_apart_everywhere(place: Path) -> None:
    from tasks.runall import RunAll

    out = place / "out"
    given = {"input_dir": place / "set" / "images", "labels_dir": place / "set" / "labels.coco.json"}
    given |= {"output_dir": out, "model": place / "models" / "two"}
    result = build(RunAll(engine="inline", **{name: str(path) for name, path in given.items()}))
    assert result.status.name == "SUCCESS"
    table, found = read_csv(out / "classes.csv"), read_csv(out / "loops.csv")
    assert list(table.columns) == CLASS_COLUMNS
    assert table["class"].tolist() == ["black_dot", "hole"] * 6
    counts = found.groupby("class").size()
    assert (table.groupby("class")["n_loops"].sum() == counts).all()
    assert (counts > 5).all()
    images = read_csv(out / "images.csv")
    assert table.groupby("image")["n_loops"].sum().tolist() == images["n_loops"].tolist()
    summary = json.loads((out / "summary.json").read_text())
    assert {name: of["n_loops"] for name, of in summary["classes"].items()} == counts.to_dict()
    evaluation = json.loads((out / "evaluation.json").read_text())
    folder = RunFolder.open(out)
    again = agreement_of(folder, at_threshold(folder))["classes"]
    assert again["confusion"] == evaluation["classes"]["confusion"]
    assert evaluation["classes"]["class_accuracy"] > 0.9
    coco = json.loads((out / "loops.coco.json").read_text())
    assert [entry["name"] for entry in coco["categories"]] == ["black_dot", "hole"]
    page = (out / "report.html").read_text()
    assert 'id="classes"' in page
    assert "Labels (rows), loops (columns)" in page
    assert 'class="k1"' in page
