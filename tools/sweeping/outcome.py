"""How a sweep ended: its exit code, and the words about what failed."""
from __future__ import annotations

from dataclasses import dataclass, field

from tools import train
from tools.sweeping.cells import Planned
from tools.tables.listing import short


@dataclass
class Outcome:
    """How a sweep ended.

    Attributes:
        failed: (run, exit code, last lines). left_out: runs that did not start because of these.
        elsewhere: runs that other processes make. stopped_by: 130 or 143 where the sweep was interrupted, else 0.
    """

    failed: list[tuple[Planned, int, list[str]]] = field(default_factory=list)
    left_out: list[Planned] = field(default_factory=list)
    elsewhere: list[Planned] = field(default_factory=list)
    stopped_by: int = 0

    @property
    def code(self) -> int:
        """Of the command: 0; 2 where all failures are user errors; 1 otherwise."""
        if self.stopped_by or not (self.failed or self.elsewhere):
            return self.stopped_by
        return 2 if self.failed and all(code == train.USER_ERROR for _, code, _ in self.failed) else 1


def exit_words(code: int) -> str:
    if code == 0:
        return "it ended without a results.json"
    return f"killed by signal {-code}, perhaps for lack of memory" if code < 0 else f"exit code {code}"


def report(outcome: Outcome) -> str:
    """Every failure with its last lines and its log; what several runs have in common is printed once."""
    words: list[str] = []
    told: dict[tuple[str, ...], str] = {}
    items: set[str] = set()                     # "weights: ...", which several missing datasets end with
    for p, code, lines in outcome.failed:
        log = p.folder / "log.txt"
        how = "cannot run" if code == train.USER_ERROR else "failed"
        ends = code != train.USER_ERROR and log.exists()
        how += f"; its log is {short(log)}" if ends else ""
        if first := told.get(tuple(lines)):
            words.append(f"\n{p.name} {how}; it ended as {first} did.")
            continue
        told[tuple(lines)] = p.name
        words.append(f"\n{p.name} {how}{' and ends' if ends else ''}:")
        words += [f"  {line}" for line in lines if line.strip() and line not in items]
        items |= {line for line in lines if code == train.USER_ERROR and line.startswith("  ")}
    if outcome.elsewhere:
        words.append(f"\n{len(outcome.elsewhere)} of the runs are being made by other processes; the same command "
                     "shows their results when they have finished.")
    return "\n".join(words).strip("\n")
