"""A row: one method on one dataset at one number of shots, over its seeds.

A seed is called collapsed, and flagged, where its accuracy is
  - at chance: guessing reaches it too (dassl/evaluation/chance.py, the rule by which a run warns of itself); or
  - far below the best seed of its row: by more than FAR_BELOW = 20 points, or less than half as far above chance.
The second half of the last rule serves datasets on which even the best seed is low. A flag changes nothing: the seed
stays in the mean. The rules are ours; a run that did not learn is what they are to find (the seeds of DTD in
KaiyangZhou/CoOp issue 24 read 12.0, 15.2 and 63.4).
"""
from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tools.runs.cell import ZEROSHOT, Cell
from tools.runs.folder import RunFolder
from tools.runs.protocols import TARGETS
from tools.runs.published import beyond_yaml
from tools.runs.record import Record

FAR_BELOW = 20.0


@dataclass
class Row:
    """One method on one dataset at one number of shots.

    Attributes:
        config: name of the trainer yaml, and the user's words and options where there are any.
        seeds: seed -> accuracy in percent, or None where the run is missing. asked: those that a sweep was asked for.
        seconds: seed -> of the whole run, loading included; of the finished ones. learned: of one of them.
        best_tests: seed -> accuracy of the best test epoch, where it was recorded; selected on the test split.
        folder: that the seeds' run folders lie in. runs, cells: seed -> its own, of those that have begun.
        chance: seeds whose accuracy guessing reaches too.
        published: percent, or None; published_from: where it was read.
        classes: "base", "new" or "H" in the protocol base2new. parts: of H the two rows that it is made of.
        base, options: the trainer yaml's name alone, and the user's options KEY -> text.
        words: the user's template and class names, as `Cell.words`.
        beyond: KEY -> value of what else was set other than in the trainer yaml: by the recipe.
        tag: what its protocol adds to its name, "@transfer" or "@from_shapes", where `classes` does not say it.
        source: the dataset whose prompts are tested here, "" where the row's own dataset was trained on.
        transfer: "cross" or "dg" of an average over targets; of other rows `kind_of_transfer` tells it.
        variant: name in the recipe's ablation, "" where it has none; variant_opts: the options that make it.
        changed: KEY -> value of what was set other than its recipe has it now, though its name says nothing of it.
        where: "in <folder>" where rows of several folders would read the same, "on val" for another split than test.
        num_classes: how many they are, None where no run says it.
    """

    dataset: str
    trainer: str
    config: str
    shots: int | None
    seeds: dict[int, float | None] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    seconds: dict[int, float] = field(default_factory=dict)
    learned: int | None = None
    best_tests: dict[int, float] = field(default_factory=dict)
    folder: Path | None = None
    runs: dict[int, RunFolder] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    chance: set[int] = field(default_factory=set)
    published: float | None = None
    published_from: str = ""
    classes: str = ""
    parts: tuple[Row, Row] | None = None
    base: str = ""
    options: dict[str, str] = field(default_factory=dict)
    words: str = ""
    beyond: dict[str, str] = field(default_factory=dict)
    tag: str = ""
    source: str = ""
    transfer: str = ""
    variant: str = ""
    variant_opts: dict = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    where: str = ""
    num_classes: int | None = None

    def add(self, seed: int, record: Record | None, cell: Cell | None = None) -> None:
        """Take one run's results.json in; None, or one without an accuracy, is a run that is missing."""
        self.seeds[seed] = record.accuracy if record else None
        self.asked |= set(cell.seeds) if cell else set()
        if record and self.seeds[seed] is not None:
            if (seconds := record.get("seconds", {}).get("total")) is not None:
                self.seconds[seed] = seconds
            self.learned = record.get("learned_parameters", self.learned)
            self.num_classes = record.get("num_classes", self.num_classes)
            if record.at_chance:
                self.chance.add(seed)
            if "best_test_epoch" in record:
                self.best_tests[seed] = record["best_test_epoch"]["accuracy"]

    def keep(self, seeds: Iterable[int]) -> None:
        """Have these seeds, and nothing of others; one without a run is missing."""
        seeds = sorted(seeds)
        self.seeds = {seed: self.seeds.get(seed) for seed in seeds}
        for of_seed in (self.seconds, self.best_tests, self.runs, self.cells):
            for seed in of_seed.keys() - set(seeds):
                del of_seed[seed]

    @property
    def found(self) -> list[float]:
        return [accuracy for accuracy in self.seeds.values() if accuracy is not None]

    @property
    def on_test(self) -> bool:
        """Whether its runs were tested on the test split."""
        return not self.where.startswith("on ")

    def is_zero_shot_of(self, row: Row) -> bool:
        """Whether it is CLIP as the row's training found it: its yaml is the row's, or is named by it and its trainer.

        See `tools.runs.recipe.zeroshot_cell`.
        """
        return self.trainer == ZEROSHOT and not self.options and self.words == row.words and \
            self.base in (row.base, f"{row.trainer}-{row.base}")

    @property
    def missing(self) -> list[int]:
        return sorted(seed for seed, accuracy in self.seeds.items() if accuracy is None)

    @property
    def mean(self) -> float | None:
        if self.parts:                  # of the means, as the papers have it, and not the mean of the seeds' own
            return harmonic(*(part.mean for part in self.parts))
        return mean(self.found)

    @property
    def mean_seconds(self) -> float | None:
        return mean(list(self.seconds.values()))

    @property
    def spread(self) -> float | None:
        """Population standard deviation, as CoOp's parse_test_res.py prints it; None below two runs."""
        return statistics.pstdev(self.found) if len(self.found) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published value, in points."""
        return minus(self.mean, self.published)

    @property
    def collapsed(self) -> dict[int, str]:
        """Seed -> why it is taken for collapsed; the rules stand at the top of this file."""
        if self.parts:
            return {seed: reason for part in self.parts for seed, reason in part.collapsed.items()}
        chance, best = 100 / self.num_classes if self.num_classes else None, max(self.found, default=0.0)
        reasons = {}
        for seed, accuracy in self.seeds.items():
            if accuracy is None:
                continue
            if seed in self.chance:
                of = "" if chance is None else f", which is {chance:.1f} for {self.num_classes} classes"
                reasons[seed] = f"at chance{of}"
            elif accuracy < best - FAR_BELOW or (chance is not None and accuracy - chance < (best - chance) / 2):
                reasons[seed] = f"far below the row's best seed, {best:.1f}"
        return reasons

    @property
    def label(self) -> str:
        shots = "" if self.shots is None else f" {self.shots} shot{'s' * (self.shots > 1)}"
        return " ".join(filter(None, [self.trainer, self.config, self.dataset, self.classes, self.where])) + shots


def mean(values: list[float | None]) -> float | None:
    """None where there is no value, or one of them is None."""
    return statistics.fmean(values) if values and None not in values else None


def minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def harmonic(base: float | None, new: float | None) -> float | None:
    """Harmonic mean of two percentages; None where one is unknown or both are 0."""
    return 2 * base * new / (base + new) if base is not None and new is not None and base + new else None


def with_summaries(rows: list[Row]) -> list[Row]:
    """Below each pair of base and new classes their harmonic mean, below the targets of one source their average."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        base = next((r for r in rows if r.classes == "base" and _name(r) == _name(row)), None)
        if row.classes == "new" and base:
            found.append(harmonic_row(base, row))
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.source:
            key = (row.source, kind_of_transfer(row), row.trainer, row.config, row.shots, row.where)
            groups.setdefault(key, []).append(row)
    for (source, kind, trainer, config, shots, where), targets in groups.items():
        seeds = {s: mean([r.seeds.get(s) for r in targets]) for s in sorted({s for r in targets for s in r.seeds})}
        if len(targets) > 1:
            found.append(Row(f"average of {len(targets)} targets", trainer, config, shots, seeds=seeds, source=source,
                             transfer=kind, base=targets[0].base, tag=targets[0].tag, options=targets[0].options,
                             where=where))
    return found


