"""Look into a checkpoint, and convert it to safetensors and JSON or back. Nothing in a file is ever executed."""
from __future__ import annotations

import argparse
import json
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command  # noqa: E402

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
    convert.add_argument("out", type=Path, metavar="OUT", help="x.safetensors; any other name becomes a PyTorch file")
    convert.add_argument("--epoch", type=int, help="of a run (default: best, else latest)")
    convert.add_argument("--learned-only", action="store_true", help="leave out all but learned weights and the epoch")
    convert.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return p


def files_of(path: Path, epoch: int | None) -> list[str]:
    """The checkpoint that was named, or that of every model of a run."""
    from dassl.engine.checkpoint_files import find_checkpoint
    from dassl.utils import UserError

    if not path.exists():
        raise UserError(f"There is nothing at {path}. Give a checkpoint or a run folder.")
    if path.is_file():
        return [str(path)]
    folders = sorted({file.parent for file in path.glob("*/*") if file.name.startswith("model") and file.is_file()})
    if not folders:
        return [find_checkpoint(str(path), path.name, [path.name], epoch)]
    return [find_checkpoint(str(path), folder.name, [f.name for f in folders], epoch) for folder in folders]


def describe(path: str) -> dict:
    """Everything that `show` says of a file, as plain data."""
    from dassl.engine.checkpoint_files import read_weights
    from tools.checkpoint_kinds import is_fixed, kind_of

    state = read_weights(path)
    weights, kind = state["state_dict"], kind_of(state["state_dict"])
    all_fixed = all(map(is_fixed, weights))
    return {
        "file": path, "bytes": Path(path).stat().st_size, "format": format_of(path), "epoch": state.get("epoch"),
        "val_result": plain_number(state.get("val_result")),
        "other_entries": {name: told(value) for name, value in state.items()
                          if name not in ("state_dict", "epoch", "val_result")},
        "looks_like": {"method": kind.method, "names": kind.whose, "trainer": kind.trainer,
                       "options": list(kind.options), "remark": kind.remark},
        "weights": [row(name, value, is_fixed(name) and not all_fixed) for name, value in weights.items()],
    }


def row(name: str, value, fixed: bool) -> dict:
    if not hasattr(value, "shape"):
        return {"name": name, "shape": None, "dtype": type(value).__name__, "fixed": fixed}
    told = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "fixed": fixed}
    if value.is_meta or value.is_quantized or str(value.layout) != "torch.strided":
        return told                                            # no plain row of numbers
    numbers = (value.detach().abs() if value.is_complex() else value.detach()).double().flatten()
    facts = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max(), "norm": numbers.norm()} \
        if len(numbers) else {}
    return {**told, **{key: float(number) for key, number in facts.items()},
            "not_finite": int((~numbers.isfinite()).sum())}


def format_of(path: str) -> str:
    import tarfile

    if path.endswith(".safetensors"):
        return "safetensors"
    if zipfile.is_zipfile(path):
        return "PyTorch, zip (1.6 and later)"
    return "PyTorch, tar (0.1)" if tarfile.is_tarfile(path) else "PyTorch, pickles in a row (before 1.6)"


def plain_number(value):
    return value.item() if hasattr(value, "item") else value


def told(value) -> str:
    """One phrase for what a checkpoint holds beside weights."""
    from dassl.compat.restricted_pickle import Inert

    if isinstance(value, Inert):
        return "an object, not read"
    if isinstance(value, dict):
        unread = sum(isinstance(item, Inert) for item in value.values())
        return f"{', '.join(map(str, value)) or 'empty'}{f' ({unread} objects, not read)' if unread else ''}"
    return "none" if value is None else str(plain_number(value))[:80]


def show(args: argparse.Namespace) -> None:
    found = [describe(path) for path in files_of(args.path, args.epoch)]
    if args.json:
        print(json.dumps(found, indent=2, default=str))
        return
    for number, facts in enumerate(found):
        print(("\n" if number else "") + report(facts))


def report(facts: dict) -> str:
    from tabulate import tabulate

    kind = facts["looks_like"]
    options = " ".join(kind["options"])
    lines = [facts["file"], f"  {facts['format']}, {facts['bytes']:,} bytes",
             f"  epoch {facts['epoch']}, val_result {facts['val_result']}",
             *(f"  {name}: {text}" for name, text in facts["other_entries"].items()),
             f"  looks like {kind['method']}, with {kind['names']} names{': ' * bool(kind['remark'])}{kind['remark']}"]
    if kind["trainer"]:
        lines.append(f"  read by --trainer {kind['trainer']}{' with ' + options if options else ''}; "
                     "options that shapes do not tell keep their defaults")
    bad = sum(weight.get("not_finite", 0) for weight in facts["weights"])
    if bad:
        lines.append(f"  {bad} numbers are infinite or NaN")
    rows = [[w["name"], "x".join(map(str, w["shape"])) if w["shape"] else "-", w["dtype"],
             *(f"{w[key]:.4g}" if key in w else "" for key in ("min", "mean", "max", "norm")),
             "fixed, not loaded" if w["fixed"] else ""] for w in facts["weights"]]
    table = tabulate(rows, headers=["weight", "shape", "type", "min", "mean", "max", "norm", ""], disable_numparse=True)
    return "\n".join([*lines, "", table])


def convert(args: argparse.Namespace) -> None:
    from dassl.engine.checkpoint_files import read_weights
    from dassl.utils import UserError
    from dassl.utils.safe_files import write_safe
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
    if args.learned_only:
        state = {"state_dict": {name: value for name, value in state["state_dict"].items() if not is_fixed(name)},
                 "epoch": state.get("epoch"), "val_result": state.get("val_result")}
    if not safe:
        state = {**dict.fromkeys(DASSL), **state}
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    if safe:
        written = write_safe(state, args.out)
    else:
        write_checkpoint(state, str(args.out.absolute()))
        written = [str(args.out)]
    print(f"Wrote {' and '.join(written)} ({len(state['state_dict'])} weights, epoch {state.get('epoch')}).")


def without_objects(value):
    """Plain data: NumPy's numbers as Python's, unread objects as None."""
    from dassl.compat.restricted_pickle import Inert

    if isinstance(value, dict):
        return {key: without_objects(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_objects(item) for item in value)
    if isinstance(value, Inert):
        return None
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (yours to mend) or 130."""
    args = parser().parse_args(argv)
    return command.ended(lambda: (show if args.action == "show" else convert)(args))


if __name__ == "__main__":
    command.script(cli)
