"""Figures of what a run learned and how it went. Prints the name of the file it wrote.

For programs: `tools.plotting.<figure>.draw(Run(folder), THEMES["light"], ...)` gives a matplotlib Figure.
"""
from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402
from tools.plotting.arguments import parser  # noqa: E402
from tools.runs.folder import is_run  # noqa: E402
from tools.tables.select import FILTERS, rows_below  # noqa: E402


def target(args: argparse.Namespace) -> Path:
    """The file to write.

    Raises:
        UserError: --out and --format disagree, or the format is none that is written.
    """
    if args.out is None:
        mark = "" if args.style == "light" else f"-{args.style}"
        return args.source / "report.html" if args.figure == "report" else \
            args.source / "plots" / f"{args.figure}{mark}.{args.format or 'png'}"
    ending = args.out.suffix.lstrip(".").lower()
    if not ending:
        return args.out.with_suffix(f".{args.format or args.formats[0]}")
    if ending not in args.formats:
        raise UserError(f"{args.figure} is written as {', '.join(args.formats)}, got --out {args.out}.")
    if args.format not in (None, ending):
        raise UserError(f"--out {args.out} ends in .{ending} and --format says {args.format}. Give one of the two.")
    return args.out


def the_run(args: argparse.Namespace):
    """The source, or the one run in it that the filters leave.

    Raises:
        UserError: there is none, or more than one.
    """
    from tools.runs.run import Run

    if any(getattr(args, name) for name in FILTERS):
        rows = rows_below([args.source], args)
        found = [run.folder for row in rows for run in row.runs.values() if is_run(run.folder)]
        if len(found) != 1:
            listed = "\n".join(f"  {folder}" for folder in found[:8]) + "\n  ..." * (len(found) > 8)
            raise UserError(f"{args.figure} shows one run, and these flags leave {len(found)}:\n{listed}\nName one of "
                            f"them, or add {', '.join(f'--{name}' for name in FILTERS if not getattr(args, name))}.")
        args.source = found[0]
    return Run(args.source, args.epoch, args.root, args.plugin)


def main(args: argparse.Namespace) -> Path:
    """Draw one figure and write it; returns its file. Raises UserError."""
    from tools import train

    train.register()                # this checkout's packages first, whatever else is installed under their names
    from tools.plotting.style import THEMES, write

    if args.figure == "report":
        from tools.plotting.report import write_report

        return write_report(args.source, target(args), rows_below([args.source], args), args.runs, not args.no_test,
                            args.title, args.root, args.plugin)
    if args.width and args.style != "paper":
        raise UserError("--width is the width of a figure for a paper. Add --paper.")
    theme = replace(THEMES[args.style], width=args.width, band=not args.no_band, serif=args.serif)
    few_shot = args.figure == "curves" and args.source.is_dir() and not is_run(args.source)
    several = few_shot or args.figure in ("geometry", "transfer")
    source = rows_below([args.source], args) if several else the_run(args)
    path = target(args)
    module = importlib.import_module(f"tools.plotting.{'fewshot' if few_shot else args.figure}")
    if args.figure == "words":
        found = module.read(source, tuple(args.classes), args.top)
        print(module.as_text(found, source))
        if path.suffix.lower() == ".csv":
            module.write_csv(found, path)
            return path
    given = {**vars(args), "numbers": path.with_suffix(".json")}
    options = {name: given[name] for name in inspect.signature(module.draw).parameters if name in given}
    write(lambda theme: module.draw(source, theme, **options), path, theme)
    return path


def cli(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 2 for a user error, or 130 for Ctrl-C."""
    p = parser()
    args, unknown = p.parse_known_args(argv)
    if unknown:                     # the figure's own parser knows which flags are near
        p.figures[args.figure].error(f"unrecognized arguments: {' '.join(unknown)}")
    return command.ended(lambda: print(main(args)))


if __name__ == "__main__":
    sys.exit(cli())
