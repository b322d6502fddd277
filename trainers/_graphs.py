"""A training step as a CUDA graph: recorded once, then launched as a whole instead of kernel by kernel.

A step is many small kernels, which a large GPU may finish faster than they are launched one by one. A recorded step is
the work of the plain one, in the same order, on the same memory.
Source: CUDA graphs in PyTorch, torch.cuda.graph.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils import UserError

_WARM_UP = 3                            # plain steps before recording, in which libraries choose kernels and memory


class RecordedStep:
    """Calls `compute`, by replaying a recording of it for each shape of its inputs.

    Args:
        compute: tensors to tensors, in any structure. It sets the gradients of `learned`, leaves no other trace, reads
            no number from a tensor, and depends on nothing but its inputs and what is kept at the same place in memory:
            a Python number that changes (an epoch, say) would stay what it was.
        learned: parameters whose `.grad` it sets.
    """

    def __init__(self, compute: Callable[..., Any], learned: Iterable[nn.Parameter]):
        self.compute, self.learned, self._recorded = compute, list(learned), {}

    def __call__(self, *inputs: Tensor) -> Any:
        """What `compute` returns; the same tensors at every call, overwritten by the next.

        Raises:
            UserError: the computation cannot be recorded.
        """
        shapes = tuple(x.shape for x in inputs)                  # the last batch of an epoch may be a smaller one
        if shapes not in self._recorded:
            own = [x.clone() for x in inputs]
            replay, outputs = record(lambda: self.compute(*own))
            self._recorded[shapes] = own, replay, outputs, [p.grad for p in self.learned]
        own, replay, outputs, gradients = self._recorded[shapes]
        for mine, given in zip(own, inputs, strict=True):
            mine.copy_(given)
        replay()
        for p, gradient in zip(self.learned, gradients, strict=True):
            p.grad = gradient
        return outputs


def record(compute: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """A function that repeats what `compute` does on the GPU, and the outputs that it then fills.

    The random stream stands afterwards where it stood before.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside), torch.random.fork_rng([torch.cuda.current_device()]):
        for _ in range(_WARM_UP):
            compute()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    try:
        # Threads that load images may meanwhile ask the GPU for memory of their own.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = compute()
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(f"This trainer's step cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}). Leave "
                        "TRAIN.CUDA_GRAPHS False.") from error
    return graph.replay, outputs
