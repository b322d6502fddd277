"""Which of the rows are wanted, and the tables of these as text."""
from __future__ import annotations

import argparse

from tools.runs.recipe import RecipeError, nearest

from . import formats, layouts
from .listing import listing
from .rows import Row

RUNS = "runs"                           # the name of the long table


def select(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows asked for; each gets the seeds that it should have.

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
    if args.datasets:
        kept.sort(key=lambda row: args.datasets.index(row.dataset))
    _add_missing(kept, args.seeds)
    kept = [row for row in kept if row.seeds]
    if not any(row.found for row in kept):
        raise RecipeError("No finished run is left by --trainers, --datasets, --configs, --shots and --seeds. Without "
                          "them, --table runs shows all there are.")
    return kept


def _add_missing(rows: list[Row], seeds: list[int] | None) -> None:
    """Give rows the seeds that they should have: those asked for, else those that others of the same protocol have."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.shots is not None and max(row.seeds) >= 0:
            transfer = row.source or row.tag
            groups.setdefault("transfer" if transfer else "base2new" if row.classes else "", []).append(row)
    for own in groups.values():
        wanted = set(seeds or {seed for row in own for seed in row.seeds if seed >= 0})
        for row in own:
            row.keep(wanted)


def write(rows: list[Row], args: argparse.Namespace) -> str:
    """The text of the tables asked for, in the format asked for.

    Raises:
        RecipeError: the runs make no table of that name.
    """
    names = tuple(name for name in args.table or () if name != RUNS)
    grids = layouts.build(rows, names or None) if names or not args.table else []
    long = RUNS in (args.table or ()) or (not grids and not args.table)
    if args.format in ("csv", "json"):
        if args.table and not long:
            used = {id(row) for grid in grids for row in grid.rows} | {
                id(part) for grid in grids for row in grid.rows for part in row.parts or ()}
            rows = [row for row in rows if id(row) in used]
        if rows:
            return formats.as_csv(rows) if args.format == "csv" else formats.as_json(grids, rows)
    elif args.format == "latex" and long:
        raise RecipeError(f"The table {RUNS} has no LaTeX; name another one with --table, or take --format markdown.")
    for name in names:
        if not any(grid.name == name for grid in grids):
            kinds = sorted({layouts.protocol_of(row) for row in rows})
            raise RecipeError(f"There is no run for the table {name}; there are runs of {', '.join(kinds)}.")
    if args.format == "latex":
        return formats.latex(grids, rows, args.digits, args.standalone)
    draw, style = (formats.text, "simple") if args.format == "text" else (formats.markdown, "pipe")
    parts = [draw(grids, rows, args.digits)] if grids else []
    return "\n\n".join([*parts, *([listing(rows, args.digits, style)] if long else [])])
