"""The full log of a run: everything logged, and everything that a trainer prints, also goes to log.txt."""
from __future__ import annotations

import logging
import os
import os.path as osp
import sys
import time
from typing import TextIO

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


class _Tee:
    """A stream that writes to another and to a file; whatever else is asked of it, the other stream answers."""

    def __init__(self, stream: TextIO, file: TextIO):
        self.stream, self.file = stream, file

    def write(self, text: str) -> int:
        if not self.file.closed:
            self.file.write(text)
        return self.stream.write(text)

    def flush(self) -> None:
        if not self.file.closed:
            self.file.flush()
        self.stream.flush()

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


class _LogFile:
    """A text file that is written at once. A disk that is full loses lines, told once, but not the run; a folder that
    is removed is made anew.
    """

    def __init__(self, path: str):
        self.path, self.closed, self._told = path, False, False
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
            if not self._told:
                self._told = True
                print(f"{self.path} cannot be written ({error.strerror}); the run goes on without these lines",
                      file=sys.stderr)
        return len(text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._number)

    def _open(self) -> None:
        self._number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


class RunLog:
    """An open log file; `close()` gives sys.stdout back. Also a context manager."""

    def __init__(self, path: str):
        mkdir_if_missing(osp.dirname(path) or ".")
        if osp.exists(path):                              # an earlier run's log is kept, as Dassl keeps it
            path += time.strftime("-%Y-%m-%d-%H-%M-%S")
        self.path = path
        self._file = _LogFile(path)
        self._handler = logging.StreamHandler(self._file)
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(min(root.level, logging.INFO) or logging.INFO)
        self._console = _ConsoleHandler()
        root.addHandler(self._handler)
        root.addHandler(self._console)
        self._tee = sys.stdout = _Tee(sys.stdout, self._file)

    def close(self) -> None:
        root = logging.getLogger()
        if self._handler in root.handlers:
            root.removeHandler(self._handler)
            root.removeHandler(self._console)
            root.setLevel(self._level)
        if sys.stdout is self._tee:
            sys.stdout = self._tee.stream
        self._file.close()
        if _open.get(self._key) is self:
            del _open[self._key]

    @property
    def _key(self) -> str:
        return osp.abspath(osp.dirname(self.path))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        self.close()


_open: dict[str, RunLog] = {}


class Logger:
    """A stream that writes to the console and to a file, for `sys.stdout = Logger(path)`; runs use `setup_logger`."""

    def __init__(self, fpath: str | None = None):
        self.console, self.file = sys.stdout, None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(fpath) or ".")
            self.file = open(fpath, "w", encoding="utf-8")  # noqa: SIM115 - until close()

    def write(self, msg: str) -> int:
        if self.file is not None:
            self.file.write(msg)
        return self.console.write(msg)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        """Ends the file; the console stays open."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
