"""A chain without a trained model, for tests of the tasks: dark blobs are loops, whatever they are.

It stands for `defectpipe.analysis` and `defectpipe.model`. It needs milliseconds, gives the same loops every time, and
writes a line to the file that ``TOY_LOG`` names for every stage of every frame that it computes. With ``TOY_HOLD=N``
it gets no further than that file's line N until the file that ``TOY_GO`` names is there: a test that looks at a run
under way, or kills it, then finds it where it should be, however slow the machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

ANALYSIS_VERSION = {"candidates": 1, "screening": 1, "measurement": 1}


class LoopModel:
    name = "toy"
    focus_gate = None
    box_convention = "tight"
    threshold = 0.5
    sha256 = os.environ.get("TOY_MODEL", "0" * 64)
    working_pixel_size_nm: float | None = None
    f1_predictor = None
    classes = None

    @classmethod
    def load(cls, path):
        return cls()

    def decisive(self, stage):
        return {"cascade.xml": self.sha256} if stage == "candidates" else {}


def find_model(name_or_path, extra=()):
    return Path(name_or_path)


def detect_candidates(m, model, settings):
    import numpy as np
    import pandas as pd
    from scipy import ndimage

    _compute("candidates", m)
    # Grey values as they are: contrast normalisation is not what the toy is for.
    dark = m.pixels < (np.iinfo(m.pixels.dtype).max // 4 if m.pixels.dtype.kind == "u" else 0.25)
    boxes = [
        (x.start, y.start, x.stop - 1, y.stop - 1, 1.0 - 0.01 * i)
        for i, (y, x) in enumerate(ndimage.find_objects(ndimage.label(dark)[0]))
    ]
    return pd.DataFrame(boxes, columns=["x0_px", "y0_px", "x1_px", "y1_px", "detection_score"], dtype=float)


def screen_candidates(m, candidates, model, settings):
    _compute("screening", m)
    threshold = model.threshold if settings.screening.threshold is None else settings.screening.threshold
    score = (candidates["x1_px"] - candidates["x0_px"]) / 40
    return candidates.assign(screening_score=score, kept=score >= threshold)


def measure_loops(m, screened, model, settings):
    import numpy as np

    from defectpipe.boxes import touches_border
    from defectpipe.io.tables import loops_table

    _compute("measurement", m)
    kept = screened[screened["kept"]].reset_index(drop=True)
    boxes = kept[["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(float)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    nm = m.pixel_size_nm if m.pixel_size_nm is not None else np.nan
    measured = kept.drop(columns="kept").assign(
        image=m.image,
        frame=m.frame,
        loop_id=np.arange(len(kept)),
        x_px=boxes[:, ::2].mean(1),
        y_px=boxes[:, 1::2].mean(1),
        diameter_px=sides.max(1, initial=0),
        minor_px=sides.min(1, initial=1e9),
        angle_deg=0.0,
        diameter_nm=sides.max(1, initial=0) * nm,
        on_edge=touches_border(boxes, m.shape, settings.measurement.border_margin_px),
        fit_quality=1.0,
    )
    return loops_table(measured)


def _compute(stage, m):
    if log := os.environ.get("TOY_LOG"):
        # One write of one short line: processes do not mix theirs.
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{stage} {m.image} {m.frame}\n")
        if hold := os.environ.get("TOY_HOLD"):
            _hold(Path(log), int(hold))
    if os.environ.get("TOY_KILLER") == m.image:
        os._exit(9)
    if os.environ.get("TOY_BUG") == m.image:
        raise ZeroDivisionError("the toy is broken\nin two lines")


def _hold(log, n_lines):
    go = os.environ.get("TOY_GO")
    deadline = time.monotonic() + 900
    while len(log.read_text(encoding="utf-8").splitlines()) >= n_lines and not (go and os.path.exists(go)):
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let the toy go on, or killed it")
        time.sleep(0.05)
