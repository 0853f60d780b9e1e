"""What a run works on: its images, model and settings, the parts they come in, and what each result depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectpipe.errors import DefectpipeError
from defectpipe.io.run_files import STATE_FOLDER, ResultFiles, image_key, result_files
from defectpipe.settings import Settings
from tasks.hashes import HashMemory
from tasks.stamps import Inputs, digest

if TYPE_CHECKING:
    from defectpipe.classes import DefectClasses
    from defectpipe.focus.gate import FocusGate
    from defectpipe.io.folder import ImageFile
    from defectpipe.statistics.predicted_f1 import F1Predictor
    from tasks.options import RunOptions

STAGES = ("candidates", "screening", "measurement")
FOCUS = "focus"
OBJECTS = "objects"
# The stage whose results each takes.
BEFORE = {
    "screening": "candidates",
    "measurement": "screening",
    "statistics": "measurement",
    "overlays": "measurement",
    "exports": "measurement",
}
IMAGES_PER_SHARD = 64
MAX_SHARDS = 128
# Before the name of a model's file, in what a result depends on.
MODEL_PART = "model: "


@dataclass(frozen=True)
class ModelInfo:
    """A model as far as the tasks need to know it."""

    path: Path
    name: str
    sha256: str
    box_convention: str
    uses_pixel_size: bool
    decisive: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threshold: float | None = None
    focus_gate: Mapping[str, Any] | None = None
    predictor: F1Predictor | None = None
    working_pixel_size_nm: float | None = None
    classes: DefectClasses | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of defects that it tells apart; none where it knows but one."""
        return [] if self.classes is None else self.classes.told_apart

    @property
    def focus_unused(self) -> str:
        """Why its training could not use the focus model that was wanted; empty where it could, or none was."""
        gate = self.focus_gate
        return str(gate["skipped"]) if gate and gate["focus_model"]["sha256"] is None else ""

    @property
    def shown_name(self) -> str:
        """Its folder as people know it, such as ``models/NAME``."""
        return "/".join(self.path.parts[-2:])


@dataclass(frozen=True)
class FocusInfo:
    """The focus model of a run, and what its scores mean for the loop model; no gate: that was not measured."""

    path: Path
    name: str
    sha256: str
    gate: FocusGate | None


