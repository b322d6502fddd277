"""A console that goes away (`| head -1`, a closed terminal, a full disk behind `> file`), or that cannot print a
letter, does not end a run.

Imports nothing heavy.
"""
from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NAMES = ("stdout", "stderr", "__stdout__", "__stderr__")


class _Escaping:
    """A stream that escapes what its encoding lacks (Windows' cp1252, or bytes of a file name); whatever else is asked
    of it, the stream answers.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def to_nowhere(self) -> None:
        """From here on its text is lost, and what it still holds back."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


class _Patient(_Escaping):
    """Such a stream whose text goes nowhere once nobody takes it."""

    def write(self, text: str) -> int:
        with self._until_gone():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_gone():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.to_nowhere()


def patient() -> contextlib.AbstractContextManager[None]:
    """Inside, standard output and error do not end a run that nobody reads, and escape what their encoding lacks."""
    return _replaced_by(_Patient)


def escaping() -> contextlib.AbstractContextManager[None]:
    """Inside, standard output and error escape what their encoding lacks.

    Raises:
        OSError: at the end, with the stream's name, where nobody takes what was printed.
    """
    return _replaced_by(_Escaping)


@contextlib.contextmanager
def _replaced_by(kind: type[_Escaping]) -> Iterator[None]:
    former = {name: getattr(sys, name) for name in _NAMES}
    streams = {id(stream): kind(stream) for stream in former.values() if stream is not None}
    for name, stream in former.items():
        if stream is not None:
            setattr(sys, name, streams[id(stream)])
    try:
        yield
    finally:
        lost = [error for error in map(_flushed, streams.values()) if error]
        for name, stream in former.items():
            if isinstance(getattr(sys, name), kind):        # not one that was put there meanwhile
                setattr(sys, name, stream)
        if lost:
            raise lost[0]


def _flushed(stream: _Escaping) -> OSError | None:
    """Why it could not be; then the stream's text goes nowhere, or it would fail again when the process ends."""
    try:
        stream.flush()
    except OSError as error:
        if error.errno not in _GONE:
            raise
        stream.to_nowhere()
        return OSError(error.errno, error.strerror, getattr(stream, "name", "standard output"))
    return None
