"""Where messages go: everything to log.txt, the little that a person waits for to the console."""
from __future__ import annotations

import atexit
import logging
import sys
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .errors import UserError

_active: LogSession | None = None


def say(logger: logging.Logger, message: str, *args: Any) -> None:
    """An info message that the console shows, too."""
    logger.info(message, *args, extra={"console": True})


def setup_logger(output: str | Path | None = None) -> LogSession | None:
    """Sends log records and whatever is printed to `<output>/log.txt`, added to what the file holds.

    The console keeps prints, warnings and what `say` says. Calling it again with the same place changes nothing;
    with another, that place takes over.

    Args:
        output: folder, or a path that ends in .txt or .log; None does nothing.
    Returns:
        The session; its `close()` gives back the console and the loggers as they were (as does the end of the program).
    """
    global _active
    if output is None:
        return None
    path = Path(output)
    if path.suffix not in (".txt", ".log"):
        path = path / "log.txt"
    if _active is not None:
        if _active.path == path.absolute():
            return _active
        _active.close()
    _active = LogSession(path.absolute())
    return _active


class LogSession:
    """An open log file with its handlers on the root logger and its tee on `sys.stdout`."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"Cannot write the log {path}: {error}. Choose another OUTPUT_DIR (--output-dir).") from error
        self._stdout = sys.stdout
        sys.stdout = self._tee = _Tee(self._stdout, self._file)
        self._handlers = [_File(self._file), _Console(self._stdout)]
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(min(logging.INFO, root.level or logging.INFO))
        for handler in self._handlers:
            root.addHandler(handler)
        atexit.register(self.close)

    def close(self) -> None:
        global _active
        if self._file.closed:
            return
        atexit.unregister(self.close)
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
        root.setLevel(self._level)
        if sys.stdout is self._tee:
            sys.stdout = self._stdout
        self._tee.file = None
        self._file.close()
        if _active is self:
            _active = None

    def __enter__(self) -> LogSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Tee:
    """A text stream that also writes to the log file."""

    def __init__(self, stream: IO[str], file: IO[str]):
        self.stream, self.file = stream, file

    def write(self, text: str) -> int:
        if self.file is not None:
            self.file.write(text)
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _File(logging.StreamHandler):
    """Messages alone, as Dassl's log.txt has them; from warnings on, with their level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.title()}: {text}"


class _Console(_File):
    """What `say` said to stdout, warnings and errors to stderr, without cutting into a progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        serious = record.levelno >= logging.WARNING
        if not serious and not getattr(record, "console", False):
            return
        try:
            stream = sys.stderr if serious else self.stream
            with tqdm.external_write_mode(file=sys.stderr):
                stream.write(self.format(record) + "\n")
                stream.flush()
        except (BrokenPipeError, ValueError):       # the console went away; log.txt has the record
            return
