"""What a run computes again, and what it says of it: real runs over small folders, with the toy chain."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from luigi import LuigiStatusCode
from run_helpers import build, computed, table_bytes, write_blobs, write_folder

from defectpipe.io.tables import read_csv
from tasks import hashes
from tasks import plan as plans
from tasks.runall import RunAll

DONE = LuigiStatusCode.SUCCESS
STAGES = ("candidates", "screening", "measurement")
N = 4
ALL = tuple(f"field {i}.tif" for i in range(N))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", N)


@pytest.fixture
def output(source: Path) -> Path:
    return source.with_name("in-defects")


def run_all(source: Path, **parameters) -> LuigiStatusCode:
    return build(RunAll(input_dir=str(source), engine="inline", **parameters)).status


def lines(stages, *images):
    return sorted(f"{stage} {image} 0" for stage in stages for image in images)


def said(output: Path) -> list[str]:
    """What the last run said it computes: "stage: n images: reason; …"."""
    last = (output / "run.log").read_text(encoding="utf-8").split(" (model ")[-1].splitlines()[1:]
    texts = [line.split(" INFO ", 1)[1] for line in last if " INFO " in line]
    starts = tuple(f"{stage}: " for stage in (*STAGES, "statistics", "overlays", "agreement"))
    return [text for text in texts if text.startswith(starts)]


def results(output: Path) -> dict[Path, tuple[int, int]]:
    """Every result of an image, with what changes when it is written again."""
    kept = [path for name in (*STAGES, "overlays") for path in (output / ".defectpipe" / name).rglob("*.*")]
    kept += (output / "overlays").rglob("*.jpg")
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in kept}


def untouched(before: dict[Path, tuple[int, int]], output: Path) -> set[Path]:
    now = results(output)
    return {path for path, state in before.items() if now.get(path) == state}


def test_a_first_run_says_that_all_is_new_and_a_second_computes_and_says_nothing(toy, source, output, capsys):
    assert run_all(source) == DONE
    assert said(output) == [f"{stage}: 4 images: new" for stage in (*STAGES, "statistics", "overlays")]
    assert set(said(output)) <= set(capsys.readouterr().out.splitlines())
    computed(toy)
    before = results(output)
    assert len(before) == N * (3 * 2 + 1 + 1)
    assert run_all(source) == DONE
    assert (computed(toy), said(output)) == ([], [])
    assert untouched(before, output) == set(before)


def test_several_reasons_at_once_are_told_apart(toy, source, output, tmp_path):
    run_all(source)
    computed(toy)
    before = results(output)
    write_blobs(source / "new.tif", [(80, 60, 20)])
    write_blobs(source / "field 0.tif", [(80, 60, 22)])
    (source / "field 1.tif").unlink()
    (tmp_path / "settings.json").write_text('{"screening": {"threshold": 0.65}}')
    assert run_all(source, settings=str(tmp_path / "settings.json")) == DONE
    kept = ("field 2.tif", "field 3.tif")
    assert computed(toy) == sorted(lines(STAGES, "new.tif", "field 0.tif") + lines(("screening", "measurement"), *kept))
    assert said(output)[0] == "candidates: 1 image: image changed; 1 image: new"
    # The changed image has another reason, upstream: it is not the setting alone that makes it stale.
    assert said(output)[1] == "screening: 1 image: new; 3 images: settings.screening.threshold changed"
    assert said(output)[2].startswith("measurement: 1 image: new; 3 images: settings.screening.threshold changed")
    assert said(output)[3] == "statistics: 4 images: list of images changed"
    assert "1 image gone from the folder" in (output / "run.log").read_text()
    assert set(read_csv(output / "images.csv")["image"]) == {"field 0.tif", "new.tif", *kept}
    assert set(read_csv(output / "loops.csv")["image"]) == {"field 0.tif", "new.tif", *kept}
    state = output / ".defectpipe" / "candidates"
    still = {path for path in untouched(before, output) if state in path.parents}
    assert {path.stem for path in still} == {plans.image_key(image) for image in kept}


@pytest.mark.parametrize(
    ("settings", "first", "again"),
    [
        (
            {"detection": {"max_candidates_per_megapixel": 99}},
            "candidates: 4 images: settings.detection.max_candidates_per_megapixel changed",
            (*STAGES, "statistics", "overlays"),
        ),
        (
            {"measurement": {"border_margin_px": 3.0}},
            "measurement: 4 images: settings.measurement.border_margin_px changed",
            ("measurement", "statistics", "overlays"),
        ),
        ({"statistics": {"seed": 7}}, "statistics: 4 images: settings.statistics.seed changed", ("statistics",)),
        ({"labels": {"box_convention": "tight"}}, None, ()),
    ],
)
def test_the_reason_of_a_setting_is_its_name_down_to_the_last_stage(
    toy, source, output, tmp_path, settings, first, again
):
    run_all(source)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert run_all(source, settings=str(tmp_path / "settings.json")) == DONE
    assert [line.split(":")[0] for line in said(output)] == list(again)
    assert {line.split(": ", 1)[1] for line in said(output)} == ({first.split(": ", 1)[1]} if first else set())


class _Files:
    """A toy model of two files, of which each decides one stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import toy_chain

        self.files = {"cascade.xml": "a", "screener.onnx": "b"}
        monkeypatch.setattr(toy_chain.LoopModel, "decisive", lambda _model, stage: self.decisive(stage))
        monkeypatch.setattr(toy_chain, "find_model", lambda name, extra=(): Path("/somewhere/models") / name)

    def decisive(self, stage: str) -> dict[str, str]:
        name = {"candidates": "cascade.xml", "screening": "screener.onnx"}.get(stage)
        return {} if name is None else {name: self.files[name]}


