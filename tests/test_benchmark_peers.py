"""Rival networks: crops and their boxes, targets and their decoding, tiles, and what is chosen on which folds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from defectpipe.boxes import overlaps, pad
from defectpipe.io.labels import LABEL_COLUMNS
from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training.figures import HeldOut


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The benchmark's modules, with a cache in which nothing is trained."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import peer
    import peer_centre
    import peer_networks
    import peer_stardist
    import peers

    monkeypatch.setattr(peer_networks, "CACHE", tmp_path)
    return SimpleNamespace(
        peer=peer, centre=peer_centre, networks=peer_networks, stardist=peer_stardist, benchmark=peers
    )


def separate_boxes(rng: np.random.Generator, shape: tuple[int, int], n: int) -> np.ndarray:
    """Boxes of 20 to 70 px that do not touch and lie inside."""
    found: list[list[float]] = []
    while len(found) < n:
        w, h = rng.uniform(20, 70, 2)
        x, y = rng.uniform(0, shape[1] - 1 - w), rng.uniform(0, shape[0] - 1 - h)
        if not found or overlaps(np.array([[x - 9, y - 9, x + w + 9, y + h + 9]]), np.array(found)).max() == 0:
            found.append([x, y, x + w, y + h])
    return np.array(found)


def test_boxes_of_crops_stay_with_what_they_bound(modules):
    shape, n_seen = (300, 420), 0
    y, x = np.mgrid[: shape[0], : shape[1]]
    box = np.array([[200.0, 120.0, 230.0, 150.0]])
    picture = 50 * np.exp(-((x - 215.0) ** 2 + (y - 135.0) ** 2) / 30).astype(np.float32)
    crops = modules.networks.random_crops([modules.networks.Sample(picture, box, 1.0)], 160, np.random.default_rng(2))
    for _ in range(150):
        crop, [[x0, y0, x1, y1]] = next(crops)
        assert crop.shape == (160, 160)
        assert crop.dtype == np.float32
        # The blob mirrored at the border is another maximum.
        if min(x0, y0) > 20 and max(x1, y1) < 140:
            row, column = np.unravel_index(crop.argmax(), crop.shape)
            assert np.hypot(column - (x0 + x1) / 2, row - (y0 + y1) / 2) < 1.5
            assert x1 - x0 == pytest.approx(y1 - y0)
            assert 0.69 * 30 < x1 - x0 < 1.42 * 30
            n_seen += 1
    assert n_seen > 10


def test_decoding_undoes_the_targets(modules):
    boxes = separate_boxes(np.random.default_rng(5), (320, 320), 9)
    answer = modules.centre.targets(boxes, 320)
    heat = np.clip(answer[..., :1], 1e-6, 1 - 1e-6)
    found, scores = modules.centre.decode(np.concatenate([np.log(heat / (1 - heat)), answer[..., 1:5]], 2))
    assert len(found) == len(boxes)
    assert scores.min() > 0.99
    assert overlaps(found, boxes).max(0).min() > 0.999


def test_the_smaller_of_two_boxes_keeps_its_size(modules):
    boxes = np.array([[100.0, 100, 130, 130], [60, 60, 180, 180]])
    answer = modules.centre.targets(boxes, 320)
    assert np.exp(answer[28, 28, 3]) * 40 == pytest.approx(30)
    assert not modules.centre.targets(np.array([[-50.0, 10, -20, 40]]), 320).any()


@pytest.mark.parametrize("shape", [(700, 1500), (2300, 1024), (1025, 2049)])
def test_tiles_find_everything_once(modules, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]):
    boxes = separate_boxes(np.random.default_rng(shape[0]), shape, 40)
    centres = np.rint((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int) // 4 * 4
    grey = np.zeros(shape, np.uint8)
    grey[centres[:, 1], centres[:, 0]] = 255

    class Session:
        """A network that takes every bright pixel for a loop of 24 px."""

        def run(self, _, feed):
            [picture] = feed["input"]
            assert picture.shape == (1024, 1024, 1)
            maps = np.zeros((256, 256, 5), np.float32)
            maps[..., 0] = np.where(picture[::4, ::4, 0] > 1, 3.0, -9.0)
            maps[..., 1:3], maps[..., 3:] = -0.375, np.log(24 / 40)
            return [maps[None]]

    monkeypatch.setattr(modules.centre, "_session", lambda fold: Session())
    found, _ = modules.centre.find(grey, 0)
    assert len(found) == len(centres)
    distance = np.abs(((found[:, :2] + found[:, 2:]) / 2)[:, None] - centres[None]).max(-1)
    assert distance.min(0).max() < 1e-6
    np.testing.assert_allclose(found[:, 2:] - found[:, :2], 24, rtol=1e-5)


def test_instances_are_ellipses_in_their_boxes(modules):
    boxes = np.array([[20.0, 30, 60, 90], [100, 100, 130, 120], [200, 10, 400, 60]])
    picture = modules.stardist.instances(boxes, 256)
    assert set(np.unique(picture)) == {0, 1, 2, 3}
    for box in boxes[:2]:
        number = picture[int(box[1::2].mean()), int(box[::2].mean())]
        rows, columns = np.nonzero(picture == number)
        edges = [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_allclose(edges, box, atol=1)
        assert len(rows) == pytest.approx(np.pi / 4 * (box[2] - box[0]) * (box[3] - box[1]), rel=0.1)


def labelled(folds: dict[str, int], boxes: np.ndarray) -> HeldOut:
    x_px, y_px = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(x_px=x_px, y_px=y_px).reindex(columns=LABEL_COLUMNS)
    return HeldOut(
        shapes=dict.fromkeys(folds, (400, 600)),
        labels=dict.fromkeys(folds, table),
        groups={image: image for image in folds},
        folds=folds,
        loops=pd.DataFrame({"image": list(folds)}),
        candidates=pd.DataFrame({"image": list(folds)}),
        box_convention="padded",
    )


def test_a_fold_has_no_say_in_its_own_score(modules):
    """In fold 0 false boxes score 0.5 and true ones 0.9, in fold 1 0.2 and 0.3: each gets what suits the other."""
    boxes = separate_boxes(np.random.default_rng(1), (400, 600), 12)
    true, false = pad(boxes[:6]), pad(boxes[6:])
    known = labelled({"a": 0, "b": 1}, boxes[:6])
    scores = {0: (0.9, 0.5), 1: (0.3, 0.2)}
    asked = []

    class Finder(modules.benchmark.Finder):
        def __call__(self, image, parameters, fold=None):
            asked.append(image.micrograph.image)
            high, low = scores[image.fold]
            return np.concatenate([true, false]), np.repeat([high, low], 6)

    images = [SimpleNamespace(micrograph=SimpleNamespace(image=name), fold=fold) for name, fold in known.folds.items()]
    finder = Finder(modules.peer.Peer(lambda grey, fold: None, [{}], network="centre"), None)
    chosen, at_best = modules.benchmark.choose(finder, images, known)
    assert chosen[0]["f1_of_the_choice"] == chosen[1]["f1_of_the_choice"] == 1
    assert 0.2 < chosen[0]["least_score"] <= 0.3
    assert 0.5 < chosen[1]["least_score"] <= 0.9
    assert asked == ["a", "b"]
    # One score for both: all is found, and the false ones of one of them with it.
    assert at_best == pytest.approx(2 * 12 / (12 + 18), abs=1e-4)
    assert list(modules.benchmark.of_images(known, images[1:]).shapes) == ["b"]
    few, many = modules.benchmark.as_candidates(finder, images, known)
    assert few["candidates_per_image"] == many["candidates_per_image"] == 12
    assert many["recall_20px"] == 1


def test_without_networks_the_other_peers_run(modules, capsys: pytest.CaptureFixture[str]):
    assert modules.networks.trained_folds("centre") == ()
    assert not modules.benchmark.can_choose("centre detector")
    assert "stays as it is" in capsys.readouterr().out
    assert modules.benchmark.can_choose("scikit-image blob_log")
    for fold in (0, 4):
        place = modules.networks.folder_of("centre", fold)
        place.mkdir(parents=True)
        (place / "training.json").write_text('{"cpu_minutes": 1.5}')
        assert modules.benchmark.can_choose("centre detector") == (fold == 4)
    assert modules.benchmark.PEERS["centre detector"].folds() == (0, 4)


@pytest.mark.slow
def test_centre_detector_trains_and_is_found_again(modules, monkeypatch: pytest.MonkeyPatch):
    """A training of two steps: its network, its record, and boxes from tiles of an image that is not square."""
    for name, value in (("N_STEPS", 2), ("BATCH_SIZE", 1), ("CROP_PX", 96), ("TILE_PX", 256)):
        monkeypatch.setattr(modules.centre, name, value)
    # Threads are set once in a process, and other tests have been here.
    monkeypatch.setattr(modules.centre, "use_threads", lambda n: None)
    rng = np.random.default_rng(0)
    boxes = separate_boxes(rng, (200, 300), 3)
    sample = modules.networks.Sample(rng.normal(0, 0.3, (200, 300)).astype(np.float32), boxes, 1.0)
    place = modules.networks.folder_of("centre", 1)
    place.mkdir(parents=True)
    record = modules.centre.train([sample], place, 0)
    assert record["parameters"] == 712_629
    assert sorted(path.name for path in place.iterdir()) == ["network.onnx"]
    monkeypatch.setattr(modules.centre, "_LEAST_SCORE", 0.0)
    found, scores = modules.centre.find(rng.integers(0, 255, (200, 300)).astype(np.uint8), 1)
    assert len(found) == len(scores) > 0
    assert np.isfinite(found).all()
    assert (found[:, 2:] > found[:, :2]).all()
