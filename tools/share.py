"""Give a run away and get one: to and from the Hugging Face hub, or a folder."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402

EXAMPLES = """
What is shared: what was learned (safetensors and JSON), settings, class names, results and a model card. Paths of this
machine, the command, logs and images stay here. Nothing that is pulled is executed.

examples:
  To a folder, e.g. to look at it or to send it in another way, and back from one:
    python tools/share.py push output/digits/DAPT/tiny_16shots/seed1 ./digits-dapt
    python tools/share.py pull ./digits-dapt runs/digits
    python tools/predict.py --run runs/digits photos/

  To the hub, private unless --public, after `hf auth login` or with HF_TOKEN; and from it:
    python tools/share.py push RUN me/digits-dapt --public --license mit
    python tools/share.py pull me/digits-dapt runs/digits
    python tools/share.py pull me/digits-dapt runs/digits --revision 3f2a91c

me/digits-dapt is of the hub, unless there is a folder me here; ./me/digits-dapt is always a folder.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tools/share.py", description=__doc__.splitlines()[0], epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    actions = p.add_subparsers(dest="action", required=True, metavar="push|pull")
    push = actions.add_parser("push", help="give a run away", allow_abbrev=False)
    push.add_argument("run", type=Path, metavar="RUN", help="run folder, as tools/train.py leaves it")
    push.add_argument("target", metavar="TARGET", help="user/repository on the hub, or a new folder")
    push.add_argument("--public", action="store_true", help="everybody may see it (default: private)")
    push.add_argument("--license", default="", metavar="ID", help="for the model card, e.g. mit or cc-by-4.0")
    push.add_argument("--epoch", type=int, help="which checkpoint (default: the one that the run was tested with)")
    push.add_argument("--root", default="", help="folder of the datasets, for runs that did not write down classes")
    pull = actions.add_parser("pull", help="make a run folder of a shared one", allow_abbrev=False)
    pull.add_argument("source", metavar="SOURCE", help="user/repository on the hub, or a folder")
    pull.add_argument("run", type=Path, metavar="FOLDER", help="the new run folder")
    pull.add_argument("--revision", default=None, help="branch, tag or commit on the hub (default: its newest)")
    return p


def main(args: argparse.Namespace) -> None:
    from tools import train

    train.register()
    from tools.labs.hub.hub import is_repository, pull, push
    from tools.runs.run import Run

    if args.action == "push":
        run = Run(args.run.expanduser(), args.epoch, args.root)
        where = push(run, args.target, public=args.public, licence=args.license)
        seen = "" if not is_repository(args.target) else " (public)" if args.public else " (private)"
        print(f"{where}{seen}")
    else:
        folder = pull(args.source, args.run.expanduser(), args.revision)
        print(f"{folder}: python tools/predict.py --run {folder} IMAGES")


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (yours to mend) or 130."""
    return command.run(main, parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(cli())
