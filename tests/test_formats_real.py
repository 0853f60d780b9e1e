"""Microscope files as they come: each is read, or refused, as the README beside them says."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from defectpipe.errors import MicrographError
from defectpipe.io.folder import list_images
from defectpipe.io.micrographs import count_frames, read_micrographs, read_pixel_sizes

pytestmark = pytest.mark.real

# name, frames, (rows, columns), dtype, pixel size in nm, its source
READ = [
    ("gpl/16_STOimage_1.ser", 1, (1024, 1024), "uint16", 0.01001, "metadata: SER"),
    ("gpl/After HAADF 130mm_1.ser", 1, (1024, 1024), "uint16", 3.27036, "metadata: SER"),
    ("gpl/Camera Ceta Imaging Micro.emd", 1, (512, 512), "int16", 3.13884, "metadata: EMD"),
    ("gpl/temp.mrc", 3, (128, 128), "float32", 0.2, "metadata: MRC"),
    ("gpl/tfs_example.tif", 1, (1092, 1536), "uint8", 269.792, "metadata: Thermo Fisher tags"),
    ("gpl/zeiss_example_sem.tif", 1, (768, 1024), "uint8", 593.2882, "metadata: Zeiss tags"),
    ("gpl/tescan_example_sem1.tif", 1, (888, 1024), "uint16", 2501.2, "metadata: TESCAN tags"),
    ("gpl/jeol_example_sem.tif", 1, (960, 1280), "uint8", 2000.0, "metadata: JEOL text file, magnification"),
    ("mit-nist/BF_001.dm3", 1, (128, 128), "float32", 19.10870, "metadata: DM3"),
    ("mit-nist/EMDReader_Image_FEI.emd", 1, (512, 512), "uint16", 5.30241, "metadata: EMD"),
    ("mit-nist/HAADF.dm3", 91, (64, 64), "uint16", 17.99492, "metadata: DM3"),
    ("mit-nist/DMReader_Image_SI-Survey.dm3", 1, (512, 512), "uint32", None, None),
    ("mit-nist/DMReader_SI-HAADF.dm3", 1, (1568, 192), "float32", None, None),
    ("mit-nist/test_image.tif", 1, (1024, 1536), "uint8", None, None),
]
REFUSED = [
    ("gpl/dmTest_float32_nonSquare_diffPixelSize.dm3", r"pixels are not square \(DM3: y 0\.2 nm, x 1 nm\)"),
    ("gpl/dmTest_float32_nonSquare_diffPixelSize.dm4", r"pixels are not square \(DM4: y 0\.2 nm, x 1 nm\)"),
    ("mit-nist/quad1image_001_no_beam_scan_or_system_meta.tif", r"TIFF is cut short or damaged"),
    ("gpl/08_carbon.dm3", r"no image: a spectrum \(EELS, eV\)"),
    ("mit-nist/AL-DFoffset0.00.dm3", r"no image: a spectrum \(EELS, eV\)"),
    ("mit-nist/DMReader_EELS_STO.dm4", r"no image: a spectrum \(EELS, eV\)"),
    ("mit-nist/647_leo_edax_test.spc", r"is a spectrum, no image"),
]


@pytest.mark.parametrize(("name", "n_frames", "shape", "dtype", "pixel_size_nm", "source"), READ, ids=str)
def test_image_is_read(
    data_dir: Path,
    name: str,
    n_frames: int,
    shape: tuple[int, int],
    dtype: str,
    pixel_size_nm: float | None,
    source: str | None,
) -> None:
    path = data_dir / "formats" / name
    frames = read_micrographs(path, image=name)
    assert len(frames) == n_frames == count_frames(path)
    assert [frame.frame for frame in frames] == list(range(n_frames))
    for frame in frames:
        assert (frame.image, frame.shape, str(frame.pixels.dtype)) == (name, shape, dtype)
        assert frame.pixel_size_nm == (None if pixel_size_nm is None else pytest.approx(pixel_size_nm, rel=5e-4))
        assert (frame.calibration.source if frame.calibration else None) == source


@pytest.mark.parametrize(("name", "reason"), REFUSED)
def test_file_is_refused_with_its_name_and_reason(data_dir: Path, name: str, reason: str) -> None:
    with pytest.raises(MicrographError, match=rf"^{re.escape(name)}: .*{reason}"):
        read_micrographs(data_dir / "formats" / name, image=name)


def test_every_file_of_the_folder_is_in_one_of_the_two_lists(data_dir: Path) -> None:
    listed = {file.image for file in list_images(data_dir / "formats")}
    assert listed == {row[0] for row in READ} | {row[0] for row in REFUSED}


@pytest.mark.parametrize("name", ["16_STOimage", "After HAADF 130mm"])
def test_the_emi_file_holds_the_image_of_its_ser(data_dir: Path, name: str) -> None:
    (from_emi,) = read_micrographs(data_dir / "formats" / "gpl" / f"{name}.emi")
    (from_ser,) = read_micrographs(data_dir / "formats" / "gpl" / f"{name}_1.ser")
    np.testing.assert_array_equal(from_emi.pixels, from_ser.pixels)
    assert from_emi.pixel_size_nm == from_ser.pixel_size_nm


def test_dm_pixels_are_those_in_the_file(data_dir: Path) -> None:
    path = data_dir / "formats" / "mit-nist" / "DMReader_SI-HAADF.dm3"
    (frame,) = read_micrographs(path)
    # DM3 stores its image as one block of little-endian values: an independent way to it.
    assert frame.pixels.astype("<f4").tobytes() in path.read_bytes()


def test_mrc_frames_are_the_sections_of_the_file(data_dir: Path) -> None:
    path = data_dir / "formats" / "gpl" / "temp.mrc"
    sections = np.frombuffer(path.read_bytes(), "<f4", offset=1024).reshape(3, 128, 128)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in read_micrographs(path)]), sections)


def test_jeol_scale_agrees_with_the_bar_burnt_into_the_picture(data_dir: Path) -> None:
    (frame,) = read_micrographs(data_dir / "formats" / "gpl" / "jeol_example_sem.tif")
    rows = frame.pixels[895:900, 300:600]
    bar = np.flatnonzero((rows > 250).sum(0) >= 3)
    length_px = bar[-1] - bar[0] + 1
    # The text file calls the bar 500 µm long.
    assert 500_000 / length_px == pytest.approx(frame.pixel_size_nm, rel=0.01)


@pytest.mark.parametrize(
    ("name", "modality", "magnification", "voltage_kv"),
    [
        ("tfs_example.tif", "SEM", None, 2.0),
        ("zeiss_example_sem.tif", "SEM", 188.0, 5.0),
        ("tescan_example_sem1.tif", "SEM", 108.08, 10.0),
        ("jeol_example_sem.tif", "SEM", 50.0, 5.0),
    ],
)
def test_modality_magnification_and_voltage_of_vendor_tiffs(
    data_dir: Path, name: str, modality: str, magnification: float | None, voltage_kv: float
) -> None:
    (frame,) = read_micrographs(data_dir / "formats" / "gpl" / name)
    assert (frame.modality, frame.magnification, frame.voltage_kv) == (modality, magnification, voltage_kv)


def test_a_scale_without_unit_is_noted_as_unknown(data_dir: Path) -> None:
    (frame,) = read_micrographs(data_dir / "formats" / "mit-nist" / "DMReader_Image_SI-Survey.dm3")
    assert any("pixel size unknown" in note and "without a unit" in note for note in frame.notes)


def test_a_given_size_reads_what_is_anisotropic_and_names_both(data_dir: Path) -> None:
    path = data_dir / "formats" / "gpl" / "dmTest_float32_nonSquare_diffPixelSize.dm3"
    (frame,) = read_micrographs(path, pixel_size_nm=0.5)
    assert frame.shape == (64, 128)
    assert frame.calibration is not None
    assert (frame.calibration.pixel_size_nm, frame.calibration.source) == (0.5, "argument")
    assert "pixel size 0.5 nm (argument) used instead of DM3: y 0.2 nm, x 1 nm" in frame.notes


@pytest.mark.parametrize("name", ["gpl/temp.mrc", "mit-nist/HAADF.dm3", "gpl/tfs_example.tif", "gpl/16_STOimage_1.ser"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_real_files_cut_short_are_refused(data_dir: Path, tmp_path: Path, name: str, part: float) -> None:
    whole = (data_dir / "formats" / name).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MicrographError, match=r"^cut\."):
        read_micrographs(path)


def test_labelled_sets_are_read_grey_with_their_pixel_sizes(data_dir: Path) -> None:
    for folder, n_images, n_known in (("316l-loops", 10, 10), ("ti-black-dots", 3, 3), ("fecral-loops", 242, 230)):
        root = data_dir / folder
        files, sizes = list_images(root), read_pixel_sizes(root)
        assert (len(files), len(sizes)) == (n_images, n_known)
        for file in (files[0], files[-1]):
            (frame,) = read_micrographs(file, pixel_sizes=sizes)
            assert frame.pixels.dtype == np.uint8
            assert frame.shape[0] in (512, 1024, 2048)
            assert frame.pixel_size_nm == sizes.get(file.path.name)


def test_a_micrograph_with_coloured_annotation_is_refused(data_dir: Path) -> None:
    name = "4 TEM-BF 190K 1 defocus 0 um.png"
    with pytest.raises(MicrographError, match=r"colour picture"):
        read_micrographs(data_dir / "backgrounds" / "nm_per_px_0.15" / name)


@pytest.mark.parametrize("name", ["sem-textures/C1-3_A_m06.tif", "formats/gpl/zeiss_example_sem.tif"])
def test_a_grey_palette_is_read_as_another_reader_does(data_dir: Path, name: str) -> None:
    (frame,) = read_micrographs(data_dir / name, data_bar="keep")
    seen = cv2.imread(str(data_dir / name), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(np.dstack([frame.pixels] * 3), seen)
    assert frame.notes == ()


@pytest.mark.parametrize(
    ("name", "modality", "magnification"),
    [
        ("BF_001.dm3", "STEM", 20_000.0),
        ("HAADF.dm3", "STEM", 40_000.0),
        ("DMReader_SI-HAADF.dm3", "STEM", 100.0),
        ("EMDReader_Image_FEI.emd", "STEM", 40_000.0),
        ("Camera Ceta Imaging Micro.emd", "TEM", pytest.approx(26_996.349)),
        ("16_STOimage.emi", "STEM", 13_500_000.0),
        # The EMI beside it knows, the SER alone does not.
        ("16_STOimage_1.ser", None, None),
        ("temp.mrc", None, None),
    ],
)
def test_modality_and_magnification_of_microscope_files(
    data_dir: Path, name: str, modality: str | None, magnification: float | None
) -> None:
    (path,) = (data_dir / "formats").rglob(name)
    frame = read_micrographs(path)[0]
    assert (frame.modality, frame.magnification) == (modality, magnification)


@pytest.mark.parametrize(
    ("name", "voltage_kv"),
    [("BF_001.dm3", 300.0), ("DMReader_SI-HAADF.dm3", 200.0), ("EMDReader_Image_FEI.emd", 200.0), ("temp.mrc", None)],
)
def test_voltage_of_microscope_files(data_dir: Path, name: str, voltage_kv: float | None) -> None:
    (path,) = (data_dir / "formats").rglob(name)
    assert read_micrographs(path)[0].voltage_kv == voltage_kv


def test_a_tilt_series_states_its_tilts_and_other_stacks_state_none(data_dir: Path) -> None:
    series = read_micrographs(data_dir / "formats" / "mit-nist" / "HAADF.dm3")
    assert [m.tilt_deg for m in series] == list(range(-90, 91, 2))
    assert {m.tilt_deg for m in read_micrographs(data_dir / "formats" / "gpl" / "temp.mrc")} == {None}
