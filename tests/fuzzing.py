"""Damaged files of every kind that the program reads, and a process that can be lost while it reads them.

`mutate` damages one of the sound files of `fuzz_corpus`; `Fuzzer` has it read in a child process, with a limit of
memory and of time, so that a crash, a hang and an unbounded allocation are seen for what they are.
"""

from __future__ import annotations

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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_corpus import HEIGHT, WIDTH, Seed, corpus

# What a file may claim while it is fuzzed; what reading it then takes beyond that is a finding.
MAX_PIXELS = 2**20
MEMORY_BYTES = 2**30
LIMIT_S = 20.0


@dataclass(frozen=True)
class Finding:
    """What should not have happened, and the file that made it happen."""

    what: str
    name: str
    data: bytes
    detail: str = ""


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
    from defectpipe.errors import LabelError, MicrographError
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
        if found.errors:
            raise LabelError(next(iter(found.errors.values())))
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
