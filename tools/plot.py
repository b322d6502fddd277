"""Figures of what a run learned and how it went. The name of the file is printed.

For programs: `tools.plotting.<figure>.draw(Run(folder), THEMES["light"], ...)` gives a matplotlib Figure.
"""
from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402
from tools.plotting.arguments import parser  # noqa: E402


def target(args: argparse.Namespace) -> Path | None:
    """The file to write; None where the console is enough.

    Raises:
        UserError: --out and --format disagree, or the format is none that is written.
    """
    from dassl.utils import UserError

    if args.figure == "report":
        args.format, default = "html", args.source / "report.html"
    elif args.figure == "words" and args.out is None and args.format is None:
        return None
    else:
        dark = "-dark" if args.style == "dark" else ""
        default = args.source / "plots" / f"{args.figure}{dark}.{args.format or 'png'}"
    if args.out is None:
        return default
    ending = args.out.suffix.lstrip(".").lower()
    if not ending:
        return args.out.with_suffix(f".{args.format or 'png'}")
    if ending not in args.formats:
        raise UserError(f"{'Reports' if args.figure == 'report' else 'Figures'} are written as "
                        f"{', '.join(args.formats)}; --out {args.out} ends in .{ending}.")
    if args.format not in (None, ending):
        raise UserError(f"--out {args.out} ends in .{ending} and --format says {args.format}. Give one of the two.")
    return args.out


def main(args: argparse.Namespace) -> Path | None:
    """Draw one figure and write it; returns its file. Raises UserError for what the user can mend."""
    from dassl.utils import UserError
    from tools import train

    train.register()                # this checkout's packages first, whatever else is installed under their names
    from tools.plotting.style import THEMES, context, save
    from tools.runs.run import Run

    if getattr(args, "top", 1) < 1:
        raise UserError(f"--top takes 1 or more; got {args.top}.")
    path = target(args)
    if args.figure == "report":
        from tools.plotting.report import write_report

        return write_report(args.source, path, args.runs, not args.no_test, args.title, args.root, args.plugin)
    source = args.source if args.figure == "curves" else \
        Run(args.source, args.epoch, getattr(args, "root", ""), args.plugin)
    theme = THEMES[args.style]
    if args.figure == "words":
        return _words(source, args, path, theme)
    taken = {"source", "figure", "out", "format", "formats", "style", "epoch", "root", "plugin"}
    options = {name: value for name, value in vars(args).items() if name not in taken}
    if args.figure == "embeddings":
        options["numbers"] = path.with_suffix(".json")
    draw = importlib.import_module(f"tools.plotting.{args.figure}").draw
    with context(theme):
        save(draw(source, theme, **options), path)
    return path


def _words(run, args: argparse.Namespace, path: Path | None, theme) -> Path | None:
    from tools.plotting import words
    from tools.plotting.style import context, save

    found = words.read(run, args.classes, args.top)
    print(words.as_text(found, run))
    if path is None:
        return None
    if path.suffix.lower() == ".csv":
        words.write_csv(found, path)
    else:
        with context(theme):
            save(words.draw_found(found, run, theme), path)
    return path


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 for what the user can mend, or 130 for Ctrl-C."""
    args = parser().parse_args(argv)

    def work() -> None:
        if (path := main(args)) is not None:
            print(path)

    return command.ended(work)


if __name__ == "__main__":
    sys.exit(cli())
