"""Look into a checkpoint, and convert it to safetensors and JSON or back. Nothing in a file is ever executed."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command  # noqa: E402
from tools.checkpoint_content import describe, plain_number, report, without_objects  # noqa: E402

DASSL = ("state_dict", "epoch", "optimizer", "scheduler", "val_result")


def parser() -> argparse.ArgumentParser:
    p = command.parser("checkpoint", __doc__)
    actions = p.add_subparsers(dest="action", required=True, metavar="show|convert")
    show = actions.add_parser("show", help="print what is in it", allow_abbrev=False)
    show.add_argument("path", type=Path, metavar="FILE|RUN", help="a checkpoint, or a run folder")
    show.add_argument("--epoch", type=int, help="of a run (default: best, else latest)")
    show.add_argument("--json", action="store_true", help="for programs")
    convert = actions.add_parser("convert", help="write it in another format", allow_abbrev=False)
    convert.add_argument("path", type=Path, metavar="FILE|RUN", help="a checkpoint, or a run folder with one model")
    convert.add_argument("out", type=Path, metavar="OUT",
                         help="x.safetensors (weights, epoch, result); any other name becomes a PyTorch file")
    convert.add_argument("--epoch", type=int, help="of a run (default: best, else latest)")
    convert.add_argument("--learned-only", action="store_true", help="leave out all but learned weights and the epoch")
    convert.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return p


def files_of(path: Path, epoch: int | None) -> list[str]:
    """The checkpoint that was named, or that of every model of a run."""
    from dassl.engine.checkpoint_files import find_checkpoint

    if not path.exists():
        raise UserError(f"There is nothing at {path}. Give a checkpoint or a run folder.")
    if path.is_file():
        return [str(path)]
    folders = sorted({file.parent for file in path.glob("*/*") if file.name.startswith("model") and file.is_file()})
    if not folders:
        return [find_checkpoint(str(path), path.name, [path.name], epoch)]
    return [find_checkpoint(str(path), folder.name, [f.name for f in folders], epoch) for folder in folders]


def show(args: argparse.Namespace) -> None:
    found = [describe(path) for path in files_of(args.path, args.epoch)]
    if args.json:
        print(json.dumps(found, indent=2, default=str))
        return
    for number, facts in enumerate(found):
        print(("\n" if number else "") + report(facts))


def convert(args: argparse.Namespace) -> None:
    from dassl.engine.checkpoint_files import read_weights
    from dassl.utils.portable import write_portable
    from dassl.utils.torchtools import write_checkpoint
    from tools.checkpoint_kinds import is_fixed

    files = files_of(args.path, args.epoch)
    if len(files) > 1:
        raise UserError(f"{args.path} holds several models: {', '.join(files)}. Convert each of these files.")
    safe = args.out.suffix == ".safetensors"
    for path in (args.out, *([args.out.with_suffix(".json")] if safe else [])):
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of the file to write.")
        if path.exists() and not args.force:
            raise UserError(f"{path} exists. Give another name, or --force to replace it.")
    state = without_objects(read_weights(files[0]))
    facts = {"epoch": state.get("epoch"), "val_result": plain_number(state.get("val_result")),
             **({"trainer": str(state["trainer"])} if state.get("trainer") else {})}
    if args.learned_only:
        state = {"state_dict": {name: value for name, value in state["state_dict"].items() if not is_fixed(name)},
                 **facts}
    if not safe:
        state = {**dict.fromkeys(DASSL), **state}
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    if safe:
        written = [str(args.out), str(write_portable(args.out, state["state_dict"], facts).with_suffix(".json"))]
    else:
        write_checkpoint(state, str(args.out.absolute()))
        written = [str(args.out)]
    print(f"Wrote {' and '.join(written)} ({len(state['state_dict'])} weights, epoch {state.get('epoch')}).")


cli = command.entry(parser, lambda args: (show if args.action == "show" else convert)(args))


if __name__ == "__main__":
    command.script(cli)
