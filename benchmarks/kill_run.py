"""Kill the demonstration's run at random moments, with the shipped model and processes, and start it again each time.

Usage: kill_run.py [NUMBER_OF_KILLS] [SEED]   (default: 20 19)

Every run after a kill must end with the same bytes as an undisturbed one, compute nothing again that was finished, and
leave no leftovers. Exit status 1 if one does not. Results: results/kill-run.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from crash_helpers import finished, outcome  # noqa: E402
from provenance import provenance  # noqa: E402

from defectpipe.io.tables import write_json  # noqa: E402

# Before this share of the time, programs are loaded and nothing is written.
START_SHARE = 0.3
STAGES = ("candidates", "screening", "measurement", "tables", "agreement", "overlays")


def start(place: Path) -> subprocess.Popen[bytes]:
    """A run of the demonstration in a process group of its own."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("luigi")), "--module", "defectpipe", "RunAll"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(n_kills: int, seed: int) -> int:
    """Run undisturbed, then kill and resume `n_kills` times; print a line each."""
    draw = random.Random(seed)
    n_wrong, kills = 0, []
    with tempfile.TemporaryDirectory() as folder:
        place, output = Path(folder), Path(folder) / "demo-defects"
        # Once to simulate the images, once for the time that their analysis takes.
        for _ in range(2):
            shutil.rmtree(output, ignore_errors=True)
            began = time.monotonic()
            assert start(place).wait() == 0
            seconds = time.monotonic() - began
        undisturbed, all_results = outcome(output), finished(output)
        print(f"undisturbed: {seconds:.1f} s, {len(all_results)} results", flush=True)
        for i in range(n_kills):
            shutil.rmtree(output)
            # One moment in each part of the run's time after its start: spread, and random within it.
            share = START_SHARE + (1 - START_SHARE) * (i + draw.random()) / n_kills
            moment = seconds * share
            run = start(place)
            time.sleep(moment)
            os.killpg(run.pid, signal.SIGKILL)
            killed = run.wait() == -signal.SIGKILL
            kept = finished(output) if output.exists() else {}
            assert start(place).wait() == 0
            now = finished(output)
            again = sum(now.get(path) != state for path, state in kept.items())
            left = outcome(output)
            different = sorted(name for name in {*left, *undisturbed} if left.get(name) != undisturbed.get(name))
            n_wrong += bool(again or different)
            kills.append(
                {
                    "at_s": round(moment, 2),
                    "killed": killed,
                    "finished_by_then": len(kept),
                    "computed_again": again,
                    "different": different,
                }
            )
            by_stage = Counter(
                path.relative_to(output / ".defectpipe").parts[0] for path in kept if path.suffix == ".json"
            )
            said = ", ".join(f"{stage} {by_stage[stage]}" for stage in STAGES if by_stage[stage]) or "nothing"
            print(
                f"{'killed' if killed else 'ended before'} at {moment:5.2f} s; finished by then: {said}; "
                f"computed again: {again}; different: {json.dumps(different)}",
                flush=True,
            )
    said = provenance("make bench-kill", "luigi", "pandas", "pyarrow")
    found = {"seed": seed, "undisturbed_s": round(seconds, 1), "results": len(all_results), "wrong": n_wrong}
    write_json(said | found | {"kills": kills}, ROOT / "benchmarks" / "results" / "kill-run.json")
    print(f"{n_kills - n_wrong} of {n_kills} runs went on to the same bytes with nothing done twice")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    numbers = [int(number) for number in sys.argv[1:]]
    sys.exit(main(*(numbers + [20, 19][len(numbers) :])))
