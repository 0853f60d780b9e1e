"""Images that are analysed tile by tile: the tiles make no difference to the loops, and the memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from defectpipe import boxes as bx
from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates
from defectpipe.boxes import group_by_tile, suppress
from defectpipe.detection.scan import ScanRecipe, raw_hits
from defectpipe.detection.tiles import raw_hits_by_tiles, spans
from defectpipe.greedy import suppress_crowd
from defectpipe.measurement import measure
from defectpipe.measurement.tiles import measure_by_tiles
from defectpipe.micrograph import Calibration, Micrograph
from defectpipe.model import LoopModel, find_model
from defectpipe.resolution import reader_of_reduced, reduce
from defectpipe.screening.crops import CropSource, normalise
from defectpipe.screening.tiles import TiledCropSource, normalise_part
from defectpipe.settings import Settings
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS

TILINGS = ({"tile_px": 256}, {"tile_px": 300, "offset_px": 131})


@pytest.fixture(scope="module")
def model() -> LoopModel:
    return LoopModel.load(find_model("fecral-loops"))


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """768 × 1024 px, with loops."""
    grey = simulate_field(PRESETS["demo"], 3).micrograph.grey8()
    assert grey.shape == (768, 1024)
    return grey


def reader(pixels: np.ndarray):
    return lambda y0, y1, x0, x1: pixels[y0:y1, x0:x1]


def chain(m: Micrograph, model: LoopModel, tiling: dict[str, float]) -> tuple[pd.DataFrame, ...]:
    settings = Settings.from_dict({"tiling": tiling})
    candidates = detect_candidates(m, model, settings)
    screened = screen_candidates(m, candidates, model, settings)
    return candidates, screened, measure_loops(m, screened, model, settings)


@pytest.mark.parametrize(
    ("rows", "columns", "pixel_size_nm"),
    [(512, 700, 0.28), (507, 613, 0.28), (401, 618, 0.14)],
    ids=["sides of whole blocks", "odd sides", "halved"],
)
def test_no_tiling_makes_a_difference_to_the_loops(
    model: LoopModel, field: np.ndarray, rows: int, columns: int, pixel_size_nm: float
) -> None:
    if pixel_size_nm < 0.2:
        field = cv2.resize(field, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        rows, columns = 2 * rows + 1, 2 * columns + 1
    # 16 bits, so that the normalisation is part of it.
    pixels = np.ascontiguousarray(field[:rows, :columns]).astype(np.uint16) * 13 + 70
    m = Micrograph(pixels, "a", calibration=Calibration(pixel_size_nm, "argument"))
    whole = chain(m, model, {"above_megapixels": 1e6})
    assert len(whole[2]) >= 5
    for tiling in TILINGS:
        tiled = chain(m, model, {"above_megapixels": 0, **tiling})
        pd.testing.assert_frame_equal(tiled[0], whole[0], check_exact=True)
        pd.testing.assert_frame_equal(tiled[1], whole[1], rtol=0, atol=1e-3)
        pd.testing.assert_frame_equal(tiled[2], whole[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(300, 420), (231, 517), (402, 403)])
def test_windows_of_tiles_are_those_of_the_whole_to_the_bit(
    model: LoopModel, field: np.ndarray, shape: tuple[int, int]
) -> None:
    pixels = np.ascontiguousarray(field[: shape[0], : shape[1]])
    boxes, margins = raw_hits(pixels, model.cascade, model.scan)
    assert len(boxes) > 100
    for tile_px, offset_px in ((64, 0), (150, 77), (1000, 0)):
        tiled = raw_hits_by_tiles(reader(pixels), shape, model.cascade, model.scan, tile_px, offset_px)
        np.testing.assert_array_equal(tiled[0], boxes)
        np.testing.assert_array_equal(tiled[1], margins)


def test_sums_beyond_32_bits_do_not_hide_loops(model: LoopModel, field: np.ndarray) -> None:
    # 3000² px of 245 and brighter sum up to more than 2³¹; the tiles' sums do not.
    one = (np.clip(field, 0, 255) // 25 + 245).astype(np.uint8)
    pixels = np.tile(one, (4, 3))[:3000, :3000]
    assert pixels.sum(dtype=np.int64) > 2**31
    recipe = ScanRecipe(min_side_px=24, max_side_px=24)
    whole = raw_hits(pixels, model.cascade, recipe)
    tiled = raw_hits_by_tiles(reader(pixels), pixels.shape, model.cascade, recipe, 1024)
    assert len(whole[0]) > 100
    np.testing.assert_array_equal(tiled[0], whole[0])


@given(st.integers(1, 5000), st.integers(1, 900), st.integers(0, 2000))
def test_spans_cover_an_axis_once(length: int, tile_px: int, offset_px: int) -> None:
    found = spans(length, tile_px, offset_px)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(0 < end - start <= tile_px for start, end in found)


@pytest.mark.parametrize("shape", [(402, 519), (400, 520), (391, 522)])
def test_a_part_is_normalised_as_in_the_whole(field: np.ndarray, shape: tuple[int, int]) -> None:
    pixels = np.ascontiguousarray(field[: shape[0], : shape[1]])
    whole = normalise(pixels)
    np.testing.assert_allclose(normalise_part(pixels, (0, 0), shape), whole, rtol=0, atol=1e-5)
    part = normalise_part(pixels[96:, 64:], (96, 64), shape)
    np.testing.assert_allclose(part[150:, 150:], whole[246:, 214:], rtol=0, atol=1e-5)


def test_crops_of_tiles_are_those_of_the_whole(field: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    centre = np.stack([rng.uniform(-10, 1034, 80), rng.uniform(-10, 778, 80)], 1)
    half = rng.uniform(5, 190, (80, 1))
    boxes = np.concatenate([centre - half, centre + half], 1)
    whole = CropSource(field).cut(boxes, 32, 2.0)
    tiled = TiledCropSource(reader(field), (768, 1024), 200, 33)
    seen = []
    for part in tiled.parts(boxes):
        np.testing.assert_allclose(tiled.cut(boxes[part], 32, 2.0), whole[part], rtol=0, atol=1e-4)
        seen += part.tolist()
    assert sorted(seen) == list(range(80))


@pytest.mark.parametrize("polarity", ["auto", "dark"])
def test_loops_are_measured_in_tiles_as_in_the_whole(field: np.ndarray, polarity: str) -> None:
    truth = simulate_field(PRESETS["demo"], 3).truth
    boxes = truth[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(float)
    whole = measure(field, boxes, polarity=polarity)
    tiled = measure_by_tiles(reader(field), (768, 1024), boxes, polarity=polarity, tile_px=150, offset_px=20)
    pd.testing.assert_frame_equal(tiled, whole, rtol=0, atol=1e-6)
    assert len(measure_by_tiles(reader(field), (768, 1024), np.zeros((0, 4)), polarity=polarity)) == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([None, 1, 7]))
def test_many_boxes_are_suppressed_as_few_are(seed: int, n: int, limit: int | None) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 300, (n, 2))
    boxes = np.concatenate([low, low + rng.choice([0, 5, 30, 90], (n, 2))], 1)
    scores = rng.integers(0, 20, n).astype(float)
    expected = suppress(boxes, scores, 0.3, limit)
    order = np.argsort(-scores, kind="stable")
    found = order[suppress_crowd(boxes[order], 0.3, n if limit is None else limit)]
    np.testing.assert_array_equal(found, expected)


def test_a_crowd_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 3000, (400, 2))
    boxes, scores = np.concatenate([low, low + 40], 1), rng.uniform(0, 1, 400)
    expected = suppress(boxes, scores, 0.3)
    monkeypatch.setattr(bx, "_CROWD", 100)
    np.testing.assert_array_equal(suppress(boxes, scores, 0.3), expected)
    np.testing.assert_array_equal(suppress(boxes, scores, 0.3, 9), expected[:9])


def test_boxes_go_to_the_tile_of_their_centre() -> None:
    boxes = np.array([[90, 0, 130, 20], [0, 0, 20, 20], [95, 0, 103, 20], [0, 210, 20, 230]], float)
    assert [group.tolist() for group in group_by_tile(boxes, 100)] == [[1, 2], [0], [3]]
    assert [group.tolist() for group in group_by_tile(boxes, 100, offset_px=50)] == [[1], [0, 2], [3]]
    assert [group.tolist() for group in group_by_tile(boxes, 1000, most=3)] == [[0, 1, 2], [3]]
    assert group_by_tile(boxes[:0], 100) == []


def test_an_image_is_reduced_alike_in_parts(field: np.ndarray) -> None:
    whole = reduce(field, 3)
    read = reader_of_reduced(reader(field), 3)
    np.testing.assert_array_equal(read(0, *whole.shape[:1], 0, whole.shape[1]), whole)
    np.testing.assert_array_equal(read(20, 90, 7, 300), whole[20:90, 7:300])


MEASURE = """
import json, resource, sys
from pathlib import Path
import luigi
import defectpipe
from defectpipe.io.tables import read_csv
from tasks.runall import RunAll

