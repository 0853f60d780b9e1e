"""Small sound files of every kind that the program reads: what `fuzzing` damages."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 40, 64


@dataclass(frozen=True)
class Seed:
    """A sound file: its name, by whose first part the reader is chosen, and its bytes."""

    name: str
    data: bytes

    @property
    def reader(self) -> str:
        return self.name.split("-")[0]


def corpus(real: Path | None = None) -> list[Seed]:
    """Small sound files of every kind; with those of a folder of real microscope files that are small."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = [*_pictures(Path(folder)), *_microscope_files(Path(folder)), *_labels(Path(folder)), *_models()]
    seeds.append(Seed("settings-a.json", json.dumps({"screening": {"threshold": 0.5}}).encode()))
    seeds.append(Seed("sizes-pixel_sizes.csv", b"image,pixel_size_nm\na.tif,0.5\nb.tif,\n"))
    for path in sorted(real.rglob("*")) if real is not None and real.is_dir() else []:
        if path.suffix in (".dm3", ".dm4", ".emd", ".mrc", ".ser", ".tif") and path.stat().st_size < 350_000:
            seeds.append(Seed(f"image-real {path.name}", path.read_bytes()))
    return seeds


def _pictures(folder: Path) -> Iterator[Seed]:
    import cv2
    import imagecodecs
    import tifffile

    rng = np.random.default_rng(1)
    grey = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8), (0, 0), 2)
    grey16 = grey.astype(np.uint16) * 200
    yield Seed("image-grey.png", imagecodecs.png_encode(grey))
    yield Seed("image-deep.png", imagecodecs.png_encode(grey16))
    yield Seed("image-equal.png", imagecodecs.png_encode(np.dstack([grey] * 3)))
    yield Seed("image-grey.jpg", imagecodecs.jpeg8_encode(grey))
    yield Seed("image-colour.jpg", imagecodecs.jpeg8_encode(np.dstack([grey] * 3)))
    yield Seed("image-grey.bmp", cv2.imencode(".bmp", grey)[1].tobytes())
    stack = np.stack([grey] * 3)
    jeol = (
        b"$CM_FORMAT JEOL\r\n$CM_MAG 50000\r\n$CM_FULL_SIZE 64 40\r\n$$SM_MICRON_BAR 20\r\n$$SM_MICRON_MARKER 5nm\r\n"
    )
    yield Seed("jeol-a.txt", jeol)
    for name, pixels, options in (
        ("plain", grey, {"metadata": None}),
        ("deflated", grey16, {"compression": "zlib", "rowsperstrip": 8, "metadata": None}),
        ("lzw", grey, {"compression": "lzw", "metadata": None}),
        ("tiled", grey, {"tile": (32, 32), "compression": "packbits", "metadata": None}),
        ("jpeg", grey, {"compression": "jpeg", "metadata": None}),
        ("float", grey.astype(np.float32), {"byteorder": ">", "metadata": None}),
        ("big", grey, {"bigtiff": True, "metadata": None}),
        ("palette", grey, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16), "metadata": None}),
        ("imagej", stack, {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "nm"}}),
        ("ome", stack, {"ome": True, "metadata": {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm", "axes": "ZYX"}}),
        ("shaped", stack, {"photometric": "minisblack"}),
    ):
        tifffile.imwrite(folder / "a.tif", pixels, **options)
        yield Seed(f"image-{name}.tif", (folder / "a.tif").read_bytes())


def _microscope_files(folder: Path) -> Iterator[Seed]:
    stack = np.random.default_rng(2).normal(size=(2, HEIGHT, WIDTH)).astype(np.float32)
    header = struct.pack("<10i3f", WIDTH, HEIGHT, 2, 2, 0, 0, 0, WIDTH, HEIGHT, 2, WIDTH * 3.5, HEIGHT * 3.5, 2.0)
    header = header.ljust(208, b"\0") + b"MAP DD\0\0"
    yield Seed("image-a.mrc", header.ljust(1024, b"\0") + stack.tobytes())
    yield Seed("image-a.ser", _ser(stack[0]))
    yield Seed("image-a.dm3", _dm3(stack[0]))
    yield Seed("image-a.emd", _emd(folder / "a.emd", stack[0]))


def _ser(pixels: np.ndarray) -> bytes:
    """A SER file of one image (layout: Emispec's ES Vision)."""
    head = struct.pack("<2s5H", b"II", 0x0197, 0x0210, 0x4122, 0, 0x4152) + struct.pack("<H2i", 0, 1, 1)
    dimension = struct.pack("<i2d2i", 1, 0.0, 1.0, 0, 6) + b"Number" + struct.pack("<i", 0)
    start = len(head) + 8 + len(dimension)
    offsets = struct.pack("<2i", start + 8, start + 8 + 50 + pixels.nbytes)
    sizes = struct.pack("<2diddihii", 0.0, 1e-9, 0, 0.0, 1e-9, 0, 7, *pixels.shape[::-1])
    tag = struct.pack("<2Hi", 0x4152, 0, 0)
    return head + struct.pack("<2i", start, 1) + dimension + offsets + sizes + pixels.tobytes() + tag


def _dm3(pixels: np.ndarray) -> bytes:
    """The least DM3 file that holds an image."""

    def value(*layout: int, data: bytes) -> bytes:
        return b"%%%%" + struct.pack(f">I{len(layout)}I", len(layout), *layout) + data

    def tag(name: str, content: bytes, kind: int = 21) -> bytes:
        return struct.pack(">BH", kind, len(name)) + name.encode() + content

    def group(*tags: bytes) -> bytes:
        return b"\0\1" + struct.pack(">I", len(tags)) + b"".join(tags)

    def branch(name: str, *tags: bytes) -> bytes:
        return tag(name, group(*tags), 20)

    def number(name: str, kind: int, code: str, number: float) -> bytes:
        return tag(name, value(kind, data=struct.pack(f"<{code}", number)))

    def text(name: str, content: str) -> bytes:
        return tag(name, value(20, 4, len(content), data=content.encode("utf-16-le")))

    axis = branch("", number("Origin", 6, "f", 0), number("Scale", 6, "f", 0.5), text("Units", "nm"))
    sides = branch("Dimensions", *(number("", 5, "I", side) for side in pixels.shape[::-1]))
    data = tag("Data", value(20, 6, pixels.size, data=pixels.astype("<f4").tobytes()))
    brightness = branch("Brightness", number("Origin", 6, "f", 0), number("Scale", 6, "f", 1), text("Units", ""))
    calibrations = branch("Calibrations", brightness, branch("Dimension", axis, axis))
    held = branch(
        "ImageData", calibrations, data, number("DataType", 5, "I", 2), sides, number("PixelDepth", 5, "I", 4)
    )
    root = group(
        branch("DocumentObjectList"), branch("ImageList", branch("", held, branch("ImageTags"), text("Name", "a")))
    )
    return struct.pack(">3I", 3, len(root), 1) + root + bytes(8)


def _emd(path: Path, pixels: np.ndarray) -> bytes:
    """An EMD file as the NCEM defines it."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        place = file.create_group("data/image")
        place.attrs["emd_group_type"] = 1
        place.create_dataset("data", data=pixels)
        for i, side in enumerate(pixels.shape, 1):
            axis = place.create_dataset(f"dim{i}", data=0.5 * np.arange(side))
            axis.attrs["name"], axis.attrs["units"] = "yx"[i - 1], "[n_m]"
    return path.read_bytes()


def _labels(folder: Path) -> Iterator[Seed]:
    import imagecodecs
    import tifffile
    from roifile import ROI_TYPE, ImagejRoi

    yield Seed("labels-boxes.txt", b"5 5 20 20\n8 30 25 50\n")
    yield Seed("labels-yolo.txt", b"0 0.5 0.5 0.2 0.25\n1 0.3 0.3 0.1 0.1\n0 0.1 0.1 0.3 0.1 0.2 0.3\n")
    yield Seed("labels-imagej.csv", b" ,Area,X,Y,Major,Minor,Angle\n1,78,20.5,15,10,9,30\n2,50,40,20,8.5,8,170.5\n")
    yield Seed("labels-imagej.xls", b" \tBX\tBY\tWidth\tHeight\n1\t5\t5\t12\t10\n2\t30\t8\t9\t9\n")
    yield Seed("labels-loops.csv", b"image,x0_px,y0_px,x1_px,y1_px,label\nx.tif,3,4,20.5,22,a\nx.tif,30,8,40,18,b\n")
    polygon = [5.0, 5.0, 20.0, 6.0, 18.0, 20.0]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [polygon]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [30, 8, 10, 12]},
        {"id": 3, "image_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [100, 8, 32, 8, 2412]}},
        {"id": 4, "image_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": _packed([100, 8, 2452])}},
    ]
    image = {"id": 1, "file_name": "x.tif", "height": HEIGHT, "width": WIDTH}
    categories = [{"id": 1, "name": "loop"}]
    coco = {"images": [image], "annotations": annotations[:3], "categories": categories}
    yield Seed("labels-coco.json", json.dumps(coco).encode())
    yield Seed("labels-packed.json", json.dumps(coco | {"annotations": annotations[3:]}).encode())
    shapes = [
        {"name": "ellipse", "cx": 20, "cy": 20, "rx": 8, "ry": 5, "theta": 0.3},
        {"name": "polygon", "all_points_x": [5, 20, 18], "all_points_y": [5, 6, 20]},
        {"name": "rect", "x": 30, "y": 8, "width": 10, "height": 12},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "loop"}} for shape in shapes]
    yield Seed("labels-via.json", json.dumps({"x.tif1": {"filename": "x.tif", "size": 1, "regions": regions}}).encode())
    quoted = json.dumps(shapes[0]).replace('"', '""')
    header = b"filename,file_size,region_count,region_shape_attributes,region_attributes\n"
    yield Seed("labels-via.csv", header + f'x.tif,1,1,"{quoted}","{{}}"\n'.encode())
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:15, 10:22], mask[20:30, 40:50] = 1, 2
    yield Seed("labels-mask.png", imagecodecs.png_encode(mask))
    tifffile.imwrite(folder / "mask.tif", mask, compression="zlib", metadata=None)
    yield Seed("labels-mask.tif", (folder / "mask.tif").read_bytes())
    roi = ImagejRoi.frompoints(np.array([[5, 5], [20, 6], [18, 20]], np.float32)).tobytes()
    oval = ImagejRoi()
    oval.version, oval.roitype = 228, ROI_TYPE.OVAL
    oval.left, oval.top, oval.right, oval.bottom = 30, 8, 42, 20
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.roi", roi)
        archive.writestr("2.roi", oval.tobytes())
    yield Seed("labels-polygon.roi", roi)
    yield Seed("labels-oval.roi", oval.tobytes())
    yield Seed("labels-rois.zip", packed.getvalue())


def _packed(runs: list[int]) -> str:
    """Three run lengths as COCO packs them."""
    text = ""
    for run in runs:
        while run > 15:
            text, run = text + chr(48 + 32 + run % 32), run // 32
        text += chr(48 + run)
    return text


def _models() -> Iterator[Seed]:
    shipped = ROOT / "models" / "fecral-loops"
    cascade = (shipped / "cascade.xml").read_text()
    # The first stage, with all features: a short file is hit in its structure more often.
    first = cascade.index("</_>\n    <_>\n      <maxWeakCount>")
    yield Seed("cascade-a.xml", (cascade[: first + 5] + cascade[cascade.index("  </stages>") :]).encode())
    yield Seed("onnx-a.onnx", (shipped / "screener.onnx").read_bytes())
    yield Seed("card-a.json", (shipped / "card.json").read_bytes())
