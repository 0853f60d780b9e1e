"""What every file in ``results/`` says of how it was made: command, date, machine, versions."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from defectpipe.training.versions import versions

FIELDS = ("command", "date", "machine", "versions")
_PACKAGES = ("defectpipe", "numpy", "scipy", "opencv-python-headless", "numba", "onnxruntime")


def provenance(target: str, *more: str, packages: Iterable[str] = _PACKAGES, threads: str = "") -> dict[str, Any]:
    """The `FIELDS` of a result that is written now.

    Parameters
    ----------
    target : str
        The command, such as ``make bench-errors``; the arguments of this process are added.
    more : str
        Packages whose versions matter beside `packages`, where they are installed.
    threads : str
        Such as ``one thread``.
    """
    given = shlex.join(sys.argv[1:])
    if given:
        arguments = shlex.quote(given) if '"' in given else f'"{given}"'
        target = f"{target} ARGS={arguments}" if target.startswith("make ") else f"{target} {given}"
    return {
        "command": target,
        "date": datetime.date.today().isoformat(),
        "machine": ", ".join(part for part in (machine(), threads) if part),
        "versions": _installed((*packages, *more)),
    }


def machine() -> str:
    """Processor and its name where the system tells it, system, cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()} {_processor()}".strip() + f", {platform.system()}, {cores} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in packages:
        try:
            found |= versions((package,))
        except PackageNotFoundError:
            continue
    return found
