"""Outlines, thickness, objects told apart, measures with units; the image classifier that sees only these."""

from __future__ import annotations

import math

import numpy as np
import pytest

from defectpipe.recognition.image import drawn, fit_image_classifier
from defectpipe.recognition.measures import COLUMNS, measure
from defectpipe.recognition.pixelwise import (
    DEPTH,
    OUTLINE,
    STRIDE,
    THICKNESS,
    THICKNESS_UNIT_PX,
    PixelSource,
    PixelwiseRecipe,
    build_pixelwise,
    fit_pixelwise,
    maps_of,
    pixel_targets,
    pixelwise_loss,
)
from defectpipe.recognition.recogniser import Layout
from defectpipe.recognition.separation import separate
from defectpipe.recognition.thickness import scaled_by_signal
from defectpipe.recognition.training import RecogniserRecipe
from defectpipe.simulation.solids.contrast import adf_signal

# Keras copies variables the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def balls(shape: tuple[int, int], places: list[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Instances and thickness (px) of balls (x, y, radius); a later one hides those below."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    instances, thickness = np.zeros(shape, int), np.zeros(shape)
    for number, (cx, cy, radius) in enumerate(places, 1):
        square = radius**2 - (x - cx) ** 2 - (y - cy) ** 2
        instances[square > 0] = number
        thickness += 2 * np.sqrt(np.maximum(square, 0))
    return instances, thickness


def ideal_maps(instances: np.ndarray, thickness: np.ndarray) -> np.ndarray:
    maps = pixel_targets(instances, thickness)[..., :3].copy()
    maps[..., THICKNESS] *= THICKNESS_UNIT_PX
    return maps


def test_targets_are_outline_thickness_and_depth():
    instances, thickness = balls((50, 70), [(20, 25, 12), (50, 20, 8)])
    made = pixel_targets(instances, thickness)
    np.testing.assert_array_equal(made[..., OUTLINE], instances > 0)
    np.testing.assert_allclose(made[..., THICKNESS] * THICKNESS_UNIT_PX, thickness, rtol=1e-5)
    assert made[25, 20, DEPTH] == made[20, 50, DEPTH] == 1
    assert made[25, 26, DEPTH] == pytest.approx(0.5, abs=0.05)
    assert made[..., DEPTH][instances == 0].max() == 0
    assert made[25, 20, 3] == pytest.approx(THICKNESS_UNIT_PX / 24, rel=1e-3)
    assert made[20, 50, 3] == pytest.approx(THICKNESS_UNIT_PX / 16, rel=1e-3)
    assert pixel_targets(np.zeros((4, 6), int), np.zeros((4, 6)))[..., 3].max() == THICKNESS_UNIT_PX


def test_the_loss_is_relative_to_each_objects_thickness():
    def loss(radius: float) -> float:
        instances, thickness = balls((48, 64), [(30, 24, radius)])
        targets = pixel_targets(instances, thickness)[None]
        maps = targets[..., :3].copy()
        maps[..., OUTLINE] = np.where(targets[..., 0] > 0, 20, -20)
        exact = float(pixelwise_loss(targets, maps))
        maps[..., THICKNESS] += 0.1 * 2 * radius / THICKNESS_UNIT_PX
        return float(pixelwise_loss(targets, maps)) - exact

    assert loss(8.0) == pytest.approx(loss(20.0), rel=1e-3)
    assert loss(8.0) == pytest.approx(4 * 0.01, rel=1e-2)


def test_maps_have_the_pictures_size_whatever_it_is_and_parts_of_it_agree():
    network = build_pixelwise()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 70, 101)).astype(np.uint8)
    maps = maps_of(network, pixels)
    assert maps.shape == (2, 70, 101, 3)
    assert maps.dtype == np.float32
    assert 0 <= maps[..., OUTLINE].min() <= maps[..., OUTLINE].max() <= 1
    assert (maps[..., THICKNESS][maps[..., OUTLINE] <= 0.5] == 0).all()
    np.testing.assert_allclose(maps_of(network, pixels * 0.5 + 3), maps, atol=1e-3)
    assert 101 % STRIDE
    assert 70 % STRIDE


def test_touching_objects_are_told_apart_and_small_ones_dropped():
    places = [(25, 30, 14), (52, 30, 14), (90, 40, 10), (90, 62, 9), (120, 15, 2)]
    instances, thickness = balls((80, 130), places)
    found = separate(ideal_maps(instances, thickness), min_area_px=20)
    assert found.max() == 4
    for number in range(1, 5):
        best = max(
            ((found == k) & (instances == number)).sum() / ((found == k) | (instances == number)).sum()
            for k in range(1, 5)
        )
        assert best > 0.9
    assert separate(np.zeros((20, 30, 3), np.float32)).max() == 0


def test_a_long_object_stays_one():
    instances = np.zeros((60, 140), int)
    instances[25:37, 10:130] = 1
    assert separate(ideal_maps(instances, 10.0 * instances)).max() == 1


