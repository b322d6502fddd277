"""The figures of tools/plot.py and their flags. Imports nothing heavy."""
from __future__ import annotations

import argparse
from pathlib import Path

from tools import command

DESCRIPTION = "Figures of what a run learned and how it went. The name of the file is printed."
FORMATS = ("png", "svg", "pdf")


def parser() -> argparse.ArgumentParser:
    p = command.parser("plot", DESCRIPTION)
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
    add_checkpoint(add("reliability", "whether confidences are the share of right answers, from predictions.csv"))
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
