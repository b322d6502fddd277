"""Figures of what a run learned and how it went. Prints the name of the file it wrote.

For programs: `tools.plotting.<figure>.draw(Run(folder), THEMES["light"], ...)` gives a matplotlib Figure.
"""
from __future__ import annotations

import argparse
import importlib
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

FILTERS = ("trainers", "datasets", "configs", "shots", "seeds")
TAKEN = {"source", "figure", "out", "format", "formats", "style", "epoch", "root", "plugin", "paper", "width",
         "no_band", "serif", *FILTERS}


def target(args: argparse.Namespace) -> Path:
    """The file to write.

    Raises:
        UserError: --out and --format disagree, or the format is none that is written.
    """
    if args.out is None:
        if args.figure == "report":
            return args.source / "report.html"
        mark = "-paper" if args.paper else "-dark" if args.style == "dark" else ""
        return args.source / "plots" / f"{args.figure}{mark}.{args.format or 'png'}"
    ending = args.out.suffix.lstrip(".").lower()
    if not ending:
        return args.out.with_suffix(f".{args.format or args.formats[0]}")
    if ending not in args.formats:
        raise UserError(f"{args.figure} is written as {', '.join(args.formats)}, got --out {args.out}.")
    if args.format not in (None, ending):
        raise UserError(f"--out {args.out} ends in .{ending} and --format says {args.format}. Give one of the two.")
    return args.out


def theme_of(args: argparse.Namespace):
    """The theme that the flags describe.

    Raises:
        UserError: --width without --paper, or no width.
    """
    from tools.plotting.style import THEMES, WIDTHS

    if args.width and not args.paper:
        raise UserError("--width is the width of a figure for a paper. Add --paper.")
    if args.paper and args.style == "dark":
        raise UserError("--paper draws on white. Leave --style dark out.")
    width = WIDTHS.get(args.width or "column")
    if width is None:
        try:
            width = float(args.width)
        except ValueError:
            width = 0.0
        if not 1 <= width <= 20:
            raise UserError(f"--width must be column, text or a number of inches from 1 to 20, got {args.width}.")
    return replace(THEMES["paper" if args.paper else args.style], width=width, band=not args.no_band, serif=args.serif)


def chosen(args: argparse.Namespace) -> list:
    """The rows of the source that the filters leave, as tools/table.py has them.

    Raises:
        UserError: there is no finished run, or none is left.
    """
    from tools import table

    rows = table.scan(args.source) if args.source.is_dir() else []
    if not any(row.found for row in rows):
        raise UserError(f"There is no finished run (a results.json with an accuracy) below {args.source}. Name the "
                        "folder that was given as OUTPUT.")
    return table.select(rows, argparse.Namespace(**{name: getattr(args, name) for name in FILTERS}))


def the_run(args: argparse.Namespace):
    """The source, or the one run in it that the filters leave.

    Raises:
        UserError: there is none, or more than one.
    """
    from tools.runs.folder import is_run
    from tools.runs.run import Run

    if any(getattr(args, name) for name in FILTERS):
        found = [run.folder for row in chosen(args) for run in row.runs.values() if is_run(run.folder)]
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
    from tools.plotting.style import write
    from tools.runs.folder import is_run

    if getattr(args, "top", 1) < 1:
        raise UserError(f"--top must be at least 1, got {args.top}.")
    if args.figure == "report":
        from tools.plotting.report import write_report

        return write_report(args.source, target(args), chosen(args), args.runs, not args.no_test, args.title,
                            args.root, args.plugin)
    theme = theme_of(args)
    options = {name: value for name, value in vars(args).items() if name not in TAKEN}
    several = args.figure in ("geometry", "transfer") or (
        args.figure == "curves" and args.source.is_dir() and not is_run(args.source))
    if args.figure == "curves" and not several:
        del options["published"]
    source = chosen(args) if several else the_run(args)
    path = target(args)
    if args.figure == "embeddings":
        options["numbers"] = path.with_suffix(".json")
    file = "fewshot" if several and args.figure == "curves" else args.figure
    module = importlib.import_module(f"tools.plotting.{file}")
    if args.figure == "words":
        found = module.read(source, **options)
        print(module.as_text(found, source))
        if path.suffix.lower() == ".csv":
            module.write_csv(found, path)
            return path
    write(lambda theme: module.draw_found(found, source, theme) if args.figure == "words" else
          module.draw(source, theme, **options), path, theme)
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
