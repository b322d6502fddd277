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

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Inside, standard output and error escape what their encoding lacks (Windows' cp1252, or bytes of a file name)."""
    former = [(stream, stream.errors) for stream in {id(s): s for s in (getattr(sys, name) for name in _NAMES)}.values()
              if hasattr(stream, "reconfigure")]
    for stream, _ in former:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in former:
            if not stream.closed:
                stream.reconfigure(errors=errors)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Inside, standard output and error are such streams, and escape what their encoding lacks."""
    with escaping():
        yield from _patient()


def _patient() -> Iterator[None]:
    former = {name: getattr(sys, name) for name in _NAMES}
    patients = {id(stream): _Patient(stream) for stream in former.values() if stream is not None}
    for name, stream in former.items():
        if stream is not None:
            setattr(sys, name, patients[id(stream)])
    try:
        yield
    finally:
        for stream in patients.values():
            stream.flush()
        for name, stream in former.items():
            if isinstance(getattr(sys, name), _Patient):    # not one that was put there meanwhile
                setattr(sys, name, stream)
