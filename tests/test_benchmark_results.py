"""Every committed result of a benchmark says how it was made, by a command that `make bench` or `bench-data` runs."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def makefile_rules() -> dict[str, tuple[list[str], str]]:
    """Target to its prerequisites (those behind a condition, too) and its recipe."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    rules = {}
    for target, prerequisites, recipe in re.findall(r"^([\w-]+):(?!=)(.*)\n((?:\t.*\n)*)", text, re.MULTILINE):
        words = re.sub(r"\$\(if \$\(\w+\),([^)]*)\)", r"\1", prerequisites)
        rules[target] = words.split(), recipe
    return rules


def everything_run_by(*targets: str) -> set[str]:
    rules, found, left = makefile_rules(), set(), list(targets)
    while left:
        target = left.pop()
        if target not in found:
            found.add(target)
            left += rules[target][0] if target in rules else []
    return found


def test_there_are_results():
    assert len(RESULTS) > 15


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_says_how_it_was_made(path: Path):
    result = json.loads(path.read_text(encoding="utf-8"))
    date = datetime.date.fromisoformat(result["date"])
    assert datetime.date(2026, 1, 1) <= date <= datetime.date.today()
    assert result["machine"].startswith(("x86_64", "aarch64", "arm64"))
    assert result["versions"]
    assert all(re.match(r"\d+\.\d+", version) for version in result["versions"].values())
    assert "/work" not in result["command"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_is_reproduced_by_make(path: Path):
    program, what, *_ = shlex.split(json.loads(path.read_text(encoding="utf-8"))["command"])
    run = everything_run_by("bench", "bench-data")
    if program == "make":
        assert what in run
    else:
        assert program == "python"
        assert (ROOT / what).is_file()
        assert any(what in recipe for target, (_, recipe) in makefile_rules().items() if target in run)


def test_bench_alone_needs_no_data():
    rules = makefile_rules()
    needing = {"training_images", "data_folder"}
    for target in everything_run_by("bench"):
        for script in re.findall(r"benchmarks/\w+\.py", rules.get(target, ([], ""))[1]):
            text = (ROOT / script).read_text(encoding="utf-8")
            assert not needing & set(re.findall(r"\b\w+(?=\(\))", text)), script


def test_provenance_has_every_field(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import provenance

    monkeypatch.setattr("sys.argv", ["errors.py", "--seed", "3", "two words"])
    made = provenance.provenance("make bench-errors", "no-such-package", threads="one thread")
    assert tuple(made) == provenance.FIELDS
    assert shlex.split(made["command"]) == ["make", "bench-errors", "ARGS=--seed 3 'two words'"]
    assert made["machine"].endswith("one thread")
    assert "numpy" in made["versions"]
    assert "no-such-package" not in made["versions"]
    assert provenance.provenance("python x.py")["command"] == "python x.py --seed 3 'two words'"
