"""A row: one method on one dataset at one number of shots, over its seeds.

A seed is called collapsed, and flagged, where its accuracy is
  - at or below chance: guessing reaches it too (dassl/chance.py, the rule by which a run warns of itself); or
  - far below the best seed of its row: by more than FAR_BELOW = 20 points, or less than half as far above chance.
The second half of the last rule serves datasets on which even the best seed is low. A flag changes nothing: the seed
stays in the mean. The rules are ours; a run that did not learn is what they are to find (the seeds of DTD in
KaiyangZhou/CoOp issue 24 read 12.0, 15.2 and 63.4).
"""
from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tools.runs.cell import ZEROSHOT, Cell
from tools.runs.folder import RunFolder
from tools.runs.protocols import TARGETS
from tools.runs.published import beyond_yaml
from tools.runs.record import Record

FAR_BELOW = 20.0


@dataclass
class Row:
    """A cell and its seeds.

    Attributes:
        cell: of one of the seeds; what all of them have in common is read from it.
        folder: that the seeds' run folders lie in.
        seeds: seed -> accuracy in percent, or None where the run is missing. asked: those that a sweep was asked for.
        records, runs: seed -> its own; of finished runs, and of those that have begun.
        chance: seeds whose accuracy guessing reaches too.
        published: percent, or None; published_from: where it was read.
        changed: KEY -> value of what was set other than its recipe has it now, though its name says nothing of it.
        called: what is shown instead of a trainer yaml that nobody knows.
        where: "in <folder>" where rows of several folders would read the same, "on val" for another split than test.
        summary, parts: of a row that is made of others: "H" of base and new, "cross" or "dg" for an average of targets.
    """

    cell: Cell
    folder: Path | None = None
    seeds: dict[int, float | None] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    records: dict[int, Record] = field(default_factory=dict)
    runs: dict[int, RunFolder] = field(default_factory=dict)
    chance: set[int] = field(default_factory=set)
    published: float | None = None
    published_from: str = ""
    changed: dict[str, str] = field(default_factory=dict)
    called: str = ""
    where: str = ""
    summary: str = ""
    parts: tuple[Row, ...] = ()

    dataset = property(lambda self: self.cell.dataset)
    trainer = property(lambda self: self.cell.trainer)
    shots = property(lambda self: self.cell.shots)
    words = property(lambda self: self.cell.words)
    source = property(lambda self: self.cell.source)
    variant = property(lambda self: self.cell.variant)

    @property
    def classes(self) -> str:
        """"base", "new" or "H" in the protocol base2new."""
        return "H" if self.summary == "H" else self.cell.classes

    @property
    def tag(self) -> str:
        """What its protocol adds to its name, "@transfer" or "@from_shapes", where `classes` does not say it."""
        return "" if self.classes else self.cell.tag

    @cached_property
    def options(self) -> dict[str, str]:
        """The user's, KEY -> text."""
        return {key: str(value) for key, value in sorted(self.cell.options.items())}

    @property
    def config(self) -> str:
        """Name of the trainer yaml, and the user's words and options where there are any."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return self.called or "-".join(filter(None, [self.cell.config + self.tag, self.words, options]))

    @property
    def method(self) -> tuple:
        """What makes two rows the same method: trainer, yaml, options, words; and where it lies, if that tells."""
        return (self.trainer, self.cell.config, tuple(self.options.items()),
                " ".join(filter(None, [self.words, self.where])))

    @property
    def variant_options(self) -> dict[str, str]:
        """The options that make it its variant in an ablation; it shares the others with the other variants."""
        return {key: value for key, value in self.options.items() if key in self.cell.variant_opts}

    @cached_property
    def beyond(self) -> dict[str, str]:
        """KEY -> value of what its recipe set other than the trainer yaml."""
        return {} if self.parts else beyond_yaml(self.cell)

    @property
    def label(self) -> str:
        shots = "" if self.shots is None else f" {self.shots} shot{'s' * (self.shots > 1)}"
        return " ".join(filter(None, [self.trainer, self.config, self.dataset, self.classes, self.where])) + shots

    def add(self, seed: int, record: Record | None, asked: Iterable[int] = ()) -> None:
        """Take one run's results.json in; None, or one without an accuracy, is a run that is missing."""
        self.seeds[seed] = record.accuracy if record else None
        self.asked |= set(asked)
        if self.seeds[seed] is not None:
            self.records[seed] = record
            if record.at_chance:
                self.chance.add(seed)

    def keep(self, seeds: Iterable[int]) -> None:
        """Have these seeds, and nothing of others; one without a run is missing."""
        self.seeds = {seed: self.seeds.get(seed) for seed in sorted(seeds)}
        self.records, self.runs = ({seed: value for seed, value in own.items() if seed in self.seeds}
                                   for own in (self.records, self.runs))

    @property
    def found(self) -> list[float]:
        return [accuracy for accuracy in self.seeds.values() if accuracy is not None]

    @property
    def missing(self) -> list[int]:
        return sorted(seed for seed, accuracy in self.seeds.items() if accuracy is None)

    @property
    def mean(self) -> float | None:
        if self.summary == "H":         # of the means, as the papers have it, and not the mean of the seeds' own
            return harmonic(*(part.mean for part in self.parts))
        return mean(self.found)

    @property
    def spread(self) -> float | None:
        """Population standard deviation, as CoOp's parse_test_res.py prints it; None below two runs."""
        return statistics.pstdev(self.found) if len(self.found) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published value, in points."""
        return minus(self.mean, self.published)

    @property
    def seconds(self) -> list[float]:
        """Of each finished run, loading included."""
        found = [record.get("seconds", {}).get("total") for record in self.records.values()]
        return [seconds for seconds in found if seconds is not None]

    @property
    def best_tests(self) -> list[float]:
        """Accuracies of the best test epoch, where they were recorded; selected on the test split."""
        found = [record.get("best_test_epoch", {}).get("accuracy") for record in self.records.values()]
        return [accuracy for accuracy in found if accuracy is not None]

    def fact(self, name: str):
        """A field of results.json that all runs share; None where none has it."""
        return next((record[name] for record in self.records.values() if name in record), None)

    @property
    def is_plain(self) -> bool:
        """Whether it was trained and tested on all classes of one dataset, outside of any other protocol."""
        return not self.classes and not self.source and not self.tag

    @property
    def on_test(self) -> bool:
        """Whether its runs were tested on the test split."""
        return not self.where.startswith("on ")

    def is_zero_shot_of(self, row: Row) -> bool:
        """Whether it is CLIP as the row's training found it: its yaml is the row's, or is named by it and its trainer.

        See `tools.runs.recipe.zeroshot_cell`.
        """
        return self.trainer == ZEROSHOT and not self.options and self.words == row.words and \
            self.cell.config in (row.cell.config, f"{row.trainer}-{row.cell.config}")

    @property
    def collapsed(self) -> dict[int, str]:
        """Seed -> why it is taken for collapsed; the rules stand at the top of this file."""
        if self.parts:
            return {seed: reason for part in self.parts for seed, reason in part.collapsed.items()}
        classes, best = self.fact("num_classes"), max(self.found, default=0.0)
        chance, reasons = 100 / classes if classes else None, {}
        for seed, accuracy in self.seeds.items():
            if accuracy is None:
                continue
            if seed in self.chance:
                of = "" if chance is None else f", which is {chance:.1f} for {classes} classes"
                reasons[seed] = f"at chance{of}"
            elif chance is not None and accuracy < chance:
                reasons[seed] = f"below chance, which is {chance:.1f} for {classes} classes"
            elif accuracy < best - FAR_BELOW or (chance is not None and accuracy - chance < (best - chance) / 2):
                reasons[seed] = f"far below the row's best seed, {best:.1f}"
        return reasons


def row_of(cell: Cell, folder: Path | None = None) -> Row:
    """An empty row for a cell and its other seeds, whose run folders lie in `folder`."""
    return Row(cell, folder, published=cell.published, published_from=cell.published_from)


def in_order(rows: list[Row]) -> list[Row]:
    """Datasets together, as they come; zero-shot first, then by shots."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: (datasets.index(row.dataset), row.shots or 0))


