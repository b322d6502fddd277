"""Gradient reversal. Source: Ganin and Lempitsky, ICML 2015."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError


class _ReverseGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input: Tensor, grad_scaling: float) -> Tensor:
        ctx.grad_scaling = grad_scaling
        return input.view_as(input)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None]:
        return -ctx.grad_scaling * grad_output, None


class ReverseGrad(nn.Module):
    """The identity, whose gradient is multiplied by -grad_scaling."""

    def forward(self, x: Tensor, grad_scaling: float = 1.0) -> Tensor:
        if grad_scaling < 0:
            raise UserError(f"The scale of a reversed gradient is at least 0; got {grad_scaling}.")
        return _ReverseGrad.apply(x, grad_scaling)
