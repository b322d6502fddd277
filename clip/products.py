"""Products with frozen matrices, in float32 on a CPU by either of the two libraries that PyTorch has for them.

F.linear calls MKL, which may leave AVX-512 unused on processors of makers other than Intel; oneDNN, which PyTorch ships
for convolutions and bfloat16, uses it. Both compute the same product in float32, summed in a different order.
"""
from __future__ import annotations

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


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN's float32 product on a CPU."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
