"""The papers' tables from finished runs, with spread over seeds, what is missing, and the published values beside.

Runs are found by their results.json, in any folder. Tables:
  fewshot   datasets x shots, one per method          base2new  base and new classes and their harmonic mean
  methods   methods x datasets, one per shots         cross     trained once, tested on other datasets
  ablation  variants of one method                    dg        trained once, tested on shifted copies
  runs      every seed, time and folder, a line per method, dataset and number of shots
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402
from tools.runs.recipe import RecipeError, load_recipe, nearest  # noqa: E402
from tools.tables import formats, layouts  # noqa: E402
from tools.tables.found import scan  # noqa: E402
from tools.tables.listing import listing, short  # noqa: E402
from tools.tables.rows import Row, in_order, row_of  # noqa: E402

__all__ = ["Row", "in_order", "main", "render", "row_of", "scan", "short"]

FORMATS = {"text": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv", "json": ".json"}
ALIASES = {**{ending[1:]: name for name, ending in FORMATS.items()}, "plain": "text"}
RUNS = "runs"


def parser() -> argparse.ArgumentParser:
    p = command.parser("table", __doc__)
    p.add_argument("output", nargs="*", default=[os.environ.get("OUTPUT") or _default_output()],
                   help="folders to look in (default: $OUTPUT, else output/ of the checkout)")
    p.add_argument("--table", "--protocol", nargs="+", choices=[*layouts.NAMES, RUNS], metavar="NAME",
                   help=f"{', '.join(layouts.NAMES)} or {RUNS} (default: all of the first six that there are runs for)")
    p.add_argument("--recipe", nargs="+", default=[], metavar="FILE",
                   help="recipes of your own, whose published values and variants count too")
    p.add_argument("--trainers", nargs="+", metavar="NAME", help="only these methods")
    p.add_argument("--datasets", nargs="+", metavar="NAME", help="only these datasets, in this order")
    p.add_argument("--configs", nargs="+", metavar="TEXT", help="only rows whose config contains one of these texts")
    p.add_argument("--shots", nargs="+", type=int, help="only these; what needs no shots stays")
    p.add_argument("--seeds", nargs="+", type=int, help="only these, and each row should have them all")
    p.add_argument("--format", choices=list(FORMATS), type=lambda name: ALIASES.get(name, name),
                   help="default: by the name of --output, else text")
    p.add_argument("--output", dest="file", metavar="FILE", help="write there; the folder is made")
    p.add_argument("--digits", type=command.number(0), default=1, metavar="N",
                   help="behind the point; csv and json are not rounded (default: 1)")
    p.add_argument("--standalone", action="store_true", help="LaTeX as a document of its own")
    return p


def _default_output() -> str:
    """Where runs go that were not told where, named as short as can be from here."""
    return "output" if Path.cwd() == ROOT else str(ROOT / "output")


def render(rows: list[Row]) -> str:
    """The long table of a sweep, and its ablation where it has one."""
    grids = layouts.build(rows, ("ablation",)) if any(row.variant for row in rows) else []
    return "\n\n".join([listing(rows), *([formats.text(grids, rows, 1)] if grids else [])])


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


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 for what the user can mend."""
    args = parser().parse_args(argv)
    try:
        args.format = args.format or _format_of(args.file)
        rows = scan(*_folders(args.output), recipes=tuple(map(load_recipe, args.recipe)))
        if not any(row.found for row in rows):
            raise RecipeError(f"No finished run (a results.json with an accuracy) below "
                              f"{', '.join(os.path.abspath(f) for f in args.output)}. "
                              "Name the folder that was given as OUTPUT.")
        text = write(select(rows, args), args)
        if args.file:
            path = Path(args.file)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise RecipeError(f"{args.file} cannot be written: {error.strerror}. Name another --output.") from error
            print(f"Written to {short(path)}.")
        else:
            print(text)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror}. Name folders that can be.", file=sys.stderr)
        return 2
    return 0


def _folders(names: list[str]) -> list[Path]:
    for name in names:
        if not Path(name).is_dir():
            raise RecipeError(f"There is no folder {name} ({os.path.abspath(name)}). Name the folder that was given as "
                              "OUTPUT, or any that holds run folders.")
    return [Path(name) for name in names]


def _format_of(file: str | None) -> str:
    """By the ending of a file's name."""
    endings = {ending: name for name, ending in FORMATS.items()}
    if file is None:
        return "text"
    if Path(file).suffix.lower() not in endings:
        raise RecipeError(f"{file} does not say which format: end its name in {', '.join(endings)}, or give --format.")
    return endings[Path(file).suffix.lower()]


if __name__ == "__main__":
    command.script(main)
