"""What every task over a folder of micrographs shares: the parameters of a run, and how it begins and ends."""

from __future__ import annotations

from typing import Any, TypeVar

import luigi
from luigi.parameter import ParameterVisibility

from defectpipe.errors import DefectpipeError
from defectpipe.io.files import NO_ROOM
from tasks.engine import ENGINES
from tasks.logs import set_up_terminal
from tasks.options import DEFAULT_MODEL, RunOptions, resolve_options
from tasks.session import NO_WRITING, Session, begin, session_of, unwritable

Task = TypeVar("Task", bound="FolderTask")


class FolderTask(luigi.Task):
    """A task over a folder.

    The task that was asked for by name is the root: it begins a session, always runs (and computes what is stale), and
    ends the session. The tasks that it requires are told the session, and are complete when nothing of theirs is stale.
    """

    input_dir = luigi.Parameter(default="", description="folder of micrographs; without it, a simulated demonstration")
    output_dir = luigi.Parameter(default="", description="folder of the results; default: INPUT-defects beside it")
    labels_dir = luigi.Parameter(default="", description="labels: a folder that mirrors the input, or one file")
    label_format = luigi.Parameter(default="", description="format of the labels, where they could be two things")
    corrections_dir = luigi.Parameter(default="", description="corrected loops; default: OUTPUT/corrections")
    model = luigi.Parameter(default="", description=f"name or path of a model; default: {DEFAULT_MODEL}")
    pixel_size_nm = luigi.OptionalFloatParameter(default=None, description="pixel size of all images, in nm")
    engine = luigi.Parameter(default="processes", description=f"where images are computed: {', '.join(ENGINES)}")
    n_jobs = luigi.IntParameter(default=0, description="images computed at once; 0: one a core")
    settings = luigi.Parameter(default="", description="JSON file of settings, or the summary.json of a run")
    verify = luigi.BoolParameter(default=False, description="hash every file again, whatever its time and size say")
    verbose = luigi.BoolParameter(
        default=False, significant=False, description="show what Luigi itself has to say, too"
    )
    session_key = luigi.Parameter(
        default="", significant=False, visibility=ParameterVisibility.PRIVATE, description="set by the program itself"
    )

    _session: Session | None = None
    _refusal: DefectpipeError | None = None
    _has_run = False

    def needs(self, session: Session) -> list[luigi.Task]:
        """The tasks whose results this one takes."""
        return []

    def is_current(self, session: Session) -> bool:
        """Whether everything that this task makes is there and made from what is there now."""
        return self._has_run

    def work(self, session: Session) -> None:
        """Make what is not current."""

    def complete(self) -> bool:
        """As Luigi asks: for the root only right after it has run, since it tells how the folder stands."""
        if self.session_key:
            return self.is_current(session_of(self.session_key))
        has_run, self._has_run = self._has_run, False
        if not has_run:
            self._begin()
        return has_run

    def requires(self) -> list[luigi.Task]:
        """As Luigi asks."""
        return [] if self._refusal else self.needs(self._current_session())

    def run(self) -> None:
        """As Luigi asks. What the user has to put right is raised here, so that it counts as a failed task."""
        if self._refusal:
            raise self._refusal
        session = self._current_session()
        try:
            self.work(session)
        except OSError as error:
            if error.errno not in NO_ROOM + NO_WRITING:
                raise
            raise unwritable(session.options.output_dir, error) from error
        self._has_run = True

    def on_success(self) -> str | None:
        """End the session, at the root."""
        self._end()
        return None

    def on_failure(self, exception: BaseException) -> str:
        """End the session, at the root."""
        self._end()
        return str(exception)

    def child(self, task: type[Task], **changes: Any) -> Task:
        """A required task: with this task's parameters, and its session."""
        return self.clone(task, session_key=self._current_session().key, **changes)

    def options(self) -> RunOptions:
        """The run's parameters, checked."""
        return resolve_options(**{name: getattr(self, name) for name in _RUN_PARAMETERS})

    def _begin(self) -> None:
        set_up_terminal(self.verbose)
        self._refusal = None
        try:
            self._session = begin(self.options())
        except DefectpipeError as error:
            self._refusal = error

    def _end(self) -> None:
        if self._session is not None and not self.session_key:
            self._session.close()
            self._session = None

    def _current_session(self) -> Session:
        if self.session_key:
            return session_of(self.session_key)
        assert self._session is not None
        return self._session


_RUN_PARAMETERS = (
    *("input_dir", "output_dir", "labels_dir", "label_format", "corrections_dir", "model"),
    *("pixel_size_nm", "engine", "n_jobs", "settings", "verify"),
)
