"""A console that goes away (`| head -1`, a closed terminal, a full disk behind `> file`), or that cannot print a
letter, does not end a run.

Imports nothing heavy.
"""
from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NAMES = ("stdout", "stderr", "__stdout__", "__stderr__")


class _Patient:
    """A stream whose text goes nowhere once nobody takes it; whatever else is asked of it, the stream answers."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with self._until_gone():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_gone():
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _until_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())         # also takes what the stream still holds back
            os.close(nowhere)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Inside, standard output and error do not end a run that nobody reads, and escape what their encoding lacks."""
    with escaping():
        former = {name: stream for name in _NAMES if (stream := getattr(sys, name)) is not None}
        streams = {id(stream): _Patient(stream) for stream in former.values()}
        for name, stream in former.items():
            setattr(sys, name, streams[id(stream)])
        try:
            yield
        finally:
            for stream in streams.values():
                stream.flush()
            for name, stream in former.items():
                if isinstance(getattr(sys, name), _Patient):        # not one that was put there meanwhile
                    setattr(sys, name, stream)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Inside, standard output and error escape what their encoding lacks: Windows' cp1252, or bytes of a file name."""
    streams = {id(stream): stream for name in _NAMES if isinstance(stream := getattr(sys, name), io.TextIOWrapper)}
    former = [(stream, stream.errors) for stream in streams.values()]
    for stream, _ in former:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in former:
            stream.reconfigure(errors=errors)
