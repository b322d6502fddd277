"""Read the tensors of a TorchScript archive (OpenAI's .pt files) without running any of the code in it.

`torch.jit.load` compiles and may run code from the file. The tensors alone are plain bytes that a small pickle points
to; here that pickle may build tensors, numbers, text and containers, and every module in it becomes an inert node.
"""
from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError

_DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
           "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
           "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
           "BoolStorage": torch.bool}


class _Node:
    """Stands for any module of the archive; keeps its attributes and nothing else."""

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        self.__dict__.update(state if isinstance(state, dict) else {})


def _rebuild_tensor(storage: Tensor, offset: int, size, stride, *_) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _identity(data, *_):
    return data


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root, self.storages = archive, root, {}

    def find_class(self, module: str, name: str):
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _identity
        if module == "torch.jit._pickle":
            return _identity
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module.startswith("__torch__"):
            return _Node
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a model's weights")

    def persistent_load(self, pid):
        _, dtype, key, *_ = pid
        if key not in self.storages:
            raw = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            self.storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0).to(dtype)
        return self.storages[key]


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive that holds TorchScript code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """State dict of a TorchScript archive: every tensor, under the dotted path of the module that holds it.

    Raises:
        InputError: the archive is cut, or holds what no weights need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).removesuffix("/data.pkl")
            return dict(_tensors(_Reader(archive, root).load()))
    except (pickle.UnpicklingError, zipfile.BadZipFile, StopIteration, KeyError, EOFError, AttributeError,
            TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{path} is not a readable TorchScript archive of weights ({error}). "
                         "Delete it and fetch it again.") from error


def _tensors(node: _Node, prefix: str = ""):
    for name, value in vars(node).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Node):
            yield from _tensors(value, f"{prefix}{name}.")