@dataclass(frozen=True, eq=False)
class Plan:
    """The images of one folder with everything that decides what becomes of them.

    Parameters
    ----------
    output_dir : Path
    images : mapping of str to ImageFile
        By name, sorted.
    hashes : mapping of str to str
        Image to the hash of its file; empty where it cannot be read.
    companion_hashes : mapping of str to str
        Image to the hash of the files that belong to it; no entry where there are none.
    label_hashes : mapping of str to str
        Label file to the hash of its content.
    labels_dir : Path or None
    label_format : str or None
    pixel_sizes : mapping of str to float
        From ``pixel_sizes.csv``.
    pixel_size_nm : float or None
        The argument.
    model : ModelInfo
    settings : Settings
    corrections_dir : Path or None
        None where nobody has corrected anything.
    focus : FocusInfo or None
        None where focus is not assessed.
    """

    output_dir: Path
    images: Mapping[str, ImageFile]
    hashes: Mapping[str, str]
    companion_hashes: Mapping[str, str]
    label_hashes: Mapping[str, str]
    labels_dir: Path | None
    label_format: str | None
    pixel_sizes: Mapping[str, float]
    pixel_size_nm: float | None
    model: ModelInfo
    settings: Settings
    corrections_dir: Path | None = None
    focus: FocusInfo | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that an image goes through."""
        return STAGES if self.focus is None else (*STAGES, FOCUS)

    @property
    def state_dir(self) -> Path:
        """Where everything lives that is not for people."""
        return self.output_dir / STATE_FOLDER

    @cached_property
    def shards(self) -> list[list[str]]:
        """Image names in parts of about `IMAGES_PER_SHARD`: a power of two of them, by hash, so that parts stay put."""
        n = 1
        while n < MAX_SHARDS and n * IMAGES_PER_SHARD < len(self.images):
            n *= 2
        shards: list[list[str]] = [[] for _ in range(n)]
        for image in self.images:
            shards[int(image_key(image)[:8], 16) % n].append(image)
        return shards

    @property
    def threshold(self) -> float | None:
        """The screening score from which a candidate counts as a loop: the settings', else that of the model's card."""
        given = self.settings.screening.threshold
        return self.model.threshold if given is None else given

    def result(self, stage: str, image: str) -> ResultFiles:
        """Where the result of one image is; independent of the other images and of how the names sort or look."""
        return result_files(self.output_dir, stage, image)

    def inputs(self, stage: str, image: str) -> Inputs:
        """What the result of one stage for one image depends on."""
        if stage == FOCUS:
            return self._focus_inputs(image)
        if stage == OBJECTS:
            return self._objects_inputs(image)
        from defectpipe.analysis import ANALYSIS_VERSION

        parts: dict[str, Any] = {"stage": stage, "algorithm": ANALYSIS_VERSION[stage]}
        pixel_size = self.pixel_size_of(image)
        if stage == "candidates":
            parts |= {"image": self.hashes[image]}
            parts |= self.settings_of("reading") | self.settings_of("tiling") | self.settings_of("detection")
            if image in self.companion_hashes:
                parts["file beside the image"] = self.companion_hashes[image]
            if self.model.uses_pixel_size:
                parts["pixel size"] = pixel_size
        elif stage == "screening":
            parts |= {"upstream": self.inputs("candidates", image).fingerprint} | self.settings_of("screening")
        elif stage == "measurement":
            parts |= {"upstream": self.inputs("screening", image).fingerprint} | self.settings_of("measurement")
            parts["pixel size"] = pixel_size
        else:
            raise ValueError(f"no stage {stage!r}")
        parts |= {f"{MODEL_PART}{name}": value for name, value in self.model.decisive[stage].items()}
        return Inputs(parts, {"pixel size": pixel_size})

    def _focus_inputs(self, image: str) -> Inputs:
        from defectpipe.focus.assessment import FOCUS_VERSION

        assert self.focus is not None
        pixel_size = self.pixel_size_of(image)
        parts: dict[str, Any] = {"stage": FOCUS, "algorithm": FOCUS_VERSION, "image": self.hashes[image]}
        parts |= self.settings_of("reading") | {"pixel size": pixel_size, "focus model": self.focus.sha256}
        if image in self.companion_hashes:
            parts["file beside the image"] = self.companion_hashes[image]
        return Inputs(parts, {"pixel size": pixel_size})

    def _objects_inputs(self, image: str) -> Inputs:
        from defectpipe.recognition.analysis import RECOGNITION_VERSION

        pixel_size = self.pixel_size_of(image)
        parts: dict[str, Any] = {"stage": OBJECTS, "algorithm": RECOGNITION_VERSION, "image": self.hashes[image]}
        parts |= self.settings_of("reading") | {"pixel size": pixel_size, "model": self.model.sha256}
        if image in self.companion_hashes:
            parts["file beside the image"] = self.companion_hashes[image]
        return Inputs(parts, {"pixel size": pixel_size})

    def focus_parts(self, shard: int) -> dict[str, Any]:
        """What the tables of one part of the folder depend on besides its loops: the focus scores, and their gate."""
        if self.focus is None:
            return {}
        scores = digest({image: self.inputs(FOCUS, image).fingerprint for image in self.shards[shard]})
        gate = self.focus.gate
        return {"focus": scores, "focus gate": None if gate is None else dataclasses.asdict(gate)}

    @property
    def class_parts(self) -> dict[str, Any]:
        """The model's classes, as what depends on them depends; nothing where it knows but one."""
        classes = self.model.classes
        return {"classes": digest(classes.to_card())} if classes is not None and classes.several else {}

    def pixel_size_of(self, image: str) -> list[Any] | None:
        """The pixel size given beside the image's own metadata, with its source; None where none is."""
        from defectpipe.io.micrographs.pixel_sizes import given_size

        given = given_size(image, self.pixel_sizes)
        if given is not None:
            return [given, "pixel_sizes.csv"]
        return None if self.pixel_size_nm is None else [self.pixel_size_nm, "argument"]

    def shard_fingerprint(self, shard: int) -> str:
        """Hash of everything that the measured loops of one part depend on."""
        return digest({image: self.inputs("measurement", image).fingerprint for image in self.shards[shard]})

    def settings_of(self, section: str) -> dict[str, Any]:
        """The settings of a section as parts of what a result depends on, by their full names."""
        values = dataclasses.asdict(getattr(self.settings, section))
        return {f"settings.{section}.{name}": value for name, value in values.items()}


