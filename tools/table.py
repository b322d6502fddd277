"""The table of finished runs: mean and spread over seeds, how many there are, and the published value beside them.

Usage: python tools/table.py [OUTPUT]   (every results.json below that folder; default $OUTPUT, else output)
Imports nothing heavy.
"""
from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.inputs import read_json  # noqa: E402

BEST_TEST = "best test epoch (selected on test)"


@dataclass
class Row:
    """One method on one dataset at one number of shots.

    Attributes:
        config: name of the trainer yaml, and the options of the user where there are any.
        seeds: seed -> accuracy in percent, or None where the run is missing.
        seconds, learned: of the finished runs; seconds are whole runs, loading included.
        best_tests: accuracy of the best test epoch of each finished run that recorded it; selected on the test split.
        folder: of the seeds' run folders.
        published: percent, or None; published_from: where it was read.
        classes: "base", "new" or "H" in the protocol base2new. parts: of H the two rows that it is made of.
    """

    dataset: str
    trainer: str
    config: str
    shots: int | None
    seeds: dict[int, float | None] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    learned: int | None = None
    best_tests: list[float] = field(default_factory=list)
    folder: Path | None = None
    published: float | None = None
    published_from: str = ""
    classes: str = ""
    parts: tuple[Row, Row] | None = None

    def add(self, seed: int, record: dict | None) -> None:
        """Take one run's results.json in; None is a run that is missing."""
        self.seeds[seed] = record["metrics"]["accuracy"] if record else None
        if record:
            self.seconds.append(record["seconds"]["total"])
            self.learned = record["learned_parameters"]
            if "best_test_epoch" in record:
                self.best_tests.append(record["best_test_epoch"]["accuracy"])

    @property
    def found(self) -> list[float]:
        return [accuracy for accuracy in self.seeds.values() if accuracy is not None]

    @property
    def mean(self) -> float | None:
        if self.parts:                  # of the means, as the papers have it, and not the mean of the seeds' own
            return harmonic(*(part.mean for part in self.parts))
        return statistics.fmean(self.found) if self.found else None

    @property
    def spread(self) -> float | None:
        """Population standard deviation, as CoOp's parse_test_res.py prints it; None below two runs."""
        return statistics.pstdev(self.found) if len(self.found) > 1 else None


def harmonic(base: float | None, new: float | None) -> float | None:
    """Harmonic mean of two percentages; None where one is unknown or both are 0."""
    return 2 * base * new / (base + new) if base is not None and new is not None and base + new else None


