"""What the page says in tables: the papers' tables, what is missing, settings that differ, environments."""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from tools.runs.folder import RunFolder, flat
from tools.tables.formats import HTML
from tools.tables.grid import Grid
from tools.tables.rows import Row

DIGITS = 1
LAST_LINES = 6                          # of the log of a run that did not finish
_NOT_SETTINGS = {"OUTPUT_DIR", "RESUME", "SEED", "DATASET.ROOT", "DATASET.NAME", "DATASET.NUM_SHOTS", "TRAINER.NAME"}


@dataclass
class Table:
    """A table of the page.

    Attributes:
        lines: texts of each; what is not Markup is escaped. kinds: of the lines, where they have one.
        left: how many columns are labels. texts: places of the others that are words.
    """

    title: str
    head: list[str]
    lines: list[list[str]]
    kinds: list[str] = field(default_factory=list)
    left: int = 1
    texts: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """How it is set: "wide" is small in print, "scrolls" says on a phone that there is more to the right."""
        return " ".join(["wide"] * (len(self.head) > 8) + ["scrolls"] * (len(self.head) > 4))


def of_grid(grid: Grid) -> Table:
    """A paper's table."""
    return Table(grid.title, grid.head, [list(map(Markup, line)) for line in HTML.lines(grid, DIGITS)],
                 [line.kind + " rule" * line.rule for line in grid.lines], len(grid.labels))


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


def environments(records: Sequence[dict]) -> Table:
    """Versions, machines, commits and weights, and how many runs have which."""
    found: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        backbone = record.get("backbone", {})
        facts = {**record.get("versions", {}), **{key: record.get(key) for key in ("device", "precision", "commit")},
                 "backbone": backbone.get("name"), "sha256 of its weights": backbone.get("sha256")}
        for name, value in facts.items():
            if value:
                found[name][str(value)] += 1
    runs = len(records)
    return Table(f"Versions, machines and weights of the {runs} finished runs", ["what", "value"], [
        [name, "; ".join(value + f" ({count} of {runs} runs)" * (count < runs) for value, count in own.most_common())]
        for name, own in found.items()], texts=(1,))


def settings_that_differ(runs: Iterable[RunFolder]) -> Table:
    """Settings that differ between runs, with the trainers that have each value.

    Of a section of one of these trainers (TRAINER.COOP) only that trainer's runs count.
    """
    found = [(str(settings.get("TRAINER.NAME", "")), settings) for run in runs
             if (settings := flat(run.settings_or_none))]
    sections, lines = {trainer.upper() for trainer, _ in found}, []
    for key in sorted({key for _, settings in found for key in settings} - _NOT_SETTINGS):
        owner = key.split(".")[1] if key.startswith("TRAINER.") else ""
        values: dict[str, dict[str, None]] = defaultdict(dict)
        for trainer, settings in found:
            if key in settings and (owner not in sections or owner == trainer.upper()):
                values[str(settings[key]) or '""'][trainer] = None
        if len(values) > 1:
            lines.append([key, "; ".join(f"{value} ({', '.join(trainers)})" for value, trainers in values.items())])
    return Table("Settings that differ between runs", ["setting", "values, and the trainers that have them"], lines,
                 texts=(1,))
