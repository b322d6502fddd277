"""Whole checkpoints as safetensors and JSON: files that anyone can read and that can hold no code.

`x.safetensors` has the tensors, those of the state dict under their own names; `x.json` beside it has everything else
under "checkpoint", with {"$tensor": name} where a tensor stood. `read_safe` gives back what `write_safe` was given.
"""
from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .portable import ENDING, read_portable, write_portable


def write_safe(checkpoint: Mapping, path: str | os.PathLike) -> list[str]:
    """Write a checkpoint (state_dict, epoch ... : tensors and plain data) to `path` and to its .json.

    Returns:
        Both paths.
    Raises:
        UserError: the path does not end in .safetensors, or the checkpoint holds something else than plain data.
    """
    path = os.fspath(path)
    if not path.endswith(ENDING):
        raise UserError(f"Tensors are written to a file that ends in {ENDING}; got {path}.")
    tensors: dict[str, Tensor] = {}
    weights = checkpoint.get("state_dict", {})
    plain = {"state_dict": {name: _pack(value, name, tensors) for name, value in weights.items()},
             **{key: _pack(value, f"{key}:", tensors) for key, value in checkpoint.items() if key != "state_dict"}}
    write_portable(path, tensors, {"checkpoint": plain})
    return [path, path.removesuffix(ENDING) + ".json"]


def read_safe(path: str | os.PathLike) -> dict:
    """The checkpoint of a .safetensors file; one that others wrote gives {"state_dict": its tensors}.

    Raises:
        UserError: no such file, or a damaged one.
    """
    tensors, facts = read_portable(path)
    if "checkpoint" not in facts:
        known = {name: value for name, value in facts.items() if name not in ("tensors", "sha256")}
        return {**known, "state_dict": OrderedDict(sorted(tensors.items()))}
    try:
        checkpoint = _unpack(facts["checkpoint"], tensors)
        return {**checkpoint, "state_dict": OrderedDict(checkpoint["state_dict"])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The .json beside {path} cannot be read as a checkpoint ({type(error).__name__}: {error}). "
                        "Convert the checkpoint again.") from error


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go to `tensors` under names that start with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        items = [(key, _pack(item, f"{name}/{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$items": [[_pack(key, name, tensors), item] for key, item in items]}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:                 # a NumPy number
        return _pack(value.item(), name, tensors)
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray" and value.dtype != object:
        return {"$array": _pack(torch.from_numpy(value.copy()), name, tensors)["$tensor"]}
    raise UserError(f"{name.rstrip(':')} is {type(value).__name__}, neither a tensor nor plain data, and cannot be "
                    "written as safetensors and JSON.")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith("$"):
        kind, content = next(iter(value.items()))
        return {"$tensor": lambda: tensors[content], "$array": lambda: tensors[content].numpy(),
                "$float": lambda: float(content), "$tuple": lambda: tuple(_unpack(content, tensors)),
                "$items": lambda: {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}}[kind]()
    return {key: _unpack(item, tensors) for key, item in value.items()}
