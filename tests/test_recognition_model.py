"""A model of solids: written, read, refused, and used on fields. Its networks are untrained: this is mechanics."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
from solids_helpers import LAYOUT, untrained_solids

from defectpipe.errors import ModelError
from defectpipe.model_files import CARD, file_sha256
from defectpipe.recognition.analysis import COLUMNS, SOLID_COLUMNS, recognise_micrograph
from defectpipe.recognition.backbones import features_of, load_backbone
from defectpipe.recognition.fusion import MAX_VIEWS
from defectpipe.recognition.model import FAMILIARITY, FILES, RECOGNISER, TILE_PX, TRUNK, SolidModel
from defectpipe.recognition.pixelwise import DEPTH, OUTLINE, THICKNESS, maps_of
from defectpipe.recognition.series import recognise_series, views_to_judge
from defectpipe.recognition.views import VIEW_PX, standardise, turned
from defectpipe.training.recognition_model import write_solid_model

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    trained = untrained_solids()
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
    made = recognise_micrograph(field(), model, 0.5)
    assert list(made.table.columns) == [*COLUMNS, *SOLID_COLUMNS, "warnings"]
    assert len(made.table) == len(made.verdicts) == made.instances.max() == 1
    row = made.table.iloc[0]
    assert row["class"] in LAYOUT.classes
    assert 0.5 <= row["class_probability"] <= 1
    assert row["length_nm"] == pytest.approx(20, abs=1.5)
    assert row["x_px"] == pytest.approx(40, abs=1)
    assert made.verdicts[0].unit == "nm"
    assert row["is_known"] == (row["familiarity"] <= model.familiarity.limit)
    blind = recognise_micrograph(field(), model)
    assert np.isnan(blind.table["length_nm"][0])
    assert blind.verdicts[0].unit == "px"
    empty = recognise_micrograph(np.random.default_rng(0).normal(20, 1, (60, 80)), model, 0.5)
    assert list(empty.table.columns) == list(made.table.columns)
    assert empty.table.empty
    assert (empty.table.dtypes == made.table.dtypes).all()
    assert empty.warnings == ("not analysed: nothing but noise",)


def test_views_of_one_object_are_judged_together_and_of_many_only_as_many_as_the_fusion_knows(model, monkeypatch):
    monkeypatch.setattr(SolidModel, "maps", lambda self, pixels: _ideal(pixels))
    empty = np.random.default_rng(0).normal(20, 1, (60, 80))
    fields = [field(), field()[::-1], empty]
    few = recognise_series(fields, model, 0.5)
    assert few.views["view"].tolist() == [0, 1]
    assert few.views["in_verdict"].all()
    assert few.verdict.n_views == 2
    assert sum(few.verdict.probabilities.values()) == pytest.approx(1)
    assert few.row["is_known"] == (few.row["familiarity"] <= model.familiarity.limit)
    many = recognise_series([field()[:, shift : shift + 100] for shift in range(12)], model, 0.5)
    assert len(many.views) == 12
    assert many.views["in_verdict"].sum() == many.verdict.n_views == MAX_VIEWS
    none = recognise_series([empty], model)
    assert none.verdict is None
    assert none.views.empty
    assert list(none.views.columns) == list(few.views.columns)
    with pytest.raises(ValueError, match="1 to 8 views"):
        model.judge(np.zeros((9, LAYOUT.n_answers)))


def test_an_object_in_a_series_stands_out_and_is_not_the_support(model, monkeypatch):
    def with_support(self: SolidModel, pixels: np.ndarray) -> np.ndarray:
        maps = _ideal(pixels)
        maps[: pixels.shape[0] // 5, :, :] = (1.0, 0.0, 0.9)  # far longer than anything known
        return maps

    monkeypatch.setattr(SolidModel, "maps", with_support)
    wide = np.concatenate([np.random.default_rng(2).normal(60, 3, (60, 1200)), np.tile(field()[5:], (1, 10))[:, :1200]])
    wide[60:, 130:] = np.random.default_rng(3).normal(20, 3, (len(wide) - 60, 1070))
    seen = recognise_series([wide, wide], model, 0.5)
    assert seen.row["length_px"] == pytest.approx(40, abs=3)
    assert any("left out, far too large: 2" in line for line in seen.warnings)


def test_views_that_count_are_whole_moderately_tilted_and_spread():
    nothing_cut = np.zeros(91, bool)
    tilts = np.arange(-90.0, 91.0, 2.0)
    judged = views_to_judge(nothing_cut, tilts)
    assert tilts[judged].tolist() == [-70, -50, -30, -10, 10, 30, 50, 70]
    order = np.random.default_rng(0).permutation(91)
    np.testing.assert_array_equal(views_to_judge(nothing_cut, tilts[order]), judged[order])
    cut = nothing_cut.copy()
    cut[tilts == -50] = True
    assert not views_to_judge(cut, tilts)[cut].any()
    assert views_to_judge(cut, tilts).sum() == MAX_VIEWS
    assert views_to_judge(np.ones(9, bool), [80.0] * 9).sum() == MAX_VIEWS, "better those than none"
    assert np.flatnonzero(views_to_judge(np.zeros(15, bool))).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert views_to_judge(np.ones(8, bool), [80.0] * 8).all()
    assert views_to_judge([False, False, *[True] * 9]).sum() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "focus"}, "no card of a model of solids"),
        ({"temperatures": {"1": 1.0}}, "temperatures"),
        ({"temperatures": {str(n): 0.0 for n in range(1, 9)}}, "temperatures"),
        ({"trained_thickness_nm": [300.0, "x"]}, "trained_thickness_nm"),
        ({"trained_thickness_nm": [300.0, 12.0]}, "trained_thickness_nm"),
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
