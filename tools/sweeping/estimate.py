"""What a sweep will do and about how long it takes, from the runs that lie in its results folder.

Imports nothing heavy.
"""
from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from tools.inputs import read_json
from tools.recipes import Cell
from tools.sweeping.cells import Planned


@dataclass
class Times:
    """Seconds of finished runs, and what they say about others.

    A run takes as long as its seeds did; else as a run with other options or shots on the same data with the same
    config, its training scaled by shots x epochs; a test of learned prompts as other tests on the same data.
    """

    exact: dict[tuple, list[float]] = field(default_factory=dict)
    scaled: dict[tuple, list[tuple[float, float]]] = field(default_factory=dict)      # (training per unit, the rest)
    tests: dict[tuple, list[float]] = field(default_factory=dict)

    @classmethod
    def below(cls, output: str, planned: Iterable[Planned]) -> Times:
        """From every finished run of the planned datasets, trainers and configs."""
        times = cls()
        seen: set[tuple[str, str]] = set()
        for cell in (p.cell for p in planned):
            if (cell.dataset, cell.trainer) not in seen:
                seen.add((cell.dataset, cell.trainer))
                for path in Path(output, cell.dataset, cell.trainer).glob("*/seed*/results.json"):
                    record = read_json(path)
                    if record and record.get("finished"):
                        times.add(cell.dataset, cell.trainer, path.parts[-3], record)
        return times

    def add(self, dataset: str, trainer: str, variant: str, record: dict) -> None:
        """Take one results.json in."""
        seconds, key = record.get("seconds", {}), (dataset, trainer, _config(variant))
        total, training = seconds.get("total"), seconds.get("train") or 0
        if total is None:
            return
        self.exact.setdefault((dataset, trainer, variant), []).append(total)
        units = (record.get("epochs") or 0) * max(record.get("shots") or 0, 0)
        if training and units:
            self.scaled.setdefault(key, []).append((training / units, total - training))
        elif not training:
            self.tests.setdefault(key[::2], []).append(total)

    def of(self, cell: Cell) -> float | None:
        """Seconds that a run of this cell takes; None where nothing is known."""
        variant, key = cell.folder.parts[-2], (cell.dataset, cell.trainer, _config(cell.folder.parts[-2]))
        if found := self.exact.get((cell.dataset, cell.trainer, variant)):
            return fmean(found)
        if cell.train_on is not None or cell.shots is None:
            return fmean(found) if (found := self.tests.get(key[::2])) else None
        units = (cell.max_epoch or 0) * cell.shots
        if (found := self.scaled.get(key)) and units:
            return fmean(per_unit * units + rest for per_unit, rest in found)
        return None

    def guess(self, cell: Cell) -> float | None:
        """As `of`, or what other runs of its kind and config took: of its method if there are any, else of all."""
        if (known := self.of(cell)) is not None:
            return known
        kind = (_config(cell.folder.parts[-2]), cell.train_on is None, cell.shots is None)
        others = {}
        for (_, trainer, variant), seconds in self.exact.items():
            if (_config(variant), "@from_" not in variant, "shots" not in variant) == kind:
                others.setdefault(trainer == cell.trainer, []).extend(seconds)
        found = others.get(True) or others.get(False)
        return fmean(found) if found else None


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
                     _numbers(p.cell.seed if p.cell.shots is not None else None for p in members),
                     len(members) - waiting or "-", resumed or "-", waiting - resumed or "-"))
    return tabulate(rows, headers=("trainer", "config", "dataset", "shots", "seeds", "finished", "to resume", "to do"),
                    colalign=("left",) * 5 + ("right",) * 3, disable_numparse=True)


def _numbers(values: Iterable[int | None]) -> str:
    """"1 2 3", each once, in order."""
    return " ".join(str(v) for v in sorted({v for v in values if v is not None})) or "-"


def _config(variant: str) -> str:
    """"tiny_16shots@base-OPTIM.LR=0.1" -> "tiny": what of a folder's name decides about time, but for the shots."""
    return re.split(r"_\d+shots(?=[@-]|$)|@|-(?=[A-Z][A-Z0-9_]*[.=])", variant)[0]
