"""What differs between the sides, and what their results are."""
from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tools.runs.folder import RunFolder
from tools.runs.published import WITHOUT_EFFECT
from tools.tables.rows import minus

from .sides import Side

# What results.json says besides the settings: (group, name in words, path in the record).
RECORDED = (
    ("data", "dataset", "dataset"), ("data", "few-shot split", "split_hash"), ("data", "class names", "class_hash"),
    ("data", "number of classes", "num_classes"), ("data", "classes", "classes"), ("data", "tested split", "split"),
    ("data", "images tested", "num_test"), ("data", "transforms", "transforms"),
    ("model", "trainer", "trainer"), ("model", "backbone", "backbone.name"),
    ("model", "weights, sha256", "backbone.sha256"), ("model", "precision", "precision"),
    ("model", "learned parameters", "learned_parameters"), ("run", "mode", "mode"), ("run", "epochs", "epochs"),
    ("run", "model selection", "model_selection"), ("machine", "device", "device"), ("machine", "machine", "machine"),
    ("machine", "CUDA calls", "cuda_calls"), ("software", "commit", "commit"))
_OPTIONAL = {"cuda_calls": "not used"}                      # is there only where it was used
_AS_SETTING = {"dataset": "DATASET.NAME", "trainer": "TRAINER.NAME", "classes": "DATASET.SUBSAMPLE_CLASSES",
               "transforms": "INPUT.TRANSFORMS", "epochs": "OPTIM.MAX_EPOCH"}     # said already where that differs
_SAID = {"seed", "trainer", "backbone"}                      # flags that are said in other words
SURE = 0.05                                                 # p-values below are no matter of seeds
_MEASURED = (("seconds of training", "seconds.train"), ("seconds of testing", "seconds.test"),
             ("peak memory, MiB", "peak_memory_mb"))


@dataclass(frozen=True)
class Difference:
    """group: "settings", "data", ...; values: a text per side; effect: False for what changes no result."""

    group: str
    what: str
    values: list[str]
    effect: bool = True


@dataclass(frozen=True)
class Measure:
    """A number of every side: its mean and population spread over the runs, and how far it is from the first side's.

    None where a side has none, or the spread of one run.
    """

    name: str
    means: list[float | None]
    stds: list[float | None]
    differences: list[float | None]


@dataclass(frozen=True)
class Paired:
    """How far a side is from the first one, over the seeds that both have.

    Attributes:
        differences: seed -> side - first side; mean, std: of these, the sample's.
        p_value: of the paired t-test, two-sided: how often seeds alone would make as large a mean difference.
        within_spread: whether the difference is within the spread over seeds.
    """

    side: str
    metric: str
    differences: dict[int, float]
    mean: float
    std: float
    p_value: float
    within_spread: bool


