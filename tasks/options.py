"""The parameters of a run, checked, with every default filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from defectpipe.errors import DefectpipeError, SettingsError
from defectpipe.settings import Settings

DEFAULT_MODEL = "fecral-loops"
DEMO_FOLDER = "demo"
CORRECTIONS_FOLDER = "corrections"
DEMO_IMAGES = 6
DEMO_SEED = 1


@dataclass(frozen=True)
class RunOptions:
    """What a run was asked for; paths absolute. See the contract for what each means.

    `of_solids`: the model is one of solids, not of loops.
    """

    input_dir: Path
    output_dir: Path
    labels_dir: Path | None
    label_format: str | None
    model: str
    pixel_size_nm: float | None
    engine: str
    n_jobs: int
    settings: Settings
    verify: bool
    is_demonstration: bool = False
    given_corrections_dir: Path | None = None
    of_solids: bool = False

    @property
    def corrections_dir(self) -> Path:
        """Where people put their corrections; nothing is ever written there."""
        return self.given_corrections_dir or self.output_dir / CORRECTIONS_FOLDER

    @property
    def no_input(self) -> list[Path]:
        """Folders and files that are not micrographs to analyse, wherever they lie."""
        given = [self.output_dir, self.labels_dir, self.given_corrections_dir]
        return [path for path in given if path is not None]


def resolve_options(
    *,
    input_dir: str,
    output_dir: str,
    labels_dir: str,
    label_format: str,
    model: str,
    pixel_size_nm: float | None,
    engine: str,
    n_jobs: int,
    settings: str,
    verify: bool,
    corrections_dir: str = "",
) -> RunOptions:
    """Parameters as given (empty: not given) to options.

    Raises
    ------
    DefectpipeError
        Something given is missing, out of range, or does not go together.
    """
    demonstration = not input_dir
    source = Path(input_dir or DEMO_FOLDER).expanduser().resolve()
    if not demonstration and not source.is_dir():
        raise DefectpipeError(f"--input-dir {input_dir}: there is no such folder.")
    output = Path(output_dir).expanduser().resolve() if output_dir else default_output(source)
    if output == source or output in source.parents:
        raise DefectpipeError(f"--output-dir {output}: it holds the input; results need a folder of their own.")
    labels = Path(labels_dir).expanduser().resolve() if labels_dir else None
    if labels is not None and not labels.exists():
        raise DefectpipeError(f"--labels-dir {labels_dir}: there is no such folder or file.")
    corrections = Path(corrections_dir).expanduser().resolve() if corrections_dir else None
    if corrections is not None and not corrections.is_dir():
        raise DefectpipeError(f"--corrections-dir {corrections_dir}: there is no such folder.")
    if pixel_size_nm is not None and not (math.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise SettingsError(f"--pixel-size-nm {pixel_size_nm}: a pixel size is a positive number of nm.")
    return RunOptions(
        input_dir=source,
        output_dir=output,
        labels_dir=labels,
        label_format=label_format or None,
        model=model or DEFAULT_MODEL,
        pixel_size_nm=pixel_size_nm,
        engine=engine,
        n_jobs=n_jobs,
        settings=Settings.read(Path(settings).expanduser()) if settings else Settings(),
        verify=verify,
        is_demonstration=demonstration,
        given_corrections_dir=corrections,
    )


def default_output(source: Path) -> Path:
    """Where the results of a folder of images go unless they are told where."""
    return source.with_name(source.name + "-defects")


def simulate_demonstration(options: RunOptions) -> RunOptions:
    """Make the demonstration folder unless it is there, and point the options at its images and labels.

    Raises
    ------
    DefectpipeError
        A folder of that name is there, and is something else.
    """
    from defectpipe.simulation.dataset import IMAGES_FOLDER, LABELS_FILE, simulate_dataset

    folder = options.input_dir
    if not (folder / "manifest.json").is_file():
        if folder.exists() and any(folder.iterdir()) and not (folder / IMAGES_FOLDER).is_dir():
            raise DefectpipeError(
                f"{folder}: the demonstration is written here, but the folder holds something else. "
                "Start from another folder, or give --input-dir."
            )
        simulate_dataset("loops", n=DEMO_IMAGES, seed=DEMO_SEED, preset="demo", output_dir=folder)
    labels = options.labels_dir or folder / LABELS_FILE
    return replace(options, input_dir=folder / IMAGES_FOLDER, labels_dir=labels)
