"""MRC, EMI and what else comes through rosettasciio: frames, spectra left out, and the reader that is optional."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading_helpers import read_one, refused

from defectpipe.errors import MicrographError
from defectpipe.io.folder import MICROSCOPE_SUFFIXES
from defectpipe.io.micrographs import count_frames, read_micrographs, rosetta
from defectpipe.io.micrographs.rosetta import _READER_OF_SUFFIX, _tilts
from defectpipe.micrograph import Micrograph

HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def write_mrc(path: Path, stack: np.ndarray, cell: tuple[float, float, float], order: str = "<") -> None:
    n, height, width = stack.shape
    header = struct.pack(f"{order}10i3f", width, height, n, 2, 0, 0, 0, width, height, n, *cell)
    header = header.ljust(208, b"\0") + b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(header.ljust(1024, b"\0") + stack.astype(f"{order}f4").tobytes())


def test_mrc_sections_are_frames(tmp_path: Path) -> None:
    stack = np.random.default_rng(6).normal(size=(2, HEIGHT, WIDTH)).astype(np.float32)
    path = tmp_path / "a.mrc"
    write_mrc(path, stack, (WIDTH * 3.5, HEIGHT * 3.5, 2.0))
    frames = read_micrographs(path)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), stack)
    assert [frame.pixel_size_nm for frame in frames] == [pytest.approx(0.35)] * 2
    path.unlink()
    # Read into memory: nothing depends on the file any more.
    np.testing.assert_array_equal(frames[1].pixels, stack[1])


def test_a_big_endian_mrc_is_refused_not_misread(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0), ">")
    refused(path, "big-endian MRC")


def test_mrc_without_a_cell_has_no_pixel_size(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (0.0, 0.0, 0.0))
    frame = read_one(path)
    assert frame.calibration is None
    assert frame.notes == ("pixel size unknown: the header gives no cell",)


def test_mrc_that_claims_more_than_it_holds_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0))
    data = bytearray(path.read_bytes())
    data[0:12] = struct.pack("<3I", 2**31, 2**31, 2**31)
    path.write_bytes(data)
    refused(path, "cut short or damaged: its header claims 2147483648 frames")
    data[0:16] = struct.pack("<4I", WIDTH, HEIGHT, 1, 99)
    path.write_bytes(data)
    refused(path, "MRC mode 99 is unknown")


def test_an_emi_without_its_ser_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a [1].emi"
    path.write_bytes(b"JI" + bytes(600))
    refused(path, r"its pixels are in a file a \[1\]_1\.ser, which is not beside it")


def test_without_rosettasciio_the_error_says_how_to_get_it(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mrc"
    write_mrc(path, grey[None].astype(np.float32), (1.0, 1.0, 1.0))
    for name in [name for name in sys.modules if name.startswith("rsciio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rsciio", None)
    refused(path, re.escape('rosettasciio: pip install "defectpipe[formats]"'))


def test_every_listed_microscope_format_has_a_reader() -> None:
    assert set(_READER_OF_SUFFIX) == MICROSCOPE_SUFFIXES


# --- what the reader hands over -------------------------------------------------------------------------------------


def axis(size: int, unit: str, scale: float = 0.4, navigate: bool = False) -> dict[str, Any]:
    return {"size": size, "units": unit, "scale": scale, "navigate": navigate}


def dataset(data: np.ndarray, axes: list[dict[str, Any]], title: str = "", **instrument: object) -> dict[str, Any]:
    metadata: dict[str, Any] = {"General": {"title": title}, "Signal": {"signal_type": ""}}
    if instrument:
        metadata["Acquisition_instrument"] = {"TEM": instrument}
    return {"data": data, "axes": axes, "metadata": metadata}


IMAGE_AXES = [axis(HEIGHT, "nm"), axis(WIDTH, "nm")]
IMAGE_AXES_AS_MAP = [axis(HEIGHT, "nm", navigate=True), axis(WIDTH, "nm", navigate=True)]


def read_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *datasets: dict[str, Any]) -> list[Micrograph]:
    path = tmp_path / "a.emd"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(rosetta, "_load", lambda _: list(datasets))
    frames = read_micrographs(path)
    assert count_frames(path) == len(frames)
    return frames


def test_detectors_follow_each_other_and_spectra_are_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grey: np.ndarray
) -> None:
    spectrum = dataset(np.zeros((HEIGHT, WIDTH, 9)), [*IMAGE_AXES_AS_MAP, axis(9, "keV")])
    haadf = dataset(grey, IMAGE_AXES, "HAADF", magnification=20000.0, acquisition_mode="STEM", beam_energy=200.0)
    series = dataset(np.stack([grey, 255 - grey]), [axis(2, "s", navigate=True), *IMAGE_AXES], "BF")
    frames = read_datasets(tmp_path, monkeypatch, haadf, spectrum, series)
    np.testing.assert_array_equal(np.stack([f.pixels for f in frames]), [grey, grey, 255 - grey])
    left_out = "left out: a spectrum (one signal axis, keV)"
    assert [f.notes for f in frames] == [(left_out, "detector: HAADF"), *[(left_out, "detector: BF")] * 2]
    assert [(f.modality, f.magnification) for f in frames] == [("STEM", 20000.0), (None, None), (None, None)]
    assert [f.pixel_size_nm for f in frames] == [0.4] * 3
    assert [f.voltage_kv for f in frames] == [200.0, None, None]


@pytest.mark.parametrize(
    ("said", "times", "modality", "magnification"),
    [
        ("STEM NANOPROBE", 20000.0, "STEM", 20000.0),
        (" TEM uP SA Zoom Image", "8e3", "TEM", 8000.0),
        ("LM", 0.0, None, None),
        (None, None, None, None),
        (["STEM"], float("nan"), "STEM", None),
        (7, "many", None, None),
    ],
)
def test_what_the_reader_leaves_among_the_files_entries_is_read_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grey: np.ndarray,
    said: object,
    times: object,
    modality: str | None,
    magnification: float | None,
) -> None:
    # As rosettasciio does for DM: whatever it does not know is TEM.
    place = "Acquisition_instrument.TEM."
    mapping = {
        "Info.Mode": (f"{place}acquisition_mode", lambda mode: "STEM" if "STEM" in mode else "TEM"),
        "Info.Times": (f"{place}magnification", None),
    }
    one = dataset(grey, IMAGE_AXES) | {
        "original_metadata": {"Info": {"Mode": said, "Times": times}},
        "mapping": mapping,
    }
    (frame,) = read_datasets(tmp_path, monkeypatch, one)
    assert (frame.modality, frame.magnification) == (modality, magnification)


@pytest.mark.parametrize(
    ("shape", "axes", "reason"),
    [
        ((9,), [axis(9, "eV")], "a spectrum"),
        ((HEIGHT, WIDTH, 9), [*IMAGE_AXES_AS_MAP, axis(9, "eV")], "a spectrum"),
        ((HEIGHT, WIDTH), [axis(HEIGHT, "1/nm"), axis(WIDTH, "1/nm")], "a diffraction pattern"),
        ((HEIGHT, WIDTH), [axis(HEIGHT, ""), axis(WIDTH, "eV")], "a spectrum"),
        ((2, 3, HEIGHT, WIDTH), [axis(2, "nm", 1, True), axis(3, "nm", 1, True), *IMAGE_AXES], "data of 4 dimensions"),
    ],
)
def test_what_is_no_image_of_the_specimen_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    axes: list[dict[str, Any]],
    reason: str,
) -> None:
    with pytest.raises(MicrographError, match=rf"^a\.emd: it holds no image: {reason}"):
        read_datasets(tmp_path, monkeypatch, dataset(np.zeros(shape), axes))


def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MicrographError, match=r"^a\.emd: it holds no image data"):
        read_datasets(tmp_path, monkeypatch)


def test_colour_comes_as_fields_and_equal_ones_are_grey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grey: np.ndarray
) -> None:
    rgb = np.zeros(grey.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel in "RGB":
        rgb[channel] = grey
    (frame,) = read_datasets(tmp_path, monkeypatch, dataset(rgb, IMAGE_AXES))
    np.testing.assert_array_equal(frame.pixels, grey)


def test_what_a_header_claims_is_refused_before_it_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Claim:
        shape = (40, 30_000, 30_000)
        ndim = 3

        def compute(self, **_: object) -> None:
            pytest.fail("computed before it was refused")

    claim = dataset(Claim(), [axis(40, "s", navigate=True), *IMAGE_AXES])  # type: ignore[arg-type]
    with pytest.raises(MicrographError, match="its header claims 40 frames of 30000 × 30000 px"):
        read_datasets(tmp_path, monkeypatch, claim)


def test_frames_that_follow_each_other_in_degrees_are_a_tilt_series() -> None:
    inner = [{"navigate": False, "scale": 1.0, "units": "nm"}] * 2
    axis = {"navigate": True, "scale": 10.0, "offset": -20.0, "units": "deg"}
    assert _tilts([axis, *inner], 4) == [-20.0, -10.0, 0.0, 10.0]
    for change in ({"units": "s"}, {"units": None}, {"scale": 0.0}, {"scale": 100.0}):
        assert _tilts([axis | change, *inner], 4) == [None] * 4
    assert _tilts([axis, axis, *inner], 4) == [None] * 4
    assert _tilts(inner, 1) == [None]
