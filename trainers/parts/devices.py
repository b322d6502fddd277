"""What it costs to look at a number that was just computed."""
import torch
from torch import Tensor


def reading_is_free(x: Tensor) -> bool:
    """Whether the host may look at x without waiting for a device: on a CPU, unless a graph is recorded."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
