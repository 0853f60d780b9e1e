"""A model trained from simulated images by the task, and the whole chain run with it: no toy anywhere."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import ROOT, command, table_bytes

from defectpipe.io.tables import read_csv
from defectpipe.simulation.dataset import simulate_dataset
from defectpipe.simulation.loops.presets import PRESETS

RECIPE = {
    "n_folds": 2,
    "cascade": {"n_stages": 5, "max_stumps": 20, "n_positives": 500, "n_negatives": 1000},
    "screener_training": {"n_steps": 60, "batch_size": 32},
}
TASK_FAILED = 30
pytestmark = pytest.mark.slow


def run(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=3600, check=False
    )


def training(place: Path, *more: object) -> tuple[object, ...]:
    labels = place / "set" / "labels.coco.json"
    given = ("TrainModel", "--images-dir", "set/images", "--labels-dir", labels, "--recipe", "recipe.json")
    return (*given, "--name", "small", *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with four small simulated images, and a small model trained on them."""
    place = tmp_path_factory.mktemp("training")
    (place / "recipe.json").write_text(json.dumps(RECIPE))
    simulate_dataset("loops", 4, 5, dataclasses.replace(PRESETS["demo"], shape=(450, 600)), place / "set")
    done = run(*training(place), cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def test_training_makes_a_named_model_once(place):
    model = place / "models" / "small"
    card = json.loads((model / "card.json").read_text())
    assert card["name"] == "small"
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert run(*training(place), cwd=place).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


def test_the_same_seed_trains_the_same_bytes(place, tmp_path):
    """With another number of jobs, into another folder, with other hashes of strings, in another time zone."""
    first, again = place / "models" / "small", tmp_path / "models" / "small"
    given = training(place, "--models-dir", again.parent, "--n-jobs", 1)
    done = run(*given, cwd=place, PYTHONHASHSEED="7", TZ="Pacific/Kiritimati")
    assert done.returncode == 0, done.stderr
    assert "no focus gate: 4 held-out images" in done.stdout
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert {path.relative_to(again) for path in again.rglob("*") if path.is_file()} == set(files)
    assert len(files) > 4
    for name in files:
        assert (again / name).read_bytes() == (first / name).read_bytes(), name


def test_the_chain_gives_the_same_bytes_on_every_engine(place):
    given = ("--input-dir", "set/images", "--labels-dir", "set/labels.coco.json", "--model", "small")
    outputs = []
    for engine, n_jobs in (("inline", 1), ("processes", 2)):
        out = place / f"out-{engine}"
        done = run("RunAll", *given, "--output-dir", out, "--engine", engine, "--n-jobs", n_jobs, cwd=place)
        assert done.returncode == 0, done.stderr
        outputs.append(table_bytes(out))
        assert json.loads((out / "summary.json").read_text())["model"]["name"] == "small"
    assert outputs[0] == outputs[1]
    loops, images = read_csv(out / "loops.csv"), read_csv(out / "images.csv")
    assert len(loops) > 0
    assert loops["diameter_nm"].notna().all()
    assert images["n_labels"].sum() > 0
    assert len(list((out / "overlays").glob("*.jpg"))) == 4


def test_analysis_never_imports_tensorflow(place):
    code = (
        "import sys\n"
        "from luigi.cmdline import luigi_run\n"
        "try:\n"
        "    luigi_run(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    print('status', end.code, 'heavy', sorted({'tensorflow', 'keras', 'torch'} & set(sys.modules)))\n"
    )
    given = ["--module", "defectpipe", "RunAll", "--input-dir", "set/images", "--model", "small"]
    given += ["--engine", "inline", "--output-dir", "out-alone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "status 0 heavy []"


def test_a_changed_model_file_is_refused_and_names_the_card(place):
    shutil.copytree(place / "models" / "small", place / "models" / "forged")
    with (place / "models" / "forged" / "cascade.xml").open("a") as file:
        file.write("<!-- -->")
    given = ("--input-dir", "set/images", "--output-dir", "out-forged", "--model", "forged")
    done = run("RunAll", *given, cwd=place)
    assert done.returncode == TASK_FAILED
    assert "card.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "out-forged" / "images.csv").exists()


def test_another_model_of_that_name_is_not_overwritten(place):
    theirs = place / "theirs" / "small"
    theirs.mkdir(parents=True)
    done = run(*training(place, "--models-dir", "theirs"), cwd=place)
    assert done.returncode == TASK_FAILED
    assert "model of this name" in done.stderr
    assert list(theirs.iterdir()) == []


def test_training_takes_no_image_without_labels_and_no_label_without_image(place):
    shutil.copytree(place / "set", place / "odd")
    extra = sorted((place / "odd" / "images").iterdir())[0]
    extra.rename(extra.with_name("nobody.tif"))
    given = ("TrainModel", "--images-dir", "odd/images", "--labels-dir", "odd/labels.coco.json", "--name", "odd")
    done = run(*given, cwd=place)
    assert done.returncode == TASK_FAILED
    assert extra.name in done.stderr
    assert "no image" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("start", "name", "said"),
    [
        ("small", "small", "starts from 'small' itself"),
        ("smal", "next", "no model 'smal'"),
        ("small", "next", "'small' was trained on 4 of these 4 images"),
    ],
)
def test_a_start_that_cannot_be_is_refused_and_changes_nothing(place, start, name, said):
    before = {path: path.stat().st_mtime_ns for path in (place / "models" / "small").rglob("*")}
    given = training(place)
    done = run(*given[: given.index("--name")], "--name", name, "--start-from", start, cwd=place)
    assert done.returncode == TASK_FAILED
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (place / "models" / "small").rglob("*")} == before
    # What was trained stays known as it was.
    assert run(*training(place), cwd=place).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "models" / "small").rglob("*")} == before


