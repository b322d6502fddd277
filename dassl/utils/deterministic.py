"""The same seed on the same machine gives the same bits: on CPUs as it is, on GPUs with `bit_for_bit`."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from .errors import UserError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"             # cuBLAS reads it when it starts, and then adds in the same order


@contextlib.contextmanager
def bit_for_bit(wanted: bool = True) -> Iterator[None]:
    """Inside, PyTorch takes only algorithms that always give the same bits, which may be slower.

    To be entered before the GPU is used for the first time.

    Raises:
        UserError: an operation on the GPU has no such algorithm.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    former = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise UserError("--deterministic: this run needs an operation that may give other bits each time on this GPU "
                        f"({str(error).splitlines()[0]}). Run it on a CPU (USE_CUDA False) or without the flag."
                        ) from error
    finally:
        torch.use_deterministic_algorithms(former[0])
        cudnn.benchmark, cudnn.deterministic = former[1:]
