"""The long table: a line per row with every seed, as a sweep ends with it."""
from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from tools.runs.cell import ZEROSHOT

from .formats import FLAG, collapsed, rounded, settings
from .rows import Row, mean, with_summaries

BEST_TEST = "best test epoch (selected on test)"


def listing(rows: list[Row], digits: int = 1, tablefmt: str = "simple") -> str:
    """The table and, below it, what is missing or looks wrong, the sources of published values and the run folders."""
    rows = with_summaries(rows)
    halves = any(row.classes for row in rows)
    numbers = sorted({seed for row in rows if row.trainer != ZEROSHOT for seed in row.seeds})
    published = any(row.published is not None for row in rows)
    best = any(row.best_tests for row in rows)
    head = ["dataset", "shots", "trainer", "config", *(["classes"] if halves else []),
            *(f"seed {n}" for n in numbers), "mean", "std", "n", "seconds",
            "learned", *([BEST_TEST] if best else []), *(["published", "difference"] if published else [])]
    lines = []
    for row in rows:
        line = [row.dataset, "-" if row.shots is None else row.shots, row.trainer,
                f"{row.config} {row.where}".strip(), *([row.classes or "all"] if halves else []),
                *(_seed(row, n, digits) for n in numbers), _number(row.mean, digits), _number(row.spread, digits),
                f"{len(row.found)}/{len(row.seeds)}", _number(row.mean_seconds, 1),
                "-" if row.learned is None else f"{row.learned:,}"]
        if best:
            line.append(_number(mean(list(row.best_tests.values())), digits))
        if published:
            line += [_number(row.published, digits), _number(row.difference, digits, signed=True)]
        lines.append(line)
    left = 5 if halves else 4
    align = ["left", "right", *["left"] * (left - 2), *["right"] * (len(head) - left)]
    text = [tabulate(lines, headers=head, colalign=align, disable_numparse=True, tablefmt=tablefmt),
            "", "accuracy on the test split, percent; std over seeds (population); seconds per run; learned parameters"]
    if halves:
        text.append("H: harmonic mean of the means of base and new classes, as the papers have it")
    if best:
        text.append(f"{BEST_TEST}: as some authors' code keeps it; the other columns are the last epoch's")
    text += collapsed(rows, digits) + settings(rows)
    sources = {row.published_from: row for row in reversed(rows)
               if row.published is not None and row.published_from and not row.parts}
    text += [f"published ({row.trainer}, {row.dataset}): {source}" for source, row in reversed(sources.items())]
    return "\n".join([*text, "", "run folders:", *(f"  {_folders(row)}" for row in rows if row.folder)])


def short(path: Path) -> Path:
    """Relative to the current folder where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _seed(row: Row, seed: int, digits: int) -> str:
    if row.trainer == ZEROSHOT:
        return ""
    return _number(row.seeds.get(seed), digits) + FLAG * (seed in row.collapsed)


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    return "-" if value is None else rounded(value, digits, signed)


def _folders(row: Row) -> str:
    names = [row.runs[seed].folder.name for seed in sorted(row.runs)] or [f"seed{seed}" for seed in sorted(row.seeds)]
    if len(names) > 1 and all(name.startswith("seed") for name in names):
        names = [f"seed{{{','.join(name.removeprefix('seed') for name in names)}}}"]
    return f"{short(row.folder)}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}"
