"""Screeners trained on few images within one budget of CPU time, and judged: what `learning_curves.py` is made of."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fecral_data import MODELS, NAME

from defectpipe.boxes import convert, tighten, touches_border
from defectpipe.detection.cascade import Cascade
from defectpipe.detection.scan import ScanRecipe, find_candidates, most_candidates
from defectpipe.io.files import write_atomic
from defectpipe.io.tables import write_json
from defectpipe.model import WEIGHTS
from defectpipe.networks.export import save_weights
from defectpipe.networks.weights import load_weights
from defectpipe.resolution import binning, from_working, reduce, to_working
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe, build_network
from defectpipe.screening.samples import Samples, assign, make_samples
from defectpipe.screening.screener import ScreeningRecipe, screen
from defectpipe.screening.start import StartWeights
from defectpipe.screening.training import ScreenerTraining, train_screener
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import BOX_COLUMNS, Objects, score
from defectpipe.training import TrainingImage
from defectpipe.training.start import WARM_REWEIGH_AT

SEED = 0
BATCH = 64
# So many crops that are no loops in all, shared by the images: they are judged anew at each reweighing.
MOST_NEGATIVES = 6000
_AT_ONCE = 128
GRID = np.round(np.arange(0.2, 0.955, 0.025), 3)


@dataclass(frozen=True, eq=False)
class Field:
    """One labelled image at the working resolution, with its candidates."""

    image: str
    group: str
    fold: int
    grey: np.ndarray
    factor: int
    boxes: np.ndarray
    candidates: np.ndarray
    labels: pd.DataFrame
    shape: tuple[int, int]


class Answers:
    """A screener as Keras runs it: the same answers as its ONNX file, whose export takes longer than these fields."""

    n_classes = 0

    def __init__(self, weights: Path, seen: ScreenerRecipe) -> None:
        self._network = build_network(seen)
        load_weights(self._network, weights.read_bytes(), str(weights))

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        answers = [np.zeros((0, LOGIT_AND_BOX), np.float32)]
        for first in range(0, len(crops), _AT_ONCE):
            part = crops[first : first + _AT_ONCE]
            batch = np.zeros((_AT_ONCE, *crops.shape[1:]), np.float32)
            batch[: len(part)] = part
            answers.append(self._network.predict_on_batch(batch)[: len(part)])
        return np.concatenate(answers)


class Bench:
    """The working folder, and what all trainings share."""

    batch = BATCH

    def __init__(
        self,
        work: Path,
        cpu_minutes: float,
        seen: ScreenerRecipe,
        min_side_px: float = 26.0,
        per_megapixel: int = 400,
        screening: ScreeningRecipe | None = None,
    ) -> None:
        self.work, self.cpu_minutes, self.per_megapixel = work, cpu_minutes, per_megapixel
        card = json.loads((MODELS / NAME / "card.json").read_text(encoding="utf-8"))
        self.working_nm, self.convention = card["working_pixel_size_nm"], card["box_convention"]
        self.scan = dataclasses.replace(ScanRecipe(), min_side_px=min_side_px, max_side_px=card["scan"]["max_side_px"])
        self.seen, self.screening = seen, screening or ScreeningRecipe()

    def plain(self, i: TrainingImage) -> Field:
        """An image without candidates."""
        m = i.micrograph
        factor = binning(m.shape, m.pixel_size_nm, self.working_nm)
        boxes = to_working(convert(i.labels[BOX_COLUMNS].to_numpy(float), "tight", self.convention), factor)
        grey, fold = reduce(m.grey8(), factor), 0 if i.fold is None else i.fold
        return Field(m.image, i.group, fold, grey, factor, boxes, np.zeros((0, 4)), i.labels, m.shape)

    def field(self, i: TrainingImage, cascade: Cascade, kept: str) -> Field:
        """An image with the candidates of a cascade, which are kept in that folder."""
        f = self.plain(i)
        place = self.work / kept / f"{f.image}.npy"
        if not place.exists():
            limit = most_candidates(f.grey.shape, self.per_megapixel)
            found, _ = find_candidates(f.grey, cascade, self.scan, limit)
            write_atomic(place, lambda target: np.save(target, found))
        return dataclasses.replace(f, candidates=np.load(place))

    def field_with(self, i: TrainingImage, candidates: np.ndarray) -> Field:
        """An image with these candidates, best first, in px of the image."""
        f = self.plain(i)
        return dataclasses.replace(f, candidates=to_working(candidates, f.factor))

    def samples(self, fields: Sequence[Field]) -> Samples:
        """Crops of all fields; of what is no loop a random part where there are many fields."""
        rng = np.random.default_rng(SEED)
        of_each = ScreenerTraining().negatives_per_image
        most = min(of_each, max(20, MOST_NEGATIVES // len(fields)))
        made = []
        for f in fields:
            no_loops = np.flatnonzero(assign(f.candidates, f.boxes, f.grey.shape) == -1)[:of_each]
            left_out = rng.permutation(no_loops)[most:] if len(no_loops) > most else no_loops[:0]
            candidates = np.delete(f.candidates, left_out, axis=0)
            made.append(make_samples(f.grey, candidates, f.boxes, self.seen.crop_px, self.seen.context, most, rng))
        return Samples.joined(made)

    def training(self, n_steps: int, rate: float, warm: bool) -> ScreenerTraining:
        """Schedule of a screener."""
        reweigh_at = WARM_REWEIGH_AT if warm else ScreenerTraining().reweigh_at
        return ScreenerTraining(n_steps, BATCH, rate, reweigh_at=reweigh_at)

    def n_steps(self, samples: Samples) -> int:
        """Steps that the budget allows, measured once on this machine."""
        place = self._steps_file()
        if not place.exists():
            # The first steps compile.
            seconds = []
            for n in (20, 80):
                start = time.process_time()
                train_screener(
                    samples, self.seen, dataclasses.replace(self.training(n, 1e-3, False), reweigh_at=()), SEED
                )
                seconds.append(time.process_time() - start)
            step = (seconds[1] - seconds[0]) / 60
            write_json({"cpu_seconds_a_step": round(step, 4), "n_steps": int(60 * self.cpu_minutes / step)}, place)
        return self.known_steps()

    def known_steps(self) -> int:
        """What `n_steps` found."""
        return int(json.loads(self._steps_file().read_text())["n_steps"])

    def _steps_file(self) -> Path:
        return self.work / f"steps-{self.cpu_minutes:g}-{self.seen.crop_px}-{'-'.join(map(str, self.seen.widths))}.json"

    def screener(self, name: str, samples: Samples, training: ScreenerTraining, start: StartWeights | None) -> Path:
        """Train one, or take that which is there; its CPU seconds stand in ``training.json``."""
        folder = self.work / name
        if not (folder / "training.json").exists():
            begin = time.process_time()
            network = train_screener(samples, self.seen, training, SEED, start=start)
            spent = round(time.process_time() - begin, 1)
            folder.mkdir(parents=True, exist_ok=True)
            save_weights(network, folder / WEIGHTS)
            n = {"n_samples": len(samples.is_loop), "n_loops": int(samples.is_loop.sum())}
            write_json(n | dataclasses.asdict(training) | {"cpu_seconds": spent}, folder / "training.json")
        return folder

    def seconds(self, folder: Path) -> float:
        """CPU seconds of a training, reweighing and all."""
        return float(json.loads((folder / "training.json").read_text())["cpu_seconds"])

    def counts(
        self, folder: Path, fields: Sequence[Field], tight: bool = False, kept: str = "counts.npy"
    ) -> np.ndarray:
        """Labels, found, loops, true (IoU 0.4, one-to-one) of each field at each threshold of `GRID`."""
        place = folder / kept
        if not place.exists():
            network = Answers(folder / WEIGHTS, self.seen)
            write_atomic(place, lambda target: np.save(target, np.stack([self._of(f, network, tight) for f in fields])))
        return np.load(place)

    def _of(self, f: Field, network: Answers, tight: bool) -> np.ndarray:
        found = screen(f.grey, f.candidates, network, self.seen, self.screening)
        boxes = from_working(found.boxes, f.factor)
        boxes = tighten(boxes, self.convention, None) if tight else boxes
        return counts_of(boxes, found.scores, f.labels, f.shape, "tight" if tight else self.convention)


def candidate_counts(f: Field, convention: str) -> np.ndarray:
    """Counts of one image, shape (4,), as if every candidate was a loop."""
    boxes = from_working(f.candidates, f.factor)
    return counts_of(boxes, np.ones(len(boxes)), f.labels, f.shape, convention, np.zeros(1))[0]


def counts_of(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: pd.DataFrame,
    shape: tuple[int, int],
    convention: str,
    grid: np.ndarray = GRID,
) -> np.ndarray:
    """Counts of one image at each threshold, shape (len(grid), 4): IoU 0.4, one-to-one."""
    settings, margin_px = Settings().statistics, Settings().measurement.border_margin_px
    marked = Objects.from_labels(labels, shape, convention, margin_px)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    edge = touches_border(boxes, shape, margin_px)
    at = []
    for threshold in grid:
        k = scores >= threshold
        at.append(score(marked, Objects(boxes[k], centres[k], sides[k], edge[k]), settings)["one_to_one"])
    return np.array(at)
