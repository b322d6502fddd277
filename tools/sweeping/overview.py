"""What a sweep shows while it runs: a block that is redrawn on a terminal, plain lines at a bounded rate elsewhere.

By hand: rich's Live shows nothing where there is no terminal until it ends, and a sweep, which is the main job, would
need one more package for the block alone.
"""
from __future__ import annotations

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field

_REDRAW_SECONDS = 0.2
_HEARTBEAT_SECONDS = 30                     # at least, between two reports where the console is no terminal,
_HEARTBEATS_PER_RUN = 60                    # and this many at most: after an hour one a minute
_TRAINING = re.compile(r".*: epoch (?P<epoch>\d+/\d+) (?P<values>.*) eta (?P<eta>[\d:]+)\s*$")
_TESTING = re.compile(r"(?P<split>[\w-]+) split: (?P<what>batch|image) (?P<count>\d+/\d+)(.* (?P<left>[\d:]+) left)?")
_FETCHING = re.compile(r"(?P<what>\S[^|]*): +(?P<share>\d+)%\|")


@dataclass
class Status:
    """Where one run is.

    Attributes:
        label: number and name. started: of a monotonic clock. eta: seconds that its training needs yet, or None.
        values: loss, accuracy and what else it prints; moved: whether it has shown any progress.
    """

    label: str
    started: float = field(default_factory=time.monotonic)
    doing: str = "starting"
    values: str = ""
    eta: float | None = None
    moved: bool = False

    def read(self, line: str) -> bool:
        """Take in a line of the run's stderr; whether it showed progress."""
        if found := _TRAINING.match(line):
            self.doing, self.values = f"epoch {found['epoch']}", found["values"]
            self.eta, self.moved = _seconds(found["eta"]), True
        elif found := _TESTING.match(line):
            self.doing, self.values = f"{found['split']} {found['what']} {found['count']}", ""
            self.eta, self.moved = found["left"] and _seconds(found["left"]), True
        elif found := _FETCHING.match(line):
            self.doing, self.values = f"{found['what']} {found['share']} %", ""
        else:
            return False
        return True

    def __str__(self) -> str:
        words = [self.label, self.doing, self.values, f"eta {duration(self.eta)}" if self.eta is not None else ""]
        return "  ".join(filter(None, words))


class Overview:
    """Lines that stay, and below them what runs now.

    On a terminal there is one line for every run and one for the whole, redrawn in place and cut to its width;
    elsewhere both come as plain lines, seldom enough that the log of a long sweep stays short.
    """

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.start = self._shown = time.monotonic()
        self._drawn = 0                     # lines of the block on the terminal

    def say(self, line: str) -> None:
        """A line that stays."""
        self._erase()
        print(line, file=self.stream, flush=True)

    def show(self, running: list[Status], total: str) -> None:
        """What runs now; does nothing while it is too early for another look."""
        now = time.monotonic()
        if self.terminal:
            if not self._drawn or now - self._shown >= _REDRAW_SECONDS:
                self._shown = now
                self._draw([*aligned(running), total])
            return
        if now - self._shown >= max(_HEARTBEAT_SECONDS, (now - self.start) / _HEARTBEATS_PER_RUN):
            self._shown = now
            for line in [*map(str, running), total]:
                print(f"  {line}", file=self.stream)
            self.stream.flush()

    def close(self) -> None:
        """Take the block away."""
        self._erase()
        self.stream.flush()

    def _draw(self, lines: list[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        room = max(rows - 2, 1)
        if len(lines) > room:
            lines = [*lines[:room - 1], f"... {len(lines) - room} more; {lines[-1]}"]
        self._erase(keep_cursor=True)
        text = "".join(f"{line[:columns - 1]}\033[K\n" for line in lines)
        self.stream.write(text + "\033[J")
        self.stream.flush()
        self._drawn = len(lines)

    def _erase(self, keep_cursor: bool = False) -> None:
        """Back to where the block began; what is drawn next writes over it."""
        if self._drawn:
            self.stream.write(f"\033[{self._drawn}A\r" + ("" if keep_cursor else "\033[J"))
            self._drawn = 0


def aligned(running: list[Status]) -> list[str]:
    """A line for each run, in columns."""
    cells = [(s.label, s.doing, f"left {duration(s.eta)}" if s.eta is not None else
              f"for {duration(time.monotonic() - s.started)}", s.values) for s in running]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(4)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def duration(seconds: float) -> str:
    """0:05, 12:40, 3:05:00 or 2 d 03:05:00."""
    days, rest = divmod(round(seconds), 86400)
    hours, minutes, seconds = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days} d {hours:02}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _seconds(text: str) -> float | None:
    """Of h:mm:ss."""
    parts = text.split(":")
    return sum(int(part) * 60 ** power for power, part in enumerate(reversed(parts))) if all(parts) else None