@pytest.mark.parametrize(
    ("text", "said"),
    [("image,family\na,b\n", "columns image and group"), ("image,group\nx.tif,1\n", "4 images have no group")],
)
def test_groups_that_do_not_cover_the_images_are_refused(place, text, said):
    (place / "groups.csv").write_text(text)
    done = run(*training(place, "--groups", "groups.csv", "--models-dir", "other"), cwd=place)
    assert done.returncode == TASK_FAILED
    assert said in done.stderr


def test_corrections_teach_and_the_card_says_what_was_gained(place):
    truth = json.loads((place / "set" / "labels.coco.json").read_text())
    out = place / "out-corrected"
    given = ("--input-dir", "set/images", "--labels-dir", "set/labels.coco.json", "--model", "small")
    done = run("RunAll", *given, "--output-dir", out, "--engine", "inline", cwd=place)
    assert done.returncode == 0, done.stderr
    # A person puts two images right.
    corrected = {image["id"]: image["file_name"] for image in truth["images"][:2]}
    (out / "corrections").mkdir()
    mine = truth | {
        "images": truth["images"][:2],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in corrected],
    }
    (out / "corrections" / "mine.json").write_text(json.dumps(mine))
    given = training(place, "--corrections", out / "corrections")
    given = (*given[: given.index("--name")], "--name", "better", "--corrections", out / "corrections")
    done = run(*given, cwd=place)
    assert done.returncode == 0, done.stderr
    card = json.loads((place / "models" / "better" / "card.json").read_text())
    assert card["data"]["n_images_from_corrections"] == 2
    # The run's model was trained on these very images: started from it, nothing would be held out.
    assert "from scratch: 'small' has learned from these images already" in done.stdout
    assert "started_from" not in card
    gain = card["gain_from_corrections"]
    summary = json.loads((out / "summary.json").read_text())
    assert gain["model_before"] == {name: summary["model"][name] for name in ("name", "sha256")}
    # The run itself was scored beside the same labels: the same figures, found another way.
    scored = json.loads((out / "evaluation.json").read_text())["images"]
    for part, wanted in (("corrected_images", True), ("other_images", False)):
        rows = [row["iou_0.4"] for row in scored if (row["image"] in corrected.values()) == wanted]
        n_true, n_labels, n_loops = (sum(row[name] for row in rows) for name in ("n_true", "n_labels", "n_loops"))
        of = gain[part]
        assert (of["n_images"], of["n_groups"]) == (2, 2)
        assert of["before"]["f1"] == pytest.approx(2 * n_true / (n_labels + n_loops), abs=1e-3)
        assert of["f1_gain"] == pytest.approx(of["after"]["f1"] - of["before"]["f1"], abs=2e-4)
        # This very folder is what it was trained on.
        assert of["seen_by_model_before"]["n_images"] == 2
    n_after = card["held_out"]["chain"]["iou_0.4"]["n_true"]
    assert gain["corrected_images"]["after"]["n_true"] + gain["other_images"]["after"]["n_true"] == n_after
    assert "on the 2 corrected images F1 is " in done.stdout
    # The same once more trains nothing.
    before = {path: path.stat().st_mtime_ns for path in (place / "models" / "better").rglob("*")}
    assert run(*given, cwd=place).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "models" / "better").rglob("*")} == before
