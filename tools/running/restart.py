"""The same command again: an interrupted training goes on where it was, anything else starts anew.

A training counts as the same if its inputs are (tools/inputs.py), and the code and packages that make a result.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import logging
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from tools import inputs

ROOT = Path(__file__).resolve().parents[2]
STATE = "resume.pth.tar"                    # dassl.engine.autosave.FILE, which is slow to import
_CODE = ("clip", "dassl", "datasets", "trainers")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "open_clip_torch")

logger = logging.getLogger("tools.running.restart")


def begin(folder: Path, args: argparse.Namespace, resume: str) -> str:
    """Before a run writes in its folder: what it goes on from. Writes inputs.json, last.

    Where the training starts anew, the result and the pointers to checkpoints of a former one go, so that they are
    never taken for this one's; checkpoints themselves stay until they are overwritten.

    Args:
        resume: RESUME of the config, which the user has given; "" for none.
    Returns:
        A run folder for RESUME; "" to start anew.
    """
    from dassl.utils.logger import CONSOLE
    from dassl.utils.whole_files import remove_parts

    remove_parts(folder)
    program = _program(args)
    if not (args.eval_only or args.no_train or resume):
        if has_state(folder) and not args.anew:
            reason = _why_anew(folder, args, program)
            if reason is None:
                resume = str(folder)
                logger.info("%s holds an interrupted run of this command, which goes on; --anew starts it anew", folder,
                            extra=CONSOLE)
            elif reason:
                logger.warning("%s holds an interrupted run, which cannot go on: %s. This one starts anew", folder,
                               reason)
        if not resume:
            _forget(folder)
    inputs.write(folder, args, program=program)
    return resume


def complete(folder: Path, args: argparse.Namespace, config: str) -> None:
    """After a run: its inputs and config once more, should the folder have been removed meanwhile."""
    from dassl.utils.whole_files import write_whole

    if not (folder / inputs.FILE).exists():
        inputs.write(folder, args, program=_program(args))
        write_whole(folder / "config.yaml", config)


def has_state(folder: Path) -> bool:
    """Whether a training in this folder could go on."""
    return (folder / STATE).exists() or any(folder.glob("*/checkpoint"))


def _why_anew(folder: Path, args: argparse.Namespace, program: str) -> str | None:
    """Why the run in a folder cannot go on: "" for one that is complete; None if it can."""
    record, then = inputs.read_json(folder / "results.json"), inputs.read(folder)
    if record and record.get("finished"):
        return ""
    if then is None:
        return f"its {inputs.FILE} is missing"
    if changes := inputs.differences(then, inputs.describe(args)):
        return "; ".join(changes)
    if then.get("program") != program:
        return f"the program has changed since; --resume {folder} goes on all the same"
    return None


def _forget(folder: Path) -> None:
    for path in (folder / "results.json", folder / STATE, *folder.glob("*/checkpoint")):
        path.unlink(missing_ok=True)


def _program(args: argparse.Namespace) -> str:
    """sha256 of the code of this checkout and of plugins, and of the versions of packages."""
    digest = sha256(json.dumps({name: _version(name) for name in _PACKAGES}).encode())
    for path in sorted(path for name in _CODE for path in (ROOT / name).rglob("*.py")):
        digest.update(path.read_bytes())
    for plugin in args.plugin:
        digest.update(_source(plugin))
    return digest.hexdigest()


def _source(plugin: str) -> bytes:
    path = Path(plugin).expanduser()
    if not path.is_file():
        found = importlib.util.find_spec(plugin)
        path = Path(found.origin) if found and found.origin else path
    return path.read_bytes() if path.is_file() else b""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