def with_summaries(rows: list[Row]) -> list[Row]:
    """Below each pair of base and new classes their harmonic mean, below the targets of one source their average."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        name = (row.dataset, row.trainer, row.config, row.shots, row.where)
        base = next((r for r in rows if r.classes == "base" and (
            r.dataset, r.trainer, r.config, r.shots, r.where) == name), None)
        if row.classes == "new" and base:
            found.append(harmonic_row(base, row))
    groups = by([row for row in rows if row.source], lambda row: (
        row.source, kind_of_transfer(row), row.trainer, row.config, row.shots, row.where))
    for (_, kind, *_), targets in groups.items():
        seeds = {s: mean([r.seeds.get(s) for r in targets]) for s in sorted({s for r in targets for s in r.seeds})}
        cell = replace(targets[0].cell, dataset=f"average of {len(targets)} targets")
        if len(targets) > 1:
            found.append(Row(cell, seeds=seeds, where=targets[0].where, summary=kind, parts=tuple(targets)))
    return found


def kind_of_transfer(row: Row) -> str:
    """"dg" for a known shift of the source, "cross" for any other dataset."""
    return row.summary or ("dg" if row.dataset in TARGETS["dg"].get(row.source, ()) else "cross")


def harmonic_row(base: Row, new: Row) -> Row:
    """The row H of two halves: of their means and published values; its seeds are those of each seed's own halves."""
    published = harmonic(base.published, new.published)
    return Row(base.cell, seeds={s: harmonic(base.seeds.get(s), new.seeds.get(s))
                                 for s in sorted({*base.seeds, *new.seeds})},
               published=None if published is None else round(published, 2), published_from=new.published_from,
               where=base.where, summary="H", parts=(base, new))


def measure_row(row: Row, name: str) -> Row:
    """The row with another measure of its runs that learned tasks, `name` of "tasks" in results.json, for accuracy."""
    return Row(row.cell, seeds={seed: record["tasks"][name] for seed, record in row.records.items()
                                if "tasks" in record}, where=row.where, summary=name, parts=(row,))


def by(rows: Iterable, key: Callable) -> dict[object, list]:
    """Rows, or anything else, by what `key` says of them, in their order."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def mean(values: list[float | None]) -> float | None:
    """None where there is no value, or one of them is None."""
    return statistics.fmean(values) if values and None not in values else None


def minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def harmonic(base: float | None, new: float | None) -> float | None:
    """Harmonic mean of two percentages; None where one is unknown or both are 0."""
    return 2 * base * new / (base + new) if base is not None and new is not None and base + new else None
