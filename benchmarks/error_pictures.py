"""Contact sheets of errors for the eye: crops by kind and family, plain and with the boxes of labels and loops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from error_kinds import LABEL_KINDS, LOOP_KINDS, UNCOUNTED

from defectpipe.statistics.scoring import BOX_COLUMNS
from defectpipe.training import TrainingImage

# Blue, green, red.
_LABEL, _LOOP, _OF_INTEREST = (255, 160, 40), (0, 150, 255), (60, 220, 60)
_SHOWN_PX = 190
_CAPTION_PX = 16
_COLUMNS = 4
# Sides of the object that a crop shows, and the least that it shows in px.
_FIELD, _LEAST_PX = 3.5, 90


def draw_sheets(
    folder: Path,
    images: list[TrainingImage],
    drawn: tuple[pd.DataFrame, pd.DataFrame],
    wanted: list[pd.DataFrame],
    *,
    n_crops: int,
    seed: int,
) -> None:
    """A sheet of each kind, and ``crops.csv``, the list of what is on them.

    Each crop is shown twice: as it is, and with labels (blue), loops (orange) and the object in question (green).
    Contrast is stretched crop by crop. The crops of a kind are drawn at random, in turn from every family that has it.

    Parameters
    ----------
    folder : Path
    images : list of TrainingImage
    drawn : tuple of DataFrame
        All labels and all loops, which may lie in a crop.
    wanted : list of DataFrame
        Labels and loops of which crops are chosen.
    n_crops : int
        Of each kind.
    seed : int
    """
    folder.mkdir(parents=True, exist_ok=True)
    grey = {i.micrograph.image: i.micrograph.grey8() for i in images}
    chosen = []
    for side, rows, kinds in zip(("label", "loop"), wanted, (LABEL_KINDS, LOOP_KINDS), strict=True):
        for kind in kinds:
            if kind == UNCOUNTED:
                continue
            part = sample(rows[rows["kind"] == kind], n_crops, seed)
            if not len(part):
                continue
            name = f"{side}-{kind.replace(', ', '-').replace(' ', '-')}"
            tiles = [
                _tile(grey[row.image], row, *drawn, f"{k} {row.group[:22]} {row.score:.2f}")
                for k, row in enumerate(part.itertuples())
            ]
            cv2.imwrite(str(folder / f"{name}.png"), _grid(tiles))
            chosen.append(part.assign(sheet=name, crop=np.arange(len(part))))
    pd.concat(chosen).to_csv(folder / "crops.csv", index=False)


def sample(rows: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most `n` rows at random, in turn from every family."""
    rng = np.random.default_rng(seed)
    shuffled = rows.iloc[rng.permutation(len(rows))]
    turn = shuffled.groupby("group").cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:n]].sort_values("group", kind="stable")


def _tile(grey: np.ndarray, row: object, labels: pd.DataFrame, loops: pd.DataFrame, caption: str) -> np.ndarray:
    own = np.array([getattr(row, column) for column in BOX_COLUMNS])
    half = max(_LEAST_PX, _FIELD * float((own[2:] - own[:2]).max())) / 2
    centre = (own[:2] + own[2:]) / 2
    padded = cv2.copyMakeBorder(grey, *[int(half) + 2] * 4, cv2.BORDER_CONSTANT, value=0)
    low = np.rint(centre - half).astype(int)
    x, y = low + int(half) + 2
    crop = padded[y : y + int(2 * half), x : x + int(2 * half)]
    values = crop[crop > 0] if (crop > 0).any() else crop
    dark, bright = np.percentile(values, [0.5, 99.5])
    crop = np.clip((crop.astype(float) - dark) * 255 / max(bright - dark, 1), 0, 255).astype(np.uint8)
    scale = _SHOWN_PX / len(crop)
    plain = cv2.cvtColor(cv2.resize(crop, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR)
    drawn = plain.copy()
    for table, colour in ((labels, _LABEL), (loops, _LOOP)):
        for box in table.loc[table["image"] == row.image, BOX_COLUMNS].to_numpy(float):  # type: ignore[attr-defined]
            _rectangle(drawn, (box - np.tile(low, 2)) * scale, colour, 1)
    _rectangle(drawn, (own - np.tile(low, 2)) * scale, _OF_INTEREST, 2)
    head = np.full((_CAPTION_PX, 2 * _SHOWN_PX + 4, 3), 255, np.uint8)
    cv2.putText(head, caption, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    gap = np.full((_SHOWN_PX, 4, 3), 255, np.uint8)
    return np.concatenate([head, np.concatenate([plain, gap, drawn], 1)])


def _rectangle(picture: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    x0, y0, x1, y1 = (int(v) for v in np.clip(np.rint(box), -1000, 3000))
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    tiles = [cv2.copyMakeBorder(t, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for t in tiles]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[k : k + _COLUMNS], 1) for k in range(0, len(tiles), _COLUMNS)]
    return np.concatenate(rows)