def test_a_changed_file_of_the_model_is_named_and_costs_what_depends_on_it(toy, source, output, monkeypatch):
    model = _Files(monkeypatch)
    run_all(source, model="x")
    computed(toy)
    model.files["screener.onnx"] = "c"
    assert run_all(source, model="x") == DONE
    assert computed(toy) == lines(("screening", "measurement"), *ALL)
    assert said(output)[0] == "screening: 4 images: models/x: screener.onnx changed"
    model.files["cascade.xml"] = "c"
    assert run_all(source, model="x") == DONE
    assert computed(toy) == lines(STAGES, *ALL)
    assert {line.split(": ", 1)[1] for line in said(output)} == {"4 images: models/x: cascade.xml changed"}
    # Another name for the same files is the same model.
    assert run_all(source, model="y") == DONE
    assert computed(toy) == []


def _restore_card(model: Path, **changes: object) -> None:
    """Make the card describe the files that are there, and hold these changes."""
    card = json.loads((model / "card.json").read_text())
    card["sha256"] = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in card["sha256"]}
    (model / "card.json").write_text(json.dumps(card | changes))


def test_a_changed_file_of_a_real_model_is_named(tmp_path, monkeypatch):
    """No toy: the shipped model, copied and changed."""
    from defectpipe.model import find_model
    from defectpipe.simulation.loops.fields import simulate_field
    from defectpipe.simulation.loops.presets import PRESETS

    monkeypatch.chdir(tmp_path)
    model = tmp_path / "models" / "x"
    shutil.copytree(find_model("fecral-loops"), model)
    source, output = tmp_path / "in", tmp_path / "in-defects"
    source.mkdir()
    pixels = simulate_field(PRESETS["demo"], 1, 0).micrograph.pixels[:300, :400]
    tifffile.imwrite(source / "a.tif", np.ascontiguousarray(pixels))
    assert run_all(source, model="x") == DONE
    assert len(read_csv(output / "loops.csv")) > 0
    before = table_bytes(output)
    with (model / "cascade.xml").open("a") as file:
        file.write("<!-- another cascade -->")
    assert run_all(source, model="x") == LuigiStatusCode.FAILED
    _restore_card(model)
    assert run_all(source, model="x") == DONE
    assert said(output) == [
        f"{stage}: 1 image: models/x: cascade.xml changed" for stage in (*STAGES, "statistics", "overlays")
    ]
    assert table_bytes(output) == before
    # What no result depends on: the figures of the card, the weights for further training.
    with (model / "screener.weights.h5").open("ab") as file:
        file.write(b"more")
    _restore_card(model, description="another")
    assert run_all(source, model="x") == DONE
    assert said(output) == []
    _restore_card(model, threshold=0.99)
    assert run_all(source, model="x") == DONE
    assert said(output)[0] == "screening: 1 image: models/x: card.json changed"
    assert table_bytes(output) != before


