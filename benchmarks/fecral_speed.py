"""CPU time of the whole chain on one core, over that of the published cascade alone in OpenCV; same images, one run.

Usage: fecral_speed.py PUBLISHED_CASCADE_XML [EVERY_NTH_IMAGE]
"""

from __future__ import annotations

import sys
import time

import cv2
from fecral_data import MODELS, NAME, training_images

from defectpipe.analysis import detect_candidates, measure_loops, screen_candidates
from defectpipe.model import LoopModel
from defectpipe.settings import Settings


def main(published: str, every: int) -> None:
    """Time both, image by image in turn, and print seconds per megapixel and their ratio."""
    cv2.setNumThreads(1)
    peer, model, settings = cv2.CascadeClassifier(published), LoopModel.load(MODELS / NAME), Settings()
    seconds = {"published cascade": 0.0, "candidates": 0.0, "screening": 0.0, "measurement": 0.0}
    megapixels = 0.0
    images = training_images()[::every]
    for i, image in enumerate([images[0], *images]):
        m = image.micrograph
        marks = [time.process_time()]
        peer.detectMultiScale(m.grey8(), scaleFactor=1.1, minNeighbors=0)
        marks.append(time.process_time())
        candidates = detect_candidates(m, model, settings)
        marks.append(time.process_time())
        screened = screen_candidates(m, candidates, model, settings)
        marks.append(time.process_time())
        measure_loops(m, screened, model, settings)
        marks.append(time.process_time())
        if i == 0:
            continue  # the first image also compiles and loads
        megapixels += m.pixels.size / 1e6
        for name, begin, end in zip(seconds, marks, marks[1:], strict=False):
            seconds[name] += end - begin
    for name, total in seconds.items():
        print(f"{name:20s} {total / megapixels:.3f} CPU s per megapixel")
    chain = sum(seconds.values()) - seconds["published cascade"]
    print(f"whole chain over published cascade: {chain / seconds['published cascade']:.3f} ({len(images)} images)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6)
