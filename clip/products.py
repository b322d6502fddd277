"""Products with frozen matrices, in float32 on a CPU by the faster of the two libraries that PyTorch has for them.

PyTorch gives such products to MKL, which on other makers' processors than Intel's may leave the widest vectors unused;
oneDNN, which PyTorch ships too and takes for convolutions and bfloat16, uses them. It is the same product in float32,
its terms added up in another order.
"""
from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """nn.Linear that may be frozen; `onednn`: whether its products are oneDNN's, see `linear`."""

    onednn = False

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.onednn)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, onednn: bool) -> Tensor:
    """x (..., K) times weight (N, K) transposed, plus bias (N,) -> (..., N).

    Args:
        onednn: take oneDNN's product, of float32 on a CPU with a weight and a bias that learn nothing; else F.linear's.
    """
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    if onednn and frozen and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" \
            and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
        return _ByOneDNN.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class _ByOneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, = ctx.saved_tensors
        return by_onednn(gradient, weight.t(), None), None, None


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` in float32 on a CPU; without gradient."""
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


def onednn_gain(tokens: int = 394, width: int = 768) -> float:
    """How many times as fast as F.linear's oneDNN's product of a ViT-B's block is here; takes some 50 ms.

    0.0 where this PyTorch does not have it.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return 0.0
    x, weight = torch.ones(tokens, width), torch.ones(4 * width, width)
    plain, other = [], []
    for _ in range(4):
        plain.append(seconds(F.linear, x, weight))
        other.append(seconds(by_onednn, x, weight))
    return min(plain) / min(other)


def seconds(product, x: Tensor, weight: Tensor) -> float:
    """Of one call on a CPU."""
    start = time.perf_counter()
    product(x, weight)
    return time.perf_counter() - start
