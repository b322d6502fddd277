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

FORMATS = ("png", "svg", "pdf")


def parser() -> argparse.ArgumentParser:
    p = command.parser("plot", __doc__.splitlines()[0])
    figures = p.add_subparsers(dest="figure", required=True, metavar="FIGURE")

    def add(name: str, shows: str, source: str = "RUN", formats: tuple = FORMATS,
            out: str = "where the figure goes (default: into the run folder)") -> argparse.ArgumentParser:
        f = figures.add_parser(name, help=shows, description=shows[0].upper() + shows[1:] + ".", allow_abbrev=False,
                               epilog=command.epilog(f"plot-{name}"),
                               formatter_class=argparse.RawDescriptionHelpFormatter)
        f.add_argument("source", metavar=source, type=Path, help={"RUN": "folder of a run", "OUTPUT":
                       "folder of all results"}.get(source, "folder of a run, or of all results"))
        f.add_argument("-o", "--out", type=Path, metavar="FILE", help=out)
        if len(formats) > 1:
            f.add_argument("--format", choices=formats, help="default: that of --out, else png")
            f.add_argument("--style", choices=("light", "dark"), default="light", help="of the page (default: light)")
        f.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE",
                       help="what defines the run's trainer, as tools/train.py was given it; repeatable")
        f.set_defaults(formats=formats)
        return f

    def add_checkpoint(f: argparse.ArgumentParser) -> None:
        f.add_argument("--epoch", type=int, help="which checkpoint (default: the one that the run was tested with)")

    def add_data(f: argparse.ArgumentParser) -> None:
        f.add_argument("--root", default="", help="folder of the datasets, if it is no longer where the run found it")

    f = add("prm", "which prompt and which descriptions decide each class (DVPcse, DVPcls)")
    f.add_argument("--classes", nargs="+", default=(), metavar="NAME",
                   help="whose descriptions are shown (default: up to 8, those that lean most on each prompt)")
    f.add_argument("--top", type=int, default=5, metavar="N", help="descriptions of each of these classes (default: 5)")
    add_checkpoint(f)
    f = add("prompts", "the learned pixels, what training changed, and images under them (VP, AR, AttrVR, DVP)")
    f.add_argument("--classes", nargs="+", default=(), metavar="NAME",
                   help="whose first test image is shown (default: three classes)")
    f.add_argument("--image", nargs="+", default=(), metavar="FILE", dest="files",
                   help="images of your own instead; the dataset is then not needed")
    add_checkpoint(f)
    add_data(f)
    f = add("confusion", "which class is taken for which, and the most frequent mistakes")
    f.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="only these rows and columns")
    f.add_argument("--top", type=int, default=12, metavar="N", help="mistakes in the list (default: 12)")
    add_checkpoint(f)
    add_data(f)
    f = add("curves", "loss, accuracy and learning rate of a run; of a folder of results, accuracy against shots",
            "FOLDER")
    f.add_argument("--published", choices=("own", "all", "none"), default="own",
                   help="of a folder of results: published values of its methods, of every method that a recipe of the "
                        "same config knows, or none (default: own)")
    f = add("embeddings", "images and class texts on a map (t-SNE), zero-shot beside trained, with uniformity and "
            "compactness")
    f.add_argument("--classes", nargs="+", default=(), metavar="NAME",
                   help="whose images are drawn, up to 24 (default: all, or 24 evenly among them)")
    f.add_argument("--images", type=int, default=50, metavar="N", help="of each class at most (default: 50)")
    f.add_argument("--keep-gap", action="store_true",
                   help="leave images and texts apart as CLIP has them; by default their means are laid together")
    add_checkpoint(f)
    add_data(f)
    f = add("words", "the vocabulary's words nearest to a learned context (CoOp, CoCoOp, DAPT); prints a table",
            formats=(*FORMATS, "csv"), out="write a figure or, as .csv, the rows (default: only the console)")
    f.add_argument("--class", nargs="+", default=(), metavar="NAME", dest="classes",
                   help="whose context, where every class has its own (default: three classes)")
    f.add_argument("--top", type=int, default=5, metavar="N", help="words for each context word (default: 5)")
    add_checkpoint(f)
    f = add("report", "one HTML page of a folder of results: tables, curves, chosen runs, config, environment, what is "
            "missing", "OUTPUT", ("html",), "the page (default: OUTPUT/report.html)")
    f.add_argument("--runs", nargs="+", type=Path, default=(), metavar="RUN",
                   help="run folders to look into (default: of each trained method its most shots, up to 6 runs)")
    f.add_argument("--no-test", action="store_true",
                   help="leave out what has to load the model and the dataset (embeddings, confusion); fast")
    f.add_argument("--title", default="", help="of the page (default: names the folder)")
    add_data(f)
    return p


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
