"""What the page says in tables: the papers' tables, what is missing, settings that differ, environments."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tools.runs.folder import RunFolder, flat
from tools.tables.formats import rounded
from tools.tables.grid import Grid, Value
from tools.tables.rows import Row

DIGITS = 1
LAST_LINES = 6                          # of the log of a run that did not finish
_NOT_SETTINGS = {"OUTPUT_DIR", "RESUME", "SEED", "DATASET.ROOT", "DATASET.NAME", "DATASET.NUM_SHOTS", "TRAINER.NAME"}


@dataclass(frozen=True)
class Cell:
    """One place of a table. mark: a short sign after the text; hint: what it means. best: the highest of its column."""

    text: str
    spread: str = ""
    mark: str = ""
    hint: str = ""
    best: bool = False


@dataclass
class Table:
    """A table of the page.

    Attributes:
        head: names of all columns. left: how many of them are labels. texts: places of the cells that are words.
        lines: (labels, cells, kind).
    """

    title: str
    head: list[str]
    left: int = 1
    texts: tuple[int, ...] = ()
    lines: list[tuple[list[str], list[Cell], str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """How it is set: "wide" is small in print, "scrolls" says on a phone that there is more to the right."""
        return " ".join(["wide"] * (len(self.head) > 8) + ["scrolls"] * (len(self.head) > 4))


def of_grid(grid: Grid) -> Table:
    """A paper's table; where lines are methods, the best of each column is bold."""
    labels = len(grid.lines[0].labels)
    best = {}
    if grid.head[0] in ("method", "variant"):
        for i in range(len(grid.head) - labels):
            numbers = [line.values[i].number for line in grid.lines if line.kind == "measured"
                       and not line.values[i].signed and line.values[i].number is not None]
            best[i] = max(numbers, default=None) if len(numbers) > 1 else None
    table = Table(grid.title, grid.head, labels)
    for line in grid.lines:
        measured = line.kind == "measured"
        cells = [_cell(value, measured and value.number is not None and value.number == best.get(i))
                 for i, value in enumerate(line.values)]
        table.lines.append(([label.strip() for label in line.labels], cells, line.kind))
    return table


def _cell(value: Value, best: bool) -> Cell:
    row, number = value.row, value.number
    if number is None:
        none = f"0 of {len(row.seeds)} seeds" if row and row.seeds else ""
        return Cell("–", mark=f"0/{len(row.seeds)}" if none else "", hint=none)
    text = rounded(number, DIGITS, value.signed).replace("-", "−")
    marks, hints = [], []
    if row and row.missing:
        marks.append(f"{len(row.found)}/{len(row.seeds)}")
        hints.append(f"{len(row.found)} of {len(row.seeds)} seeds finished")
    if row and row.collapsed:
        marks.append("!")
        hints += [f"seed {seed}: {row.seeds[seed]:.{DIGITS}f} is {reason}" for seed, reason in row.collapsed.items()]
    spread = f"± {row.spread:.{DIGITS}f}" if row and row.spread is not None else ""
    return Cell(text, spread, " ".join(marks), "; ".join(hints), best)


def unfinished(rows: list[Row]) -> list[dict]:
    """Runs that were asked for and have no result: name, seed, folder, the last lines of the log, and the state.

    That is "failed", "not finished" or "not begun".
    """
    found = []
    for row in rows:
        for seed in row.missing:
            run = row.runs.get(seed)
            state = "not begun" if run is None else "failed" if run.stopped else "not finished"
            found.append({"name": row.label, "seed": seed, "state": state, "folder": str(run.folder) if run else "",
                          "log": run.log_tail(LAST_LINES) if run else []})
    return found


def environments(records: Iterable[dict]) -> list[tuple[str, list[tuple[str, int]]]]:
    """(what, [(value, number of runs)]) of versions, machines, commits and weights."""
    found: dict[str, Counter] = {}
    for record in records:
        backbone = record.get("backbone") or {}
        facts = {**record.get("versions", {}), **{key: record.get(key) for key in ("device", "precision", "commit")},
                 "backbone": backbone.get("name"), "sha256 of its weights": backbone.get("sha256")}
        for name, value in facts.items():
            if value:
                found.setdefault(name, Counter())[str(value)] += 1
    return [(name, counts.most_common()) for name, counts in found.items()]


def settings_that_differ(folders: Iterable[Path]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(KEY, [(value, trainers that have it)]) of the settings that differ between runs.

    Of a section of one of these trainers (TRAINER.COOP) only that trainer's runs count.
    """
    found = [flat(RunFolder(folder).settings_or_none) for folder in folders]
    runs = [(str(settings.get("TRAINER.NAME", "")), settings) for settings in found if settings]
    sections = {trainer.upper() for trainer, _ in runs}
    found = []
    for key in sorted({key for _, settings in runs for key in settings} - _NOT_SETTINGS):
        owner = key.split(".")[1] if key.startswith("TRAINER.") else ""
        values: dict[str, dict[str, None]] = {}
        for trainer, settings in runs:
            if key in settings and (owner not in sections or owner == trainer.upper()):
                values.setdefault(str(settings[key]) or '""', {})[trainer] = None
        if len(values) > 1:
            found.append((key, [(value, ", ".join(trainers)) for value, trainers in values.items()]))
    return found
