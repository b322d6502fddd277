"""SIGTERM, or a terminal that goes away, ends a training at its next safe point; a second signal ends it at once.

Schedulers send bursts: Slurm pre-empts a job with SIGTERM, SIGCONT, SIGTERM within milliseconds. What follows the first
signal within BURST_SECONDS belongs to it and changes nothing.
Where there are no safe points (while data and model are built, in a test, in a sweep) the first signal ends the process
at once, too. Imports nothing heavy.
"""
from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

BURST_SECONDS = 3.0
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_signal: int | None = None          # the first that came,
_came = 0.0                         # and when, by the monotonic clock
_deferring = 0
_ending = False


class Terminated(SystemExit):
    """The run was asked to end; exits with 128 + the signal's number, as shells count."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Inside, the signals ask this process to end; one that the caller ignores (nohup) stays ignored."""
    global _signal, _ending
    _signal, _ending = None, False
    former = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in former.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _receive)
    try:
        yield
    finally:
        if not _ending:                                 # the error is yet to be printed
            _signal = None                              # a later training in this process is not asked to end
            for number, handler in former.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def at_safe_points() -> Iterator[None]:
    """Inside, a first signal waits for `check`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


def is_ending() -> None:
    """The process is about to exit: from here on, a first signal changes nothing, also outside `on_signals`."""
    global _ending
    _ending = True


def requested() -> bool:
    """Whether the run was asked to end."""
    return _signal is not None


def check() -> None:
    """A safe point. Raises Terminated after a signal."""
    if _signal is not None:
        raise Terminated(_signal)


def _receive(number: int, frame) -> None:
    global _signal, _came
    now = time.monotonic()
    if _signal is None:
        _signal, _came = number, now
        if _deferring or _ending:
            return
    elif now - _came < BURST_SECONDS:
        return
    raise Terminated(number)
