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

FORMATS = ("png", "svg", "pdf")

EXAMPLES = """
A run is named by its folder; scripts and sweeps end with the list of theirs. Without --out the figure goes into it:
plots/<figure>.png, or plots/<figure>-dark.png.

examples:
  Which prompt and which descriptions decide each class, with a run to draw (about a minute on two CPU cores):
    bash scripts/dvp.sh shapes_clutter 16 --variant cse --seeds 1
    python tools/plot.py prm output/shapes_clutter/DVPcse/tiny_16shots/seed1

  The same for two classes and ten descriptions of each, as a PDF for a paper:
    python tools/plot.py prm RUN --classes "red plain circle" "blue dotted ring" --top 10 --format pdf

  The learned pixels, and an image of your own under them:
    python tools/plot.py prompts RUN --image cat.jpg --style dark

  How a training went; accuracy against shots of all finished runs, with published values where a recipe knows them:
    python tools/plot.py curves RUN
    python tools/plot.py curves output
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tools/plot.py", description=__doc__.splitlines()[0], epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    figures = p.add_subparsers(dest="figure", required=True, metavar="FIGURE")

    def add(name: str, shows: str, source: str = "RUN") -> argparse.ArgumentParser:
        f = figures.add_parser(name, help=shows, description=shows[0].upper() + shows[1:] + ".", allow_abbrev=False)
        f.add_argument("source", metavar=source, type=Path, help="folder of a run" if source == "RUN" else
                       "folder of a run, or of all results")
        f.add_argument("--out", type=Path, metavar="FILE", help="where the figure goes (default: into the run folder)")
        f.add_argument("--format", choices=FORMATS, help="default: that of --out, else png")
        f.add_argument("--style", choices=("light", "dark"), default="light", help="of the page (default: light)")
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
    f = add("confusion", "which class is taken for which, and the most frequent mistakes; tests the run again")
    f.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="only these rows and columns")
    f.add_argument("--top", type=int, default=12, metavar="N", help="mistakes in the list (default: 12)")
    add_checkpoint(f)
    add_data(f)
    add("curves", "loss, accuracy and learning rate of a run; of a folder of results, accuracy against shots", "FOLDER")
    return p


def target(args: argparse.Namespace) -> Path:
    """The file to write.

    Raises:
        UserError: --out and --format disagree, or the format is none that is written.
    """
    from dassl.utils import UserError

    if args.out is None:
        dark = "-dark" if args.style == "dark" else ""
        return args.source / "plots" / f"{args.figure}{dark}.{args.format or 'png'}"
    ending = args.out.suffix.lstrip(".").lower()
    if not ending:
        return args.out.with_suffix(f".{args.format or 'png'}")
    if ending not in FORMATS:
        raise UserError(f"Figures are written as {', '.join(FORMATS)}; --out {args.out} ends in .{ending}.")
    if args.format not in (None, ending):
        raise UserError(f"--out {args.out} ends in .{ending} and --format says {args.format}. Give one of the two.")
    return args.out


def main(args: argparse.Namespace) -> Path:
    """Draw one figure and write it; returns its file. Raises UserError for what the user can mend."""
    from dassl.utils import UserError
    from tools import train

    train.register()                # this checkout's packages first, whatever else is installed under their names
    from tools.plotting.run import Run
    from tools.plotting.style import THEMES, context, save

    if getattr(args, "top", 1) < 1:
        raise UserError(f"--top takes 1 or more; got {args.top}.")
    path, theme = target(args), THEMES[args.style]
    taken = {"source", "figure", "out", "format", "style", "epoch", "root"}
    options = {name: value for name, value in vars(args).items() if name not in taken}
    draw = importlib.import_module(f"tools.plotting.{args.figure}").draw
    with context(theme):
        source = args.source if args.figure == "curves" else Run(args.source, args.epoch, getattr(args, "root", ""))
        save(draw(source, theme, **options), path)
    return path


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 for what the user can mend."""
    args = parser().parse_args(argv)
    try:
        print(main(args))
    except Exception as error:
        from dassl.utils import UserError

        if not isinstance(error, UserError):
            raise
        print(f"\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
