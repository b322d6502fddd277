"""Which of the rows are wanted, and the tables of these as text."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tools.runs import published
from tools.runs.index import frame_of
from tools.runs.recipe import Recipe, RecipeError, nearest

from . import data, formats, layouts
from .found import scan
from .listing import listing
from .rows import Row

RUNS = "runs"                           # the name of the long table
FILTERS = ("trainers", "datasets", "configs", "shots", "seeds")


def add_filters(p: argparse._ActionsContainer) -> None:
    """The flags that `select` reads."""
    p.add_argument("--trainers", "--trainer", nargs="+", metavar="NAME", help="only these methods, in this order")
    p.add_argument("--datasets", "--dataset", nargs="+", metavar="NAME", help="only these datasets, in this order")
    p.add_argument("--configs", "--config", nargs="+", metavar="TEXT",
                   help="only rows whose config contains one of these texts")
    p.add_argument("--shots", nargs="+", type=int, metavar="K", help="only these; what needs no shots stays")
    p.add_argument("--seeds", "--seed", nargs="+", type=int, metavar="S",
                   help="only these, and each row should have them all")


def rows_below(folders: Sequence[str | Path], args: argparse.Namespace, recipes: tuple[Recipe, ...] = ()) -> list[Row]:
    """The rows below some folders that `select` leaves.

    Raises:
        RecipeError: a folder is not there, or no run is finished.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise RecipeError(f"There is no folder {folder} ({os.path.abspath(folder)}). Name the folder that was "
                              "given as OUTPUT, or any that holds run folders.")
    rows = scan(*folders, recipes=recipes)
    if not any(row.found for row in rows):
        raise RecipeError(f"No finished run (a results.json with an accuracy) below "
                          f"{', '.join(map(os.path.abspath, folders))}. Name the folder that was given as OUTPUT.")
    return select(rows, args)


def select(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows asked for, in the order of --datasets and --trainers; each gets the seeds that it should have.

    Raises:
        RecipeError: a trainer or dataset is not among them, or nothing is left.
    """
    for name, known in (("trainers", {row.trainer for row in rows}), ("datasets", {row.dataset for row in rows})):
        wanted = getattr(args, name) or []
        spelt = {k.lower(): k for k in known}
        for word in wanted:
            if word.lower() not in spelt:
                raise RecipeError(f"There is no run of {word!r} here. {nearest(word, known)}")
        setattr(args, name, [spelt[word.lower()] for word in wanted])
    kept = [row for row in rows if (not args.trainers or row.trainer in args.trainers)
            and (not args.datasets or row.dataset in args.datasets)
            and (not args.configs or any(text in f"{row.config} {row.where}" for text in args.configs))
            and (not args.shots or row.shots is None or row.shots in args.shots)]
    if args.trainers:
        kept.sort(key=lambda row: args.trainers.index(row.trainer))
    if args.datasets:
        kept.sort(key=lambda row: args.datasets.index(row.dataset))
    for row in kept:
        row.published = None if getattr(args, "no_published", False) else row.published
        if max(row.seeds) >= 0:
            only = args.seeds if row.shots is not None else None
            row.keep(only or {seed for seed in (*row.seeds, *row.asked) if seed >= 0})
    kept = [row for row in kept if row.seeds]
    if not any(row.found for row in kept):
        raise RecipeError("No finished run is left by --trainers, --datasets, --configs, --shots and --seeds. Without "
                          "them, --table runs shows all there are.")
    return kept


def write(rows: list[Row], args: argparse.Namespace) -> str:
    """The text of the tables asked for, in the format asked for.

    Raises:
        RecipeError: the runs make no table of that name.
    """
    names = tuple(name for name in args.table or () if name != RUNS)
    grids = layouts.build(rows, names or None) if names or not args.table else []
    if not names and any(grid.name == "shots" for grid in grids):          # which has all that these two have
        grids = [grid for grid in grids if grid.name not in ("fewshot", "methods")]
    long = RUNS in (args.table or ()) or (not grids and not args.table)
    for name in names:
        if not any(grid.name == name for grid in grids):
            kinds = sorted({layouts.protocol_of(row) for row in rows})
            raise RecipeError(f"There is no run for the table {name}; there are runs of {', '.join(kinds)}.")
    if args.format == "csv":
        return data.grids_as_csv(grids) if names and not long else data.as_csv(rows)
    if args.format == "json":
        used = [id(part) for grid in grids for row in grid.rows for part in (row, *row.parts)]
        return data.as_json(grids, [row for row in rows if long or not names or id(row) in used])
    if args.format in ("latex", "html"):
        if long:
            raise RecipeError(f"The table {RUNS} has no {'LaTeX' if args.format == 'latex' else 'HTML'}; name another "
                              "one with --table, or take --format markdown.")
        if args.format == "html":
            return formats.html(grids, rows, args.digits)
        return formats.latex(grids, rows, args.digits, args.standalone)
    draw, style = (formats.text, "simple") if args.format == "text" else (formats.markdown, "pipe")
    parts = [draw(grids, rows, args.digits)] if grids else []
    return "\n\n".join([*parts, *([listing(rows, args.digits, style)] if long else [])])


def render(rows: list[Row]) -> str:
    """The long table of a sweep, and that of its ablation or of the domains left out, where it has one."""
    kinds = {layouts.protocol_of(row) for row in rows} | {"ablation" for row in rows if row.variant}
    names = tuple(name for name in ("ablation", "lodo", "incremental", "matrix") if name in kinds)
    grids = layouts.build(rows, names) if names else []
    return "\n\n".join([listing(rows), *([formats.text(grids, rows, 1)] if grids else [])])


def write_runs(rows: list[Row], recipes: tuple[Recipe, ...]) -> str:
    """CSV with a line per run of the rows and a column per fact: see `tools.runs.index`."""
    runs = [run for row in rows for _, run in sorted(row.runs.items())]
    return frame_of(runs, (*recipes, *published.shipped())).to_csv(index=False).rstrip("\n")
