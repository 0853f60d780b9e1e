"""What limits models/fecral-loops: every label and every loop of the held-out folds is put into exactly one kind.

    python benchmarks/error_analysis.py [--pictures FOLDER] [--families NAME ...] [--seed 0] [--crops 24]

The kinds, and the order in which they are tried, stand in `error_kinds`. Results: results/fecral-errors.json. With
`--pictures` contact sheets of crops are drawn for the eye (real micrographs: not to be committed).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from error_kinds import (
    DUPLICATE,
    FOUND,
    LABEL_KINDS,
    LOOP_KINDS,
    NEAR_BORDER,
    REFUSED,
    TRUE,
    UNCOUNTED,
    UNLABELLED_HIGH,
    UNLABELLED_LOW,
)
from error_objects import classified, median_true_score
from error_pictures import draw_sheets
from error_repeats import repeats
from fecral_data import NAME, RESULTS, training_images
from fecral_figures import held_out
from provenance import provenance

from defectpipe.io.tables import write_json
from defectpipe.settings import Settings
from defectpipe.statistics.scoring import NOT_COUNTED, Objects, partners
from defectpipe.training.figures import HeldOut, choose_thresholds

BINS = {
    "side_px": (0, 15, 25, 40, 70, np.inf),
    "contrast": (-np.inf, 0.25, 0.5, 1.0, 1.5, np.inf),
    "covered": (-np.inf, 0, 0.1, 0.3, 1),
    "border_px": (-np.inf, 20, 60, np.inf),
}
"""What may explain an error, and its classes: over the first edge, up to the second."""

_SHORT_BY = (0, 0.05, 0.1, 0.2, 0.4)
_THRESHOLDS = np.round(np.arange(0.15, 0.9, 0.02), 2)


def main() -> None:
    """Classify, count, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets")
    parser.add_argument("--families", nargs="*", help="crops of these families alone")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of crops")
    parser.add_argument("--crops", type=int, default=24, help="crops of each kind")
    args = parser.parse_args()
    images = training_images()
    known = held_out(images)
    labels, loops = classified(known, images)
    found = (
        provenance("make bench-errors")
        | analysis(known, labels, loops)
        | {"overlapping_fields": repeats(images, labels, loops)}
    )
    write_json(found, RESULTS / "fecral-errors.json")
    print_tables(found)
    if args.pictures:
        kept = [rows[rows["group"].isin(args.families or rows["group"])] for rows in (labels, loops)]
        draw_sheets(args.pictures, images, (labels, loops), kept, n_crops=args.crops, seed=args.seed)


def analysis(known: HeldOut, labels: pd.DataFrame, loops: pd.DataFrame) -> dict[str, Any]:
    """Everything that is written: counts, what each kind costs, and how the kinds depend on what may explain them."""
    refused = labels[labels["kind"] == REFUSED]
    short = (refused["threshold"] - refused["score"]).to_numpy(float)
    n_labels, n_loops, n_true = counts_of(labels, loops)
    kept = known.kept(choose_thresholds(known)[1])
    return {
        "model": NAME,
        "n_labels": n_labels,
        "n_loops": n_loops,
        "n_true": n_true,
        "f1": f1_of(n_labels, n_loops, n_true),
        "high_score": round(median_true_score(known, kept), 4),
        "kinds_of_labels": LABEL_KINDS,
        "kinds_of_loops": LOOP_KINDS,
        "mended": mended(labels, loops),
        "refused_short_of_threshold_by": {
            f"{low} to {high}": int(((short > low) & (short <= high)).sum())
            for low, high in itertools.pairwise(_SHORT_BY)
        },
        "other_thresholds": other_thresholds(known),
        "labels_by": tables(labels, list(LABEL_KINDS)),
        "loops_by": tables(loops, list(LOOP_KINDS)),
    }


def counts_of(labels: pd.DataFrame, loops: pd.DataFrame) -> tuple[int, int, int]:
    """Labels and loops that count, and loops that are true."""
    counted = [int((rows["kind"] != UNCOUNTED).sum()) for rows in (labels, loops)]
    return counted[0], counted[1], int((loops["kind"] == TRUE).sum())


def f1_of(n_labels: float, n_loops: float, n_true: float) -> float:
    """F1 from counts, rounded."""
    return round(float(2 * n_true / max(n_labels + n_loops, 1)), 4)


