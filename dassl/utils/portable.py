"""A checkpoint that any program can read: tensors in <name>.safetensors, and what is known of them in <name>.json.

The tensors have the names of the checkpoint's state dict. The JSON also holds the sha256 of the other file.
"""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from dassl.files.whole import write_whole

from .errors import MissingFile, UserError
from .tools import write_json

ENDING = ".safetensors"


def write_portable(path: str | Path, tensors: dict[str, Tensor], facts: dict) -> Path:
    """Write both files, each whole or not at all.

    Args:
        path: of the .safetensors file, with or without that ending.
        tensors: a state dict, e.g. of `prompt_learner`.
        facts: plain data for the JSON, e.g. {"model": "prompt_learner", "epoch": 50}.
    Returns:
        The path of the .safetensors file.
    """
    from safetensors.torch import save

    path = _tensor_file(path)
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = save(plain)
    write_whole(path, content)
    shapes = {name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
              for name, value in plain.items()}
    write_json({**facts, "tensors": shapes, "sha256": hashlib.sha256(content).hexdigest()},
               str(path.with_suffix(".json")))
    return path


def read_portable(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """What `write_portable` wrote: (tensors on the CPU, facts). Without a JSON the facts are {}.

    Raises:
        UserError: no such file, a damaged one, or one whose sha256 is not the JSON's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = _tensor_file(path)
    beside, facts = path.with_suffix(".json"), {}
    try:
        content = path.read_bytes()
        if beside.is_file():
            facts = json.loads(beside.read_text(encoding="utf-8"))
        tensors: dict[str, torch.Tensor] = load(content)
    except FileNotFoundError as error:
        raise MissingFile(f"There is no file {path}.") from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} and {beside.name} cannot be read as tensors and JSON ({error}). Fetch them again."
                        ) from error
    if not isinstance(facts, dict):
        raise UserError(f"{beside} describes the tensors next to it as a JSON object; it holds a "
                        f"{type(facts).__name__}. Fetch it again.")
    if (said := facts.get("sha256")) and said != (found := hashlib.sha256(content).hexdigest()):
        raise UserError(f"{path} has sha256 {found[:12]}..., and {beside.name} next to it says {str(said)[:12]}...: "
                        "one of the two was changed or cut. Fetch both again.")
    order = facts.get("tensors")            # the file has them by size and name
    return {name: tensors[name] for name in order} if isinstance(order, dict) and order.keys() == tensors.keys() \
        else tensors, facts


def _tensor_file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ENDING else path.with_name(path.name + ENDING)
