"""``summary.json``, and the lines that a run ends with."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import defectpipe
from tasks.agreement import read_evaluation
from tasks.corrections import read_corrections
from tasks.plan import Plan
from tasks.session import Session
from tasks.stamps import read_stamp
from tasks.tables import folder_classes

if TYPE_CHECKING:
    import pandas as pd

_NAMED_VERSIONS = (
    *("numpy", "scipy", "pandas", "pyarrow", "scikit-image", "opencv-python-headless", "numba"),
    *("onnxruntime", "tifffile", "imagecodecs", "rosettasciio", "luigi"),
)
_LONGEST_LIST = 5


def summarise(session: Session, images: pd.DataFrame, loops: pd.DataFrame) -> dict[str, Any]:
    """Content of ``summary.json``.

    Parameters
    ----------
    session : Session
    images, loops : DataFrame
        As in ``images.csv`` and ``loops.csv``.
    """
    plan, options = session.plan, session.options
    found = found_in(session, images, loops)
    shown = {name: found[name] for name in found if name not in ("settings", "model", "versions")}
    return shown | {
        "time": _time(session),
        "settings": found["settings"],
        "model": found["model"],
        "run": {
            "input_dir": options.input_dir.as_posix(),
            "output_dir": options.output_dir.as_posix(),
            "labels_dir": plan.labels_dir.as_posix() if plan.labels_dir else None,
            "label_format": plan.label_format,
            "model_dir": plan.model.path.as_posix(),
            "pixel_size_nm": plan.pixel_size_nm,
            "engine": options.engine,
            "n_jobs": options.n_jobs,
        },
        "versions": found["versions"],
    }


def found_in(session: Session, images: pd.DataFrame, loops: pd.DataFrame) -> dict[str, Any]:
    """What ``summary.json`` says of the results themselves, whenever and wherever the run was; found once a run."""
    if session.found is None:
        session.found = _found_in(session, images, loops)
    return session.found


def program_versions() -> dict[str, str]:
    """Versions of the program, of what it computes with, and of its algorithms."""
    from defectpipe.analysis import ANALYSIS_VERSION
    from defectpipe.focus.assessment import FOCUS_VERSION

    versions = {"defectpipe": defectpipe.__version__, "python": platform.python_version()}
    for name in _NAMED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["algorithm: focus"] = str(FOCUS_VERSION)
    return versions | {f"algorithm: {stage}": str(version) for stage, version in ANALYSIS_VERSION.items()}


def remarks(session: Session, summary: dict[str, Any]) -> list[str]:
    """What the terminal shows before the end: what was left out of the figures, and how long an image took."""
    lines = []
    if summary["without_pixel_size"]:
        lines.append(f"no pixel size, so no nm: {_listed(summary['without_pixel_size'])}")
    if summary["skipped"]:
        lines.append(f"skipped: {_listed([f'{name} ({why})' for name, why in summary['skipped'].items()])}")
    labels = summary.get("labels", {})
    if labels.get("unmatched_labels"):
        lines.append(f"labels without an image: {_listed(labels['unmatched_labels'])}")
    if labels.get("unlabelled_images"):
        lines.append(f"images without labels, not scored: {_listed(labels['unlabelled_images'])}")
    if "classes" in summary:
        counts = [f"{of['n_loops']} {name}" for name, of in summary["classes"].items()]
        lines.append(f"by class: {', '.join(counts)}")
    lines += _correction_lines(summary)
    lines += _focus_lines(session.plan, summary)
    seconds = summary["time"]["seconds_per_image"]
    if seconds is not None:
        human = session.plan.settings.statistics.human_seconds_per_image
        lines.append(f"{seconds:.2g} s an image on one core; a person is taken to need {human:g} s")
    return lines


def closing_lines(session: Session, summary: dict[str, Any], worst: list[str]) -> list[str]:
    """The six lines that a run ends with: what was found, how sure it is, what to look at first, where it is.

    Parameters
    ----------
    session : Session
    summary : dict
        Content of ``summary.json``.
    worst : list of str
        The images that most need a look, each with the reason.
    """
    pooled, out = summary["pooled"], session.options.output_dir
    evaluation = "evaluation.json, " if session.plan.labels_dir else ""
    look = f"; in it first: {', '.join(worst)}" if worst else ""
    return [
        f"{pooled['n_images']} images: {pooled['n_loops']} loops, {pooled['n_on_edge']} of them cut by the border; "
        f"{pooled['n_review']} images to review, {pooled['n_failed']} failed",
        _size_line(pooled),
        _density_line(pooled),
        _label_line(summary),
        f"look first at {out / 'report.html'}{look}",
        f"all of it: {out} (report.html, images.csv, loops.csv, results.xlsx, overlays/ (a picture per image), "
        f"rois/ (for ImageJ), {evaluation}summary.json)",
    ]


def _found_in(session: Session, images: pd.DataFrame, loops: pd.DataFrame) -> dict[str, Any]:
    from defectpipe.io.tables import CORRECTION_COUNTS
    from defectpipe.statistics.classes import pooled_classes
    from defectpipe.statistics.pooling import RULES, rule_name
    from defectpipe.statistics.summary import pooled_summary

    plan = session.plan
    failed, good = images[images["status"] == "failed"], images[images["status"] != "failed"]
    found: dict[str, Any] = {
        "pooled": pooled_summary(images, loops, plan.settings),
        "failed": dict(zip(failed["image"], failed["reason"], strict=True)),
        "skipped": dict(session.skipped),
        "grey_range": _grey_ranges(plan),
        "without_pixel_size": sorted(set(good["image"][good["pixel_size_nm"].isna()])),
    }
    if plan.model.classes is not None and plan.model.class_names:
        by_class = folder_classes(plan)
        found["classes"] = pooled_classes(images, by_class, loops, plan.model.classes, plan.settings)
    if plan.focus is not None:
        found["focus"] = _focus(plan, good)
    predicted = images.set_index("image")["predicted_f1"].dropna()
    if len(predicted):
        least = plan.settings.statistics.min_predicted_f1
        low = predicted[predicted < least]
        found["predicted_f1"] = {
            "n_images": len(predicted),
            "median": float(predicted.median()),
            "below": least,
            "n_below": len(low),
            "images_below": sorted(set(low.index)),
        }
    if plan.labels_dir is not None:
        evaluation = read_evaluation(plan)
        found["labels"] = evaluation["labels"]
        rules = [rule_name(rule, plan.settings.statistics) for rule in RULES]
        found["agreement"] = {rule: evaluation[rule] for rule in rules}
    if (corrections := read_corrections(plan)) is not None:
        counts = {name: int(images[name].fillna(0).sum()) for name in CORRECTION_COUNTS}
        found["corrections"] = {
            "images": sorted(corrections.tables),
            **counts,
            "unmatched": list(corrections.unmatched),
            "errors": dict(corrections.errors),
        }
    return found | {
        "settings": plan.settings.to_dict(),
        "model": {
            "name": plan.model.name,
            "sha256": plan.model.sha256,
            "box_convention": plan.model.box_convention,
            "threshold": plan.threshold,
            **({} if plan.model.classes is None else {"classes": plan.model.classes.to_card()}),
        },
        "versions": program_versions(),
    }


def _focus(plan: Plan, good: pd.DataFrame) -> dict[str, Any]:
    """The focus model and its gate, how many images it let through, and which it left out of the pooled figures."""
    assert plan.focus is not None
    gate = plan.focus.gate
    judged = good["focus_gate"].fillna("").astype(str)
    rejected = good[judged == "reject"]
    scores = good["focus_score"].dropna()
    return {
        "model": plan.focus.name,
        "sha256": plan.focus.sha256,
        "reject_below": None if gate is None else gate.reject_below,
        "ok_from": None if gate is None else gate.ok_from,
        "no_gate_because": "" if gate is not None else _no_gate(plan),
        "median_score": float(scores.median()) if len(scores) else None,
        **{f"n_{name}": int((judged == name).sum()) for name in ("ok", "review", "reject")},
        "n_not_calibrated": int((good["focus_state"] == "not_calibrated").sum()),
        "rejected": [
            f"{image}, frame {frame}" if frame else str(image)
            for image, frame in zip(rejected["image"], rejected["frame"], strict=True)
        ],
    }


def _no_gate(plan: Plan) -> str:
    section = plan.model.focus_gate
    if section is None:
        return "the loop model's card has none"
    return str(section.get("skipped", "the loop model's gate was measured with another focus model"))


def _focus_lines(plan: Plan, summary: dict[str, Any]) -> list[str]:
    found = summary.get("focus")
    if found is None:
        unused = plan.model.focus_unused if plan.settings.focus.model == "auto" else ""
        return [f"focus: not assessed, for in the model's training {unused}"] if unused else []
    if found["median_score"] is None:
        return ["focus: no image could be scored"]
    line = f"focus: median score {found['median_score']:.1f} of 10"
    if found["ok_from"] is None:
        return [f"{line}; no gate: {found['no_gate_because']}"]
    lines = [f"{line}; {found['n_ok']} ok, {found['n_review']} to review, {found['n_reject']} rejected"]
    if found["rejected"]:
        lines.append(f"out of focus, so left out of the pooled figures: {_listed(found['rejected'])}")
    return lines


def _size_line(pooled: dict[str, Any]) -> str:
    unit = "nm" if pooled.get("mean_diameter_nm") is not None else "px"
    if pooled.get(f"mean_diameter_{unit}") is None:
        return "no loop that the border leaves whole, so no diameters"
    line = f"mean diameter {_with_interval(pooled, f'mean_diameter_{unit}', unit)}"
    # One loop has a diameter, and no standard deviation.
    if pooled.get(f"std_diameter_{unit}") is None:
        return line
    return f"{line}, std of the diameters {_with_interval(pooled, f'std_diameter_{unit}', unit)}"


def _density_line(pooled: dict[str, Any]) -> str:
    if pooled.get("areal_density_per_m2") is None:
        return "no areal density: no image has a pixel size"
    return f"areal density {_with_interval(pooled, 'areal_density_per_m2', 'per m²')}"


def _label_line(summary: dict[str, Any]) -> str:
    if "labels" not in summary:
        if "predicted_f1" not in summary:
            return "no labels were given: how many loops are missed or false is not known"
        of = summary["predicted_f1"]
        return (
            f"no labels were given; from how the loops score, F1 is predicted to be {of['median']:.2f} in the median "
            f"image, and below {of['below']:g} in {of['n_below']} of {of['n_images']}"
        )
    scores = [
        f"{rule}: recall {of['recall']:.3f}, precision {of['precision']:.3f}"
        for rule, of in summary["agreement"].items()
        if of["recall"] is not None and of["precision"] is not None
    ]
    return f"beside the labels, {'; '.join(scores)}" if scores else "beside the labels: nothing that can be scored"


def _correction_lines(summary: dict[str, Any]) -> list[str]:
    if "corrections" not in summary:
        return []
    found = summary["corrections"]
    lines = [
        f"corrected by people: {len(found['images'])} images; {found['n_moved']} loops moved, "
        f"{found['n_added']} added, {found['n_deleted']} deleted"
    ]
    if found["unmatched"]:
        lines.append(f"corrections without an image: {_listed(found['unmatched'])}")
    return lines


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_LONGEST_LIST])
    return shown if len(names) <= _LONGEST_LIST else f"{shown} and {len(names) - _LONGEST_LIST} more"


def _with_interval(pooled: dict[str, Any], name: str, unit: str) -> str:
    low, high = pooled.get(f"{name}_ci_low"), pooled.get(f"{name}_ci_high")
    interval = "" if low is None or high is None else f" ({pooled['confidence']:.0%} interval {low:.4g} to {high:.4g})"
    return f"{pooled[name]:.4g} {unit}{interval}"


def _time(session: Session) -> dict[str, Any]:
    plan = session.plan
    seconds = [_seconds_of(plan, image) for image in plan.images]
    done = [value for value in seconds if value is not None]
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_seconds": round(time.monotonic() - session.began, 3),
        "images_computed": len(session.agenda.images_done),
        "stages_computed": dict(session.agenda.stages_done),
        "seconds_per_image": round(sum(done) / len(done), 4) if done else None,
        "human_seconds_per_image": plan.settings.statistics.human_seconds_per_image,
    }


def _grey_ranges(plan: Plan) -> dict[str, list[list[float] | None]]:
    """Grey values that became 0 and 255, frame by frame, of the images that are not of 8 bit."""
    found = {}
    for image in plan.images:
        stamp = read_stamp(plan.result("measurement", image).stamp)
        ranges = [facts["grey_range"] for facts in stamp.frames] if stamp is not None else []
        if any(limits is not None for limits in ranges):
            found[image] = ranges
    return found


def _seconds_of(plan: Plan, image: str) -> float | None:
    """Seconds that the stages took, reading and writing included; None for a failed image."""
    stamps = [read_stamp(plan.result(stage, image).stamp) for stage in plan.stages]
    known = [stamp for stamp in stamps if stamp is not None and not stamp.failed]
    return sum(stamp.seconds for stamp in known) if len(known) == len(stamps) else None
