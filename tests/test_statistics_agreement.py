"""Agreement with labels: the border, the conventions, pooling, the curve, several experts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from defectpipe import boxes as bx
from defectpipe.io.labels import read_labels
from defectpipe.io.tables import images_table, labels_table, loops_table
from defectpipe.settings import Settings, StatisticsSettings
from defectpipe.statistics import agreement, evaluate, reference_expert
from defectpipe.statistics.curves import curve_steps, precision_recall_curve
from defectpipe.statistics.experts import inside
from defectpipe.statistics.pooling import rule_name
from defectpipe.statistics.scoring import NO_PARTNER, NOT_COUNTED, Objects, f1_of, partners, score

SHAPE = (400, 600)
FAST = Settings(statistics=StatisticsSettings(n_resamples=200))
BOX = ["x0_px", "y0_px", "x1_px", "y1_px"]


def make_labels(boxes: np.ndarray) -> pd.DataFrame:
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    table = dict(zip(BOX, boxes.T, strict=True))
    table |= {"x_px": boxes[:, [0, 2]].mean(1), "y_px": boxes[:, [1, 3]].mean(1)}
    return labels_table(pd.DataFrame(table | {"diameter_px": size.max(1), "minor_px": size.min(1)}))


def make_loops(
    boxes: np.ndarray, image: str = "a.tif", scores: np.ndarray | None = None, frame: int = 0
) -> pd.DataFrame:
    table = make_labels(boxes).drop(columns="label")
    table["image"], table["frame"], table["loop_id"] = image, frame, np.arange(len(table))
    table["on_edge"] = bx.touches_border(table[BOX].to_numpy(float), SHAPE, 2.0)
    table["screening_score"] = 0.5 if scores is None else scores
    return loops_table(table)


def squares(*centres: tuple[float, float], side: float = 30.0) -> np.ndarray:
    xy = np.asarray(centres, float).reshape(-1, 2)
    return np.concatenate([xy - side / 2, xy + side / 2], 1)


def scatter(rng: np.random.Generator, n: int) -> np.ndarray:
    xy, size = rng.uniform([0, 0], [SHAPE[1], SHAPE[0]], (n, 2)), rng.uniform(12, 60, (n, 2))
    boxes = np.concatenate([xy - size / 2, xy + size / 2], 1)
    return np.clip(boxes, -0.5, [SHAPE[1] - 0.5, SHAPE[0] - 0.5] * 2)


def compare(labels: np.ndarray, loops: np.ndarray, convention: str = "tight") -> dict:
    return agreement(make_loops(loops), make_labels(labels), SHAPE, box_convention=convention, settings=FAST)


def images_of(names: list[str]) -> pd.DataFrame:
    return images_table(
        [{"image": n, "frame": 0, "status": "ok", "height_px": SHAPE[0], "width_px": SHAPE[1]} for n in names]
    )


def test_perfect_agreement():
    boxes = squares((100, 100), (300, 200), (500, 300))
    found = compare(boxes, boxes)
    assert found["n_labels"] == 3
    assert found["labels_mean_diameter_px"] == 30
    assert [found[k] for k in ("recall", "precision", "recall_20px", "precision_20px")] == [1, 1, 1, 1]


def test_scores_that_are_not_defined_are_none():
    boxes = squares((100, 100))
    nothing = compare(np.zeros((0, 4)), np.zeros((0, 4)))
    assert nothing["n_labels"] == 0
    assert [nothing[k] for k in ("recall", "precision", "labels_mean_diameter_px")] == [None, None, None]
    assert [compare(np.zeros((0, 4)), boxes)[k] for k in ("recall", "precision")] == [None, 0]
    assert [compare(boxes, np.zeros((0, 4)))[k] for k in ("recall", "precision")] == [0, None]


def test_every_loop_twice_is_perfect_by_centres_and_half_true_one_to_one():
    boxes = squares((100, 100), (300, 200))
    found = compare(boxes, np.concatenate([boxes, boxes + 1]))
    assert (found["recall_20px"], found["precision_20px"]) == (1, 1)
    assert (found["recall"], found["precision"]) == (1, 0.5)


def test_a_shift_within_20_px_in_x_and_y_counts_by_centres_only():
    boxes = squares((100, 100))
    found = compare(boxes, boxes + np.array([19, -19, 19, -19]))
    assert (found["recall_20px"], found["recall"]) == (1, 0)
    assert compare(boxes, boxes + np.array([21, 0, 21, 0]))["recall_20px"] == 0


def test_labels_are_compared_in_the_convention_of_the_loops():
    tight = squares((100, 100), (300, 200), side=10)
    padded = bx.pad(tight)
    assert compare(tight, padded, "padded")["recall"] == 1
    # 10² in 15² is an overlap of 0.44, over the limit of 0.4; 8² in 13² is under it.
    small = squares((100, 100), side=8)
    assert compare(small, bx.pad(small), "tight")["recall"] == 0
    assert compare(small, bx.pad(small), "padded")["recall"] == 1
    # The labels' diameter stays that of the loop.
    assert compare(tight, padded, "padded")["labels_mean_diameter_px"] == 10


BORDER, INNER, FAR = (10, 200), (300, 200), (450, 100)


@pytest.mark.parametrize(
    ("labels", "loops", "counts", "with_border"),
    [
        # counts: labels that count, found, loops that count, true; one-to-one and by centres alike
        ([BORDER], [], (0, 0, 0, 0), (1, 0, 0, 0)),
        ([], [BORDER], (0, 0, 0, 0), (0, 0, 1, 0)),
        ([BORDER, INNER], [BORDER, INNER], (1, 1, 1, 1), (2, 2, 2, 2)),
        ([BORDER, INNER], [INNER, FAR], (1, 1, 2, 1), (2, 1, 2, 1)),
        # A loop just off the border that agrees with a label on it is not false; a label so is not missed.
        ([BORDER], [(20, 200)], (0, 0, 0, 0), (1, 1, 1, 1)),
        ([(20, 200)], [BORDER], (0, 0, 0, 0), (1, 1, 1, 1)),
        # ... and both count where they also agree with each other.
        ([BORDER, (22, 200)], [(20, 200)], (1, 1, 1, 1), (2, None, 1, 1)),
    ],
)
def test_the_border_is_ignored_on_both_sides(labels, loops, counts, with_border):
    a = Objects.from_labels(make_labels(squares(*labels)), SHAPE, "tight", 2.0)
    b = Objects.from_loops(make_loops(squares(*loops)))
    found = score(a, b, FAST.statistics)
    for rule in ("one_to_one", "li2018"):
        assert tuple(found[rule]) == counts
        for value, expected in zip(found[rule + "_with_border"], with_border, strict=True):
            assert expected is None or value == expected


@pytest.mark.parametrize("seed", range(5))
def test_scores_do_not_change_when_the_image_is_mirrored_or_turned(seed):
    rng = np.random.default_rng(seed)
    labels = scatter(rng, 40)
    loops = np.clip(labels[:30] + rng.normal(0, 4, (30, 4)), -0.5, [SHAPE[1] - 0.5, SHAPE[0] - 0.5] * 2)

    def turned(boxes: np.ndarray) -> np.ndarray:
        return boxes[:, [1, 0, 3, 2]]

    def mirrored(boxes: np.ndarray) -> np.ndarray:
        return np.stack([SHAPE[1] - 1 - boxes[:, 2], boxes[:, 1], SHAPE[1] - 1 - boxes[:, 0], boxes[:, 3]], 1)

    plain = compare(labels, loops)
    assert 0 < plain["recall"] < 1
    assert compare(mirrored(labels), mirrored(loops)) == pytest.approx(plain)
    flipped = make_loops(turned(loops))
    flipped["on_edge"] = bx.touches_border(turned(loops), SHAPE[::-1], 2.0)
    other = agreement(flipped, make_labels(turned(labels)), SHAPE[::-1], box_convention="tight", settings=FAST)
    assert other == pytest.approx(plain)


@pytest.mark.parametrize("seed", range(8))
def test_partners_are_those_that_the_counts_are_made_of(seed):
    rng = np.random.default_rng(seed)
    sides = [np.concatenate([c := rng.uniform(0, 160, (40, 2)), c + rng.uniform(8, 40, (40, 2))], 1) for _ in "ab"]
    # Half of the second are the first, moved a little, so that there is something to find.
    sides[1][:20] = sides[0][:20] + rng.normal(0, 2, (20, 4))
    labels, loops = (
        Objects(b, (b[:, :2] + b[:, 2:]) / 2, np.full(40, np.nan), bx.touches_border(b, (180, 190), 2.0)) for b in sides
    )
    settings = Settings().statistics
    of_label, of_loop = partners(labels, loops, settings)
    n_labels, n_found, n_loops, n_true = score(labels, loops, settings)["one_to_one"]
    assert n_found > 5
    assert (n_labels, n_loops) == ((of_label != NOT_COUNTED).sum(), (of_loop != NOT_COUNTED).sum())
    assert (n_found, n_true) == ((of_label >= 0).sum(), (of_loop >= 0).sum())
    assert n_labels < 40
    assert ((of_label == NO_PARTNER).sum(), (of_loop == NO_PARTNER).sum()) == (n_labels - n_found, n_loops - n_true)
    found = np.flatnonzero(of_label >= 0)
    assert (of_loop[of_label[found]] == found).all()


def test_f1_is_zero_where_one_side_lacks_and_unknown_where_both_do():
    counts = np.array([[4, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0], [4, 2, 4, 2], [4, 0, 3, 0]])
    assert np.nan_to_num(f1_of(counts), nan=-1).tolist() == [0, 0, -1, 0.5, 0]


def folder(seed: int, n_images: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame], pd.DataFrame]:
    """Images, loops, labels and candidates of a machine that misses some, shifts some, and invents some."""
    rng = np.random.default_rng(seed)
    labels, candidates = {}, []
    for k in range(n_images):
        marked = scatter(rng, int(rng.integers(0, 30)))
        near = marked[rng.uniform(size=len(marked)) < 0.8]
        near = near + rng.normal(0, 5, near.shape)
        boxes = np.concatenate([near, scatter(rng, 8)])
        boxes = np.clip(boxes, -0.5, [SHAPE[1] - 0.5, SHAPE[0] - 0.5] * 2)
        labels[f"{k}.tif"] = make_labels(marked)
        # Rounded, so that equal scores occur.
        candidates.append(make_loops(boxes, f"{k}.tif", np.round(rng.uniform(size=len(boxes)), 2)))
    table = pd.concat(candidates, ignore_index=True)
    return images_of(sorted(labels)), table[table["screening_score"] >= 0.3].reset_index(drop=True), labels, table


def run(images, loops, labels, **kwargs):
    return evaluate(images, loops, labels, box_convention="tight", settings=FAST, **kwargs)


def test_pooled_figures_are_those_of_the_images_put_together():
    images, loops, labels, _ = folder(0, 9)
    out = run(images, loops, {"me": labels})
    each = {
        name: agreement(loops[loops["image"] == name], table, SHAPE, box_convention="tight", settings=FAST)
        for name, table in labels.items()
    }
    for key, suffix in (("iou_0.4", ""), ("li2018", "_20px")):
        rows = [row[key] for row in out["images"]]
        recalls = [each[row["image"]]["recall" + suffix] for row in out["images"]]
        assert [row["recall"] for row in rows] == recalls
        pooled = out[key]
        assert pooled["recall"] == pytest.approx(sum(r["n_found"] for r in rows) / sum(r["n_labels"] for r in rows))
        assert pooled["precision"] == pytest.approx(sum(r["n_true"] for r in rows) / sum(r["n_loops"] for r in rows))
        harmonic = 2 / (1 / pooled["recall"] + 1 / pooled["precision"])
        assert pooled["f1"] == pytest.approx(harmonic)
        assert pooled["mean_of_images"]["recall"] == pytest.approx(np.mean([r for r in recalls if r is not None]))
        for name in ("recall", "precision", "f1", "recall_with_border"):
            assert pooled[name + "_ci_low"] < pooled[name] < pooled[name + "_ci_high"]
    assert (out["n_images"], out["n_groups"], out["interval"]) == (9, 9, "bootstrap over 9 images")


def test_a_label_that_is_a_box_is_compared_by_its_long_side():
    """A tilted ellipse is longer than its bounding box: beside boxes the major axis comes out too large."""
    ellipses = np.array([(100.0, 100.0, 40.0, 20.0, 45.0), (300.0, 200.0, 60.0, 30.0, 135.0)])
    bounds = bx.ellipse_bounds(*ellipses.T)
    loops = make_loops(bounds).assign(
        **dict(zip(["diameter_px", "minor_px", "angle_deg"], ellipses[:, 2:].T, strict=True))
    )
    sizes = run(images_of(["a.tif"]), loops, {"me": {"a.tif": make_labels(bounds)}})["sizes"]
    tilt = 1 / np.sqrt((1 + 0.25) / 2)
    for figure in ("mean", "std"):
        assert sizes[f"{figure}_long_side_relative_error"] == pytest.approx(0, abs=1e-9)
        assert sizes[f"{figure}_diameter_relative_error"] == pytest.approx(tilt - 1)
        assert sizes[f"labels_{figure}_long_side_px"] == pytest.approx(sizes[f"labels_{figure}_diameter_px"])


def test_sizes_stand_beside_the_labels_with_signed_errors():
    labels = {"a.tif": make_labels(squares((100, 100), (200, 200), (300, 300), side=20)), "b.tif": make_labels([])}
    boxes = np.concatenate([squares((100, 100), (200, 200), side=22), squares((5, 100), side=40)])
    out = run(images_of(["a.tif", "b.tif"]), make_loops(boxes), {"me": labels})
    sizes = out["sizes"]
    assert (sizes["n_labels"], sizes["n_loops"]) == (3, 2)
    assert sizes["count_relative_error"] == pytest.approx(-1 / 3)
    assert sizes["mean_diameter_relative_error"] == pytest.approx(0.1)
    assert sizes["std_diameter_px"] == pytest.approx(0, abs=1e-6)
    assert sizes["std_diameter_relative_error"] is None
    assert out["matched"] == pytest.approx(
        {"n_pairs": 2, "median_relative_error": 0.1, "median_absolute_relative_error": 0.1}
    )
    a, b = out["images"]
    assert (a["labels_count"], a["count"]) == (3, 2)
    assert a["mean_diameter_relative_error"] == pytest.approx(0.1)
    assert (b["labels_count"], b["count"], b["count_relative_error"], b["mean_diameter_px"]) == (0, 0, None, None)


def test_std_is_that_of_all_diameters_pooled():
    images, loops, labels, _ = folder(3, 8)
    sizes = run(images, loops, {"me": labels})["sizes"]
    marked = [
        d for t in labels.values() for d in t["diameter_px"][~bx.touches_border(t[BOX].to_numpy(float), SHAPE, 2)]
    ]
    assert sizes["labels_std_diameter_px"] == pytest.approx(np.std(marked, ddof=1))
    assert sizes["labels_mean_diameter_px"] == pytest.approx(np.mean(marked))
    assert sizes["n_labels"] == len(marked)


def test_what_cannot_be_scored_is_left_out_and_named():
    images, loops, labels, _ = folder(1, 4)
    images.loc[images["image"] == "1.tif", "status"] = "failed"
    del labels["2.tif"]
    labels["gone.tif"] = make_labels([])
    out = run(images, loops, {"me": labels})
    assert [row["image"] for row in out["images"]] == ["0.tif", "3.tif"]
    assert {row["image"]: row["reason"] for row in out["not_scored"]} == {
        "1.tif": "the image failed",
        "2.tif": "no labels",
        "gone.tif": "no such image",
    }


def test_labels_belong_to_the_first_frame():
    boxes = squares((100, 100), (300, 200))
    images = images_table(
        [{"image": "a.tif", "frame": f, "status": "ok", "height_px": 400, "width_px": 600} for f in (0, 1)]
    )
    loops = pd.concat([make_loops(boxes), make_loops(scatter(np.random.default_rng(0), 9), frame=1)], ignore_index=True)
    out = run(images, loops, {"me": {"a.tif": make_labels(boxes)}})
    assert (out["n_images"], out["iou_0.4"]["precision"]) == (1, 1)


def test_intervals_are_over_groups_where_they_are_given():
    images, loops, labels, _ = folder(2, 12)
    groups = {name: f"family {k % 3}" for k, name in enumerate(sorted(labels))}
    out = run(images, loops, {"me": labels}, groups=groups)
    assert (out["n_groups"], out["interval"]) == (3, "Student's t over 3 groups")
    alone = run(images, loops, {"me": labels})
    assert out["iou_0.4"]["recall"] == alone["iou_0.4"]["recall"]
    assert out["iou_0.4"]["recall_ci_low"] != alone["iou_0.4"]["recall_ci_low"]


@pytest.mark.parametrize("n", [0, 1, 3, 9])
def test_evaluation_is_plain_json_the_same_whatever_the_order(n):
    images, loops, labels, candidates = folder(6, n) if n else (images_of([]), make_loops([]), {}, make_loops([]))
    experts = {"b": labels, "a": dict(list(labels.items())[:2])}
    one = json.dumps(run(images, loops, experts, candidates=candidates), allow_nan=False)
    turned = {name: dict(reversed(table.items())) for name, table in reversed(experts.items())}
    other = run(images.iloc[::-1], loops, turned, candidates=candidates)
    assert json.dumps(other, allow_nan=False) == one
    assert json.loads(one)["reference"] == "a"


def test_no_labels_and_no_candidates():
    images, loops, _, _ = folder(6, 2)
    out = run(images, loops, {}, candidates=pd.DataFrame())
    assert (out["reference"], out["n_images"], out["iou_0.4"]["recall"]) == (None, 0, None)
    assert out["precision_recall_curve"]["recall"] == []


@pytest.mark.parametrize("seed", range(4))
def test_every_point_of_the_curve_is_the_score_at_that_threshold(seed):
    images, _, labels, candidates = folder(seed, 4)
    curve = run(images, candidates.iloc[:0], {"me": labels}, candidates=candidates)["precision_recall_curve"]
    assert len(curve["threshold"]) > 20
    assert curve["threshold"] == sorted(curve["threshold"], reverse=True)
    points = list(zip(*(curve[k] for k in ("threshold", "recall", "precision")), strict=True))
    for threshold, recall, precision in points[::5]:
        kept = candidates[candidates["screening_score"] >= threshold]
        at = run(images, kept, {"me": labels})["iou_0.4"]
        # Which of several equally good matchings is taken may change who is excused at the border, by one.
        assert recall == pytest.approx(at["recall"], abs=1.01 / at["n_labels"])
        assert precision == pytest.approx(at["precision"], abs=1.01 / at["n_loops"])


def test_curve_counts_are_optimal_off_the_border():
    rng = np.random.default_rng(9)
    xy = rng.uniform(100, 200, (25, 2))
    labels = Objects.from_labels(make_labels(np.concatenate([xy - 15, xy + 15], 1)), SHAPE, "tight", 2.0)
    xy = rng.uniform(100, 200, (40, 2))
    boxes, scores = np.concatenate([xy - 15, xy + 15], 1), rng.uniform(size=40)
    steps = curve_steps(labels, Objects.from_loops(make_loops(boxes)), scores, 0.4)
    for k in range(1, 41):
        best = np.argsort(-scores)[:k]
        counts = score(labels, Objects.from_loops(make_loops(boxes[best])), FAST.statistics)["one_to_one"]
        assert steps[:k, 2].sum() == counts[1]
        assert steps[:k, 3].sum() == k
    assert precision_recall_curve(0, steps)["recall"] == []


def test_long_curves_are_thinned_and_keep_their_ends():
    steps = np.stack([np.linspace(1, 0, 5000), np.zeros(5000), np.arange(5000) % 2, np.ones(5000)], 1)
    curve = precision_recall_curve(3000, steps)
    assert len(curve["threshold"]) == 200
    assert (curve["threshold"][0], curve["threshold"][-1]) == (1, 0)
    assert curve["recall"][-1] == pytest.approx(2500 / 3000)


def test_rule_is_named_by_the_overlap_that_was_asked_for():
    assert rule_name("one_to_one", StatisticsSettings()) == "iou_0.4"
    assert rule_name("one_to_one", StatisticsSettings(match_iou=0.5)) == "iou_0.5"


def experts_of(seed: int, n_images: int, keep: dict[str, float]) -> tuple:
    """Experts who each mark a share of the same loops."""
    rng = np.random.default_rng(seed)
    truth = {f"{k}.tif": scatter(rng, 40) for k in range(n_images)}
    marked = {
        name: {i: make_labels(b[rng.uniform(size=len(b)) < share]) for i, b in truth.items()}
        for name, share in keep.items()
    }
    return truth, marked, rng


def test_experts_against_each_other_and_the_machine_against_each():
    truth, marked, rng = experts_of(0, 9, {"ann": 0.9, "bob": 0.7, "eve": 0.8})
    loops = pd.concat(
        [make_loops(b[rng.uniform(size=len(b)) < 0.8], image) for image, b in truth.items()], ignore_index=True
    )
    out = run(images_of(sorted(truth)), loops, marked)
    experts = out["experts"]
    assert experts["names"] == ["ann", "bob", "eve"]
    pairs = [(p["reference"], p["compared"]) for p in experts["expert_against_expert"]]
    assert pairs == [("ann", "bob"), ("ann", "eve"), ("bob", "eve")]
    first = experts["expert_against_expert"][0]["iou_0.4"]
    assert experts["machine_against_expert"]["ann"]["iou_0.4"] == out["iou_0.4"]
    # An expert is a machine like any other: the same figures come out when he is put in its place.
    as_machine = pd.concat(
        [make_loops(t[BOX].to_numpy(float), image) for image, t in marked["bob"].items()], ignore_index=True
    )
    assert run(images_of(sorted(truth)), as_machine, {"ann": marked["ann"]})["iou_0.4"] == first

    verdict = experts["machine_inside_expert_spread"]
    assert verdict["count"] is True
    assert verdict["f1_iou_0.4"] is True
    assert verdict["share_expected_of_one_more_expert"] == 0.5
    row = experts["images"][0]
    assert row["machine"]["count"] == out["images"][0]["count"]
    counts = [e["count"] for e in row["experts"].values()]
    assert row["inside"]["count"] is (min(counts) <= row["machine"]["count"] <= max(counts))


def test_a_machine_outside_the_spread_is_said_to_be():
    truth, marked, _ = experts_of(1, 8, {"ann": 0.9, "bob": 0.85})
    loops = pd.concat([make_loops(b[:8] * 0.999 + 9, image) for image, b in truth.items()], ignore_index=True)
    verdict = run(images_of(sorted(truth)), loops, marked)["experts"]["machine_inside_expert_spread"]
    assert verdict["count"] is False
    assert verdict["f1_iou_0.4"] is False
    assert verdict["share_of_images_inside"]["count"] == 0


def test_experts_of_different_images():
    truth, marked, _ = experts_of(2, 3, {"ann": 0.9, "bob": 0.8})
    del marked["ann"]["0.tif"], marked["bob"]["2.tif"]
    assert [reference_expert(marked, f"{k}.tif") for k in (0, 1, 9)] == ["bob", "ann", None]
    loops = pd.concat([make_loops(b, image) for image, b in truth.items()], ignore_index=True)
    experts = run(images_of(sorted(truth)), loops, marked)["experts"]
    assert [row["image"] for row in experts["images"]] == ["1.tif"]
    assert experts["expert_against_expert"][0]["n_images"] == 1
    assert experts["machine_against_expert"]["bob"]["n_images"] == 2
    del marked["ann"]["1.tif"]
    nothing = run(images_of(sorted(truth)), loops, marked)["experts"]["machine_inside_expert_spread"]
    assert (nothing["n_images"], nothing["count"], nothing["f1_li2018"]) == (0, None, None)


@pytest.mark.parametrize(
    ("value", "spread", "expected"),
    [
        (2.0, [1.0, 3.0], True),
        (3.0, [1.0, 3.0], True),
        (3.1, [3.0, 1.0], False),
        (None, [1, 2], None),
        (1, [1, None], None),
    ],
)
def test_inside(value, spread, expected):
    assert inside(value, spread) is expected


@pytest.mark.real
def test_two_passes_over_real_frames(data_dir):
    folder = data_dir / "ti-black-dots"
    shape = (2048, 2048)
    names = sorted(path.name for path in (folder / "images").iterdir())
    marked = {}
    for name in ("polygons_new", "polygons_old"):
        files = {image: folder / name / f"{image.removesuffix('.jpg')}.txt" for image in names}
        marked[name] = {image: read_labels(file, shape, "yolo") for image, file in files.items()}
    images = images_of(names).assign(height_px=shape[0], width_px=shape[1])
    # The newer pass in the machine's place: it agrees with itself, and with the older one as that one does with it.
    loops = pd.concat(
        [
            table.drop(columns="label").assign(
                image=image,
                on_edge=bx.touches_border(table[BOX].to_numpy(float), shape, FAST.measurement.border_margin_px),
            )
            for image, table in marked["polygons_new"].items()
        ]
    )
    experts = run(images, loops_table(loops), marked)["experts"]
    (pair,) = experts["expert_against_expert"]
    machine = experts["machine_against_expert"]
    assert machine["polygons_new"]["iou_0.4"]["f1"] == 1
    assert machine["polygons_old"]["iou_0.4"]["f1"] == pair["iou_0.4"]["f1"]
    assert machine["polygons_old"]["iou_0.4"]["recall"] == pair["iou_0.4"]["precision"]
    # A later pass that marks a third more, and smaller, dots: subjective, as the data's notes say.
    assert 0.55 < pair["iou_0.4"]["f1"] < 0.65
    assert pair["iou_0.4"]["f1"] < pair["li2018"]["f1"] < 0.75
    assert pair["sizes"]["count_relative_error"] == pytest.approx(-0.27, abs=0.01)
    assert pair["sizes"]["mean_diameter_relative_error"] == pytest.approx(0.26, abs=0.01)
    verdict = experts["machine_inside_expert_spread"]
    assert all(verdict[name] for name in ("count", "mean_diameter_px", "std_diameter_px", "f1_iou_0.4", "f1_li2018"))
    assert verdict["share_of_images_inside"]["count"] == 1
