"""What the terminal shows, what ``run.log`` keeps, and the progress bars."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from luigi.parameter import ParameterException
from tqdm import tqdm

from defectpipe.bars import SECONDS_BETWEEN_LINES, open_bar
from defectpipe.errors import DefectpipeError
from defectpipe.io.folder import shown

logger = logging.getLogger("defectpipe.run")
_BAR = "{desc:<11} {percentage:3.0f} %|{bar}| {n_fmt} of {total_fmt} images, {rate_noinv_fmt}, {remaining} left"
_COUNTER = "{desc:<11} {n_fmt} images, {rate_noinv_fmt}, {elapsed}"
_LOGGERS = (logging.getLogger("defectpipe"), logging.getLogger("luigi-interface"))


class _Terminal(logging.Handler):
    """Plain lines on standard output that leave a progress bar in peace."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read it has gone (`| head`); the run goes on, and run.log has every line.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _RunLog(logging.FileHandler):
    """The log file. A full disk takes the line, not the run: results say it, and the terminal has every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """As `logging` asks."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close it; what found no room is dropped."""
        with contextlib.suppress(OSError):
            super().close()


class _SafeText(logging.Formatter):
    """Lines in which a file's name can neither move the cursor, colour the terminal nor turn the writing round."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record), keep="\n\t")


class _PlainErrors(logging.Filter):
    """A user's error is one sentence, not a traceback; only what surprises the program keeps its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DefectpipeError | ParameterException):
            record.msg, record.args = shown(str(error), keep="\n\t"), ()
            record.exc_info = record.exc_text = None
        return True


def set_up_terminal(verbose: bool = False) -> None:
    """Show the run's own lines plainly, its users' errors as one sentence.

    Parameters
    ----------
    verbose : bool
        Whether Luigi's own lines (its schedule, its summary) are shown as well; they are always in ``run.log``.
    """
    run, luigi_log = _LOGGERS
    if not any(isinstance(handler, _Terminal) for handler in run.handlers):
        terminal = _Terminal(logging.INFO)
        terminal.setFormatter(_SafeText("%(message)s"))
        run.addHandler(terminal)
        run.setLevel(logging.INFO)
        luigi_log.addFilter(_PlainErrors())
    if verbose:
        luigi_log.setLevel(logging.INFO)
        for handler in luigi_log.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.INFO)


def open_run_log(path: Path) -> logging.Handler:
    """Begin to write everything to `path` too, after what earlier runs left there.

    Returns
    -------
    logging.Handler
        For `close_run_log`.
    """
    handler = _RunLog(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_SafeText("%(asctime)s %(levelname)s %(message)s"))
    # The terminal has a level of its own; the file tells more.
    for log, level in zip(_LOGGERS, (logging.DEBUG, logging.INFO), strict=True):
        log.addHandler(handler)
        log.setLevel(level)
    return handler


def close_run_log(handler: logging.Handler, error: BaseException | None = None) -> None:
    """End what `open_run_log` began, with the error that ended the run before its tasks could."""
    if error is not None:
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (error,), None))
    for log in _LOGGERS:
        log.removeHandler(handler)
    handler.close()


class Progress:
    """How far each stage is: a bar on a terminal; elsewhere, in stages that take long, now and then a line."""

    def __init__(self) -> None:
        self._open: dict[str, tqdm | _Lines] = {}

    def expect(self, stage: str, total: int | None, name: str = "") -> None:
        """Begin a stage, after ending the others. None: nobody knows how many images it has."""
        self.close()
        if total == 0:
            return
        if sys.stderr.isatty():
            form = _BAR if total is not None else _COUNTER
            self._open[stage] = open_bar(name or stage, total, unit=" images", bar_format=form)
        else:
            self._open[stage] = _Lines(name or stage, total)

    def step(self, stage: str, n: int = 1) -> None:
        """So many more images of a stage are done."""
        if stage in self._open:
            self._open[stage].update(n)

    def close(self) -> None:
        """End the stages under way."""
        while self._open:
            self._open.popitem()[1].close()


class _Lines:
    """The same as a bar in plain lines, for files and pipes."""

    def __init__(self, stage: str, total: int | None) -> None:
        self._stage, self._total, self._done = stage, total, 0
        self._began = self._last = time.monotonic()

    def update(self, n: int) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES or self._done == self._total:
            return
        self._last, rate = now, self._done / max(now - self._began, 1e-9)
        of = "" if self._total is None else f" of {self._total}"
        left = "" if self._total is None else f", {tqdm.format_interval((self._total - self._done) / rate)} left"
        logger.info("%s: %d%s images, %.3g images/s%s", self._stage, self._done, of, rate, left)

    def close(self) -> None:
        """A line at the end, if there was one before."""
        if self._last > self._began:
            seconds = tqdm.format_interval(time.monotonic() - self._began)
            logger.info("%s: %d images in %s", self._stage, self._done, seconds)
