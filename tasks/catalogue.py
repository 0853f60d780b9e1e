"""The catalogue on the command line: indexing folders of results, searching, and taking images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import luigi

from defectpipe.errors import CatalogueError
from tasks.engine import usable_cores
from tasks.logs import Progress, logger
from tasks.models import MakingTask
from tasks.options import default_output
from tasks.session import unwritable

if TYPE_CHECKING:
    from defectpipe.catalogue import Catalogue, Found, IndexReport

_LISTED_ROWS = 20
_LISTED_COLUMNS = (
    *("image_id", "folder", "image", "frame", "likeness", "origin", "kind", "condition", "class", "pixel_size_nm"),
    *("focus_score", "n_loops", "mean_diameter_nm", "diameter_nm", "volume_nm3"),
)


class CatalogueTask(MakingTask):
    """A task with a catalogue; it always runs, and is done when it has run."""

    catalogue_file = luigi.Parameter(default="", description="the catalogue, such as catalogue.duckdb")

    _has_run = False

    @property
    def needed(self) -> tuple[str, ...]:
        """The catalogue."""
        return ("catalogue_file",)

    def is_made(self) -> bool:
        """Whether it has just run."""
        return self._has_run

    def work(self) -> None:
        """What the task is for."""

    def make(self) -> None:
        """Do it."""
        try:
            self.work()
        except OSError as error:
            raise unwritable(Path(self.catalogue_file), error) from error
        self._has_run = True


class IndexFolder(CatalogueTask):
    """Results of runs and simulations, in a catalogue that can be searched; what is unchanged is not read again."""

    input_dir = luigi.Parameter(default="", description="folder of micrographs whose results are in INPUT-defects")
    output_dir = luigi.Parameter(default="", description="folder of results, or one that holds such at any depth")
    rebuild = luigi.BoolParameter(default=False, description="read every folder again, whatever its tables say")
    n_jobs = luigi.IntParameter(default=0, significant=False, description="images looked at at once; 0: one a core")

    def work(self) -> None:
        """Index, and say what became of each folder."""
        folders = [self.output_dir] if self.output_dir else []
        if self.input_dir and not folders:
            folders = [str(default_output(Path(self.input_dir).expanduser().resolve()))]
        if not folders and not Path(self.catalogue_file).expanduser().is_file():
            raise CatalogueError("IndexFolder needs --output-dir or --input-dir: the catalogue holds no folders yet.")
        report = index(self.catalogue_file, folders, rebuild=self.rebuild, n_jobs=self.n_jobs)
        if report.refused:
            raise CatalogueError(f"{len(report.refused)} folders could not be read; the others are in the catalogue.")


class SearchCatalogue(CatalogueTask):
    """Images, loops or objects of a catalogue by figures, class, words and likeness; listed, and copied if asked."""

    text = luigi.Parameter(default="", description="words in names, folders and metadata, in whatever case")
    of = luigi.Parameter(default="images", description="what is looked for: images, loops, objects")
    class_name = luigi.Parameter(default="", description="class of a loop or object, or kind or condition of an image")
    where = luigi.Parameter(
        default="", description="such as 'mean_diameter_nm=5..20, origin=simulated, loops.class=open'"
    )
    like = luigi.Parameter(default="", description="images like this: image_id, name in the catalogue, or a file")
    order_by = luigi.Parameter(default="", description="a column; -COLUMN from the largest down")
    limit = luigi.IntParameter(default=100, description="rows at most; 0: all")
    list_columns = luigi.BoolParameter(default=False, description="list what can be searched, and do nothing else")
    export_dir = luigi.Parameter(default="", description="new folder for copies of the images and their tables")

    def work(self) -> None:
        """Search, list, export."""
        from defectpipe.catalogue import Catalogue

        with Catalogue.open(self.catalogue_file) as catalogue:
            if self.list_columns:
                logger.info("%s", catalogue.columns().to_string(index=False))
                return
            where = catalogue.conditions(self.where, self.of)
            given = {"of": self.of, "class_name": self.class_name, "where": where}
            like = int(self.like) if self.like.isdecimal() else self.like or None
            found = catalogue.search(self.text, **given, like=like, order_by=self.order_by, limit=self.limit or None)
            n = catalogue.count(self.text, **given) if like is None else len(found)
            _list(found, n)
            if self.export_dir:
                _export(catalogue, found, self.export_dir)


def index(catalogue_file: str, folders: list[str], *, rebuild: bool = False, n_jobs: int = 0) -> IndexReport:
    """Bring a catalogue up to date, and say what became of each folder."""
    from defectpipe.catalogue import index_folders

    progress = Progress()
    progress.expect("catalogue", None)
    report = index_folders(
        catalogue_file,
        folders,
        rebuild=rebuild,
        n_jobs=n_jobs or usable_cores(),
        progress=lambda n: progress.step("catalogue", n),
    )
    progress.close()
    for path in report.read:
        logger.info("read: %s", path)
    for path, before in report.moved.items():
        logger.info("moved, not read again: %s, was %s", path, before)
    for path in report.dropped:
        logger.info("gone, and left out: %s", path)
    for reason in report.refused.values():
        logger.error("refused: %s", reason)
    if report.unchanged:
        logger.info("unchanged, not read again: %d", len(report.unchanged))
    if report.n_without_picture:
        logger.warning(
            "no likeness for %d images: their files are gone, or were changed since", report.n_without_picture
        )
    logger.info(
        "%s: %d images, %d loops, %d objects",
        catalogue_file,
        *(report.n_images, report.n_loops, report.n_objects),
    )
    return report


def _list(found: Found, n: int) -> None:
    import pandas as pd

    table = pd.DataFrame(found)[[name for name in _LISTED_COLUMNS if name in found and found[name].notna().any()]]
    if len(table):
        for line in (
            table.head(_LISTED_ROWS).to_string(index=False, na_rep="", float_format="{:.4g}".format).splitlines()
        ):
            logger.info("%s", line.rstrip())
    more = f"; {min(_LISTED_ROWS, len(found))} are listed" if n > _LISTED_ROWS else ""
    logger.info("%d found%s", n, more)


def _export(catalogue: Catalogue, found: Found, folder: str) -> None:
    from defectpipe.catalogue import export_images

    report = export_images(catalogue, found, folder)
    logger.info("%d image files with their tables are in %s", report.n_files, report.folder)
    for path, reason in report.left_out.items():
        logger.warning("not copied: %s: %s", path, reason)