def test_measures_of_a_ball_and_a_bar_in_px_and_nm():
    instances, thickness = balls((90, 130), [(40, 45, 20)])
    y, x = np.mgrid[:90, :130] - np.array([45.0, 95.0])[:, None, None]
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    bar = (abs(c * x - s * y) < 25) & (abs(s * x + c * y) < 6)  # 30° counter-clockwise as seen
    instances[bar], thickness[bar] = 2, 9.0
    table = measure(ideal_maps(instances, thickness), instances, 0.5)
    assert list(table.columns) == list(COLUMNS)
    ball, rod = table.iloc[0], table.iloc[1]
    assert (ball.x_px, ball.y_px) == pytest.approx((40, 45), abs=0.1)
    assert ball.area_nm2 == pytest.approx(math.pi * 10**2, rel=0.01)
    assert ball.volume_nm3 == pytest.approx(4 / 3 * math.pi * 10**3, rel=0.01)
    assert ball.equivalent_diameter_nm == pytest.approx(20, rel=0.01)
    assert ball.max_thickness_nm == pytest.approx(20, rel=0.02)
    assert ball.length_nm == pytest.approx(20, rel=0.03)
    assert (rod.length_px, rod.width_px) == pytest.approx((50, 12), abs=2.0)
    assert rod.angle_deg == pytest.approx(30, abs=1.5)
    assert rod.mean_thickness_nm == pytest.approx(4.5)
    assert not ball.on_edge
    blind = measure(ideal_maps(instances, thickness), instances, None)
    assert blind.filter(like="_nm").isna().all(axis=None)
    assert blind.volume_px3[0] == pytest.approx(ball.volume_nm3 / 0.5**3)
    empty = measure(np.zeros((5, 6, 3)), np.zeros((5, 6), int), 1.0)
    assert list(empty.columns) == list(COLUMNS)
    assert empty.empty
    cut = measure(ideal_maps(*balls((50, 60), [(3, 25, 9)])), balls((50, 60), [(3, 25, 9)])[0], None)
    assert cut.on_edge.tolist() == [True]


@pytest.mark.parametrize("diameter_nm", [5.0, 80.0, 400.0])
def test_a_calibrated_signal_gives_the_thickness_its_scale(diameter_nm):
    _, shape = balls((60, 70), [(30, 30, 25)])
    rng = np.random.default_rng(1)
    thickness = shape / 50 * diameter_nm
    signal = adf_signal(thickness / 90.0 + 0.01, True) + rng.normal(0, 0.002, shape.shape)
    inside = shape > 0
    scale = scaled_by_signal(shape[inside] * 0.7, signal[inside], 90.0, 0.01)
    assert scale * 0.7 * 50 == pytest.approx(diameter_nm, rel=0.02)
    assert math.isnan(scaled_by_signal(np.zeros(3), np.zeros(3), 90.0))


def source_of_balls(n: int, seed: int, side: int = 48) -> PixelSource:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        instances, thickness = balls((side, side), [(*rng.uniform(14, side - 14, 2), rng.uniform(7, 13))])
        made.append((20 + 4 * thickness + rng.normal(0, 8, thickness.shape), instances, 0.5 * thickness))
    pixels, instances, thickness = (np.stack(v) for v in zip(*made, strict=True))
    return PixelSource(pixels, instances, thickness, np.full(n, 0.5))


@pytest.fixture
def brief(monkeypatch):
    """Normalisation that follows the data in a few tens of steps: for trainings as short."""
    monkeypatch.setattr("defectpipe.networks.residual.MOMENTUM", 0.9)


@pytest.mark.slow
def test_the_network_learns_outlines_and_thickness(brief):
    recipe = PixelwiseRecipe(n_steps=100, px_a_step=4 * 48 * 48, tile_px=48)
    network = fit_pixelwise([source_of_balls(60, 0), source_of_balls(20, 1, 32)], recipe, 1)
    test = source_of_balls(12, 2)
    maps = maps_of(network, test.pixels)
    inside = test.instances > 0
    found = maps[..., OUTLINE] > 0.5
    assert (found & inside).sum() / (found | inside).sum() > 0.8
    error = (maps[..., THICKNESS] * 0.5 - test.thickness_nm)[inside]
    assert np.sqrt(np.mean(error**2)) < 0.2 * test.thickness_nm.max()


@pytest.mark.slow
def test_the_image_classifier_learns_from_maps_and_classes_alone(brief, monkeypatch):
    monkeypatch.setattr("defectpipe.recognition.recogniser.BLOCKS", ((24, 1), (48, 2)))
    network = build_pixelwise()
    pixels = np.random.default_rng(3).integers(0, 255, (6, 32, 32)).astype(np.uint8)
    maps = drawn(network, pixels)
    assert maps.shape == (6, 32, 32, 3)
    assert maps[..., THICKNESS].max() <= 1
    y, x = np.mgrid[:32, :32] - 15.5
    rng = np.random.default_rng(4)
    label = np.arange(160) % 2
    made = []
    for i in label:
        outline = (np.hypot(x, y) < 9) if i else (abs(x) < 12) & (abs(y) < 4)
        made.append(np.repeat(np.roll(outline, rng.integers(-3, 4, 2), (0, 1))[..., None], 3, -1))
    maps = np.array(made, np.float16)
    classifier = fit_image_classifier(
        maps[:120], label[:120], ("bar", "disc"), RecogniserRecipe(n_steps=60, batch_size=16, learning_rate=2e-3), 1
    )
    rows = np.asarray(classifier(maps[120:].astype(np.float32), training=False))
    place = Layout(("bar", "disc"), (), ()).slices["classes"]
    assert (rows[:, place].argmax(1) == label[120:]).mean() > 0.95
