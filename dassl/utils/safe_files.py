"""Checkpoints as safetensors and JSON: files that anyone can read and that can hold no code.

`x.safetensors` has the tensors, those of the state dict under their own names; `x.json` beside it has everything else,
with {"$tensor": name} where a tensor stood. Nothing is lost: `read_safe` gives back what `write_safe` was given.
"""
from __future__ import annotations

import json
import os
import os.path as osp
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

SUFFIX = ".safetensors"


def write_safe(checkpoint: Mapping, path: str | os.PathLike) -> list[str]:
    """Write a checkpoint (state_dict, epoch ... : tensors and plain data) to `path` and to its .json.

    Returns:
        Both paths.
    Raises:
        UserError: the path does not end in .safetensors, or the checkpoint holds something else than plain data.
    """
    from safetensors.torch import save

    path = os.fspath(path)
    if not path.endswith(SUFFIX):
        raise UserError(f"Tensors are written to a file that ends in {SUFFIX}; got {path}.")
    tensors: dict[str, Tensor] = {}
    weights = checkpoint.get("state_dict", {})
    plain = {"state_dict": {name: _pack(value, name, tensors) for name, value in weights.items()},
             **{key: _pack(value, f"{key}:", tensors) for key, value in checkpoint.items() if key != "state_dict"}}
    content = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    paths = [path, path.removesuffix(SUFFIX) + ".json"]
    _replace({paths[0]: save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
                             metadata={"format": "pt"}), paths[1]: content.encode()})
    return paths


def read_safe(path: str | os.PathLike) -> dict:
    """The checkpoint of a .safetensors file; without a .json beside it, {"state_dict": its tensors}.

    Raises:
        UserError: no such file, or a damaged one.
    """
    from safetensors.torch import load

    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            tensors = load(file.read())
        notes = path.removesuffix(SUFFIX) + ".json"
        if not osp.exists(notes):
            return {"state_dict": OrderedDict(sorted(tensors.items()))}
        with open(notes, encoding="utf-8") as file:
            checkpoint = _unpack(json.load(file), tensors)
        checkpoint["state_dict"] = OrderedDict(checkpoint["state_dict"])
        return checkpoint
    except FileNotFoundError as error:
        raise UserError(f"No file at {path}.") from error
    except Exception as error:  # damage has a class of its own in safetensors, JSON and the references
        raise UserError(f"{path} (or the .json beside it) cannot be read: {type(error).__name__}: {error}. Convert the "
                        "checkpoint again.") from error


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go to `tensors` under names that start with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if torch.isfinite(torch.tensor(value)) else {"$float": repr(value)}
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


def _replace(files: dict[str, bytes]) -> None:
    """Write all files or none."""
    written: dict[str, str] = {}
    try:
        for path, content in files.items():
            os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=osp.dirname(osp.abspath(path)), delete=False) as file:
                written[path] = file.name
                file.write(content)
            os.chmod(file.name, 0o644)
        for path in files:
            os.replace(written.pop(path), path)
    finally:
        for name in written.values():
            os.unlink(name)
