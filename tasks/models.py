"""Making models and data sets: what a run over a folder takes for granted."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import luigi

from defectpipe.errors import DefectpipeError
from defectpipe.settings import Settings
from tasks.engine import usable_cores
from tasks.hashes import HashMemory
from tasks.logs import Progress, logger, set_up_terminal
from tasks.register import refuse_unknown_keys
from tasks.stamps import Inputs, Stamp, digest, read_stamp, write_stamp
from tasks.training_set import TrainingFolder, find_training_folder, read_training_images

if TYPE_CHECKING:
    from defectpipe.training import TrainingImage
    from defectpipe.training.model_before import ModelBefore
    from defectpipe.training.start import StartModel

TRAINING_VERSION = 1
FROM_SCRATCH = "none"


class MakingTask(luigi.Task):
    """A task that makes one thing; what the user has to put right counts as a failed task, with one sentence."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Parameters that have to be given: Luigi itself would meet a missing one with a traceback."""
        return ()

    def make(self) -> None:
        """Make it."""

    def is_made(self) -> bool:
        """Whether it is there, made from these parameters and this input."""
        return False

    def complete(self) -> bool:
        """As Luigi asks."""
        try:
            set_up_terminal()
            self._look()
            return self.is_made()
        except DefectpipeError:
            # `run` meets the same error, and says it.
            return False

    def run(self) -> None:
        """As Luigi asks."""
        self._look()
        self.make()

    def _look(self) -> None:
        refuse_unknown_keys()
        missing = [name for name in self.needed if not getattr(self, name)]
        if missing:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            raise DefectpipeError(f"{type(self).__name__} needs {options} as well.")


class TrainModel(MakingTask):
    """Cascade and screener trained on a folder of images and labels, cross-validated by group."""

    images_dir = luigi.Parameter(default="", description="folder of micrographs")
    labels_dir = luigi.Parameter(default="", description="their labels: a folder that mirrors the images, or one file")
    label_format = luigi.Parameter(default="", description="format of the labels, where they could be two things")
    corrections = luigi.Parameter(
        default="", description="corrections of a run, as in OUTPUT/corrections, to learn from"
    )
    name = luigi.Parameter(default="", description="name of the model")
    groups = luigi.Parameter(default="", description="CSV file: image, group, and fold if folds are given")
    models_dir = luigi.Parameter(default="models", description="folder of models; the model is a folder in it")
    recipe = luigi.Parameter(default="", description="JSON file that changes the training's recipe")
    start_from = luigi.Parameter(
        default="",
        description="name or path of the model to start from; none: from scratch; default: from scratch, with "
        "--corrections the model of the corrected run",
    )
    settings = luigi.Parameter(default="", description="JSON file of settings")
    seed = luigi.IntParameter(default=0, description="seed of everything random")
    n_jobs = luigi.IntParameter(default=0, description="parts trained at once; 0: one a core")

    @property
    def needed(self) -> tuple[str, ...]:
        """Labels, too, unless there are corrections to learn from."""
        return ("images_dir", "name") if self.corrections else ("images_dir", "labels_dir", "name")

    @cached_property
    def folder(self) -> TrainingFolder:
        """The images and labels, as far as they can be known without reading them."""
        return find_training_folder(self.images_dir, self.labels_dir, self.groups, self.corrections)

    def is_made(self) -> bool:
        """Whether the model is there, and was trained from just this."""
        stamp = read_stamp(self._stamp())
        return stamp is not None and self._target().is_dir() and not stamp.stale_because(self._inputs())

    def make(self) -> None:
        """Train, then stamp the model."""
        from defectpipe.model import LoopModel
        from defectpipe.training import train_loop_model
        from defectpipe.training.gain import gain_sentence

        if self._target().exists() and read_stamp(self._stamp()) is None:
            raise DefectpipeError(f"{self._target()}: there is a model of this name already; give another --name.")
        settings = Settings.read(Path(self.settings)) if self.settings else Settings()
        images = read_training_images(self.folder, self.label_format or None, settings)
        recipe, n_jobs = Path(self.recipe) if self.recipe else None, self.n_jobs or None
        models, run = Path(self.models_dir), self.folder.corrections
        before = None if run is None else run.model_before(models)
        start = self._start(before, images)
        if start is not None and start.path == self._target().resolve():
            raise DefectpipeError(f"The training starts from '{start.name}' itself: give the new model another --name.")
        # Says that the model is this task's, and vouches for nothing.
        write_stamp(self._stamp(), Stamp({}))
        path = train_loop_model(
            images, self.name, models, recipe=recipe, seed=self.seed, n_jobs=n_jobs, before=before, start=start
        )
        write_stamp(self._stamp(), Stamp(self._inputs().parts))
        trained = LoopModel.load(path)
        if (gate := trained.focus_gate) and "skipped" in gate:
            logger.info("no focus gate: %s", gate["skipped"])
        if (gain := trained.card.get("gain_from_corrections")) is not None:
            logger.info("%s", gain_sentence(gain))
        if (said := trained.card.get("started_from")) is not None:
            logger.info("%s", said["said"])
        logger.info("the model is in %s; its figures are in card.json", path)

    @property
    def _places(self) -> list[Path]:
        """Folders of models."""
        return [Path(self.models_dir), Path.cwd() / "models"]

    @cached_property
    def _named_start(self) -> StartModel | None:
        """The model of `start_from`; None where it names none."""
        from defectpipe.training.start import StartModel

        named = self.start_from not in ("", FROM_SCRATCH)
        return StartModel.find(self.start_from, self._places) if named else None

    def _start(self, before: ModelBefore | None, images: list[TrainingImage]) -> StartModel | None:
        from defectpipe.training.start import StartModel

        if self._named_start is not None or self.start_from == FROM_SCRATCH or before is None:
            return self._named_start
        recipe = Path(self.recipe) if self.recipe else None
        start, said = StartModel.for_corrections(
            before, [i.micrograph for i in images], [i.group for i in images], recipe, self._places
        )
        logger.info("%s", said)
        return start

    def _target(self) -> Path:
        return Path(self.models_dir) / self.name

    def _stamp(self) -> Path:
        return Path(self.models_dir) / ".defectpipe" / f"{self.name}.json"

    def _inputs(self) -> Inputs:
        memory = HashMemory(Path(self.models_dir) / ".defectpipe" / f"{self.name}.hashes.json")
        texts = [Path(name) for name in (self.groups, self.recipe, self.settings) if name]
        known = memory.hash_files([*self.folder.files(), *texts], usable_cores())
        content = {path.as_posix(): value for path, value in known.items()}
        given = {"label_format": self.label_format, "seed": self.seed}
        if self.folder.corrections is not None:
            given["model before"] = digest(self.folder.corrections.model())
            given["start"] = self.start_from
        if self._named_start is not None:
            given["start"] = self._named_start.sha256
        return Inputs({"training": TRAINING_VERSION, "files": digest(content)} | given)


