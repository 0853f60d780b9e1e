"""Several views of one object, stated probabilities, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.recognition.calibration import expected_calibration_error, fit_temperature, log_softmax
from defectpipe.recognition.ground_truth import fuse_classes, fuse_evenly, judge
from defectpipe.recognition.recogniser import Layout
from defectpipe.training.recognition_figures import accuracy_of_views, confusion

LAYOUT = Layout(
    ("cube", "helix"), ("deformed",), ("any.volume_diameter_nm", "cube.edge_nm", "helix.turns"), n_features=2
)


def test_views_multiply_their_probabilities():
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    expected = p.prod(0) / p.prod(0).sum()
    np.testing.assert_allclose(fuse_classes(np.log(p) + 3.0), expected)
    np.testing.assert_allclose(fuse_classes(np.log(p)[:1]), p[0])
    flat = fuse_classes(np.log(p), temperature=1e6)
    np.testing.assert_allclose(flat, 1 / 3, atol=1e-5)
    np.testing.assert_allclose(fuse_evenly(np.array([[2.0], [-2.0], [3.0]])), 1 / (1 + np.exp(-1.0)))


def test_calibration_error_by_hand():
    # three in a bin at 0.9, of which two are right; one at 0.6 that is right
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    assert expected_calibration_error(p, np.array([0, 1, 1, 1])) == pytest.approx((3 * abs(0.9 - 2 / 3) + 0.4) / 4)
    assert np.isnan(expected_calibration_error(np.empty((0, 2)), np.empty(0, int)))


@pytest.mark.parametrize("views", [1, 3])
def test_the_temperature_undoes_overconfidence(views):
    rng = np.random.default_rng(0)
    label = rng.integers(4, size=6000)
    honest = rng.normal(size=(6000, views, 4))
    honest[np.arange(6000), :, label] += 1.0  # log-likelihood ratios of unit normals
    sharp = 3.0 * (honest if views > 1 else honest[:, 0])
    temperature = fit_temperature(sharp, label)
    assert temperature == pytest.approx(3.0, rel=0.1)
    before = expected_calibration_error(fuse_classes(sharp.reshape(6000, views, 4)), label)
    after = expected_calibration_error(fuse_classes(sharp.reshape(6000, views, 4), temperature), label)
    assert after < 0.03 < before


def test_a_verdict_has_the_dimensions_of_its_class_in_its_unit():
    rows = np.zeros((3, LAYOUT.n_answers))
    rows[:, LAYOUT.slices["classes"]] = [[2, 0], [1, 0], [0, 1]]
    rows[:, LAYOUT.slices["deformations"]] = 1.0
    rows[:, LAYOUT.slices["dimensions"]] = np.log([[10, 20, 5], [11, 21, 5], [99, 99, 5]])
    verdict = judge(rows, LAYOUT, pixel_size_nm=0.5)
    assert verdict.label == "cube"
    assert verdict.unit == "nm"
    assert verdict.n_views == 3
    assert verdict.dimensions == pytest.approx({"volume_diameter": 5.5, "edge": 10.5})
    assert verdict.confidence == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert verdict.deformations["deformed"] == pytest.approx(1 / (1 + np.exp(-1.0)))
    unknown = judge(rows, LAYOUT)
    assert unknown.unit == "px"
    assert unknown.dimensions == pytest.approx({"volume_diameter": 11, "edge": 21})
    other = judge(rows, LAYOUT, 0.5, fused=(np.array([0.1, 0.9]), np.array([0.7])))
    assert other.deformations["deformed"] == 0.7
    assert other.dimensions == pytest.approx({"volume_diameter": 5.5, "turns": 5.0})


def test_figures_count_groups_of_views_without_overlap():
    logits = np.log(np.array([[[0.9, 0.1]] * 3 + [[0.3, 0.7]], [[0.2, 0.8]] * 4]))
    figures = accuracy_of_views(logits, np.array([0, 1]), counts=(1, 2, 3, 8))
    assert set(figures) == {1, 2, 3}
    assert figures[1]["accuracy"] == 7 / 8
    assert figures[2] == {"accuracy": 1.0, "calibration_error": pytest.approx(figures[2]["calibration_error"]), "n": 4}
    assert figures[3]["n"] == 2
    np.testing.assert_array_equal(confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2), [[1, 1], [0, 1]])
    assert np.allclose(np.exp(log_softmax(logits)).sum(-1), 1)