def run(name):
    given = {"input_dir": name, "settings": "settings.json", "engine": "inline"}
    luigi.build([RunAll(**given)], local_scheduler=True, log_level="CRITICAL")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

start = run("small")
beyond = run("large") - start
row = read_csv(Path("large-defects/images.csv")).iloc[0]
print(json.dumps({"beyond": beyond, "n_loops": int(row["n_loops"]), "status": row["status"]}))
"""


def test_memory_is_bounded_by_the_tiles_not_by_the_image(field: np.ndarray, tmp_path: Path) -> None:
    side = 4608
    doubled = cv2.resize(field, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR).astype(np.uint16) * 16
    noise = np.clip(np.random.default_rng(0).normal(2800, 160, (512, 512)), 0, 4095).astype(np.uint16)
    large = np.tile(noise, (side // 512, side // 512))
    # Loops in one place, so that all stages have something to do; the rest is cheap.
    large[3000:4536, 2400:4448] = doubled
    for name, pixels in (("small", doubled), ("large", large)):
        (tmp_path / name).mkdir()
        options = {"tile": (512, 512), "compression": "zlib", "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / name / "a.tif", pixels, **options)
    settings = {"tiling": {"above_megapixels": 1, "tile_px": 1024}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    said = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["status"] == "ok"
    assert found["n_loops"] >= 5
    # Held whole, its 21 million pixels would take 170 MB in the numbers of the percentiles alone, and more after that.
    assert found["beyond"] < 150e6
    assert (tmp_path / "large-defects" / "overlays" / "a.tif.jpg").is_file()