def test_a_label_is_named_and_costs_one_picture(toy, source, output, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for i in range(2):
        (labels / f"field {i}.txt").write_text(f"39 {29 + 4 * i} 64 {54 + 4 * i}\n")
    given = {"labels_dir": str(labels), "label_format": "boxes"}
    assert run_all(source, **given) == DONE
    assert sorted(said(output))[0] == "agreement: new"
    computed(toy)
    before = results(output)
    (labels / "field 0.txt").write_text("39 29 64 55\n")
    assert run_all(source, **given) == DONE
    assert computed(toy) == []
    assert sorted(said(output)) == ["agreement: labels changed", "overlays: 1 image: labels changed"]
    assert len(before) - len(untouched(before, output)) == 2
    # An image that changes takes agreement and picture along.
    write_blobs(source / "field 1.tif", [(80, 60, 20)])
    assert run_all(source, **given) == DONE
    assert {"agreement: measurement changed", "overlays: 1 image: image changed"} < set(said(output))


def test_a_file_beside_the_image_counts_and_the_hash_in_the_table_stays_the_files_own(toy, source, output):
    run_all(source)
    computed(toy)
    (source / "field 0.txt").write_text("$CM_MAG 30000\n")
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "field 0.tif")
    assert said(output)[0] == "candidates: 1 image: file beside the image changed"
    found = read_csv(output / "images.csv").set_index("image")["sha256"]
    assert dict(found) == {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in ALL}


def test_a_stage_looks_at_nothing_of_the_model_that_its_results_do_not_depend_on(tmp_path):
    """The shipped model, with every access to its card and files written down."""
    from defectpipe import analysis
    from defectpipe.io.micrographs import read_micrographs
    from defectpipe.model import CARD, LoopModel, find_model
    from defectpipe.settings import Settings
    from defectpipe.simulation.dataset import simulate_dataset

    used: set[str] = set()

    class Card(dict):
        def __getitem__(self, name):
            used.add(name)
            return super().__getitem__(name)

        def get(self, name, default=None):
            used.add(name)
            return super().get(name, default)

    class Watched(LoopModel):
        @property
        def cascade(self):
            used.add("cascade.xml")
            return whole.cascade

        @property
        def network(self):
            used.add("screener.onnx")
            return whole.network

    whole = LoopModel.load(find_model("fecral-loops"))
    watched = Watched(whole.path, Card(whole.card), whole.sha256, whole.files)
    manifest = simulate_dataset("loops", 1, 1, "demo", tmp_path / "set")
    [m] = read_micrographs(next((manifest.parent / "images").iterdir()))
    m = dataclasses.replace(m, pixels=m.pixels[:300, :400])
    functions = (analysis.detect_candidates, analysis.screen_candidates, analysis.measure_loops)
    above: list[object] = []
    for stage, function in zip(STAGES, functions, strict=True):
        used.clear()
        above = [function(m, *above, watched, Settings())]
        declared = whole.decisive(stage)
        fields = declared.pop(CARD)
        # Its card lists no classes: there is but one, and nothing of it to depend on (`test_classes` has two).
        assert "classes" not in whole.card
        assert used - {"classes"} == set(declared) | set(fields), stage
        assert ("classes" in used) == (stage != "candidates")
        assert fields == {name: whole.card.get(name) for name in fields}
        assert all(len(value) == 64 for value in declared.values())
    assert len(above[0]) > 0


def _flat(path: Path, grey: int) -> None:
    # Not compressed: any grey value makes a file of the same size.
    image = np.full((120, 160), 200, np.uint8)
    cv2.circle(image, (80, 60), 20, grey, -1)
    path.write_bytes(cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes())


@pytest.mark.parametrize("offset_s", [0, -(10**9), 3600, 10**9])
def test_content_decides_not_times_whatever_the_clock_says(toy, tmp_path, monkeypatch, offset_s):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.tif", "b.tif"):
        _flat(source / name, 10)
        os.utime(source / name, (time.time() + offset_s,) * 2)
    # Old enough to be remembered.
    monkeypatch.setattr(hashes, "RECENT_SECONDS", -1.0)
    run_all(source)
    computed(toy)
    # Touched, copied, taken from an archive: another time, the same content.
    os.utime(source / "a.tif", (1, 1))
    shutil.copyfile(source / "b.tif", tmp_path / "copy")
    os.replace(tmp_path / "copy", source / "b.tif")
    assert run_all(source) == DONE
    assert computed(toy) == []
    # Another content under the same name, size and time.
    status = (source / "b.tif").stat()
    _flat(tmp_path / "other.tif", 11)
    os.utime(tmp_path / "other.tif", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "other.tif", source / "b.tif")
    now = (source / "b.tif").stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "b.tif")


