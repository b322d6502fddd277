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
    seeds = sorted({seed for row in rows if row.trainer != ZEROSHOT for seed in row.seeds})
    there = {"classes": any(row.classes for row in rows), BEST_TEST: any(row.best_tests for row in rows)}
    there |= dict.fromkeys(("published", "difference"), any(row.published is not None for row in rows))
    lines = [{"dataset": row.dataset, "shots": "-" if row.shots is None else row.shots, "trainer": row.trainer,
              "config": f"{row.config} {row.where}".strip(), "classes": row.classes or "all",
              **{f"seed {n}": "" if row.trainer == ZEROSHOT else
                 _number(row.seeds.get(n), digits) + FLAG * (n in row.collapsed) for n in seeds},
              "mean": _number(row.mean, digits), "std": _number(row.spread, digits),
              "n": f"{len(row.found)}/{len(row.seeds)}", "seconds": _number(mean(row.seconds), 1),
              "learned": "-" if (learned := row.fact("learned_parameters")) is None else f"{learned:,}",
              BEST_TEST: _number(mean(row.best_tests), digits), "published": _number(row.published, digits),
              "difference": _number(row.difference, digits, signed=True)} for row in rows]
    head = [name for name in lines[0] if there.get(name, True)]
    align = ["left" if name in ("dataset", "trainer", "config", "classes") else "right" for name in head]
    text = [tabulate([[line[name] for name in head] for line in lines], head, colalign=align, disable_numparse=True,
                     tablefmt=tablefmt),
            "", "accuracy on the test split, percent; std over seeds (population); seconds per run; learned parameters"]
    if there["classes"]:
        text.append("H: harmonic mean of the means of base and new classes, as the papers have it")
    if there[BEST_TEST]:
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


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    return "-" if value is None else rounded(value, digits, signed)


def _folders(row: Row) -> str:
    names = [row.runs[seed].folder.name for seed in sorted(row.runs)] or [f"seed{seed}" for seed in sorted(row.seeds)]
    if len(names) > 1 and all(name.startswith("seed") for name in names):
        names = [f"seed{{{','.join(name.removeprefix('seed') for name in names)}}}"]
    return f"{short(row.folder)}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}"
