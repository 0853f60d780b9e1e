"""Damaged files of every kind that the program reads, and a process that can be lost while it reads them.

`corpus` makes small sound files; `mutate` damages one; `Fuzzer` has it read in a child process, with a limit of memory
and of time, so that a crash, a hang and an unbounded allocation are seen for what they are.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 40, 64
# What a file may claim while it is fuzzed; what reading it then takes beyond that is a finding.
MAX_PIXELS = 2**20
MEMORY_BYTES = 2**30
LIMIT_S = 20.0


@dataclass(frozen=True)
class Seed:
    """A sound file: its name, by whose first part the reader is chosen, and its bytes."""

    name: str
    data: bytes

    @property
    def reader(self) -> str:
        return self.name.split("-")[0]


@dataclass(frozen=True)
class Finding:
    """What should not have happened, and the file that made it happen."""

    what: str
    name: str
    data: bytes
    detail: str = ""


# --- sound files ----------------------------------------------------------------------------------------------------


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


# --- damage ---------------------------------------------------------------------------------------------------------

_INTEGERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    255,
    256,
    32767,
    32768,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_WORDS = (
    "-1",
    "0",
    "nan",
    "1e999",
    "-1e308",
    "1e-320",
    "9" * 400,
    "0.1.2",
    '"',
    "null",
    "[]",
    "{}",
    "true",
    "\u0663",
    "",
)


def mutate(rng: random.Random, seed: Seed, seeds: list[Seed]) -> bytes:
    """The seed, damaged in one to three ways."""
    data = bytearray(seed.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = bytearray(rng.choice(_DAMAGES)(rng, data, seeds))
    if seed.name.endswith(".png") and rng.random() < 0.7:
        data = bytearray(_with_checksums(data))
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    for _ in range(rng.randint(1, 12)):
        if data:
            data[_place(rng, data)] ^= 1 << rng.randrange(8)
    return data


def _overwrite(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    for _ in range(rng.randint(1, 3)):
        size = rng.choice((1, 2, 4, 8))
        start = _place(rng, data)
        value = rng.choice(_INTEGERS) % 256**size
        data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return data


def _cut(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    return data[: _place(rng, data)]


def _remove(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    start = _place(rng, data)
    del data[start : start + rng.randint(1, 64)]
    return data


def _repeat(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    start = _place(rng, data)
    data[start:start] = data[start : start + rng.randint(1, 64)] * rng.choice((1, 2, 50))
    return data


def _splice(rng: random.Random, data: bytearray, seeds: list[Seed]) -> bytes:
    other = rng.choice(seeds).data
    start = rng.randrange(len(other))
    return data[: _place(rng, data)] + other[start : start + rng.randint(1, 5000)]


def _noise(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    start = _place(rng, data)
    data[start:start] = rng.randbytes(rng.randint(1, 40))
    return data


def _word(rng: random.Random, data: bytearray, _seeds: list[Seed]) -> bytes:
    words = list(re.finditer(rb"-?\d+(\.\d+)?|\"[^\"]*\"", bytes(data[:200_000])))
    if not words:
        return data
    word = rng.choice(words)
    data[word.start() : word.end()] = rng.choice(_WORDS).encode()
    return data


_DAMAGES = (_flip, _flip, _overwrite, _overwrite, _overwrite, _cut, _remove, _repeat, _splice, _noise, _word, _word)


def _place(rng: random.Random, data: bytearray) -> int:
    """A position, half of the time among the first bytes, where headers are."""
    return rng.randrange(min(len(data), 400) if rng.random() < 0.5 else len(data)) if data else 0


def _with_checksums(data: bytearray) -> bytes:
    """A PNG whose chunks have the checksums of what they hold: the damage gets past the first gate."""
    position = 8
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        end = position + 12 + length
        if end > len(data):
            break
        struct.pack_into(">I", data, end - 4, zlib.crc32(data[position + 4 : end - 4]))
        position = end
    return data


# --- reading --------------------------------------------------------------------------------------------------------


def read(path: Path, reader: str) -> None:
    """Read a file as the program does."""
    from defectpipe.errors import MicrographError
    from defectpipe.io.micrographs import read_header, read_micrographs, read_pixel_sizes
    from defectpipe.settings import Settings

    if reader == "image":
        try:
            header = read_header(path, max_pixels=MAX_PIXELS)
        except MicrographError:
            header = None
        frames = read_micrographs(path, max_pixels=MAX_PIXELS)
        assert header is not None, "the header was refused, and the file was read"
        assert (header.n_frames, header.height, header.width) == (len(frames), *frames[0].shape)
        frames[0].grey8()
    elif reader == "labels":
        from defectpipe.io.labels import read_label_folder

        found = read_label_folder(path, [("x.tif", (HEIGHT, WIDTH)), (f"{path.stem}.tif", (HEIGHT, WIDTH))])
        for tables in found.experts.values():
            for table in tables.values():
                assert np.isfinite(table[["x_px", "y_px", "x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy()).all()
    elif reader == "jeol":
        from defectpipe.io.micrographs.jeol import read_jeol_text

        read_jeol_text(path.with_suffix(".tif"), WIDTH)
    elif reader == "cascade":
        from defectpipe.detection.opencv_xml import read_cascade

        read_cascade(path)
    elif reader == "onnx":
        from defectpipe.screening.screener import OnnxNetwork

        assert OnnxNetwork(path, 48)(np.zeros((2, 48, 48, 1), np.float32)).shape == (2, 5)
    elif reader == "card":
        from defectpipe.card_check import check_card, read_card

        check_card(read_card(path)[1], path)
    elif reader == "settings":
        Settings.read(path)
    elif reader == "sizes":
        read_pixel_sizes(path.parent)
    elif reader == "self":
        _misbehave(path.read_bytes())
    else:
        raise ValueError(reader)


def _misbehave(how: bytes) -> None:
    """What a reader must never do: so that the fuzzer itself is tested."""
    if how == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == b"hang":
        time.sleep(3600)
    if how == b"memory":
        np.ones(2 * MEMORY_BYTES, np.uint8)
    raise KeyError(how)


def _serve(pipe: Connection, folder: str) -> None:
    """What the child does: read file after file, and say of each what became of it."""
    from defectpipe.errors import DefectpipeError

    for seed in corpus():
        # Everything that a reader imports or sets up belongs to the program, not to the file.
        place = Path(folder, seed.name.partition("-")[2])
        place.write_bytes(seed.data)
        read(place, seed.reader)
    # Decoders complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 2**20
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    while True:
        name, reader, data = pipe.recv()
        place = Path(folder, name)
        place.write_bytes(data)
        try:
            read(place, reader)
            pipe.send(("read", ""))
        except DefectpipeError as error:
            pipe.send(("memory" if "MemoryError" in str(error) else "refused", str(error)))
        except MemoryError:
            pipe.send(("memory", traceback.format_exc()))
        except BaseException:
            pipe.send(("raised", traceback.format_exc()))
        place.unlink()


class Fuzzer:
    """A child process that reads damaged files, and is replaced when one of them costs its life."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.folder = tempfile.mkdtemp(prefix="fuzz-")
        self._process: Any = None
        self._pipe: Any = None

    def try_one(self, seed: Seed, data: bytes) -> str | Finding:
        """``"read"`` or ``"refused"``, or what should not have happened."""
        if self._process is None:
            self._start()
        self._pipe.send((seed.name.partition("-")[2], seed.reader, data))
        try:
            if not self._pipe.poll(self.limit_s):
                self.close_child()
                return Finding("hang", seed.name, data, f"more than {self.limit_s} s")
            outcome, detail = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.close_child()
            return Finding("crash", seed.name, data, f"exit status {code}")
        return outcome if outcome in ("read", "refused") else Finding(outcome, seed.name, data, detail)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.folder), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(120) or self._pipe.recv() != "ready":
            raise RuntimeError("the child did not get ready")

    def close_child(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def close(self) -> None:
        """End the child and clear away."""
        self.close_child()
        shutil.rmtree(self.folder, ignore_errors=True)


def fuzz(n: int, seed: int, seeds: list[Seed], limit_s: float = LIMIT_S) -> Iterator[tuple[Seed, str | Finding]]:
    """Damage and read `n` files, every seed in turn: what became of each."""
    rng, fuzzer = random.Random(seed), Fuzzer(limit_s)
    try:
        for i in range(n):
            one = seeds[i % len(seeds)]
            yield one, fuzzer.try_one(one, mutate(rng, one, seeds))
    finally:
        fuzzer.close()
