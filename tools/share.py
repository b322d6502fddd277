"""Give a run away and get one: to and from the Hugging Face hub, or a folder."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402
from tools.labs.hub.hub import is_repository, pull, push  # noqa: E402


def parser() -> argparse.ArgumentParser:
    p = command.parser("share", __doc__.splitlines()[0])
    actions = p.add_subparsers(dest="action", required=True, metavar="push|pull")
    push = actions.add_parser("push", help="give a run away", allow_abbrev=False)
    push.add_argument("run", type=Path, metavar="RUN", help="run folder, as tools/train.py leaves it")
    push.add_argument("target", metavar="TARGET", help="user/repository on the hub, or a new folder")
    push.add_argument("--public", action="store_true", help="everybody may see it (default: private)")
    push.add_argument("--license", default="", metavar="ID", help="for the model card, e.g. mit or cc-by-4.0")
    push.add_argument("--epoch", type=int, help="which checkpoint (default: the one that the run was tested with)")
    pull = actions.add_parser("pull", help="make a run folder of a shared one", allow_abbrev=False)
    pull.add_argument("source", metavar="SOURCE", help="user/repository on the hub, or a folder")
    pull.add_argument("run", type=Path, metavar="FOLDER", help="the new run folder")
    pull.add_argument("--revision", default=None, help="branch, tag or commit on the hub (default: its newest)")
    return p


def main(args: argparse.Namespace) -> None:
    from tools import train

    train.register()
    from tools.runs.run import Run

    if args.action == "push":
        run = Run(args.run.expanduser(), args.epoch)
        where = push(run, args.target, public=args.public, licence=args.license)
        seen = "" if not is_repository(args.target) else " (public)" if args.public else " (private)"
        print(f"{where}{seen}")
    else:
        folder = pull(args.source, args.run.expanduser(), args.revision)
        print(f"{folder}: python tools/predict.py --run {folder} IMAGES")


cli = command.entry(parser, main)


if __name__ == "__main__":
    sys.exit(cli())
