"""Pixel sizes: every place a TIFF states one, what overrides it, what is unknown, and what is refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import read_one

from defectpipe.errors import MicrographError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.micrographs.frames import StatedSize
from defectpipe.io.micrographs.pixel_sizes import calibrate
from defectpipe.io.micrographs.units import is_reciprocal, nanometres

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 64), dtype=np.uint8)


def calibration_of(path: Path) -> tuple[float, str] | None:
    calibration = read_one(path).calibration
    return None if calibration is None else (pytest.approx(calibration.pixel_size_nm, rel=1e-6), calibration.source)


# --- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        *[(unit, 1e9) for unit in ("m", "meter", "M ")],
        *[(unit, 1e7) for unit in ("cm", "centimeter")],
        *[(unit, 1e6) for unit in ("mm", "Millimeter")],
        *[(unit, 1e3) for unit in ("µm", "μm", "um", "micron", "microns", "\\u00B5m", "Âµm", "µm\0")],
        *[(unit, 1.0) for unit in ("nm", "n_m", "nanometer", " NM ")],
        *[(unit, 0.1) for unit in ("Å", "Å", "A", "angstrom")],
        *[(unit, 1e-3) for unit in ("pm", "picometer")],
    ],
)
def test_every_spelling_of_a_length_becomes_nm(unit: str, nm: float) -> None:
    assert nanometres(2.5, unit) == pytest.approx(2.5 * nm)


@pytest.mark.parametrize("unit", [None, "", "pixel", "px", "inch", "eV", "1/nm", "s", "deg", "furlong"])
def test_what_is_no_length_is_unknown(unit: str | None) -> None:
    assert nanometres(1.0, unit) is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_positive_number_is_unknown(value: float) -> None:
    assert nanometres(value, "nm") is None


def test_reciprocal_units_are_told_from_lengths() -> None:
    assert all(is_reciprocal(unit) for unit in ("1/nm", "1/Å", "nm^-1", "mrad"))
    assert not any(is_reciprocal(unit) for unit in ("nm", "µm", "", None, "m"))


# --- TIFF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("nm", 2.5, 0.4),
        ("um", 2500.0, 0.4),
        ("\\u00B5m", 500.0, 2.0),
        ("micron", 500.0, 2.0),
        ("pm", 0.0025, 0.4),
        ("cm", 2.5e7, 0.4),
        ("n_m", 2.5, 0.4),
    ],
)
def test_imagej_tiff_in_any_unit(tmp_path: Path, unit: str, per_unit: float, expected: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    calibration = read_one(path).calibration
    assert calibration is not None
    assert (calibration.pixel_size_nm, calibration.source) == (pytest.approx(expected, rel=1e-5), "metadata: ImageJ")


@pytest.mark.parametrize("unit", ["inch", "pixel", "kV", ""])
def test_imagej_without_a_length_is_unknown(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(300.0, 300.0), metadata={"unit": unit})
    frame = read_one(path)
    assert frame.calibration is None
    assert frame.pixel_size_nm is None


@pytest.mark.parametrize("resolution", [(72, 72), (300, 300), (1e6, 1e6), (0, 0)])
def test_resolution_per_inch_is_for_printing(tmp_path: Path, resolution: tuple[float, float]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, resolution=resolution, resolutionunit="INCH")
    assert calibration_of(path) is None


def test_resolution_per_cm_is_a_pixel_size_when_it_is_fine_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, resolution=(2.5e7, 2.5e7), resolutionunit="CENTIMETER")
    assert calibration_of(path) == (0.4, "metadata: TIFF resolution per cm")
    tifffile.imwrite(path, IMAGE, resolution=(118.11, 118.11), resolutionunit="CENTIMETER")
    frame = read_one(path)
    assert frame.calibration is None
    assert frame.notes == ("pixel size unknown: the resolution is that of a print",)


def test_a_tiff_without_any_statement_is_unknown_never_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE)
    frame = read_one(path)
    assert (frame.calibration, frame.notes) == (None, ())


def ome(**physical: object) -> dict[str, object]:
    return {"axes": "YX", **physical}


@pytest.mark.parametrize(
    ("physical", "expected"),
    [
        ({"PhysicalSizeX": 0.4, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.4, "PhysicalSizeYUnit": "nm"}, 0.4),
        # µm is the unit where none is written.
        ({"PhysicalSizeX": 0.002, "PhysicalSizeY": 0.002}, 2.0),
        ({"PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 400, "PhysicalSizeYUnit": "pm"}, 0.4),
        ({"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel"}, None),
        ({"PhysicalSizeX": 1.0}, None),
        ({}, None),
    ],
)
def test_ome_tiff(tmp_path: Path, physical: dict[str, object], expected: float | None) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, IMAGE, ome=True, metadata=ome(**physical))
    assert calibration_of(path) == (None if expected is None else (pytest.approx(expected), "metadata: OME"))


def test_images_of_one_ome_file_have_their_own_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for size in (0.001, 0.002):
            tif.write(IMAGE, metadata=ome(PhysicalSizeX=size, PhysicalSizeY=size))
    assert [frame.pixel_size_nm for frame in read_micrographs(path)] == [pytest.approx(1.0), pytest.approx(2.0)]


def test_gatan_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = [
        (65003, "s", 0, "nm", True),
        (65004, "s", 0, "nm", True),
        (65009, "d", 1, 0.4, True),
        (65010, "d", 1, 0.4, True),
    ]
    tifffile.imwrite(path, IMAGE, extratags=tags, resolution=(72, 72))
    assert calibration_of(path) == (0.4, "metadata: Gatan tags")


def tescan_tag(x: str, y: str) -> list[tuple[object, ...]]:
    content = f"\x1d\x01Date=2016\r\nMagnification=108.08\r\nPixelSizeX={x}\r\nPixelSizeY={y}\r\n\0".encode("latin-1")
    return [(50431, "B", len(content), content, True)]


def test_tescan_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, extratags=tescan_tag("2.5e-9", "2.5e-9"))
    frame = read_one(path)
    assert calibration_of(path) == (2.5, "metadata: TESCAN tags")
    assert (frame.modality, frame.magnification) == ("SEM", 108.08)


def test_a_broken_vendor_tag_costs_the_pixel_size_not_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, extratags=[(50431, "B", 4, b"\0\1\2\3", True)])
    frame = read_one(path)
    np.testing.assert_array_equal(frame.pixels, IMAGE)
    assert frame.calibration is None
    assert frame.notes == ("the TESCAN tags cannot be read (KeyError)",)


def thermo_fisher_tag(text: str) -> list[tuple[object, ...]]:
    content = text.replace("\n", "\r\n").encode() + b"\0"
    return [(34682, "s", 0, content, True)]


def test_thermo_fisher_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    text = "[Beam]\nBeam=IBeam\nHV=30000\n[Scan]\nPixelWidth=4e-010\nPixelHeight=4e-010\n"
    tifffile.imwrite(path, IMAGE, extratags=thermo_fisher_tag(text))
    assert calibration_of(path) == (0.4, "metadata: Thermo Fisher tags")
    assert read_one(path).modality == "FIB"
    assert read_one(path).voltage_kv == 30.0


@pytest.mark.parametrize("stated", ["", "HV=0", "HV=many", "HV=1e12", "HV=nan"])
def test_a_voltage_that_makes_no_sense_is_unknown(tmp_path: Path, stated: str) -> None:
    path = tmp_path / "a.tif"
    text = f"[Beam]\nBeam=IBeam\n{stated}\n[Scan]\nPixelWidth=4e-010\nPixelHeight=4e-010\n"
    tifffile.imwrite(path, IMAGE, extratags=thermo_fisher_tag(text))
    assert read_one(path).voltage_kv is None
    assert calibration_of(path) == (0.4, "metadata: Thermo Fisher tags")


def test_zeiss_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    unnamed = ["0", "0", "0", "2.5e-11"]  # m, for a picture 1024 px wide
    text = "\r\n".join(
        [*unnamed, "AP_MAG", "Mag = 25.00 K X", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 400.0 pm", ""]
    )
    tifffile.imwrite(path, IMAGE, extratags=[(34118, "s", 0, text, True)])
    frame = read_one(path)
    assert calibration_of(path) == (0.4, "metadata: Zeiss tags")
    assert (frame.modality, frame.magnification) == ("SEM", 25000.0)


@pytest.mark.parametrize("page", [0, 1])
def test_olympus_tags_of_either_page(tmp_path: Path, page: int) -> None:
    path = tmp_path / "a.tif"
    general = struct.pack("<10xhdd8xd2x34s32s", -9, 0.4, 0.4, 600000.0, b"camera", b"")
    # The structure points to its data by offset in the file, which is known once the file is written.
    for offset in (0, None):
        if offset is None:
            offset = path.read_bytes().index(b"SIS0") + 68
        head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 0, 12, 1, 1, 120, b"", 1) + struct.pack("<hhI", 1, 1, offset)
        content = head + general
        with tifffile.TiffWriter(path, byteorder="<") as tif:
            for index in range(2):
                tags = [(33560, "B", len(content), content, True)] if index == page else []
                tif.write(IMAGE, metadata=None, contiguous=False, extratags=tags)
    assert [frame.pixel_size_nm for frame in read_micrographs(path)] == [pytest.approx(0.4)] * 2
    assert read_micrographs(path)[0].magnification == 600000.0


# --- JEOL's text file -----------------------------------------------------------------------------------------------

JEOL = "$CM_MAG 1000\n$$SM_MICRON_BAR 160\n$$SM_MICRON_MARKER 5um\n$CM_FULL_SIZE 64 40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JEOL, (5000 / 160, "metadata: JEOL text file, scale bar")),
        (JEOL.replace("\n", "\r\n"), (5000 / 160, "metadata: JEOL text file, scale bar")),
        (JEOL.replace("5um", "100nm"), (100 / 160, "metadata: JEOL text file, scale bar")),
        # 128 mm over 1000 over 64 px.
        (JEOL.replace("$$SM_MICRON_BAR 160\n", ""), (2000.0, "metadata: JEOL text file, magnification")),
        (JEOL.replace("64 40", "1280 960"), None),
        ("$CM_LABEL JEOL\n", None),
        ("$CM_MAG 1000\n", None),
        ("just some notes on the sample\n", None),
        ("$CM_MAG 0\n$CM_FULL_SIZE 64 40\n", None),
    ],
)
def test_jeol_text_file(tmp_path: Path, text: str, expected: tuple[float, str] | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, resolution=(254, 254), resolutionunit="INCH")
    path.with_suffix(".txt").write_bytes(text.encode())
    found = calibration_of(path)
    assert found == (None if expected is None else (pytest.approx(expected[0]), expected[1]))


def test_a_resized_jeol_picture_says_why_its_size_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE)
    path.with_suffix(".txt").write_text(JEOL.replace("64 40", "1280 960"))
    assert read_one(path).notes == (
        "pixel size unknown: JEOL's text file is for a picture 1280 px wide, this one has 64",
    )


# --- anisotropic, implausible, in conflict --------------------------------------------------------------------------


def test_anisotropic_pixels_are_refused_with_both_sizes_unless_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2.5, 2.0), metadata={"unit": "nm"})
    with pytest.raises(MicrographError, match=r"^a\.tif: its pixels are not square \(ImageJ: y 0\.5 nm, x 0\.4 nm\)"):
        read_micrographs(path)
    assert read_one(path, pixel_size_nm=0.45).pixel_size_nm == 0.45


@pytest.mark.parametrize(("per_nm", "shown"), [(1e-6, "1e\\+06 nm"), (1e6, "1e-06 nm")])
def test_an_implausible_size_is_refused_unless_overridden(tmp_path: Path, per_nm: float, shown: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(per_nm, per_nm), metadata={"unit": "nm"})
    with pytest.raises(MicrographError, match=rf"pixel size is implausible \(ImageJ: {shown}\)"):
        read_micrographs(path)
    assert read_one(path, pixel_sizes={"a.tif": 0.4}).pixel_size_nm == 0.4


def test_two_statements_that_disagree_stop_unless_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = tescan_tag("2.5e-9", "2.5e-9")
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2.5, 2.5), metadata={"unit": "nm"}, extratags=tags)
    with pytest.raises(MicrographError, match=r"disagree \(TESCAN tags: 2\.5 nm, but ImageJ: 0\.4 nm\)"):
        read_micrographs(path)
    frame = read_one(path, pixel_size_nm=0.4)
    assert frame.pixel_size_nm == 0.4
    assert frame.notes == ("pixel size 0.4 nm (argument) used instead of TESCAN tags: 2.5 nm",)


def test_two_statements_that_agree_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = tescan_tag("4.002e-10", "4.002e-10")
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2.5, 2.5), metadata={"unit": "nm"}, extratags=tags)
    assert calibration_of(path) == (0.4002, "metadata: TESCAN tags")


# --- order of the sources -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "argument", "expected"),
    [
        ({"a.tif": 0.1}, 0.2, (0.1, "pixel_sizes.csv")),
        ({"other.tif": 0.1}, 0.2, (0.2, "argument")),
        ({}, None, (0.4, "metadata: ImageJ")),
        (None, None, (0.4, "metadata: ImageJ")),
    ],
)
def test_table_before_argument_before_metadata(
    tmp_path: Path, table: dict[str, float] | None, argument: float | None, expected: tuple[float, str]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2.5, 2.5), metadata={"unit": "nm"})
    calibration = read_one(path, pixel_sizes=table, pixel_size_nm=argument).calibration
    assert calibration is not None
    assert (calibration.pixel_size_nm, calibration.source) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize("argument", [0.0, -1.0, math.nan, math.inf])
def test_an_argument_that_is_no_size_is_refused(tmp_path: Path, argument: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE)
    with pytest.raises(MicrographError, match=r"^a\.tif: the pixel size .* \(argument\) is not a positive number"):
        read_micrographs(path, pixel_size_nm=argument)


@given(
    x=st.floats(1e-3, 1e4),
    stretch=st.floats(0.5, 2.0),
    argument=st.none() | st.floats(1e-3, 1e4),
)
def test_what_is_calibrated_is_never_invented(x: float, stretch: float, argument: float | None) -> None:
    stated = (StatedSize("tags", x * stretch, x),)
    if argument is None and abs(stretch - 1) > 0.0102:
        with pytest.raises(MicrographError, match="not square"):
            calibrate(stated, None, None)
        return
    if argument is None and abs(stretch - 1) > 0.0098:
        return
    calibration, _ = calibrate(stated, None, argument)
    assert calibration is not None
    expected = argument if argument is not None else x
    assert calibration.pixel_size_nm == pytest.approx(expected, rel=0.006)
