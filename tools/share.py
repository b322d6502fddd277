"""Give a run away and get one: to and from the Hugging Face hub, or a folder."""
from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
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

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SECRET = re.compile(r"(hf|api)_\w+|(?i:bearer)\s+\S+")


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


def push(run, target: str, *, public: bool = False, licence: str = "") -> str:
    """Share a run; returns where it went: an address on the hub, or a folder.

    Args:
        run: a `tools.runs.run.Run`.
        target: user/repository, or a new folder.
        public: on the hub, whether everybody may see it. licence: identifier for the card.
    """
    from tools.sharing.folder import pack

    if not is_repository(target):
        folder = Path(target).expanduser()
        return str(pack(run, folder, f"./{folder.resolve().name}", licence))
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pack(run, Path(temporary, "shared"), target, licence)
        api = hub.HfApi()
        address = _told(lambda: api.create_repo(target, private=not public, exist_ok=True))
        _told(lambda: api.upload_folder(repo_id=target, folder_path=folder,
                                        commit_message=f"{run.trainer} on {run.dataset}"))
    return str(address)


def pull(source: str, folder: Path, revision: str | None = None) -> Path:
    """Make a run folder of what was shared; returns it."""
    from tools.sharing.folder import FILES, unpack

    if not is_repository(source):
        return unpack(Path(source).expanduser(), folder)
    hub = _hub()
    shared = _told(lambda: hub.snapshot_download(source, revision=revision, allow_patterns=list(FILES)))
    return unpack(Path(shared), folder)


def is_repository(word: str) -> bool:
    """Whether a name is one of the hub's, rather than a folder's."""
    return bool(_REPOSITORY.fullmatch(word)) and not Path(word).exists() and not Path(word).parent.is_dir()


def main(args: argparse.Namespace) -> None:
    from tools import train

    train.register()
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


def _hub():
    """The hub's client."""
    from dassl.utils import UserError

    if os.environ.get("DASSL_OFFLINE") == "1":
        raise UserError("DASSL_OFFLINE=1 forbids the hub. Share with a folder: ./name, or unset it.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("Sharing with the hub needs huggingface_hub: pip install huggingface_hub, or pip install -e "
                        "\".[share]\" in the checkout. A folder as target (./name) needs nothing.") from error
    return huggingface_hub


def _told(call):
    """What the hub's client gives; what it raises becomes a paragraph without secrets."""
    from dassl.utils import UserError

    try:
        return call()
    except Exception as error:  # the client raises many types; each means that the hub did not do it
        reason = _SECRET.sub("***", " ".join(str(error).split()))[:400]
        raise UserError(f"The hub did not do it ({type(error).__name__}: {reason}). Check the name, `hf auth login` "
                        "and the network; a folder as target (./name) needs none of them.") from None


if __name__ == "__main__":
    sys.exit(cli())