class SimulateDataset(MakingTask):
    """A folder of simulated micrographs with exact truth."""

    kind = luigi.ChoiceParameter(default="loops", choices=["loops", "solids", "sem"], description="what is simulated")
    n = luigi.IntParameter(default=6, description="number of images")
    seed = luigi.IntParameter(default=1, description="seed; the same seed gives the same bytes")
    preset = luigi.Parameter(default="", description="named settings of the simulation; default: the first of the kind")
    n_jobs = luigi.IntParameter(default=0, significant=False, description="processes; 0: all cores")
    output_dir = luigi.Parameter(default="", description="folder of the data set")

    @property
    def needed(self) -> tuple[str, ...]:
        """Where it goes."""
        return ("output_dir",)

    def is_made(self) -> bool:
        """Whether this very set is there."""
        stamp = read_stamp(self._stamp())
        made = (Path(self.output_dir) / "manifest.json").is_file()
        return made and stamp is not None and not stamp.stale_because(self._inputs())

    def make(self) -> None:
        """Simulate."""
        from defectpipe.simulation.dataset import simulate_dataset

        if self.n < 1 or self.seed < 0:
            raise DefectpipeError(f"--n {self.n} --seed {self.seed}: at least one image, and a seed of at least 0.")
        progress = Progress()
        progress.expect("simulation", self.n)
        manifest = simulate_dataset(
            self.kind,
            self.n,
            self.seed,
            self.preset,
            self.output_dir,
            progress=lambda _done, _n: progress.step("simulation"),
            n_jobs=self.n_jobs or usable_cores(),
        )
        progress.close()
        write_stamp(self._stamp(), Stamp(self._inputs().parts))
        logger.info("%d images with their truth are in %s", self.n, manifest.parent)

    def _stamp(self) -> Path:
        return Path(self.output_dir) / ".defectpipe" / "simulation.json"

    def _inputs(self) -> Inputs:
        from defectpipe.simulation.dataset import SIMULATION_VERSION
        from defectpipe.simulation.kinds import find_preset

        given = {
            "kind": self.kind,
            "n": self.n,
            "seed": self.seed,
            "preset": find_preset(self.kind, self.preset).sha256(),
        }
        return Inputs({"simulation": SIMULATION_VERSION} | given)