class Comparison:
    """Sides and what follows from them.

    Attributes:
        differences: what is otherwise, settings first.
        unknown: names of what one side has not recorded.
        others: config keys of other trainers that only some of the sides know.
    """

    def __init__(self, sides: list[Side]):
        self.sides, self.runs = sides, [run for side in sides for run in side.runs.values()]
        self.differences: list[Difference] = []
        self.unknown: list[str] = []
        self.others: list[str] = []
        self.seeds = sorted(set.intersection(*(set(side.runs) for side in sides)))
        self.several = any(side.several for side in sides)
        if self.several and len({tuple(side.runs) for side in sides}) > 1:
            self.differences.append(Difference("seeds", "seeds", [" ".join(map(str, sorted(side.runs)))
                                                                  for side in sides]))
        if {} not in [run.config for run in self.runs]:     # reads each: a damaged one is named
            self._settings()
        else:
            self.unknown.append("config.yaml")
        settings = {difference.what for difference in self.differences}
        for group, what, path in RECORDED:
            if _AS_SETTING.get(path) not in settings:
                self._compare(group, what, lambda run, path=path: _at(run.record, path, _OPTIONAL.get(path)))
        for package in self._names(lambda run: run.record.get("versions", {})):
            self._compare("software", package, lambda run, name=package: run.record.get("versions", {}).get(name))
        for flag in self._names(lambda run: run.flags):
            if flag not in _SAID:
                self._compare("run", f"--{flag.replace('_', '-')}",
                              lambda run, flag=flag: run.flags.get(flag, "not given"))

    @property
    def same(self) -> bool:
        """Whether nothing differs that can change a result."""
        return not any(difference.effect for difference in self.differences)

    @property
    def unfinished(self) -> list[str]:
        return [f"{side.name}{f' seed {seed}' if side.several else ''}" for side in self.sides
                for seed, run in side.runs.items() if not run.metrics]

    @cached_property
    def equal_results(self) -> bool:
        """Whether every metric that all have is the same to the last digit, seed by seed; not where one has none."""
        metrics = [[run.metrics for _, run in sorted(side.runs.items())] for side in self.sides]
        shared = set.intersection(*(set(one) for own in metrics for one in own))
        same = [[{name: one[name] for name in shared} for one in own] for own in metrics]
        return not self.unfinished and all(own == same[0] for own in same)

    @cached_property
    def metrics(self) -> list[Measure]:
        return [self._measure(name, lambda run, name=name: run.metrics.get(name))
                for name in self._names(lambda run: run.metrics)]

    @cached_property
    def paired(self) -> list[Paired]:
        """Each side against the first, in every metric that both have at two seeds or more."""
        found, first = [], self.sides[0]
        for side in self.sides[1:] if self.several else ():
            for name in self._names(lambda run: run.metrics):
                differences = {seed: minus(side.runs[seed].metrics.get(name), first.runs[seed].metrics.get(name))
                               for seed in self.seeds}
                differences = {seed: value for seed, value in differences.items() if value is not None}
                if len(values := list(differences.values())) > 1:
                    p_value = p_of(values)
                    found.append(Paired(side.name, name, differences, statistics.fmean(values),
                                        statistics.stdev(values), p_value, p_value >= SURE))
        return found

    @cached_property
    def measured(self) -> list[Measure]:
        found = [self._measure(what, lambda run, path=path: _at(run.record, path)) for what, path in _MEASURED]
        return [measure for measure in found if any(mean is not None for mean in measure.means)]

    @cached_property
    def per_class(self) -> list[Measure]:
        """Classes that every side has and whose accuracies differ; the greatest differences first."""
        found = [self._measure(name, lambda run, name=name: run.per_class.get(name))
                 for name in self._names(lambda run: run.per_class)]
        found = [measure for measure in found if None not in measure.means and len(set(measure.means)) > 1]
        return sorted(found, key=lambda measure: -max(map(abs, measure.differences)))

    @cached_property
    def images(self) -> dict[str, int] | None:
        """Of two runs on the same images: how many were answered otherwise; None where that cannot be said."""
        if self.several or len(self.sides) != 2:
            return None
        one, other = (next(iter(side.runs.values())).predictions for side in self.sides)
        if not one or set(one) != set(other):
            return None
        pairs = [(*one[path], other[path][1]) for path in one]             # true, predicted, predicted
        return {"images": len(pairs), "otherwise": sum(a != b for _, a, b in pairs),
                "now right": sum(a != true == b for true, a, b in pairs),
                "now wrong": sum(a == true != b for true, a, b in pairs)}

    def _settings(self) -> None:
        trained = {str(run.config.get("TRAINER.NAME", "")).lower() for run in self.runs}
        for key in self._names(lambda run: run.config):
            section, _, rest = key.removeprefix("TRAINER.").partition(".")
            if rest and key.startswith("TRAINER.") and section.lower() not in trained and not all(
                    key in run.config for run in self.runs):
                self.others.append(key)
            elif key != "SEED" or not self.several:
                self._compare("settings", key, lambda run, key=key: run.config.get(key, "not there"),
                              effect=key not in WITHOUT_EFFECT or key == "USE_CUDA")

    def _compare(self, group: str, what: str, get: Callable[[RunFolder], object], effect: bool = True) -> None:
        """Seed by seed where all sides have it, else what one side has against what the other has."""
        sides = [{seed: get(run) for seed, run in side.runs.items()} for side in self.sides]
        values = [value for own in sides for value in own.values()]
        if None in values:
            self.unknown += [what] * any(value is not None for value in values)
            return
        if self.several and self.seeds:
            at = [seed for seed in self.seeds if len({repr(own[seed]) for own in sides}) > 1]
            sides, differ = [{seed: own[seed] for seed in at} for own in sides], bool(at)
        else:
            sets = [set(map(repr, own.values())) for own in sides]
            differ = any(own.isdisjoint(sets[0]) for own in sets[1:]) and (
                not self.several or all(len(own) == 1 for own in sets))
        if differ:
            self.differences.append(Difference(group, what, list(map(_text, sides)), effect))

    def _names(self, get: Callable[[RunFolder], dict]) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in get(run)))

    def _measure(self, name: str, get: Callable[[RunFolder], float | None]) -> Measure:
        values = [[v for v in map(get, side.runs.values()) if v is not None] for side in self.sides]
        means = [statistics.fmean(own) if own else None for own in values]
        return Measure(name, means, [statistics.pstdev(own) if len(own) > 1 else None for own in values],
                       [minus(mean, means[0]) for mean in means])


def p_of(differences: list[float]) -> float:
    """The p-value of the paired t-test, two-sided; 0 where all differences are the same, 1 where they are all 0."""
    from scipy.stats import ttest_1samp

    if len(set(differences)) == 1:
        return 0.0 if differences[0] else 1.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def _text(values: dict[int, object]) -> str:
    """One value, or "seed 1: a, seed 2: b"."""
    if len({repr(value) for value in values.values()}) == 1:
        return str(next(iter(values.values()))) or "(empty)"
    return ", ".join(f"seed {seed}: {value}" for seed, value in values.items())


def _at(record: dict, path: str, default=None):
    for part in path.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return default if record is None else record