def make_plan(options: RunOptions, threads: int) -> Plan:
    """List and hash the folder's files, and find the model.

    Raises
    ------
    DefectpipeError
        The folder holds no image, or the model is missing.
    """
    from defectpipe.io.folder import list_images
    from defectpipe.io.micrographs import read_pixel_sizes

    files = {file.image: file for file in list_images(options.input_dir, options.no_input)}
    if not files:
        raise DefectpipeError(f"{options.input_dir}: no file in this folder looks like a micrograph.")
    labels = _label_files(options.labels_dir)
    belonging = {image: _companions(file.path) for image, file in files.items()}
    wanted = {file.path for file in files.values()} | {p for paths in belonging.values() for p in paths}
    memory = HashMemory(options.output_dir / STATE_FOLDER / "hashes.json", options.verify)
    known = memory.hash_files(sorted(wanted | set(labels.values())), threads)
    model = find_solid_info(options.model) if options.of_solids else find_model_info(options.model)
    return Plan(
        output_dir=options.output_dir,
        images=files,
        hashes={image: known[file.path] for image, file in files.items()},
        companion_hashes={
            image: digest([known[path] for path in paths]) for image, paths in belonging.items() if paths
        },
        label_hashes={name: known[path] for name, path in labels.items()},
        labels_dir=options.labels_dir,
        label_format=options.label_format,
        pixel_sizes=read_pixel_sizes(options.input_dir, files),
        pixel_size_nm=options.pixel_size_nm,
        model=model,
        settings=options.settings,
        corrections_dir=options.corrections_dir if _holds_files(options.corrections_dir) else None,
        focus=find_focus_info(options.settings.focus.model, model),
    )


def find_model_info(name: str) -> ModelInfo:
    """A model by name (in ``models/`` of the working directory, or built in) or by path."""
    from defectpipe.model import LoopModel, find_model

    path = find_model(name, [Path.cwd() / "models"])
    model = LoopModel.load(path)
    uses_pixel_size = model.working_pixel_size_nm is not None
    decisive = {stage: model.decisive(stage) for stage in STAGES}
    return ModelInfo(
        path,
        model.name,
        model.sha256,
        model.box_convention,
        uses_pixel_size,
        decisive,
        model.threshold,
        model.focus_gate,
        model.f1_predictor,
        model.working_pixel_size_nm,
        model.classes,
    )


def find_solid_info(name: str) -> ModelInfo:
    """A model of solids, found as loop models are."""
    from defectpipe.model import find_model
    from defectpipe.recognition.model import SolidModel

    model = SolidModel.load(find_model(name, [Path.cwd() / "models"]))
    return ModelInfo(model.path, model.name, model.sha256, box_convention="", uses_pixel_size=True)


def find_focus_info(wanted: str, model: ModelInfo) -> FocusInfo | None:
    """The focus model that a setting asks for (see `FocusSettings`), with the loop model's gate if that is of it.

    None also where the loop model's training could not use its focus model: what is named there may never have existed.

    Raises
    ------
    ModelError
        There is no such model.
    """
    if wanted == "none" or (wanted == "auto" and (model.focus_gate is None or model.focus_unused)):
        return None
    from defectpipe.focus.gate import FocusGate
    from defectpipe.focus.model import FocusModel
    from defectpipe.model import find_model

    name = model.focus_gate["focus_model"]["name"] if wanted == "auto" and model.focus_gate else wanted
    # A model trained beside its focus model finds it there.
    path = find_model(name, [Path.cwd() / "models", model.path.parent])
    focus = FocusModel.load(path)
    gate = FocusGate.of_card({"focus_gate": model.focus_gate}, focus.sha256)
    return FocusInfo(path, focus.name, focus.sha256, gate)


def _companions(path: Path) -> list[Path]:
    """Files beside an image that its reader looks into: JEOL's text, the other half of an EMI/SER pair."""
    suffixes = {".tif": (".txt",), ".tiff": (".txt",), ".ser": (".emi",)}.get(path.suffix.lower(), ())
    return [path.with_suffix(suffix) for suffix in suffixes if path.with_suffix(suffix).is_file()]


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def _label_files(labels: Path | None) -> dict[str, Path]:
    if labels is None:
        return {}
    if labels.is_file():
        return {labels.name: labels}
    found = (path for path in sorted(labels.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(labels).as_posix(): path for path in found}