def kind_of_transfer(row: Row) -> str:
    """"dg" for a known shift of the source, "cross" for any other dataset."""
    return row.transfer or ("dg" if row.dataset in TARGETS["dg"].get(row.source, ()) else "cross")


def harmonic_row(base: Row, new: Row) -> Row:
    """The row H of two halves: of their means and published values; its seeds are those of each seed's own halves."""
    published = harmonic(base.published, new.published)
    return Row(base.dataset, base.trainer, base.config, base.shots, classes="H", parts=(base, new),
               seeds={s: harmonic(base.seeds.get(s), new.seeds.get(s)) for s in sorted({*base.seeds, *new.seeds})},
               published=None if published is None else round(published, 2), published_from=new.published_from,
               base=base.base, options=base.options, where=base.where)


def _name(row: Row) -> tuple:
    return row.dataset, row.trainer, row.config, row.shots, row.where


def row_of(cell: Cell, folder: Path) -> Row:
    """An empty row for a cell and its other seeds, whose run folders lie in `folder`."""
    options = {key: str(value) for key, value in sorted(cell.options.items())}
    tag = "" if cell.classes else cell.tag
    config = "-".join(filter(None, [cell.config + tag, cell.words,
                                    ",".join(f"{key}={value}" for key, value in options.items())]))
    return Row(cell.dataset, cell.trainer, config, cell.shots, folder=folder, classes=cell.classes, base=cell.config,
               options=options, words=cell.words, beyond=beyond_yaml(cell), tag=tag, source=cell.source)


def in_order(rows: list[Row]) -> list[Row]:
    """Datasets together, as they come; zero-shot first, then by shots."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: (datasets.index(row.dataset), row.shots or 0))