def test_verify_trusts_no_memory(toy, source, output, monkeypatch):
    monkeypatch.setattr(hashes, "RECENT_SECONDS", -1.0)
    run_all(source)
    computed(toy)
    # As if the file system had kept every time and the size: the memory vouches for what the file no longer holds.
    write_blobs(source / "field 2.tif", [(80, 60, 20)])
    memory = output / ".defectpipe" / "hashes.json"
    known = json.loads(memory.read_text())
    status = (source / "field 2.tif").stat()
    known[str(source / "field 2.tif")][:-1] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    memory.write_text(json.dumps(known))
    assert run_all(source) == DONE
    assert computed(toy) == []
    assert run_all(source, verify=True) == DONE
    assert computed(toy) == lines(STAGES, "field 2.tif")
    assert run_all(source, verify=True) == DONE
    assert computed(toy) == []


@pytest.mark.parametrize("per_shard", [1, 3, 64])
def test_in_parts_of_any_size_one_image_more_or_less_costs_one_image(toy, tmp_path, monkeypatch, per_shard):
    monkeypatch.setattr(plans, "IMAGES_PER_SHARD", per_shard)
    source, output = write_folder(tmp_path / "in", 8), tmp_path / "in-defects"
    run_all(source)
    computed(toy)
    before, tables = results(output), table_bytes(output)
    write_blobs(source / "more.tif", [(80, 60, 20)])
    assert run_all(source) == DONE
    assert computed(toy) == lines(STAGES, "more.tif")
    assert untouched(before, output) == set(before)
    (source / "more.tif").unlink()
    assert run_all(source) == DONE
    assert computed(toy) == []
    assert untouched(before, output) == set(before) == set(results(output))
    assert table_bytes(output) == tables
    (source / "field 0.tif").unlink()
    assert run_all(source) == DONE
    assert computed(toy) == []
    for name in ("images.csv", "loops.csv"):
        assert "field 0.tif" not in (output / name).read_text()
    assert len(read_csv(output / "images.csv")) == 7


@pytest.mark.parametrize(
    "lose",
    [
        lambda state: next(state.glob("measurement/*/*.parquet")).unlink(),
        lambda state: next(state.glob("measurement/*/*.json")).write_text("{"),
        lambda state: next(state.glob("tables/*.parquet")).unlink(),
        lambda state: next(state.parent.glob("overlays/*.jpg")).unlink(),
        shutil.rmtree,
    ],
)
def test_a_result_that_is_gone_is_made_again(toy, source, output, lose: Callable[[Path], None]):
    run_all(source)
    before = table_bytes(output)
    pictures = {path: path.read_bytes() for path in output.glob("overlays/*")}
    lose(output / ".defectpipe")
    assert run_all(source) == DONE
    assert said(output) != []
    assert table_bytes(output) == before
    assert {path: path.read_bytes() for path in output.glob("overlays/*")} == pictures
    computed(toy)
    assert run_all(source) == DONE
    assert (computed(toy), said(output)) == ([], [])


def test_a_model_that_changes_under_a_run_stops_it(toy, source, output, monkeypatch):
    import toy_chain

    from tasks.jobs import _model

    class Changing(toy_chain.LoopModel):
        @classmethod
        def load(cls, path):
            model = cls()
            # The run plans with one, its workers find another.
            model.sha256 = f"{Changing.loads}" * 64
            Changing.loads += 1
            return model

    Changing.loads = 1
    monkeypatch.setattr(toy_chain, "LoopModel", Changing)
    _model.cache_clear()
    assert run_all(source) == LuigiStatusCode.FAILED
    assert "was changed while the run was at work" in (output / "run.log").read_text()
    assert not list((output / ".defectpipe").glob("*/*/*.json"))
    _model.cache_clear()
