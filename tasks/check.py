"""A look at a folder before anything is computed: at the start of every run, and by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import luigi

from defectpipe.errors import DefectpipeError
from tasks.logs import logger, set_up_terminal
from tasks.options import RunOptions, resolve_options
from tasks.register import refuse_unknown_keys

if TYPE_CHECKING:
    from defectpipe.io.preflight import Preflight


class RefusedFilesError(DefectpipeError):
    """A run would refuse files of the folder, or could not begin."""


class CheckFolder(luigi.Task):
    """What a run would meet in a folder, found out in seconds; nothing is computed, and nothing on disk changes."""

    input_dir = luigi.Parameter(default="", description="folder of micrographs")
    output_dir = luigi.Parameter(default="", description="folder of the results; default: INPUT-defects beside it")
    labels_dir = luigi.Parameter(default="", description="labels: a folder that mirrors the input, or one file")
    label_format = luigi.Parameter(default="", description="format of the labels, where they could be two things")
    pixel_size_nm = luigi.OptionalFloatParameter(default=None, description="pixel size of all images, in nm")
    settings = luigi.Parameter(default="", description="JSON file of settings, or the summary.json of a run")

    _has_run = False

    def complete(self) -> bool:
        """As Luigi asks: whether it has just run."""
        set_up_terminal()
        return self._has_run

    def run(self) -> None:
        """As Luigi asks."""
        refuse_unknown_keys()
        if not self.input_dir:
            # A run would simulate its demonstration, which is nothing to look at beforehand.
            raise DefectpipeError("--input-dir: give the folder to look at.")
        given = {name: getattr(self, name) for name, _ in self.get_params()}
        found = look_at(resolve_options(**given, model="", engine="inline", n_jobs=1, verify=False))
        if found.n_refused:
            raise RefusedFilesError(f"would be refused: {found.n_refused} of the files; the rest can be analysed.")
        self._has_run = True


def look_at(options: RunOptions) -> Preflight:
    """Look at the input, labels and output folder of a run, and say what is there.

    Raises
    ------
    DefectpipeError
        A run would be of no use: no image, no room, labels that cannot be understood.
    """
    from defectpipe.io.folder import list_folder
    from defectpipe.io.micrographs import read_pixel_sizes
    from defectpipe.io.preflight import look

    listing = list_folder(options.input_dir, options.no_input)
    found = look(
        listing,
        options.output_dir,
        pixel_sizes=read_pixel_sizes(options.input_dir, [file.image for file in listing.images]),
        pixel_size_nm=options.pixel_size_nm,
        labels_dir=options.labels_dir,
        label_format=options.label_format,
        box_convention=options.settings.labels.box_convention,
        clip=options.settings.labels.clip,
        max_pixels=options.settings.reading.max_pixels,
    )
    logger.info("%s, as its headers say (%.1f s):", options.input_dir, found.seconds)
    for line in found.lines():
        logger.info("%s", line)
    if found.obstacles:
        raise RefusedFilesError(f"{options.input_dir}: {'; '.join(found.obstacles)}")
    return found
