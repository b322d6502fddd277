"""One line that says where a training is: rewritten in place on a terminal, ten plain lines elsewhere.

DASSL_PROGRESS_SECONDS=s writes plain lines as often as every s seconds instead, of evaluations too:
for a program that reads them.
"""
from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

EVERY = "DASSL_PROGRESS_SECONDS"


class Progress:
    """Counts the batches of a whole training.

    Args:
        total: batches of all epochs, `done` of them before this process.
        label: what is trained, e.g. "DAPT Digits seed 1".
    """

    def __init__(self, total: int, done: int, label: str):
        self.total, self.done, self.label, self.start, self.first = total, done, label, time.monotonic(), done
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True,
                         bar_format="{desc} |{bar:20}| {percentage:3.0f}% {postfix} [{elapsed}<{remaining}]") \
            if terminal else None
        self._next_tenth = 1 + 10 * done // max(total, 1)
        self._pace = _Pace()

    def step(self, epoch: int, max_epoch: int, values: str) -> None:
        """One batch more, in `epoch` (from 1); `values` are the latest losses as text."""
        self.done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}/{max_epoch} {values}", refresh=False)
            self._bar.update()
        elif self._pace.due() if self._pace.seconds is not None else 10 * self.done >= self._next_tenth * self.total:
            self._next_tenth = 1 + 10 * self.done // self.total
            print(f"{self.label}: epoch {epoch}/{max_epoch} {values} eta {self.eta()}", file=sys.stderr, flush=True)

    def eta(self) -> str:
        """Time that is left at the rate so far, h:mm:ss."""
        rate = (time.monotonic() - self.start) / max(self.done - self.first, 1)
        return str(datetime.timedelta(seconds=int(rate * (self.total - self.done))))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def over(batches: Iterable, label: str) -> Iterator:
    """The batches of an evaluation, with a line that is gone when they are."""
    pace = _Pace()
    if pace.seconds is None or sys.stderr.isatty():
        return iter(tqdm(batches, desc=label, file=sys.stderr, leave=False, disable=not sys.stderr.isatty(),
                         dynamic_ncols=True))
    return _told(batches, label, pace)


def _told(batches: Iterable, label: str, pace: _Pace) -> Iterator:
    total = len(batches) if hasattr(batches, "__len__") else "?"
    for number, batch in enumerate(batches, 1):
        yield batch
        if pace.due():
            print(f"{label}: batch {number}/{total}", file=sys.stderr, flush=True)


class _Pace:
    """Whether it is time for another line; the first is always due. `seconds` is None where nobody set a pace."""

    def __init__(self):
        self.seconds = float(os.environ[EVERY]) if os.environ.get(EVERY) else None
        self._last = -float("inf")

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True
