"""The output folder of a run: its tables, what it kept of each image, its labels and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defectpipe.analysis import measure_loops
from defectpipe.classes import DefectClasses
from defectpipe.errors import ModelError, RunFolderError
from defectpipe.focus.gate import FocusGate, judged_frames
from defectpipe.io.labels import read_label_folder
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.run_files import STATE_FOLDER, result_files
from defectpipe.io.tables import images_table, loops_table, read_csv, read_parquet
from defectpipe.micrograph import Micrograph
from defectpipe.model import CARD, LoopModel, find_model
from defectpipe.report.overlays import draw_overlay
from defectpipe.settings import Settings
from defectpipe.statistics import reference_expert
from defectpipe.statistics.agreement import LABELLED_FRAME
from defectpipe.statistics.predicted_f1 import F1Predictor

_BOX_COLUMNS = ["x0_px", "y0_px", "x1_px", "y1_px"]
Labels = Mapping[str, Mapping[str, pd.DataFrame]]


@dataclass(frozen=True, eq=False)
class RunFolder:
    """The output folder of a run.

    Attributes
    ----------
    path : Path
    images, loops : DataFrame
        ``images.csv`` and ``loops.csv``, as they are.
    summary : dict
        ``summary.json``.
    settings : Settings
        Of the run.
    evaluation : dict or None
        ``evaluation.json``; None: the run had no labels.
    input_dir, labels_dir : Path or None
        Where the images and labels are now.
    model_name : str
        Name or path of the run's model.
    """

    path: Path
    images: pd.DataFrame
    loops: pd.DataFrame
    summary: dict[str, Any]
    settings: Settings
    evaluation: dict[str, Any] | None
    input_dir: Path
    labels_dir: Path | None
    model_name: str
    _cache: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        input_dir: Path | str | None = None,
        labels_dir: Path | str | None = None,
        model: Path | str | None = None,
    ) -> RunFolder:
        """Read the tables of a run.

        Parameters
        ----------
        path : Path
            Output folder of ``RunAll``.
        input_dir, labels_dir, model : Path, optional
            Where they are now, if they were moved since. Default: as ``summary.json`` says.

        Raises
        ------
        RunFolderError
            The folder is no output of a run that came to its end.
        """
        path = Path(path)
        missing = [name for name in ("images.csv", "loops.csv", "summary.json") if not (path / name).is_file()]
        if missing:
            raise RunFolderError(
                f"{path}: this is not the output folder of a finished run ({', '.join(missing)} missing); "
                "give the folder that RunAll wrote, such as my-folder-defects."
            )
        try:
            summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
            run, settings = summary["run"], Settings.from_dict(summary["settings"], str(path / "summary.json"))
            evaluation = path / "evaluation.json"
            labels = labels_dir or run["labels_dir"]
            return cls(
                path=path,
                images=images_table(read_csv(path / "images.csv")),
                loops=loops_table(read_csv(path / "loops.csv")),
                summary=summary,
                settings=settings,
                evaluation=json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else None,
                input_dir=Path(input_dir or run["input_dir"]),
                labels_dir=Path(labels) if labels else None,
                model_name=str(model or _model_of(summary)),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise RunFolderError(f"{path}: its tables or its summary.json cannot be read ({error!r}).") from error

    @cached_property
    def threshold(self) -> float:
        """The screening score from which a candidate counted as a loop in the run."""
        given = self.settings.screening.threshold
        given = self.summary["model"].get("threshold") if given is None else given
        return self.model.threshold if given is None else float(given)

    @property
    def box_convention(self) -> str:
        """Convention of the boxes of loops and candidates: ``tight`` or ``padded``."""
        return str(self.summary["model"]["box_convention"])

    @property
    def classes(self) -> DefectClasses:
        """The classes of defects that the run's model tells apart."""
        return DefectClasses.of(self.summary["model"].get("classes"))

    @cached_property
    def model(self) -> LoopModel:
        """The run's model.

        Raises
        ------
        ModelError
            It is not found, or is another one by now.
        """
        found = LoopModel.load(find_model(self.model_name, [Path.cwd() / "models"]))
        if found.sha256 != self.summary["model"]["sha256"]:
            raise ModelError(f"{found.path}: this is not the model that the run was made with; give its path as model.")
        return found

    @cached_property
    def predictor(self) -> F1Predictor | None:
        """What predicted the F1 of the images; None where the model does not, or is not at hand."""
        try:
            return self.model.f1_predictor
        except ModelError:
            return None

    @cached_property
    def labels(self) -> Labels:
        """Labels by expert and image, boxes tight; empty where the run had none.

        Raises
        ------
        LabelError
            They are no longer where they were.
        """
        if self.labels_dir is None:
            return {}
        first = [(image, self.frame_facts(image)[0]) for image in self.analysed]
        shapes = [(image, (facts["height_px"], facts["width_px"])) for image, facts in first]
        given = self.settings.labels
        label_format = self.summary["run"]["label_format"]
        return read_label_folder(
            self.labels_dir, shapes, label_format=label_format, box_convention=given.box_convention, clip=given.clip
        ).experts

    def labels_of(self, image: str) -> pd.DataFrame | None:
        """The labels that stand beside an image in ``images.csv``; None: it was not labelled."""
        expert = reference_expert(self.labels, image)
        return None if expert is None else self.labels[expert][image]

    @cached_property
    def screened(self) -> pd.DataFrame:
        """Every candidate with a screening score, kept or not.

        Returns
        -------
        DataFrame
            ``image``, ``frame``, box, ``detection_score``, ``screening_score``, ``kept``.
        """
        tables = [self._stored("screening", image).assign(image=image) for image in self.analysed]
        columns = ["image", "frame", *_BOX_COLUMNS, "detection_score", "screening_score", "kept"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)

    def screened_in(self, image: str, frame: int) -> pd.DataFrame:
        """The rows of `screened` of one frame."""
        return self.screened.iloc[self._screened_rows.get((image, frame), [])]

    @cached_property
    def _screened_rows(self) -> dict[Any, Any]:
        return dict(self.screened.groupby(["image", "frame"]).indices)

    def micrograph(self, image: str, frame: int = 0) -> Micrograph:
        """An image as the run read it.

        Raises
        ------
        RunFolderError
            The folder of images is gone, or the image was not analysed.
        MicrographError
            The image cannot be read.
        """
        if not self.input_dir.is_dir():
            raise RunFolderError(
                f"{self.input_dir}: the run's images are no longer here; give their folder as input_dir."
            )
        facts = {facts["frame"]: facts for facts in self.frame_facts(image)}
        if frame not in facts:
            raise RunFolderError(f"{image}: it has no frame {frame} that was analysed.")
        size, source = facts[frame]["pixel_size_nm"], facts[frame]["pixel_size_source"]
        reading = self.settings.reading
        frames = read_micrographs(
            self.input_dir / image,
            image=image,
            pixel_sizes={image: size} if source == "pixel_sizes.csv" else None,
            pixel_size_nm=size if source == "argument" else None,
            colour=reading.colour,
            max_pixels=reading.max_pixels,
            data_bar=reading.data_bar,
            crop_px=(reading.crop_top_px, reading.crop_bottom_px),
            in_file_above_px=int(self.settings.tiling.above_megapixels * 1e6),
        )
        return frames[frame]

    def overlay(
        self, image: str, loops: pd.DataFrame | None = None, frame: int = 0, *, candidates_below: float | None = None
    ) -> np.ndarray:
        """The picture of an image with its loops and labels.

        Parameters
        ----------
        image : str
        loops : DataFrame, optional
            Rows as in ``loops.csv``, of this image and others. Default: the run's.
        frame : int
        candidates_below : float, optional
            Candidates of a lower screening score are drawn as well, as faint boxes.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            As `draw_overlay`.
        """
        others = None
        if candidates_below is not None:
            others = _of(self.screened, image, frame)
            others = others[others["screening_score"] < candidates_below]
        return draw_overlay(
            self.micrograph(image, frame),
            _of(self.loops if loops is None else loops, image, frame),
            labels=self.labels_of(image) if frame == LABELLED_FRAME else None,
            candidates=others,
            box_convention=self.box_convention,
            classes=self.classes.told_apart,
        )

    @property
    def analysed(self) -> list[str]:
        """Names of the images that did not fail, in the order of ``images.csv``."""
        return list(dict.fromkeys(self.images["image"][self.images["status"] != "failed"]))

    def frame_facts(self, image: str) -> list[dict[str, Any]]:
        """What the run noted of each frame of an image, its focus included: see `image_row`.

        Raises
        ------
        RunFolderError
            The run's own files are gone.
        """
        key = ("facts", image)
        if key not in self._cache:
            focus: dict[int, dict[str, Any]] = {}
            if "focus" in self.summary:
                focus = judged_frames(self._frames("focus", image), self._focus_gate)
            frames = self._frames("measurement", image)
            self._cache[key] = [facts | focus.get(facts["frame"], {}) for facts in frames]
        return list(self._cache[key])

    @property
    def _focus_gate(self) -> FocusGate | None:
        used = self.summary["focus"]
        return None if used["ok_from"] is None else FocusGate(used["reject_below"], used["ok_from"])

    def _frames(self, stage: str, image: str) -> list[dict[str, Any]]:
        """What a stage noted of each frame; none where it failed."""
        try:
            return list(json.loads(result_files(self.path, stage, image).stamp.read_text(encoding="utf-8"))["frames"])
        except (OSError, ValueError, KeyError) as error:
            raise self._gone(image) from error

    def measured(self, image: str, down_to: float) -> pd.DataFrame:
        """The loops of an image at full precision, measured, down to a screening score, or further.

        What the run did not measure, because its score is below the run's threshold, is measured now, once.

        Raises
        ------
        RunFolderError, MicrographError, ModelError
            The run's own files, the image or the model are gone, and are needed.
        """
        kept = loops_table(self._stored("measurement", image))
        if down_to >= self.threshold:
            return kept
        key = ("below", image)
        if key not in self._cache:
            screened = self._stored("screening", image)
            refused = screened.assign(kept=~screened["kept"])
            frames = [int(frame) for frame in np.unique(refused["frame"][refused["kept"]])]
            added = [
                measure_loops(
                    self.micrograph(image, frame), refused[refused["frame"] == frame], self.model, self.settings
                )
                for frame in frames
            ]
            everything = pd.concat([kept, *added], ignore_index=True)
            # Reading order, as in the run.
            order = ["frame", "y_px", "x_px"]
            self._cache[key] = loops_table(everything.sort_values(order, kind="stable", ignore_index=True))
        return self._cache[key]

    def _stored(self, stage: str, image: str) -> pd.DataFrame:
        key = (stage, image)
        if key not in self._cache:
            try:
                self._cache[key] = read_parquet(result_files(self.path, stage, image).table)
            except OSError as error:
                raise self._gone(image) from error
        return self._cache[key]

    def _gone(self, image: str) -> RunFolderError:
        return RunFolderError(f"{self.path}: what the run kept of {image} in {STATE_FOLDER} is gone; run it again.")


def _model_of(summary: Mapping[str, Any]) -> str:
    """Where the run had its model, if it is still there; else its name."""
    where = summary["run"].get("model_dir")
    return str(where) if where and (Path(where) / CARD).is_file() else str(summary["model"]["name"])


def _of(table: pd.DataFrame, image: str, frame: int) -> pd.DataFrame:
    return table[(table["image"] == image) & (table["frame"] == frame)]
