"""Whatever is in a file: it is read, or refused by the project's own error, in bounded time and memory; no crash.

`make bench-fuzz` does the same with many more files.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fuzz_corpus import HEIGHT, WIDTH, Seed, corpus
from fuzzing import Finding, Fuzzer, fuzz, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from defectpipe.errors import DefectpipeError, LabelError, MicrographError
from defectpipe.io.labels import read_labels
from defectpipe.io.micrographs import read_header, read_micrographs
from defectpipe.micrograph import Micrograph

N_MUTATIONS = 500


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    place = os.environ.get("DEFECTPIPE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    return corpus(Path(place) / "formats")


def seed_of(seeds: list[Seed], name: str) -> Seed:
    [seed] = [seed for seed in seeds if seed.name == name]
    return seed


def saved(folder: Path, seed: Seed, data: bytes) -> Path:
    path = folder / seed.name.partition("-")[2]
    path.write_bytes(data)
    return path


def refusal(path: Path, reader: str) -> str:
    """What a file is refused for; empty if it is read. Any other error goes on."""
    try:
        read(path, reader)
    except DefectpipeError as error:
        return str(error)
    return ""


def test_every_sound_file_is_read(seeds, tmp_path):
    kinds = Counter()
    for seed in seeds:
        if "real" not in seed.name:
            read(saved(tmp_path, seed, seed.data), seed.reader)
            kinds[seed.reader] += 1
    assert kinds["image"] >= 20
    assert kinds["labels"] >= 14
    assert {"cascade", "onnx", "card", "settings", "sizes", "jeol"} < set(kinds)


def test_damaged_files_are_read_or_refused_and_nothing_else(seeds):
    began = sum(os.times()[:4])
    outcomes = Counter()
    findings = []
    for seed, outcome in fuzz(N_MUTATIONS, 0 if os.environ.get("CI") else time.time_ns(), seeds):
        if isinstance(outcome, Finding):
            place = Path(tempfile.mkdtemp(prefix="finding-")) / seed.name
            place.write_bytes(outcome.data)
            findings.append(f"{outcome.what}: {place}\n{outcome.detail}")
        else:
            outcomes[outcome] += 1
    assert not findings, "\n".join(findings)
    # Both happen: damage that matters, and damage that does not.
    assert min(outcomes["read"], outcomes["refused"]) > N_MUTATIONS / 10
    # CPU seconds, those of the child that reads among them: a loaded machine is slow, not wrong.
    assert sum(os.times()[:4]) - began < 60


def test_the_fuzzer_sees_a_crash_a_hang_a_large_allocation_and_a_foreign_error(seeds, monkeypatch):
    fuzzer = Fuzzer(limit_s=2.0)
    seed = Seed("self-a", b"")
    try:
        for data, what in ((b"crash", "crash"), (b"hang", "hang"), (b"memory", "memory"), (b"error", "raised")):
            outcome = fuzzer.try_one(seed, data)
            assert isinstance(outcome, Finding), data
            assert outcome.what == what
        good = seed_of(seeds, "image-grey.png")
        assert fuzzer.try_one(good, good.data) == "read"
        assert fuzzer.try_one(good, good.data[:-20]) == "refused"
    finally:
        fuzzer.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_behind_any_start_are_read_or_refused(seeds, tmp_path, data):
    seed = data.draw(st.sampled_from([s for s in seeds if len(s.data) < 30_000 and s.reader != "onnx"]))
    kept = data.draw(st.integers(0, len(seed.data)))
    content = seed.data[:kept] + data.draw(st.binary(max_size=200))
    assert "\n" not in refusal(saved(tmp_path, seed, content), seed.reader)


json_leaves = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=3)
json_values = st.recursive(
    json_leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=6
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["labels-coco.json", "labels-packed.json", "labels-via.json", "card-a.json"]), data=st.data()
)
def test_any_value_in_any_place_of_a_json_file_is_read_or_refused(seeds, tmp_path, name, data):
    seed = seed_of(seeds, name)
    content = json.loads(seed.data)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(place[key], dict | list) and place[key]) or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = data.draw(json_values)
    assert "\n" not in refusal(saved(tmp_path, seed, json.dumps(content).encode()), seed.reader)


# --- what was found, and mended ---------------------------------------------------------------------------------------


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    content = bytearray(data)
    for offset, value in changes:
        content[offset : offset + len(value)] = value
    return bytes(content)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(14, 2**29), (18, 2**29), (26, 2**28), (22, 2**31)],
    ids=["elements", "valid elements", "dimensions", "place of the offsets"],
)
def test_counts_of_a_ser_that_do_not_fit_are_refused_before_allocation(seeds, tmp_path, offset, value):
    seed = seed_of(seeds, "image-a.ser")
    path = saved(tmp_path, seed, patched(seed.data, (offset, struct.pack("<I", value))))
    with pytest.raises(MicrographError, match=r"a\.ser: the SER is cut short or damaged: its counts"):
        read_header(path)


@pytest.mark.parametrize("offset", [54, 64], ids=["description", "units"])
def test_a_name_in_a_ser_that_does_not_fit_is_refused_before_allocation(seeds, tmp_path, offset):
    seed = seed_of(seeds, "image-a.ser")
    path = saved(tmp_path, seed, patched(seed.data, (offset, struct.pack("<I", 2**30))))
    with pytest.raises(MicrographError, match=r"a\.ser: the SER is cut short or damaged"):
        read_header(path)


def test_a_ser_whose_frames_are_not_in_it_is_refused_not_half_read(seeds, tmp_path):
    seed = seed_of(seeds, "image-a.ser")
    # The dimension says 17 elements, the file holds one.
    path = saved(tmp_path, seed, patched(seed.data, (30, struct.pack("<I", 17))))
    with pytest.raises(MicrographError, match="frames that its header names are not in it"):
        read_micrographs(path)


def test_a_tile_that_claims_to_be_huge_is_refused_before_allocation(seeds, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((HEIGHT, WIDTH), np.uint8), tile=(32, 32), compression="packbits", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["TileLength"]
        place, code = tag.valueoffset, "H" if tag.dtype == 3 else "I"
    side = 65520 if code == "H" else 2**27
    width = tifffile.TiffFile(path)
    with width as tif:
        other = tif.pages[0].tags["TileWidth"].valueoffset
    huge = patched(path.read_bytes(), (place, struct.pack(f"<{code}", side)), (other, struct.pack(f"<{code}", side)))
    path.write_bytes(huge)
    with pytest.raises(MicrographError, match=r"a\.tif: the TIFF is damaged: its tiles claim"):
        read_header(path)


def test_a_broken_jeol_text_does_not_keep_the_picture_from_being_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((HEIGHT, WIDTH), np.uint8), metadata=None)
    (tmp_path / "a.txt").write_text("$CM_MAG 50000\n$$SM_MICRON_BAR 20\n$$SM_MICRON_MARKER 0.1.2nm\n")
    [frame] = read_micrographs(tmp_path / "a.tif")
    assert frame.calibration is None


def test_a_signalling_nan_gives_no_warning():
    pixels = np.full((HEIGHT, WIDTH), 0x7F800001, np.uint32).view(np.float32)
    pixels[:, :9] = np.arange(9)
    assert Micrograph(pixels, "a.tif").grey8().max() == 255


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "1e999 0.5 0.5 0.2 0.25\n", "class inf"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "a.tif"}], "annotations": [{"image_id": 1, "bbox": [%s]}]}',
            "large",
        ),
        (
            "a.json",
            '{"a": {"filename": "a.tif", "regions": [{"shape_attributes": {"name": "circle", "cx": %s}}]}}',
            "large",
        ),
    ],
)
def test_numbers_beyond_all_bounds_are_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_text(content.replace("%s", "9" * 400))
    with pytest.raises(LabelError, match=rf"{name}.*{reason}"):
        read_labels(path, (HEIGHT, WIDTH), label_format="yolo" if name == "a.txt" else None)


def test_a_damaged_zip_of_rois_is_refused_whatever_zipfile_raises(seeds, tmp_path):
    seed = seed_of(seeds, "labels-rois.zip")
    start = seed.data.index(b"1.roi") + 5
    directory = seed.data.rindex(b"PK\x01\x02")
    for content in (
        patched(seed.data, (start, b"\xff" * 8)),
        patched(seed.data, (directory + 42, b"\xff\xff\xff\x7f")),
        patched(seed.data, (directory + 28, b"\0\0")),
        patched(seed.data, (len(seed.data) - 6, b"\xff\xff\xff\x7f")),
    ):
        with pytest.raises(LabelError, match=r"rois\.zip"):
            read_labels(saved(tmp_path, seed, content), (HEIGHT, WIDTH))


def test_a_zip_of_many_large_rois_or_of_another_packing_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(20):
            archive.writestr(f"{i}.roi", bytes(2**24))
    assert path.stat().st_size < 2**20
    with pytest.raises(LabelError, match="too large for a zip of ROIs"):
        read_labels(path, (HEIGHT, WIDTH))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("1.roi", bytes(100))
    with pytest.raises(LabelError, match="packed in a way"):
        read_labels(path, (HEIGHT, WIDTH))


def test_a_mask_that_only_another_program_could_draw_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 {WIDTH} {HEIGHT}\n(%pipe%touch proof) (w) file\n%%EOF\n"
    )
    with pytest.raises(LabelError, match=r"a\.png: cannot be read as a mask"):
        read_labels(path, (HEIGHT, WIDTH))
