"""Views cut from fields, and whether they are like what was learned."""

from __future__ import annotations

import numpy as np
import pytest

from defectpipe.recognition.familiarity import fit_familiarity
from defectpipe.recognition.particles import cut_view, side_of
from defectpipe.recognition.views import VIEW_PX


def field() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:150, :210]
    instances = np.zeros((150, 210), int)
    instances[np.hypot(x - 60, y - 70) <= 28] = 1
    instances[(abs(x - 110) <= 10) & (abs(y - 70) <= 10)] = 2
    instances[np.hypot(x - 3, y - 140) < 20] = 3
    grey = 10.0 + 50 * (instances == 1) + 200 * (instances == 2) + 90 * (instances == 3)
    return grey, instances


def test_an_object_fills_its_view_and_its_neighbours_are_gone():
    grey, instances = field()
    view = cut_view(grey, instances, 1)
    assert view.pixels.shape == (VIEW_PX, VIEW_PX)
    assert side_of(instances, 1) == pytest.approx(57 / 0.7)
    assert view.px_per_px == pytest.approx(57 / 0.7 / VIEW_PX)
    inside = view.pixels > 35
    assert inside.sum() * view.px_per_px**2 == pytest.approx(np.pi * 28**2, rel=0.04)
    y, x = np.nonzero(inside)
    assert (x.mean(), y.mean()) == pytest.approx((31.5, 31.5), abs=0.3)
    assert np.ptp(x) + 1 == pytest.approx(0.7 * VIEW_PX, abs=1.5)
    assert view.pixels.max() < 61, "the bright neighbour is gone"
    # of several views of one object, all at the scale of the largest
    small = cut_view(grey, instances, 2, side_px=side_of(instances, 1))
    assert small.px_per_px == view.px_per_px
    assert (small.pixels > 110).sum() * view.px_per_px**2 == pytest.approx(21**2, rel=0.1)


def test_an_object_at_the_corner_is_whole_in_its_view():
    grey, instances = field()
    view = cut_view(grey, instances, 3)
    assert np.isfinite(view.pixels).all()
    assert view.pixels.max() == pytest.approx(100, abs=1)


def test_a_small_object_is_enlarged():
    grey, instances = field()
    view = cut_view(grey, instances, 2)
    assert view.px_per_px < 1
    assert (view.pixels > 110).sum() * view.px_per_px**2 == pytest.approx(21**2, rel=0.05)


def test_known_views_are_known_and_others_are_not():
    rng = np.random.default_rng(0)
    middles = rng.normal(0, 4, (3, 10))
    stretch = rng.normal(size=(10, 10))
    label = np.arange(3000) % 3

    def known(n):
        return middles[label[:n]] + rng.normal(size=(n, 10)) @ stretch

    familiarity = fit_familiarity(known(3000), label, share=0.98)
    assert familiarity.is_known(known(3000)).mean() == pytest.approx(0.98, abs=0.02)
    assert familiarity.distance(known(3000)).mean() == pytest.approx(1, abs=0.15)
    assert familiarity.is_known(rng.normal(0, 60, (300, 10))).mean() < 0.05
    assert familiarity.distance(middles).max() < 0.2
