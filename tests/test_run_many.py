"""Memory does not grow with the number of images; the whole size is `make bench-many`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from run_helpers import ROOT, command, toy_environment

pytestmark = pytest.mark.slow
FEW, MANY = 10, 70
SHAPE = (700, 900)
# An image as it is read has 1.2 MiB, its picture three times that: a run that kept any of them would show it.
MOST_GROWTH_KIB_PER_IMAGE = 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak memory of other processes")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "many_images", raising=False)
    from many_images import measure

    found = []
    for n in (FEW, MANY):
        source = tmp_path / f"in {n}"
        source.mkdir()
        for i in range(n):
            image = np.full(SHAPE, 40_000, np.uint16)
            for k in range(3):
                image[50 + 40 * k : 75 + 40 * k, 30 + i : 60 + i] = 10
            tifffile.imwrite(source / f"field {i}.tif", image)
        arguments = command("RunAll", "--input-dir", source, "--n-jobs", 1)
        found.append(measure(arguments, n, toy_environment()))
    few, many = found
    assert (few.status, many.status) == (0, 0)
    assert len(list((tmp_path / f"in {MANY}-defects" / "overlays").iterdir())) == MANY
    for memory in ("parent_mib", "worker_mib"):
        assert getattr(few, memory) > 50
        grown_kib = 1024 * (getattr(many, memory) - getattr(few, memory)) / (MANY - FEW)
        assert grown_kib < MOST_GROWTH_KIB_PER_IMAGE, (memory, few, many)
