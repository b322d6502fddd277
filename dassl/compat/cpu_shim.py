"""Calls for CUDA in other people's code, on a machine without it: named with their line, or run on the CPU on request.

Nothing of PyTorch is changed outside `cuda_of_others(on_cpu=True)`, and nothing at all where there is CUDA.
"""
from __future__ import annotations

import contextlib
import linecache
import os.path as osp
import re
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dassl.utils.errors import UserError

_TORCH = osp.dirname(osp.abspath(torch.__file__)) + osp.sep
_SAYS_NO_CUDA = re.compile("not compiled with CUDA|NVIDIA driver|No CUDA GPUs|on a CUDA device but|CUDA driver|"
                           "dummy base class|Cannot access accelerator|'CUDA' backend|no CUDA-capable|"
                           r"torch\.cuda.*not available")
_CUDA_DEVICE = re.compile(r"cuda(:\d+)?")
_CUDA_TYPE = re.compile(r"torch\.cuda\.(\w+Tensor)")
_on = False


def is_on() -> bool:
    """CUDA calls are run on the CPU at this moment."""
    return _on


@contextlib.contextmanager
def cuda_of_others(on_cpu: bool) -> Iterator[None]:
    """Around code that may ask for CUDA where there is none.

    Args:
        on_cpu: run such calls on the CPU: `.cuda()`, `.to("cuda")`, device="cuda", torch.cuda.synchronize() and others
            that only manage devices, torch.load of files from a GPU; autocast and GradScaler do nothing.
    Raises:
        UserError: a call for CUDA that cannot be met, with file and line of the code that made it.
    """
    if torch.cuda.is_available():
        yield
        return
    try:
        with _mapped_to_cpu() if on_cpu else contextlib.nullcontext():
            yield
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        if isinstance(error, UserError) or not _SAYS_NO_CUDA.search(str(error)):
            raise
        raise UserError(_message(error, on_cpu)) from error


def _message(error: BaseException, on_cpu: bool) -> str:
    own = [frame for frame in traceback.extract_tb(error.__traceback__)
           if not osp.abspath(frame.filename).startswith(_TORCH) and osp.abspath(frame.filename) != __file__]
    frame, reason = own[-1], str(error).strip().splitlines()[0].rstrip(".")
    code = textwrap.shorten(linecache.getline(frame.filename, frame.lineno), 90)
    way_out = "This call is not among those that --allow-cpu-shim runs on the CPU." if on_cpu else \
        "Add --allow-cpu-shim to run such calls on the CPU in this run, or write .to(self.device) there."
    return (f"{frame.filename}, line {frame.lineno}, asks for CUDA ({code}), and this machine has none: {reason}. "
            f"{way_out}")


@contextlib.contextmanager
def _mapped_to_cpu() -> Iterator[None]:
    global _on
    cuda = torch.cuda
    types = {name: getattr(torch, name) for name in dir(cuda) if name.endswith("Tensor") and hasattr(torch, name)}
    with contextlib.ExitStack() as stack:
        for name in ("synchronize", "set_device", "reset_peak_memory_stats", "empty_cache"):
            stack.enter_context(mock.patch.object(cuda, name, lambda *args, **kwargs: None))
        stack.enter_context(mock.patch.object(cuda, "current_device", lambda: 0))
        stack.enter_context(mock.patch.object(cuda, "device", lambda *args: contextlib.nullcontext()))
        stack.enter_context(mock.patch.multiple(cuda, **types))
        stack.enter_context(mock.patch.object(torch, "load", _load_on_cpu(torch.load)))
        stack.enter_context(_CpuInstead())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*CUDA is not available")          # autocast and GradScaler, which then rest
        _on = True
        try:
            yield
        finally:
            _on = False


class _CpuInstead(TorchFunctionMode):
    """Every torch function and Tensor method sees "cpu" where it was given a CUDA device."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.cuda, Tensor.pin_memory):
            return args[0]
        kwargs = {name: _number_on_cpu(value) if name == "device" else _on_cpu(value)
                  for name, value in (kwargs or {}).items()}
        own, *rest = args or (None,)
        rest = [_number_on_cpu(value) if func is Tensor.to else _on_cpu(value) for value in rest]
        return func(*((_on_cpu(own), *rest) if args else ()), **kwargs)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    if isinstance(value, str) and "cuda" in value:
        if _CUDA_DEVICE.fullmatch(value):
            return "cpu"
        return _CUDA_TYPE.sub(r"torch.\1", value)
    return value


def _number_on_cpu(value: Any) -> Any:
    """Where a device is meant, a whole number is that of a GPU."""
    return "cpu" if type(value) is int else _on_cpu(value)


def _load_on_cpu(load: Callable) -> Callable:
    def load_on_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return load(f, "cpu" if map_location is None else _on_cpu(map_location), *args, **kwargs)

    return load_on_cpu
