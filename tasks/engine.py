"""Where the images are computed: in this process, or in a pool of processes; others can answer to the same protocol."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from defectpipe.errors import DefectpipeError, SettingsError
from defectpipe.workers import begin_worker

Job = TypeVar("Job")
ENGINES = ("inline", "processes")


class WorkerLostError(DefectpipeError):
    """The process that computed one image ended without a word (killed, or out of memory)."""


class Engine(Protocol):
    """Applies a function to many jobs, anywhere; results come in the order in which they are finished."""

    def map(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job with its result, or with the exception that it raised."""
        ...

    def close(self) -> None:
        """Let go of the processes; the engine can be used again."""
        ...


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(name: str, n_jobs: int) -> Engine:
    """An engine by its name, with `n_jobs` at once (0: as many as there are cores).

    Raises
    ------
    SettingsError
        The name is unknown or `n_jobs` negative.
    """
    if n_jobs < 0:
        raise SettingsError(f"--n-jobs {n_jobs}: give the number of images to compute at once, or 0 for all cores.")
    if name == "inline":
        return InlineEngine()
    if name == "processes":
        return ProcessEngine(n_jobs or usable_cores())
    raise SettingsError(f"--engine {name}: unknown; known: {', '.join(ENGINES)}.")


class InlineEngine:
    """One job after the other in this process: for tests, notebooks and debugging."""

    def map(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """See `Engine.map`."""
        for job in jobs:
            try:
                yield job, function(job)
            except Exception as error:
                yield job, error

    def close(self) -> None:
        """Nothing to let go of."""


class ProcessEngine:
    """A pool of spawned processes, one for the whole run, with one thread each.

    Spawned, not forked: a fork of a process that has run TensorFlow, or holds threads, can deadlock.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self._pool: ProcessPoolExecutor | None = None
        self._owner = 0

    def map(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """See `Engine.map`; a job whose process dies twice, the second time alone, has a `WorkerLostError`.

        Raises
        ------
        BrokenProcessPool
            No process can be started at all: that is no job's fault.
        """
        lost = []
        futures = self._submit(function, jobs)
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                lost.append(futures[future])
            else:
                yield futures[future], error or future.result()
        if lost:
            self._reopen()
        for job in lost:
            [future] = self._submit(function, [job])
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                self._reopen()
                error = WorkerLostError("The process that computed it was killed, perhaps for want of memory.")
            yield job, error or future.result()

    def close(self) -> None:
        """End the processes; unfinished jobs are dropped."""
        pool, self._pool = self._pool, None
        if pool is not None and self._owner == os.getpid():
            pool.shutdown(wait=True, cancel_futures=True)

    def _reopen(self) -> None:
        self.close()
        # Were no process to start at all, no job could be blamed for it.
        self._opened().submit(os.getpid).result()

    def _submit(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> dict[Future[Any], Job]:
        futures: dict[Future[Any], Job] = {}
        for job in jobs:
            try:
                futures[self._opened().submit(function, job)] = job
            except BrokenProcessPool as error:
                broken: Future[Any] = Future()
                broken.set_exception(error)
                futures[broken] = job
        return futures

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None or self._owner != os.getpid():
            self._owner = os.getpid()
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.n_jobs, context, initializer=begin_worker)
        return self._pool