def mended(labels: pd.DataFrame, loops: pd.DataFrame) -> dict[str, dict[str, float]]:
    """F1 if one kind of error were mended and all else stayed.

    A label that was missed is found, by one more loop or by the false one in its place; a loop without a label goes,
    but where the label is questionable it gets one.
    """
    n = {kind: int((labels["kind"] == kind).sum()) for kind in LABEL_KINDS}
    m = {kind: int((loops["kind"] == kind).sum()) for kind in LOOP_KINDS}
    n_labels, n_loops, n_true = counts_of(labels, loops)
    out = {}
    for kind in dict.fromkeys([*LABEL_KINDS, *LOOP_KINDS]):
        if kind in (FOUND, TRUE, UNCOUNTED):
            continue
        if kind == UNLABELLED_HIGH:
            changed = n_labels + m[kind], n_loops, n_true + m[kind]
        elif kind in (DUPLICATE, NEAR_BORDER, UNLABELLED_LOW):
            changed = n_labels, n_loops - m[kind], n_true
        else:
            changed = n_labels, n_loops + n[kind] - m.get(kind, 0), n_true + n[kind]
        f1 = f1_of(*changed)
        gain = round(f1 - f1_of(n_labels, n_loops, n_true), 4)
        out[kind] = {"n_labels": n.get(kind, 0), "n_loops": m.get(kind, 0), "f1": f1, "gain": gain}
    return out


def other_thresholds(known: HeldOut) -> dict[str, float]:
    """F1 of the same loops if the threshold were the best of all images, of each family or of each image.

    Nobody can choose so without the labels: it bounds what calibration of the scores could give. Beside it the
    thresholds at which there are as many loops as labels.
    """
    by_image = {str(image): part for image, part in known.loops.groupby("image")}
    counts = {}
    for image in known.shapes:
        part, marked = by_image.get(image, known.loops.iloc[:0]), known.marked(image)
        rows = []
        for least in _THRESHOLDS:
            loops = Objects.from_loops(part[part["screening_score"] >= least])
            of_label, of_loop = partners(marked, loops, Settings().statistics)
            rows.append([(of_label != NOT_COUNTED).sum(), (of_loop != NOT_COUNTED).sum(), (of_loop >= 0).sum()])
        counts[image] = np.array(rows)
    of_family: dict[str, np.ndarray] = {}
    for image, rows in counts.items():
        of_family[known.groups[image]] = of_family.get(known.groups[image], 0) + rows
    out = {}
    for name, parts in (
        ("all images", [sum(counts.values())]),
        ("each family", of_family.values()),
        ("each image", counts.values()),
    ):
        best = [c[np.argmax(2 * c[:, 2] / np.maximum(c[:, 0] + c[:, 1], 1))] for c in parts]
        balanced = [c[np.abs(c[:, 1] - c[:, 0]).argmin()] for c in parts]
        out[f"best of {name}"] = f1_of(*np.sum(best, axis=0))
        out[f"right count in {name}"] = f1_of(*np.sum(balanced, axis=0))
    return out


def tables(rows: pd.DataFrame, kinds: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Counts of the kinds by family and by each of `BINS`, and the share of what counts that is found or true."""
    keys = {"family": rows["group"]} | {
        name: pd.cut(rows[name], edges, right=True).cat.rename_categories(lambda i: f"{i.left:g} to {i.right:g}")
        for name, edges in BINS.items()
    }
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, key in keys.items():
        out[name] = {}
        for value, part in rows.groupby(key, observed=True):
            counts = {kind: int((part["kind"] == kind).sum()) for kind in kinds}
            n = len(part) - counts[UNCOUNTED]
            share = round(counts[kinds[0]] / n, 3) if n else None
            out[name][str(value)] = {"n": n, "share": share, **{k: c for k, c in counts.items() if c}}
    return out


def print_tables(found: dict[str, Any]) -> None:
    """The tables as text, in per cent of what counts."""
    print(f"F1 {found['f1']} ({found['n_labels']} labels, {found['n_loops']} loops, {found['n_true']} true)")
    print(pd.DataFrame(found["mended"]).T.sort_values("gain", ascending=False).to_string())
    print("refused, short of the threshold by:", found["refused_short_of_threshold_by"])
    print("other thresholds:", found["other_thresholds"])
    for name, value in found["overlapping_fields"].items():
        print("overlapping fields,", name, value)
    for side in ("labels_by", "loops_by"):
        for name, rows in found[side].items():
            table = pd.DataFrame(rows).T.drop(columns=UNCOUNTED, errors="ignore").fillna(0)
            shares = 100 * table.drop(columns=["n", "share"]).div(table["n"], axis=0)
            print(f"\n{side} {name}, %\n{pd.concat([table[['n']], shares.round(1)], axis=1).to_string()}")


if __name__ == "__main__":
    main()
