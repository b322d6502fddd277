"""The full log of a run: everything logged, and everything that a trainer prints, also goes to log.txt."""
from __future__ import annotations

import logging
import os
import os.path as osp
import sys
import time

from .tools import mkdir_if_missing

CONSOLE = {"console": True}      # logger.info(..., extra=CONSOLE): also for the eyes of who waits


def tell(logger: logging.Logger, message: str, *values) -> None:
    """Log at INFO for the console too; where nobody listens to that (no log is open), print it, as Dassl does."""
    logger.info(message, *values, extra=CONSOLE)
    if not _open and not (logger.isEnabledFor(logging.INFO) and logger.hasHandlers()):
        print(message % values, flush=True)


class _ConsoleHandler(logging.Handler):
    """Warnings, and what is marked CONSOLE; above a progress line, never through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or getattr(record, "console", False):
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.__stdout__)


class Logger:
    """A stream that writes to the console and to a file, for `sys.stdout = Logger(path)`; runs use `setup_logger`.

    Whatever else is asked of it, the console answers.
    """

    def __init__(self, fpath: str | None = None):
        self.console, self.file = sys.stdout, None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(fpath) or ".")
            self.file = _LogFile(fpath)

    def write(self, msg: str) -> int:
        if self.file is not None:
            self.file.write(msg)
        return self.console.write(msg)

    def close(self) -> None:
        """Ends the file; the console stays open."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getattr__(self, name: str):
        return getattr(self.console, name)


class _LogFile:
    """A text file that is written at once. A full disk loses lines, with one message, but not the run; a removed
    folder is created again.
    """

    def __init__(self, path: str):
        self.path, self._warned = path, False
        self._open()

    def write(self, text: str) -> int:
        try:
            if not osp.exists(self.path):
                mkdir_if_missing(osp.dirname(self.path) or ".")
                former = self._number
                self._open()
                os.close(former)
                os.write(self._number, b"The run folder was removed during the run; earlier lines went with it.\n")
            data = text.encode(errors="backslashreplace")
            while data:
                data = data[os.write(self._number, data):]
        except OSError as error:
            if not self._warned:
                self._warned = True
                print(f"{self.path} cannot be written ({error.strerror}); the run continues without these lines",
                      file=sys.stderr)
        return len(text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._number)

    def _open(self) -> None:
        self._number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)


class RunLog(Logger):
    """An open log file, in sys.stdout's place; `close()` gives that back. Also a context manager."""

    def __init__(self, path: str):
        if osp.exists(path):                              # an earlier run's log is kept, as Dassl keeps it
            path += time.strftime("-%Y-%m-%d-%H-%M-%S")
        super().__init__(path)
        self.path = path
        self._handlers = [logging.StreamHandler(self.file), _ConsoleHandler()]
        self._handlers[0].setFormatter(logging.Formatter("%(message)s"))
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(min(root.level, logging.INFO) or logging.INFO)
        for handler in self._handlers:
            root.addHandler(handler)
        sys.stdout = self

    def close(self) -> None:
        root = logging.getLogger()
        if self.file is not None:
            for handler in self._handlers:
                root.removeHandler(handler)
            root.setLevel(self._level)
        if sys.stdout is self:
            sys.stdout = self.console
        super().close()
        if _open.get(self._key) is self:
            del _open[self._key]

    @property
    def _key(self) -> str:
        return osp.abspath(osp.dirname(self.path))


_open: dict[str, RunLog] = {}


def setup_logger(output: str | None = None) -> RunLog | None:
    """Start log.txt in a folder (or the file itself, when the name ends in .txt or .log).

    A second call for the same folder returns the log that is open. None or "" starts nothing.

    Returns:
        The open log; its `close()` restores sys.stdout. It also closes when the next run's log starts.
    """
    if not output:
        return None
    path = output if output.endswith((".txt", ".log")) else osp.join(output, "log.txt")
    key = osp.abspath(osp.dirname(path))
    if key in _open and os.path.exists(_open[key].path):
        return _open[key]
    for log in list(_open.values()):
        log.close()
    _open[key] = RunLog(path)
    return _open[key]
