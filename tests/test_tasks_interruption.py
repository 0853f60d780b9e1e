"""Runs killed at any moment, and started again: the same bytes as undisturbed, nothing finished done twice."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_helpers import IMAGE_FAILED, KILLED, Runs, differences, finished, outcome, write_source

pytestmark = pytest.mark.slow
N_KILLS = 20
SEED = 19
# In the order in which a run comes to them; the last for what is in none of them.
PLACES = {
    "candidates": r"\.defectpipe/candidates",
    "screening": r"\.defectpipe/screening",
    "measurement": r"\.defectpipe/measurement",
    "statistics": r"\.defectpipe/tables",
    "agreement": r"\.defectpipe/agreement|evaluation\.json",
    "overlays": r"\.defectpipe/overlays|overlays",
    "report": r"\.defectpipe/(pictures|report)|report\.html",
    "lock, hashes, tables, summary": "",
}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    write_source(tmp_path)
    runs = Runs(tmp_path)
    yield runs
    runs.close()


def moments(changes: list[str], n: int) -> list[tuple[str, int]]:
    """`n` random moments, the places in turn; among them the first with nothing done yet, and the last of all."""
    draw = random.Random(SEED)
    by_place: dict[str, list[int]] = {place: [] for place in PLACES}
    for i, change in enumerate(changes):
        name = change.split(" ", 1)[1]
        by_place[next(place for place, start in PLACES.items() if re.match(start, name))].append(i)
    assert all(len(places) > 2 for places in by_place.values()), by_place
    names = [list(PLACES)[i % len(PLACES)] for i in range(n)]
    drawn = {place: draw.sample(by_place[place], names.count(place)) for place in PLACES}
    first, last = names[0], list(PLACES)[-1]
    drawn[first][-1], drawn[last][-1] = by_place[first][0], by_place[last][-1]
    return [(place, drawn[place].pop()) for place in names]


def test_a_run_killed_at_any_of_twenty_moments_goes_on_to_the_same_bytes(runs):
    status, changes = runs.run()
    assert status == IMAGE_FAILED
    undisturbed = outcome(runs.output)
    assert {"images.csv", "loops.csv", "evaluation.json", "overlays/a.tif.jpg"} < set(undisturbed)
    assert not {name for name in undisturbed if "lock" in name or ".writing-" in name}
    everything = set(finished(runs.output))
    first_log = runs.log.read_text().splitlines()
    n_kept = []
    for place, moment in moments(changes, N_KILLS):
        shutil.rmtree(runs.output)
        assert runs.run(die_at=moment)[0] == KILLED, (place, moment)
        kept = finished(runs.output)
        runs.log.unlink(missing_ok=True)
        assert runs.run()[0] == IMAGE_FAILED
        assert differences(outcome(runs.output), undisturbed) == {}, (place, moment)
        now = finished(runs.output)
        assert {path: now[path] for path in kept} == kept, (place, moment)
        again = runs.log.read_text().splitlines() if runs.log.exists() else []
        assert set(again) <= set(first_log)
        n_kept.append(len(kept))
    # The moments are spread: nothing was finished at the first, all at the last.
    assert min(n_kept) == 0
    assert max(n_kept) == len(everything)
    assert len(set(n_kept)) > 6


def test_a_run_killed_again_and_again_gets_there(runs):
    changes = runs.run()[1]
    undisturbed = outcome(runs.output)
    shutil.rmtree(runs.output)
    kept: dict[Path, tuple[int, int]] = {}
    n_kills = 0
    # The workbook and its many temporary files are one step, which has to fit between two kills.
    while runs.run(die_at=len(changes) // 3)[0] == KILLED:
        now = finished(runs.output)
        assert {path: now[path] for path in kept} == kept
        kept = now
        n_kills += 1
        assert n_kills < 30
    assert n_kills > 2
    assert differences(outcome(runs.output), undisturbed) == {}
