"""One run in progress: it holds the output folder's lock, the plan, the engine, the log."""

from __future__ import annotations

import atexit
import errno
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectpipe.errors import DefectpipeError
from defectpipe.io.files import NO_ROOM
from tasks.agenda import Agenda
from tasks.check import look_at
from tasks.engine import Engine, Job, open_engine, usable_cores
from tasks.lock import FolderLock
from tasks.logs import Progress, close_run_log, logger, open_run_log
from tasks.options import RunOptions, simulate_demonstration
from tasks.plan import STATE_FOLDER, Plan, make_plan
from tasks.register import refuse_unknown_keys

if TYPE_CHECKING:
    from tasks.labels import Labels

# Errors of a file system that cannot be written (any more).
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)

_sessions: dict[str, Session] = {}
_numbers = itertools.count(1)


@dataclass(eq=False)
class Session:
    """State of one run, shared by its tasks in this process."""

    key: str
    options: RunOptions
    plan: Plan
    engine: Engine
    lock: FolderLock
    log: Any
    skipped: Mapping[str, str]
    progress: Progress
    agenda: Agenda
    began: float = field(default_factory=time.monotonic)
    labels: Labels | None = None
    # What the tables of this run amount to: the report and the summary say the same.
    found: dict[str, Any] | None = None

    def compute(self, bar: str, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job with its outcome, from the run's engine, counted on the bar; an error ends the task."""
        for job, outcome in self.engine.map(function, jobs):
            if isinstance(outcome, BaseException):
                raise outcome
            yield job, outcome
            self.progress.step(bar)

    def close(self) -> None:
        """End the run: bars, processes, log, and last the lock."""
        _sessions.pop(self.key, None)
        self.progress.close()
        self.engine.close()
        close_run_log(self.log)
        self.lock.release()


def begin(options: RunOptions) -> Session:
    """Begin a run: lock the output folder, open the log, look at the input.

    Raises
    ------
    DefectpipeError
        The folder is in use, holds no image, the configuration has unknown keys, and so on.
    """
    refuse_unknown_keys()
    for other in list(_sessions.values()):
        if other.options.output_dir == options.output_dir:
            other.close()
    engine = open_engine(options.engine, options.n_jobs)
    lock = FolderLock(options.output_dir / STATE_FOLDER / "lock")
    try:
        lock.acquire()
        log = open_run_log(options.output_dir / "run.log")
    except OSError as error:
        lock.release()
        raise unwritable(options.output_dir, error) from error
    try:
        if lock.taken_over:
            logger.info("an earlier run was ended before it was done (%s); its results are used", lock.taken_over)
        if options.is_demonstration:
            options = simulate_demonstration(options)
        logger.info("%s", _announcement(options))
        # Before a model loads or a file is hashed: what cannot work is said within seconds.
        skipped = look_at(options).skipped
        plan = make_plan(options, options.n_jobs or usable_cores())
        # No more processes than images.
        engine = open_engine(options.engine, min(options.n_jobs or usable_cores(), len(plan.images)))
        progress = Progress()
        agenda = Agenda(plan.model, progress)
        session = Session(str(next(_numbers)), options, plan, engine, lock, log, skipped, progress, agenda)
    except OSError as error:
        refusal = unwritable(options.output_dir, error)
        close_run_log(log, refusal)
        lock.release()
        raise refusal from error
    except BaseException as error:
        close_run_log(log, error)
        lock.release()
        raise
    _sessions[session.key] = session
    return session


def session_of(key: str) -> Session:
    """The session of that key."""
    return _sessions[key]


def close_sessions() -> None:
    """Close every run that this process has open."""
    for session in list(_sessions.values()):
        session.close()


def unwritable(output_dir: Path, error: OSError) -> DefectpipeError:
    """What an error of writing means to the user. Results that are there are whole, since none is written in place."""
    if error.errno in NO_ROOM:
        return DefectpipeError(
            f"{output_dir}: there is no room for the results ({error.strerror}). Make room, then start the same run "
            "again: it goes on from what is finished."
        )
    return DefectpipeError(f"{error.filename or output_dir}: cannot be written or read ({error.strerror or error}).")


def _announcement(options: RunOptions) -> str:
    at = "inline" if options.engine == "inline" else f"{options.engine}, {options.n_jobs or usable_cores()} at once"
    return f"{options.input_dir} -> {options.output_dir} (model {options.model}, {at})"


atexit.register(close_sessions)
