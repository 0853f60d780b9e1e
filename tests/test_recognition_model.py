"""A model of solids: written, read, refused, and used on fields. Its networks are untrained: this is mechanics."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest

from defectpipe.errors import ModelError
from defectpipe.model_files import CARD, file_sha256
from defectpipe.recognition import analysis
from defectpipe.recognition.analysis import COLUMNS, recognise_field, recognise_object
from defectpipe.recognition.backbones import features_of, load_backbone
from defectpipe.recognition.familiarity import fit_familiarity
from defectpipe.recognition.fusion import build_fusion
from defectpipe.recognition.model import FAMILIARITY, FILES, RECOGNISER, TILE_PX, TRUNK, SolidModel
from defectpipe.recognition.pixelwise import DEPTH, OUTLINE, THICKNESS, build_pixelwise, maps_of
from defectpipe.recognition.recogniser import Layout, build_recogniser
from defectpipe.recognition.views import VIEW_PX, standardise, turned
from defectpipe.training.recognition_model import TrainedSolids, write_solid_model

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

LAYOUT = Layout(("cube", "sphere"), ("deformed", "dents"), ("any.volume_diameter_nm", "cube.edge_nm"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    import keras

    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    trained = TrainedSolids(
        LAYOUT,
        build_recogniser(LAYOUT, VIEW_PX),
        build_pixelwise(),
        build_fusion(LAYOUT),
        fit_familiarity(rng.normal(size=(400, LAYOUT.n_features)), np.arange(400) % 2),
        dict.fromkeys(range(1, 9), 1.5),
    )
    return trained, write_solid_model(tmp_path_factory.mktemp("models") / "toy", trained, {"data": {"source": "none"}})


@pytest.fixture(scope="module")
def model(made):
    return SolidModel.load(made[1])


def field(shape: tuple[int, int] = (90, 130)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    thickness = np.sqrt(np.maximum(20**2 - (x - 40) ** 2 - (y - 45) ** 2, 0))
    return 20 + 5 * thickness + np.random.default_rng(1).normal(0, 3, shape)


def test_a_model_gives_what_its_networks_gave(made, model):
    trained, folder = made
    assert sum((folder / name).stat().st_size for name in FILES) < 10_000_000
    assert model.name == "toy"
    assert model.layout == LAYOUT
    views = np.random.default_rng(2).integers(0, 255, (70, VIEW_PX, VIEW_PX)).astype(np.uint8)
    ways = [np.asarray(trained.recogniser(standardise(turned(views, way)), training=False)) for way in range(8)]
    expected = np.mean(ways, 0)
    np.testing.assert_allclose(model.answers(views), expected, atol=2e-4)
    backbone = load_backbone("ours", "builtin", builtin=(folder / TRUNK).read_bytes())
    features = np.mean([features_of(backbone, "ours", turned(views[:5], way)) for way in range(8)], 0)
    np.testing.assert_allclose(features, expected[:5, LAYOUT.slices["features"]], atol=2e-4)
    assert pickle.loads(pickle.dumps(model)).sha256 == model.sha256


def test_maps_of_a_field_in_tiles_are_those_of_the_whole(made, model):
    pixels = field((TILE_PX + 70, TILE_PX + 150))
    maps = model.maps(pixels)
    whole = maps_of(made[0].pixelwise.predict_on_batch, pixels[None])[0]
    assert maps.shape == whole.shape
    # the network looks 46 px around on its way down, 16 on its way up, and its coarsest pixel is 16 px wide
    inner = np.s_[: TILE_PX - 80, : TILE_PX - 80]
    np.testing.assert_allclose(maps[inner][..., (OUTLINE, DEPTH)], whole[inner][..., (OUTLINE, DEPTH)], atol=1e-5)
    # where tiles meet they differ a little, which may tip the outline where it is a toss-up
    sure = abs(whole[..., OUTLINE] - 0.5) > 0.02
    assert np.mean((maps[..., OUTLINE] > 0.5)[sure] == (whole[..., OUTLINE] > 0.5)[sure]) > 0.995
    np.testing.assert_allclose(maps[inner][sure[inner]], whole[inner][sure[inner]], atol=5e-4)


def _ideal(pixels: np.ndarray) -> np.ndarray:
    maps = np.zeros((*pixels.shape, 3), np.float32)
    inside = pixels > 45
    maps[..., OUTLINE] = inside
    maps[..., THICKNESS] = inside * (pixels - 20) / 5
    maps[..., 2] = inside * (pixels - 20) / 100
    return maps


def test_a_field_has_a_row_for_each_object_with_units_only_where_they_are_known(model, monkeypatch):
    monkeypatch.setattr(SolidModel, "maps", lambda self, pixels: _ideal(pixels))
    made = recognise_field(field(), model, 0.5)
    assert list(made.table.columns) == list(COLUMNS)
    assert len(made.table) == len(made.verdicts) == made.instances.max() == 1
    row = made.table.iloc[0]
    assert row["class"] in LAYOUT.classes
    assert 0.5 <= row["class_probability"] <= 1
    assert row["length_nm"] == pytest.approx(20, abs=1.5)
    assert made.verdicts[0].unit == "nm"
    assert row["is_known"] == (row["familiarity"] <= model.familiarity.limit)
    blind = recognise_field(field(), model)
    assert np.isnan(blind.table["length_nm"][0])
    assert blind.verdicts[0].unit == "px"
    empty = recognise_field(np.random.default_rng(0).normal(20, 1, (60, 80)), model, 0.5)
    assert list(empty.table.columns) == list(COLUMNS)
    assert empty.table.empty
    assert empty.n_unknown == 0


def test_views_of_one_object_are_judged_together(model, monkeypatch):
    monkeypatch.setattr(SolidModel, "maps", lambda self, pixels: _ideal(pixels))
    empty = np.full((60, 80), 20.0)
    fields = [field(), field()[::-1], empty, *[field()] * 8]
    verdict, distance = recognise_object(fields, model, 0.5)
    assert verdict.n_views == 10
    assert sum(verdict.probabilities.values()) == pytest.approx(1)
    assert np.isnan(distance).tolist() == [False, False, True] + [False] * 8
    with pytest.raises(ValueError, match="no object"):
        recognise_object([empty], model)
    assert analysis.COLUMNS[-1] == "is_known"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "focus"}, "no card of a model of solids"),
        ({"temperatures": {"1": 1.0}}, "temperatures"),
        ({"temperatures": {str(n): 0.0 for n in range(1, 9)}}, "temperatures"),
        ({"layout": {**dataclasses.asdict(LAYOUT), "classes": ["cube"]}}, "layout.classes"),
        ({"layout": {**dataclasses.asdict(LAYOUT), "dimensions": ["edge", "a.b"]}}, "CLASS.DIMENSION"),
        ({"layout": {**dataclasses.asdict(LAYOUT), "n_features": 64}}, "does not give|shapes"),
        ({"layout": {**dataclasses.asdict(LAYOUT), "classes": ["a", "b", "c"]}}, "does not"),
    ],
)
def test_cards_of_other_models_are_refused(made, tmp_path, change, message):
    folder = shutil.copytree(made[1], tmp_path / "other")
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **change}))
    with pytest.raises(ModelError, match=message):
        SolidModel.load(folder)


def test_files_that_are_not_the_cards_or_no_such_network_are_refused(made, tmp_path):
    folder = shutil.copytree(made[1], tmp_path / "other")
    shutil.copy(folder / "fusion.onnx", folder / RECOGNISER)
    with pytest.raises(ModelError, match="is not the file"):
        SolidModel.load(folder)
    card = json.loads((folder / CARD).read_text())
    card["sha256"][RECOGNISER] = file_sha256(folder / RECOGNISER)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="does not take views"):
        SolidModel.load(folder)
    folder = shutil.copytree(made[1], tmp_path / "pickled")
    with (folder / FAMILIARITY).open("wb") as file:
        np.savez(file, means=np.array([{}], dtype=object), whitening=np.eye(2), limit=1.0)
    card = json.loads((folder / CARD).read_text())
    card["sha256"][FAMILIARITY] = file_sha256(folder / FAMILIARITY)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="cannot be read"):
        SolidModel.load(folder)
