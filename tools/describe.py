"""Make, check and list descriptions of classes, as AttrVR and DVP read them.

A file is JSON, {class: [sentences]}, named <dataset>_<kind>.json; kinds are des, dist and cse_1, cse_2, ... (causes).
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402
from tools.checkout import default_folder  # noqa: E402
from tools.labs.describe import questions  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("describe", __doc__)
    actions = p.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="ask a language model; resumes if interrupted")
    check = actions.add_parser("check", help="tell what is wrong with files")
    here = actions.add_parser("list", help="which descriptions are on this machine")
    for sub in (make, check):
        who = sub.add_mutually_exclusive_group(required=True)
        who.add_argument("--dataset", help="as in configs/datasets (oxford_pets) or as registered (OxfordPets)")
        who.add_argument("--classes", type=Path, metavar="FILE", help="class names, one per line")
        sub.add_argument("--m", type=int, default=20, help="sentences that a run draws of each class (default: 20)")
    here.add_argument("--dataset", help="only this one, with the places of its files")
    for sub in (make, check, here):
        sub.add_argument("--root", default=default_folder("data"),
                         help="folder of the datasets (default: $DATA, else data/ of the checkout)")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    make.add_argument("--kind", nargs="+", required=True, metavar="KIND", help="des, dist, cse_1, cse_2, ...")
    make.add_argument("--endpoint", required=True, metavar="URL", help="of an OpenAI-compatible API, e.g. .../v1")
    make.add_argument("--model", required=True, metavar="NAME", help="as the endpoint names it")
    make.add_argument("--out", type=Path, metavar="FILE", help="default: <root>/descriptions/<dataset>_<kind>.json")
    make.add_argument("--per-class", type=int, default=25, metavar="N", help="sentences of each class (default: 25)")
    make.add_argument("--topic", help="what all classes are, e.g. flower (default: the papers', else object)")
    make.add_argument("--causes", help="comma-separated, for cse_1, cse_2, ... (default: the papers', else shape, "
                                       "colour, texture)")
    make.add_argument("--prompt", help="another question, with any of "
                                       + " ".join(f"{{{field}}}" for field in questions.FIELDS))
    make.add_argument("--temperature", type=float, default=1.0)
    make.add_argument("--dry-run", action="store_true", help="show the estimate and the first question, send nothing")
    make.add_argument("--yes", action="store_true", help="do not ask before spending")
    return p


def act(args: argparse.Namespace) -> int:
    from tools.labs.describe.actions import check, make, show

    return {"make": make, "check": check, "list": show}[args.action](args)


main = command.entry(parser, act, "Interrupted; the same command resumes.", of_others=True)

if __name__ == "__main__":
    sys.exit(main())
