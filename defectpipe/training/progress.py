"""Progress of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any

from tqdm import tqdm

from defectpipe.bars import SECONDS_BETWEEN_LINES, open_bar
from defectpipe.detection.checkpoint import StageReport
from defectpipe.workers import begin_worker

# In a pool of processes: which of the terminal's rows are taken.
_shared: dict[str, Any] = {}


def rows_for(context: BaseContext, n_processes: int) -> tuple[Any, Any]:
    """What `share_rows` needs, made by the parent of the processes."""
    return context.RLock(), context.Array("b", n_processes)


def share_rows(lock: Any, rows: Any) -> None:
    """Begin a process of a pool: its bar stands in a row of its own, and two never write at once."""
    begin_worker()
    _shared["rows"] = rows
    tqdm.set_lock(lock)


class PartProgress:
    """Progress of one part of a training, over its steps.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self._title, self._bar, self._last_line = title, None, 0.0
        self._terminal, self._row = sys.stderr.isatty(), 0

    def __enter__(self) -> PartProgress:
        if rows := _shared.get("rows"):
            with rows.get_lock():
                # A process that was killed keeps its row; bars may then share the last one.
                self._row = next((row for row, taken in enumerate(rows) if not taken), len(rows) - 1)
                rows[self._row] = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if rows := _shared.get("rows"):
            rows[self._row] = 0

    def begin(self, what: str, total: int) -> None:
        """A new step of `total` pieces begins."""
        self._close()
        self._what, self._total, self._done, self._last_line = what, total, 0, time.monotonic()
        if self._terminal:
            self._bar = open_bar(f"{self._title}: {what}", total, leave=False, position=self._row)
        else:
            self._say("begins")

    def step(self, note: str = "", done: int | None = None) -> None:
        """One more piece is done, or `done` of them."""
        before, self._done = self._done, self._done + 1 if done is None else done
        if self._bar is not None:
            self._bar.update(self._done - before)
            self._bar.set_postfix_str(note)
        elif self._done == self._total or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._say(f"{self._done} of {self._total} {note}")

    def stage(self, report: StageReport) -> None:
        """One stage of the cascade is trained."""
        self.step(
            f"hit rate {report.hit_rate:.3f}, false-alarm rate {report.false_alarm_rate:.3f}, "
            f"{report.n_stumps} stumps, {report.acceptance:.2g} of windows left"
        )

    def loss(self, step: int, value: float) -> None:
        """So many steps of a network's training are done."""
        self.step(f"loss {value:.4f}", step)

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        print(f"{self._title}: {self._what}: {text}".rstrip(), file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
