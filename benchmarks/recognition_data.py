"""Simulate the sets that recognition is trained and judged on: RECOGNITION_DATA, by default ``recognition-data``.

python benchmarks/recognition_data.py [NAME ...] [--scenes N]

Resumable: shards that are there are kept. About 10 ms of CPU time a view, 13 minutes for all views.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2

from defectpipe.training.recognition_data import write_images
from defectpipe.training.recognition_sets import SETS

DATA = Path(os.environ.get("RECOGNITION_DATA", Path(__file__).parent / "recognition-data"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETS)}; all by default")
    parser.add_argument("--scenes", type=int, help="only the first of each set")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for chosen in arguments.names or SETS:
        start = time.process_time()

        def tell(done: int, of: int, name: str = chosen) -> None:
            print(f"{name}: shard {done} of {of}", flush=True)

        write_images(chosen, DATA, arguments.scenes, tell)
        print(f"{chosen}: {time.process_time() - start:.0f} s of CPU time", flush=True)