def with_summaries(rows: list[Row]) -> list[Row]:
    """Below each pair of base and new classes their harmonic mean, below the targets of one source their average."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        key = (row.dataset, row.trainer, row.config, row.shots)
        base = next((r for r in rows if r.classes == "base" and (r.dataset, r.trainer, r.config, r.shots) == key), None)
        if row.classes == "new" and base:
            published = harmonic(base.published, row.published)
            found.append(Row(*key, seeds={s: harmonic(base.seeds.get(s), row.seeds.get(s))
                                          for s in sorted({*base.seeds, *row.seeds})},
                             published=None if published is None else round(published, 2), classes="H",
                             parts=(base, row)))
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if "@from_" in row.config:
            groups.setdefault((row.trainer, row.config, row.shots), []).append(row)
    for (trainer, config, shots), targets in groups.items():
        seeds = {s: [r.seeds.get(s) for r in targets] for s in sorted({s for r in targets for s in r.seeds})}
        if len(targets) > 1:
            found.append(Row(f"average of {len(targets)} targets", trainer, config, shots, seeds={
                s: None if None in values else statistics.fmean(values) for s, values in seeds.items()}))
    return found


def render(rows: list[Row]) -> str:
    """The table and, below it, the run folders and the sources of the published values."""
    rows = with_summaries(rows)
    halves = any(row.classes for row in rows)
    numbers = sorted({seed for row in rows if row.shots is not None for seed in row.seeds})
    published = any(row.published is not None for row in rows)
    best = any(row.best_tests for row in rows)
    head = ["dataset", "shots", "trainer", "config", *(["classes"] if halves else []),
            *(f"seed {n}" for n in numbers), "mean", "std", "n", "seconds",
            "learned", *([BEST_TEST] if best else []), *(["published", "difference"] if published else [])]
    lines = []
    for row in rows:
        seeds = [_number(row.seeds.get(n)) if row.shots is not None else "" for n in numbers]
        line = [row.dataset, "-" if row.shots is None else row.shots, row.trainer, row.config,
                *([row.classes or "all"] if halves else []), *seeds,
                _number(row.mean), _number(row.spread), f"{len(row.found)}/{len(row.seeds)}",
                _number(statistics.fmean(row.seconds) if row.seconds else None),
                "-" if row.learned is None else f"{row.learned:,}"]
        if best:
            line.append(_number(statistics.fmean(row.best_tests) if row.best_tests else None))
        if published:
            known = row.published is not None and row.mean is not None
            line += [_number(row.published), f"{row.mean - row.published:+.1f}" if known else "-"]
        lines.append(line)
    left = 5 if halves else 4
    align = ["left", "right", *["left"] * (left - 2), *["right"] * (len(head) - left)]
    text = [tabulate(lines, headers=head, colalign=align, disable_numparse=True),
            "", "accuracy on the test split, percent; std over seeds (population); seconds per run; learned parameters"]
    if halves:
        text.append("H: harmonic mean of the means of base and new classes, as the papers have it")
    if best:
        text.append(f"{BEST_TEST}: as some authors' code keeps it; the other columns are the last epoch's")
    text += [f"published ({row.trainer}, {row.dataset}): {row.published_from}" for row in _one_per_source(rows)]
    text += ["", "run folders:"] + [f"  {short(row.folder)}/{_seeds(row)}" for row in rows if row.folder]
    return "\n".join(text)


def scan(output: Path) -> list[Row]:
    """A row per folder of seeds below `output`, from <dataset>/<trainer>/<variant>/seed<n>/results.json."""
    rows: dict[Path, Row] = {}
    for path in sorted(output.glob("*/*/*/seed*/results.json")):
        record, folder = read_json(path), path.parents[1]
        if record and record.get("finished"):
            shots = None if folder.parent.name == "ZeroshotCLIP" else record["shots"]
            row = rows.setdefault(folder, row_of(folder, shots))
            row.add(int(path.parent.name.removeprefix("seed")), record)
    return in_order(list(rows.values()))


def row_of(folder: Path, shots: int | None) -> Row:
    """An empty row for a folder of seeds, named by <dataset>/<trainer>/<variant>."""
    dataset, trainer, variant = folder.parts[-3:]
    half = re.search(r"@(base|new)(?=-|$)", variant)
    config = config_of(variant.replace(half[0], "", 1) if half else variant)
    return Row(dataset, trainer, config, shots, folder=folder, classes=half[1] if half else "")


def in_order(rows: list[Row]) -> list[Row]:
    """Datasets together, as they come; zero-shot first, then by shots."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: (datasets.index(row.dataset), row.shots or 0))


def config_of(variant: str) -> str:
    """"tiny_16shots-OPTIM.LR=0.1" -> "tiny-OPTIM.LR=0.1"; the shots have a column of their own."""
    return re.sub(r"_\d+shots(?=[-@]|$)", "", variant, count=1)


def _one_per_source(rows: list[Row]) -> list[Row]:
    return list({row.published_from: row for row in reversed(rows)
                 if row.published is not None and row.published_from}.values())[::-1]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seeds(row: Row) -> str:
    seeds = sorted(row.seeds)
    return f"seed{seeds[0]}" if len(seeds) == 1 else f"seed{{{','.join(map(str, seeds))}}}"


def short(path: Path) -> Path:
    """Relative to the current folder where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", default=os.environ.get("OUTPUT") or "output", help="folder of the runs")
    output = Path(parser.parse_args(argv).output)
    rows = scan(output)
    if not rows:
        print(f"No finished run (<dataset>/<trainer>/<variant>/seed<s>/results.json) below {output.absolute()}. "
              "Name the folder that was given as OUTPUT.", file=sys.stderr)
        return 2
    print(render(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
