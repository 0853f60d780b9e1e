"""docs/faults.md tells the truth: every fault is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
N_FAULTS = 28
NAMED = re.compile(r"`(test_\w+\.py)::(\w+)`")


def rows() -> dict[int, list[str]]:
    """Cells of the table's rows, by number."""
    text = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdecimal():
            assert int(cells[0]) not in found, f"row {cells[0]} is there twice"
            found[int(cells[0])] = cells
    return found


def functions_in(path: Path) -> set[str]:
    """Names of the test functions of a module, those of its classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_has_its_row() -> None:
    assert sorted(rows()) == list(range(1, N_FAULTS + 1))


@pytest.mark.parametrize("number", range(1, N_FAULTS + 1))
def test_a_row_says_what_happens_and_names_tests_that_exist(number: int) -> None:
    cells = rows()[number]
    assert len(cells) == 4
    assert all(cells)
    named = NAMED.findall(cells[3])
    # Nothing stands there that is not a test in this form.
    assert "<br>".join(f"`{file}::{test}`" for file, test in named) == cells[3]
    assert named
    for file, test in named:
        assert test.startswith("test_")
        assert test in functions_in(TESTS / file), f"{file} has no {test}"
