"""Controllers that focus by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.focus.closed_loop import focus_by_blur, golden_section


def _blur(best: float, perfect: float, slope: float, noise: float, rng: np.random.Generator, lost: float = np.inf):
    def blur_at(z: float) -> float:
        blur = np.hypot(perfect, slope * (z - best)) * np.exp(noise * rng.normal())
        return float(min(blur, lost))

    return blur_at


@pytest.mark.parametrize("best", [-7.3, 0.4, 11.0])
@pytest.mark.parametrize("step", [2.0, -5.0])
def test_without_noise_the_parabola_is_found_at_once(best, step):
    found = focus_by_blur(_blur(best, 1.0, 0.8, 0.0, np.random.default_rng(0)), 0.0, step, 0.05)
    assert found.best == pytest.approx(best, abs=0.06)
    assert found.n_evaluations <= 5


@pytest.mark.parametrize("best", [20.0, -18.0])
def test_from_where_the_scale_ends_it_looks_to_both_sides(best):
    blur_at = _blur(best, 1.0, 1.0, 0.0, np.random.default_rng(0), lost=12.0)
    found = focus_by_blur(blur_at, 4.0, 3.0, 0.2, largest_blur=12.0)
    assert found.best == pytest.approx(best, abs=0.3)
    assert found.n_evaluations <= 12


def test_with_noise_it_ends_near_the_best_and_sooner_than_a_golden_section():
    errors, counts = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        best = rng.uniform(-8, 8)
        found = focus_by_blur(_blur(best, 1.0, 1.0, 0.1, rng), 0.0, 4.0, 0.5)
        errors.append(abs(found.best - best))
        counts.append(found.n_evaluations)
    golden = golden_section(lambda z: -((z - 3.0) ** 2), -12, 12, 0.5)
    assert np.median(errors) < 1.0
    assert np.mean(counts) < golden.n_evaluations


def test_golden_section_finds_a_maximum_to_its_tolerance():
    found = golden_section(lambda z: 1 / (1 + (z - 3.21) ** 2), -10, 10, 0.01)
    assert found.best == pytest.approx(3.21, abs=0.01)
    # 0.618^(n - 1) of the range is left after n frames
    assert found.n_evaluations == 17


def test_the_limit_on_frames_is_kept():
    found = focus_by_blur(lambda z: 5.0, 0.0, 1.0, 0.01, largest_blur=5.0, max_evaluations=6)
    assert found.n_evaluations == 6
