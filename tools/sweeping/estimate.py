"""What a sweep will do and about how long it takes, from the runs that lie in its results folder.

Imports nothing heavy.
"""
from __future__ import annotations

import heapq
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from tools.runs.cell import ZEROSHOT, Cell
from tools.runs.folder import below
from tools.runs.record import Record
from tools.sweeping.cells import Planned


class Times:
    """Seconds of finished runs, and what they say about others.

    A run takes as long as its seeds did; else as a run with other options or shots on the same data with the same
    config, its training scaled by shots x epochs; a test of learned prompts as other tests on the same data.
    """

    def __init__(self) -> None:
        self._known: list[tuple[Cell, Record]] = []
        self._guesses: dict[tuple, float | None] = {}       # by kind of cell, until more is known

    @classmethod
    def below(cls, output: str, planned: Iterable[Planned]) -> Times:
        """From every finished run of the planned datasets and trainers, where a sweep lays runs out."""
        times = cls()
        for place in dict.fromkeys(Path(output, p.cell.dataset, p.cell.trainer) for p in planned):
            for run in below(place):
                if run.finished:
                    times.add(run.cell, run.record)
        return times

    def add(self, cell: Cell, record: Record) -> None:
        """Take one result in."""
        if record.get("seconds", {}).get("total") is not None:
            self._known.append((cell, record))
            self._guesses.clear()

    def of(self, cell: Cell) -> float | None:
        """Seconds that a run of this cell takes; None where nothing is known."""
        if found := [_total(record) for one, record in self._known if one.kind == cell.kind]:
            return fmean(found)
        alike = [(one, record) for one, record in self._known
                 if (one.dataset, one.config) == (cell.dataset, cell.config)]
        if not _trains(cell):
            found = [_total(record) for _, record in alike if not record["seconds"].get("train")]
            return fmean(found) if found else None
        units = (cell.max_epoch or 0) * (cell.shots or 0)
        found = [_total(record) - training + training / done * units for one, record in alike
                 if one.trainer == cell.trainer and (training := record["seconds"].get("train") or 0)
                 and (done := (record.get("epochs") or 0) * max(record.get("shots") or 0, 0))]
        return fmean(found) if found and units else None

    def guess(self, cell: Cell) -> float | None:
        """As `of`, or what other runs of its kind and config took: of its method if there are any, else of all."""
        if cell.kind not in self._guesses:
            self._guesses[cell.kind] = self._guess(cell)
        return self._guesses[cell.kind]

    def _guess(self, cell: Cell) -> float | None:
        if (known := self.of(cell)) is not None:
            return known
        others: dict[bool, list[float]] = {True: [], False: []}
        for one, record in self._known:
            if (one.config, one.shots is None, _trains(one)) == (cell.config, cell.shots is None, _trains(cell)):
                others[one.trainer == cell.trainer].append(_total(record))
        found = others[True] or others[False]
        return fmean(found) if found else None


def _total(record: Record) -> float:
    return record["seconds"]["total"]


def _trains(cell: Cell) -> bool:
    return cell.train_on is None and (cell.shots is not None or cell.max_epoch is not None)


def side_by_side(seconds: Iterable[float], jobs: int) -> float:
    """Until the last of these runs has ended, when each starts in the first place that is free."""
    places = [0.0] * jobs
    for each in seconds:
        heapq.heapreplace(places, places[0] + each)
    return max(places)


def plan_table(planned: list[Planned], todo: list[Planned]) -> str:
    """A line for each method, config and dataset: shots, seeds, and how many runs are finished, cut off or to do."""
    to_run, groups = {id(p) for p in todo}, {}
    for p in planned:
        c = p.cell
        trainer = f"{c.trainer} ({c.variant})" if c.variant else c.trainer
        groups.setdefault((trainer, c.config, c.dataset + c.tag.replace("@", " ").replace("_", " ")), []).append(p)
    rows = []
    for (trainer, config, dataset), members in groups.items():
        resumed = sum(p.state == "resume" and id(p) in to_run for p in members)
        waiting = sum(id(p) in to_run for p in members)
        rows.append((trainer, config, dataset, _numbers(p.cell.shots for p in members),
                     _numbers(None if p.cell.trainer == ZEROSHOT else p.cell.seed for p in members),
                     len(members) - waiting or "-", resumed or "-", waiting - resumed or "-"))
    return tabulate(rows, headers=("trainer", "config", "dataset", "shots", "seeds", "finished", "to resume", "to do"),
                    colalign=("left",) * 5 + ("right",) * 3, disable_numparse=True)


def _numbers(values: Iterable[int | None]) -> str:
    """"1 2 3", each once, in order."""
    return " ".join(str(v) for v in sorted({v for v in values if v is not None})) or "-"
