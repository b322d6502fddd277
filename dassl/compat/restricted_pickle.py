"""Reads pickles that hold tensors and plain data, of any version of PyTorch and NumPy, and runs nothing else.

A pickle names what it wants to call. Only the names below are given to it: rebuilders of tensors and arrays, and
containers. Objects whose kind is known and of no use here (optimisers, schedules, configs) become empty stand-ins; any
other name ends the reading.
"""
from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Inert:
    """Stands for an optimiser, schedule or config object of an old checkpoint; keeps nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass

    def __repr__(self):
        return "<object of an old checkpoint, not read>"


def _tensor_of_subclass(rebuild: Callable, kind: type, args: tuple, state: Any) -> Any:
    """A tensor with Python attributes, without them. `rebuild` came out of this pickle, hence from the list below."""
    return rebuild(*args)


def _parameter(data: torch.Tensor, requires_grad: bool, hooks: Any, state: Any = None) -> nn.Parameter:
    return nn.Parameter(data, requires_grad)


_NUMPY = {"multiarray": ("scalar", "_reconstruct"), "numeric": ("_frombuffer",)}
_ALLOWED = {
    *(("collections", name) for name in ("OrderedDict", "defaultdict", "Counter")),
    *(("builtins", name) for name in ("dict", "list", "tuple", "set", "frozenset", "int", "float", "bool", "str",
                                      "complex", "bytes", "bytearray", "slice", "range")),
    *(("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_sparse_tensor",
                                          "_rebuild_device_tensor_from_numpy", "_rebuild_qtensor")),
    ("torch", "Size"), ("torch", "device"), ("torch.nn.parameter", "Parameter"), ("torch.serialization", "_get_layout"),
    ("_codecs", "encode"), ("numpy", "dtype"), ("numpy", "ndarray"),
}
_OWN = {("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_subclass,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter}
_INERT_MODULES = ("dassl", "torch.optim", "torch.cuda.amp", "torch.amp")
_INERT = {("yacs.config", "CfgNode"), ("argparse", "Namespace"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath")}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module              # as Python 2 spells it
        if (module, name) in _OWN:
            return _OWN[module, name]
        is_storage = module in ("torch", "torch.storage", "torch.cuda") and name.isidentifier() and \
            name.endswith("Storage")
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in _ALLOWED or is_storage or is_dtype:
            return super().find_class("torch" if is_storage and module == "torch.cuda" else module, name)
        parts = module.split(".")
        if parts[:-1] in (["numpy", "core"], ["numpy", "_core"]) and name in _NUMPY.get(parts[-1], ()):
            return getattr(_numpy_core(parts[-1]), name)
        if module == "numpy.dtypes" and name.endswith("DType") and name.isidentifier():
            return super().find_class(module, name)
        is_type = module in ("torch", "torch.cuda") and name.endswith("Tensor")      # named with a tensor, not called
        is_known = any(f"{module}.".startswith(f"{known}.") for known in _INERT_MODULES)
        if is_type or is_known or (module, name) in _INERT:
            return Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither a tensor nor plain data")


def _numpy_core(name: str) -> Any:
    """NumPy 2 calls it `_core`, NumPy 1 `core`; a file of either is read with either."""
    try:
        return importlib.import_module(f"numpy._core.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"numpy.core.{name}")


class restricted_pickle:  # noqa: N801 - stands where torch expects the module `pickle`
    """`pickle` for torch.load: the names that it uses, with this unpickler."""

    Unpickler = _RestrictedUnpickler
    load = staticmethod(lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load())
    __name__ = "restricted_pickle"
