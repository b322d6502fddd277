"""Which run of a sweep may start next, and which need not start at all.

A run that tests or starts from learned prompts waits for the one that learns them. The first run on a dataset, or with
a backbone, goes alone until it shows progress: what is missing is reported once, and what must be fetched is fetched
once.
"""
from __future__ import annotations

from collections.abc import Iterable

from tools.sweeping.cells import Planned
from tools.sweeping.slots import backbone_of


class Schedule:
    """Runs that wait, run, or are held by a process elsewhere.

    Args:
        todo: in the order of the plan. done: runs that had finished before.
    """

    def __init__(self, todo: Iterable[Planned], done: Iterable[Planned]):
        self.waiting, self.running, self.elsewhere = list(todo), [], []
        self.order = {p.cell.folder: number for number, p in enumerate(self.waiting, 1)}
        self._proved = {need for p in done for need in _needs(p)}
        self.finished, self._looked_again = 0, False

    def next(self) -> Planned | None:
        """Take the next run that may start now out of the waiting ones; None where each must wait."""
        unfinished = {p.cell.folder for p in (*self.waiting, *self.running, *self.elsewhere)}
        tried = {need for p in self.running for need in _needs(p)}
        for p in self.waiting:
            if not (p.before in unfinished or (_needs(p) - self._proved) & tried):
                self.waiting.remove(p)
                self.running.append(p)
                return p
        return None

    def moved(self, p: Planned) -> None:
        """This run shows progress: its data and weights are there."""
        self._proved |= _needs(p)

    def succeeded(self, p: Planned) -> None:
        self.running.remove(p)
        self.finished += 1
        self.moved(p)

    def again(self, p: Planned) -> None:
        """This run was lost through no fault of its own."""
        self.running.remove(p)
        self.waiting.insert(0, p)

    def held(self, p: Planned) -> None:
        """Another process makes this run."""
        self.running.remove(p)
        self.elsewhere.append(p)

    def look_again(self) -> bool:
        """Once, when nothing else is left: have the runs that were held elsewhere wait for a place again."""
        if self._looked_again or not self.elsewhere:
            return False
        self._looked_again = True
        self.waiting, self.elsewhere = [*self.elsewhere, *self.waiting], []
        return True

    def failed(self, p: Planned, by_user: bool) -> list[tuple[Planned, str]]:
        """Runs that need not start any more, each with the reason.

        Args:
            by_user: a user error, which every other seed would repeat, and every run on this dataset unless one has
                shown progress.
        """
        self.running.remove(p)
        unproved = by_user and f"data {p.cell.dataset}" not in self._proved
        left, reasons = [], {p.cell.folder: "its training failed"}
        for other in list(self.waiting):
            if other.before in reasons:
                reason = "its training failed" if other.before == p.cell.folder else "its training was skipped"
            elif by_user and other.folder.parent == p.folder.parent:
                reason = "its settings are the same"
            elif unproved and other.cell.dataset == p.cell.dataset:
                reason = f"no run on {p.cell.dataset} has succeeded yet"
            else:
                continue
            reasons[other.cell.folder] = reason
            self.waiting.remove(other)
            left.append((other, reason))
        return left


def _needs(p: Planned) -> set[str]:
    return {f"data {p.cell.dataset}", f"weights {backbone_of(p.cell)}"}
