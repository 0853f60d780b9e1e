"""Damage files of every format by the thousand and read them: no crash, no hang, no foreign error, bounded memory.

``python benchmarks/fuzz_readers.py [N [SEED]]``, by default 10,000 files. Counts go to ``results/fuzz-readers.json``.
Findings are kept in ``benchmarks/results/findings`` (ignored by git), and the exit status is 1 if there is one.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz_corpus import corpus  # noqa: E402
from fuzzing import LIMIT_S, MEMORY_BYTES, Finding, fuzz  # noqa: E402
from provenance import provenance  # noqa: E402

from defectpipe.io.tables import write_json  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FINDINGS = RESULTS / "findings"


def main() -> int:
    """Fuzz, and print what became of the files of each kind."""
    n, seed = (int(word) for word in (*sys.argv[1:], *("10000", "0")[len(sys.argv) - 1 :]))
    data = Path(os.environ.get("DEFECTPIPE_DATA", ROOT.parent / "shared" / "data"))
    seeds = corpus(data / "formats")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    slowest, findings = 0.0, 0
    began = last = time.monotonic()
    for one, outcome in fuzz(n, seed, seeds):
        now = time.monotonic()
        slowest, last = max(slowest, now - last), now
        kind = one.reader if one.reader != "image" else one.name.rsplit(".", 1)[-1]
        counts[kind][outcome.what if isinstance(outcome, Finding) else outcome] += 1
        if isinstance(outcome, Finding):
            findings += 1
            FINDINGS.mkdir(parents=True, exist_ok=True)
            (FINDINGS / f"{outcome.what}-{seed}-{findings}-{one.name}").write_bytes(outcome.data)
            print(f"{outcome.what}: {one.name}: {(outcome.detail.splitlines() or [''])[-1][:200]}", flush=True)
    for kind, count in sorted(counts.items()):
        print(f"{kind:9} " + ", ".join(f"{what} {count[what]}" for what in sorted(count)))
    taken = time.monotonic() - began
    write_json(
        provenance("make bench-fuzz", "tifffile", "pillow", "rosettasciio", "imagecodecs", "h5py")
        | {
            "n_files": n,
            "n_sound_files": len(seeds),
            "real_files_among_them": (data / "formats").is_dir(),
            "seed": seed,
            "findings": findings,
            "seconds": round(taken, 1),
            "slowest_s": round(slowest, 2),
            "limit_s": LIMIT_S,
            "limit_mib": MEMORY_BYTES >> 20,
            "outcomes": {kind: dict(sorted(count.items())) for kind, count in sorted(counts.items())},
        },
        RESULTS / "fuzz-readers.json",
    )
    print(
        f"{n} files from {len(seeds)} sound ones, seed {seed}: {findings} findings, {taken:.0f} s; "
        f"slowest {slowest:.1f} s (limit {LIMIT_S:g} s, start of the child included), memory below "
        f"{MEMORY_BYTES >> 20} MiB over the program's own"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
