"""The figures of tools/plot.py and their flags. Imports nothing heavy."""
from __future__ import annotations

import argparse
from pathlib import Path

from tools import command
from tools.tables.select import add_filters

FORMATS = ("png", "svg", "pdf")
OF_A_RUN, OF_MANY = "run folder, or folder of results with flags that choose one run", "folder of results"
FIGURES = {
    "curves": ("training curves of a run; of a folder of results, accuracy against shots", f"run folder, or {OF_MANY}"),
    "confusion": ("confusion matrix, in images, and the most frequent mistakes", OF_A_RUN),
    "reliability": ("reliability diagram and calibration error, from predictions.csv", OF_A_RUN),
    "embeddings": ("images and class texts on a map (t-SNE), zero-shot and trained, with uniformity and "
                   "compactness", OF_A_RUN),
    "words": ("vocabulary words nearest to a learned context (CoOp, CoCoOp, DAPT); also prints the table", OF_A_RUN),
    "tasks": ("accuracy on each task after each, of a run whose classes arrived one after the other", OF_A_RUN),
    "prm": ("which prompt and which descriptions decide each class (DVPcse, DVPcls)", OF_A_RUN),
    "prompts": ("learned pixels, what training changed, and images under them (VP, AR, AttrVR, DVP)", OF_A_RUN),
    "geometry": ("alignment and uniformity of images, of texts and of both, of every method", OF_MANY),
    "transfer": ("how well a target is learned from each other dataset's prompts (--protocol matrix)", OF_MANY),
    "report": ("one HTML page of a folder of results: tables, curves, chosen runs, settings, environment", OF_MANY),
}


def parser() -> command.Parser:
    """The command's parser; `figures` has those of each figure by name. A figure's flags are named as `draw` has them.
    """
    p = command.parser("plot", "Figures of what a run learned and how it went. Prints the name of the file it wrote.")
    figures = p.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    p.figures = added = {name: _add(figures, name, *about) for name, about in FIGURES.items()}
    for name, what in (("prm", "whose descriptions are shown (default: up to 8, those that lean most on each prompt)"),
                       ("prompts", "whose first test image is shown (default: three classes)"),
                       ("confusion", "only these rows and columns"),
                       ("embeddings", "whose images are drawn, up to 24 (default: all, or 24 evenly among them)"),
                       ("words", "whose context, where every class has its own (default: three classes)")):
        added[name].add_argument("--classes", "--class", nargs="+", default=(), metavar="NAME", help=what)
    for name, count, what in (("prm", 5, "descriptions of each of these classes"), ("confusion", 12, "mistakes listed"),
                              ("words", 5, "words for each context word")):
        added[name].add_argument("--top", type=command.number(1), default=count, metavar="N",
                                 help=f"{what} (default: {count})")
    added["prompts"].add_argument("--image", nargs="+", default=(), metavar="FILE", dest="files",
                                  help="images of your own instead; the dataset is then not needed")
    added["curves"].add_argument(
        "--published", choices=("own", "all", "none"), default="own", help="of a folder of results: published values "
        "of its methods, of every method that a recipe of the same config knows, or none (default: own)")
    f = added["embeddings"]
    f.add_argument("--images", type=command.number(1), default=50, metavar="N",
                   help="of each class at most (default: 50)")
    f.add_argument("--keep-gap", action="store_true",
                   help="leave images and texts apart as CLIP has them; by default their means are laid together")
    f = added["report"]
    f.add_argument("--runs", nargs="+", type=Path, default=(), metavar="RUN", help="run folders that the page opens "
                   "with (default: at its end, of each trained method its most shots, up to 6 runs)")
    f.add_argument("--no-test", action="store_true",
                   help="leave out what has to load the model and the dataset (embeddings, confusion); fast")
    f.add_argument("--title", default="", help="of the page (default: names the folder)")
    return p


def _add(figures, name: str, shows: str, source: str) -> argparse.ArgumentParser:
    f = figures.add_parser(name, help=shows, description=f"{shows[0].upper()}{shows[1:]}.", allow_abbrev=False,
                           epilog=command.epilog(f"plot-{name}"), formatter_class=argparse.RawDescriptionHelpFormatter)
    formats = ("html",) if name == "report" else (*FORMATS, "csv") if name == "words" else FORMATS
    f.add_argument("source", metavar="FOLDER", type=Path, help=source)
    f.add_argument("-o", "--out", type=Path, metavar="FILE",
                   help="default: FOLDER/report.html" if name == "report" else f"default: FOLDER/plots/{name}.png")
    f.set_defaults(formats=formats, format=None, style="light")
    add_filters(f.add_argument_group("only these runs, as in tools/table.py"))
    command.add_run_flags(f, epoch=name != "report")
    if name != "report":
        f.add_argument("--format", choices=formats, help="default: that of --out, else png")
        style = f.add_mutually_exclusive_group()
        style.add_argument("--style", choices=("light", "dark"), default="light", help="of the page (default: light)")
        style.add_argument("--paper", action="store_const", dest="style", const="paper", help="for a paper: no title "
                           "and no explanations, letters of 8 pt, methods that can be told apart in grey")
        f.add_argument("--width", type=_inches, metavar="column|text|INCHES", help="of a figure for a paper, as "
                       "printed: 3.25 or 6.875 inches, or yours (default: column)")
        f.add_argument("--no-band", action="store_true", help="no bands for the spread over seeds")
        f.add_argument("--serif", action="store_true", help="letters with serifs, as in most papers")
    return f


def _inches(text: str) -> float:
    from tools.plotting.style import WIDTHS

    try:
        width = WIDTHS[text] if text in WIDTHS else float(text)
    except ValueError:
        width = 0.0
    if not 1 <= width <= 20:
        raise argparse.ArgumentTypeError(f"must be column, text or a number of inches from 1 to 20, got {text}")
    return width
