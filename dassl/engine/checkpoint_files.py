"""Where the weights of a model lie: in a run folder of ours or of Dassl, in a folder of one method, or in one file."""
from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from dassl.utils.errors import UserError
from dassl.utils.portable import ENDING
from dassl.utils.torchtools import BEST, load_checkpoint

logger = logging.getLogger(__name__)

POINTER = "checkpoint"                          # names the latest file
_EPOCH = re.compile(r"model\.pth\.tar-(\d+)")


def find_checkpoint(directory: str, name: str, names: Iterable[str], epoch: int | None = None) -> str:
    """The file that holds model `name`.

    Args:
        directory: a run folder, where it is <name>/model.pth.tar-<epoch>; for a single model also the folder of its
            files, a run folder in which it has another name, or the file itself.
        names: of all models of the trainer.
        epoch: None takes the best on the validation split, or else the latest.
    Raises:
        UserError: there is none, or several that it could be.
    """
    given, names = Path(directory), list(names)
    alone = len(names) == 1
    if given.is_file():
        if alone:
            return str(given)
        raise UserError(f"{given} is one file, and this trainer has {len(names)} models: {', '.join(names)}. Give the "
                        "folder that holds a folder for each.")
    folder = given / name
    if alone and not _files(folder):
        if _files(given):
            folder = given
        elif others := sorted({path.parent for path in given.glob("*/*") if path.suffix == ENDING or _is_one(path)}):
            if len(others) > 1:
                raise UserError(f"{given} has no {name}, but checkpoints of {', '.join(p.name for p in others)}. Give "
                                "one of these folders.")
            folder = others[0]
            logger.info("%s has no %s; its only checkpoints, of %s, are taken", given, name, folder.name)
    return str(_of_epoch(folder, epoch))


def _of_epoch(folder: Path, epoch: int | None) -> Path:
    if epoch is not None:
        path = folder / f"model.pth.tar-{epoch}"
        if path.is_file():
            return path
        there = ", ".join(map(str, sorted(epochs(folder)))) or "none"
        raise UserError(f"No checkpoint at {path}. Epochs that were saved there: {there}. Give the run folder as "
                        "--model-dir and one of them as --load-epoch.")
    pointer = folder / POINTER
    named = folder / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else folder / BEST
    candidates = [folder / BEST, named, *(folder / f"model.pth.tar-{n}" for n in sorted(epochs(folder), reverse=True)),
                  *sorted(folder.glob(f"*{ENDING}"))]
    return next((path for path in candidates if path.is_file()), named)


def epochs(folder: Path) -> list[int]:
    """Those whose checkpoints lie in a model's folder."""
    return [int(found.group(1)) for path in _files(folder) if (found := _EPOCH.fullmatch(path.name))]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _is_one(path) or path.suffix == ENDING] if folder.is_dir() else []


def _is_one(path: Path) -> bool:
    return path.name == BEST or bool(_EPOCH.fullmatch(path.name))


def read_weights(path: str) -> dict:
    """A checkpoint that has a state_dict; a file of tensors alone, or one with a single dictionary of them, is one too.

    Raises:
        UserError: no such file, a damaged one, or one without weights.
    """
    try:
        state = load_checkpoint(path)
    except FileNotFoundError as error:
        raise UserError(f"No checkpoint at {path}. Give the run folder as --model-dir and an epoch that was saved as "
                        "--load-epoch.") from error
    if isinstance(state, dict) and "state_dict" not in state:
        inner = [content for content in (state, *state.values()) if isinstance(content, dict) and content
                 and all(isinstance(value, torch.Tensor) for value in content.values())]
        state = {"state_dict": inner[0], "epoch": None} if len(inner) == 1 else {}
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint: it has no state_dict.")
    if odd := [name for name in state["state_dict"] if not isinstance(name, str)]:
        raise UserError(f"{path} is not a checkpoint: its state_dict names a weight {odd[0]!r}, which is not a string.")
    return state
